"""
Starts services from a process that has imported their packages already.

A service needs 1.3 s of CPU to start, 1.1 s of it for packages that no test changes. So one process
for each environment imports them once, and forks for each service. At night, and with a prefix such
as `prlimit`, services start from nothing.
"""

import contextlib
import importlib
import json
import os
import runpy
import select
import selectors
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

__all__ = ["COLD", "Process", "begin", "prepare"]

# The prefix of a service whose start, or whose command line, a test looks at.
COLD = ("env",)

# What services import of other people's; what is not installed is left out.
PACKAGES = (
    "alembic.command",
    "asyncpg",
    "fastapi.openapi.models",
    "httpx2",
    "orjson",
    "prometheus_client",
    "pydantic_settings",
    "sqlalchemy.ext.asyncio",
    "structlog",
    "uvicorn.protocols.http.httptools_impl",
)
# The processes that fork, by the folder that their packages are in.
_forking: dict[Path, int] = {}


class Process:
    """
    What tests need of `subprocess.Popen`, for a process that another one has forked.
    """

    def __init__(self, told: int) -> None:
        self.returncode: int | None = None
        self._told = told
        self.pid = int(os.read(told, 100))

    def poll(self) -> int | None:
        """
        The exit code, negative where a signal ended it, or None while it runs.
        """
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """
        Raises subprocess.TimeoutExpired if it runs for longer than so many seconds.
        """
        if self.returncode is None:
            if not select.select([self._told], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(str(self.pid), timeout or 0)
            self.returncode = int(os.read(self._told, 100))
            os.close(self._told)
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def begin(
    command: list[str], *, env: Mapping[str, str], stdout: IO[Any], stderr: IO[Any], cwd: Path
) -> Any:
    """
    Start *command*, as `subprocess.Popen` does.
    """
    forking = prepare(Path(command[0]))
    if forking is None:
        return subprocess.Popen(command, env=env, stdout=stdout, stderr=stderr, cwd=cwd)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    order = json.dumps({"command": command, "env": dict(env), "cwd": str(cwd)}).encode()
    with theirs, socket.socket(fileno=os.dup(forking)) as orders:
        socket.send_fds(orders, [order], [stdout.fileno(), stderr.fileno(), theirs.fileno()])
    return Process(ours.detach())


def prepare(command: Path) -> int | None:
    """
    The process that forks services such as that of *command*; None if it has to start by itself:
    only services with linked packages share them.
    """
    packages = {
        path.resolve().parent
        for path in command.parent.parent.glob("lib/python*/site-packages/*")
        if path.is_symlink()
    }
    if len(packages) != 1 or os.environ.get("FIVEWEEKS_NIGHTLY"):
        return None
    (folder,) = packages
    if folder not in _forking:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            theirs.set_inheritable(True)
            program = [str(command.with_name("python")), __file__, str(theirs.fileno())]
            # It ends with the last of those who may send it orders.
            os.posix_spawn(program[0], program, os.environ, setsid=True)
        _forking[folder] = ours.detach()
    return _forking[folder]


def _serve(orders: socket.socket) -> dict[str, Any]:
    """
    Fork for each order; the order, in the process that is forked for it.
    """
    running: dict[int, tuple[int, socket.socket]] = {}
    with selectors.DefaultSelector() as selector:
        selector.register(orders, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fd in running:
                    selector.unregister(key.fd)
                    os.close(key.fd)
                    pid, told = running.pop(key.fd)
                    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
                    with told, contextlib.suppress(OSError):
                        told.send(str(code).encode())
                    continue
                text, descriptors, _, _ = socket.recv_fds(orders, 1_000_000, 3)
                if not text:
                    sys.exit()
                out, err, told_to = descriptors
                if not (pid := os.fork()):
                    os.dup2(out, 1)
                    os.dup2(err, 2)
                    os.closerange(3, max(descriptors) + 1)
                    return dict(json.loads(text))
                os.close(out)
                os.close(err)
                told = socket.socket(fileno=told_to)
                told.send(str(pid).encode())
                watched = os.pidfd_open(pid)
                running[watched] = pid, told
                selector.register(watched, selectors.EVENT_READ)


def _become(order: dict[str, Any], prepared: Path) -> None:
    """
    Be what the interpreter would be that runs the command.
    """
    script = Path(order["command"][0])
    environment = script.parents[1]
    os.chdir(order["cwd"])
    os.environ.clear()
    os.environ.update(order["env"])
    sys.argv = order["command"]
    sys.executable = str(script.with_name("python"))
    sys.prefix = sys.exec_prefix = str(environment)
    old, new = str(prepared.parent), str(environment.parent)
    sys.path = [str(script.parent), *(path.replace(old, new) for path in sys.path[1:])]
    sys.path_importer_cache.clear()


def main() -> None:
    """
    Import, serve, and be each service.
    """
    for name in PACKAGES:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    order = _serve(socket.socket(fileno=int(sys.argv[1])))
    _become(order, Path(sys.prefix))
    runpy.run_path(order["command"][0], run_name="__main__")


if __name__ == "__main__":
    main()
