"""
`dev`: for a person at a keyboard, so at a pseudo-terminal.
"""

import contextlib
import os
import pty
import select
import signal
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from harness import clean, free_ports, wait_until

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


@pytest.fixture(name="project")
def _project(copy: Copy) -> Path:
    return copy()


@pytest.fixture(name="terminal")
def _terminal(project: Path) -> Iterator[Terminal]:
    port, admin_port = free_ports()
    (project / ".env").write_text(f"APP_PORT={port}\nAPP_PAGE_SIZE_MAX=7\n")
    terminal = Terminal(
        [str(project / ".venv" / "bin" / "order-desk"), "dev"],
        cwd=project,
        environment={"APP_ADMIN_PORT": str(admin_port), "TERM": "dumb"},
    )
    yield terminal
    terminal.close()


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


def ask(project: Path, path: str) -> str:
    """
    Ask the service that .env describes.
    """
    port = (project / ".env").read_text().partition("APP_PORT=")[2].split()[0]
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=30) as answer:
        text: str = answer.read().decode()
    return text


def test_dev_serves_and_reloads(terminal: Terminal, project: Path) -> None:
    """
    `dev` reads .env and says so, logs for people, shows the API pages, and reloads on a change,
    also out of a syntax error; Ctrl-C ends it at once and leaves nobody behind.
    """
    routes = project / "src" / "order_desk" / "routes.py"
    terminal.read_until("started")
    assert "settings_read" in terminal.said
    assert str(project / ".env") in terminal.said
    assert '{"timestamp"' not in terminal.said
    assert "swagger" in ask(project, "/docs").lower()
    assert '"openapi"' in ask(project, "/openapi.json")

    good = routes.read_text()
    routes.write_text("def broken(:\n")
    terminal.read_until("SyntaxError")
    routes.write_text(good.replace('prefix="/v1/notes"', 'prefix="/v2/notes"'))
    terminal.read_until("started")
    assert '"items"' in ask(project, "/v2/notes")

    terminal.interrupt()
    assert terminal.process.wait(10) == 0
    terminal.read_rest()
    assert "stopped_by_force" not in terminal.said
    wait_until(lambda: not left_behind(terminal.process.pid))


def test_breakpoints_work(terminal: Terminal, project: Path) -> None:
    """
    A breakpoint stops at the keyboard, for as long as one likes, and goes on.
    """
    routes = project / "src" / "order_desk" / "routes.py"
    routes.write_text(
        routes.read_text().replace("    size = min(", "    breakpoint()\n    size = min(")
    )
    terminal.read_until("started")

    with ThreadPoolExecutor(max_workers=1) as background:
        answer = background.submit(ask, project, "/v1/notes")
        terminal.read_until("(Pdb)")
        terminal.type("p size\n")
        terminal.read_until("20")
        terminal.type("c\n")

        assert '"items"' in answer.result(timeout=30)
