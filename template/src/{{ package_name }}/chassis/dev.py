"""
`dev`: a process of each type side by side, started anew when the code changes.

Each process keeps the terminal, so that breakpoints work. A pipe, as the process managers put
between, would take it away.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib.resources import files
from pathlib import Path

from pydantic_settings import BaseSettings, DotEnvSettingsSource

from .exits import Exit

__all__ = ["DATABASE_FILE", "ENV_FILE", "database", "develop", "environment", "follow"]

ENV_FILE = Path(".env")
# The URL of the database that `dev` started, for other commands.
DATABASE_FILE = Path(".dev/env")
# What differs in `dev`. The environment and .env still win.
DEFAULTS = {
    "APP_API_DOCS": "true",
    "APP_DRAIN_SECONDS": "0",
    "APP_READINESS_PERIOD_SECONDS": "0",
    "APP_LOG_FORMAT": "console",
}
LOOK_SECONDS, STOP_SECONDS = 0.25, 5


def environment() -> dict[str, str]:
    """
    The environment, then .env, then what differs in `dev`.
    """
    try:
        read = DotEnvSettingsSource(BaseSettings, ENV_FILE).env_vars
    except (OSError, UnicodeDecodeError) as error:
        print(f"{ENV_FILE} can't be read as text: {error}", file=sys.stderr)
        sys.exit(Exit.CONFIGURATION)
    own = {name.upper(): value for name, value in read.items() if value is not None}
    return {**DEFAULTS, **own, **os.environ}


@contextmanager
def database(name: str) -> Generator[str]:
    """
    Serve the database whose data is in .dev; its URL. Exits if that can't be done.
    """
    command = [sys.executable, "tests/postgresql.py", ".dev/postgresql", name]
    # The server has a session of its own, as Ctrl-C is not for it. It ends with its standard
    # input, also if this process is killed.
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, start_new_session=True) as server:
        if not (url := server.stdout.readline() if server.stdout else b""):
            sys.exit(Exit.UNAVAILABLE)
        yield url.decode().strip()


def develop(package: str, kinds: Sequence[str], given: Mapping[str, str], port: int) -> None:
    """
    Run a process of each kind until a signal ends this one, with admin ports from *port* on.
    """
    running: list[subprocess.Popen[bytes]] = []
    seen: dict[Path, int] = {}
    folder = Path(str(files(package)))
    command = [sys.executable, "-m", package, "dev", f"--parent={os.getpid()}"]
    try:
        while not any(process.poll() == Exit.UNAVAILABLE for process in running):
            now = seen
            # A file may go between the look at its folder and the look at it.
            with suppress(FileNotFoundError):
                paths = [*folder.rglob("*.py"), *Path().glob(str(ENV_FILE))]
                now = {path: path.stat().st_mtime_ns for path in paths}
            if seen != now:
                _stop(running)
                seen = now
                for at, kind in enumerate(kinds, port):
                    env = {**given, "APP_ADMIN_PORT": str(at)}
                    running.append(subprocess.Popen([*command, kind], env=env))
            time.sleep(LOOK_SECONDS)
        sys.exit(Exit.UNAVAILABLE)
    finally:
        _stop(running)


def follow(parent: int) -> None:
    """
    Wait for the end of *parent*, also by SIGKILL, and end this process as SIGTERM does.
    """
    while os.getppid() == parent:
        time.sleep(LOOK_SECONDS)
    os.kill(os.getpid(), signal.SIGTERM)


def _stop(running: "list[subprocess.Popen[bytes]]") -> None:
    for process in running:
        process.terminate()
    for process in running:
        with suppress(subprocess.TimeoutExpired):
            process.wait(STOP_SECONDS)
        process.kill()
    running.clear()
