"""
The processes that are measured: rendered, started on a core of their own, asked, ended.
"""

import contextlib
import ctypes
import http.client
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["ROOT", "SERVER_CORE", "Running", "free_port", "make_project", "on_own_core", "start"]

ROOT = Path(__file__).parents[1]
# The load's core first; on a machine with one core both share it.
LOAD_CORE, SERVER_CORE = (sorted(os.sched_getaffinity(0)) * 2)[:2]
START_SECONDS = 30.0


def make_project(
    base: Path, name: str, *answers: str, overlay: Mapping[str, Path] | None = None
) -> Path:
    """
    A service rendered from the working tree, installed as its image would install it, with the
    files of *overlay* laid over its package; an answer is like `database=postgresql`.
    """
    project = base / name
    copier = Path(sys.executable).parent / "copier"
    copy = [str(copier), "copy", "--quiet", "--defaults", "--vcs-ref", "HEAD"]
    for answer in ("service_name=subject", *answers):
        copy += ["--data", answer]
    copy += [str(ROOT), str(project)]
    # The working tree may have changes; that is what is measured, and no reason to warn.
    subprocess.run(copy, env=os.environ | {"PYTHONWARNINGS": "ignore"}, check=True)
    for target, source in (overlay or {}).items():
        shutil.copy(source, project / "src" / "subject" / target)
    for bare in ("bare.py", "bare_database.py"):
        shutil.copy(ROOT / "benchmarks" / bare, project / bare)
    version = _python_of_the_image()
    chosen = ["--python", version] if version else []
    newest = re.search(
        r'^exclude-newer = "(.*)"', (ROOT / "pyproject.toml").read_text(), re.MULTILINE
    )
    clean = {name: value for name, value in os.environ.items() if name != "VIRTUAL_ENV"}
    environment = clean | ({"UV_EXCLUDE_NEWER": newest[1]} if newest else {})
    subprocess.run(
        ["uv", "sync", "--quiet", "--no-dev", *chosen], cwd=project, env=environment, check=True
    )
    return project


def _python_of_the_image() -> str | None:
    """
    The default of `python_version`, if this machine has it.
    """
    text = (ROOT / "copier.yml").read_text().partition("\npython_version:")[2]
    version = re.search(r'^  default: "?([\d.]+)', text, re.MULTILINE)
    found = version and subprocess.run(
        ["uv", "python", "find", "--quiet", "--no-project", version[1]],
        capture_output=True,
        check=False,
    )
    return version[1] if version and found and found.returncode == 0 else None


@dataclass(frozen=True, kw_only=True)
class Running:
    """
    A server process, pinned to its core.
    """

    process: subprocess.Popen[bytes]
    port: int
    admin_port: int
    log: Path

    @property
    def cpu_seconds(self) -> float:
        """
        CPU time of the process with all its threads, also those that have ended.
        """
        clock = ctypes.c_int()
        ctypes.CDLL(None).clock_getcpuclockid(self.process.pid, ctypes.byref(clock))
        return time.clock_gettime(clock.value)

    def memory_kib(self, kind: str) -> int:
        """
        Pss (shared pages by their part) or Rss.
        """
        text = Path(f"/proc/{self.process.pid}/smaps_rollup").read_text()
        found = re.search(rf"^{kind}:\s+(\d+) kB", text, re.MULTILINE)
        assert found is not None
        return int(found[1])

    def ask(self, path: str, *, method: str = "GET", body: Any = None) -> tuple[int, Any]:
        """
        One request on a connection of its own; the status and the JSON of the answer.
        """
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        with contextlib.closing(connection):
            headers = {"content-type": "application/json"} if body else {}
            connection.request(method, path, json.dumps(body) if body else None, headers)
            response = connection.getresponse()
            return response.status, json.loads(response.read())

    def wait_for(self, path: str, *, poll_seconds: float = 0.002) -> None:
        """
        Ask until the answer is 200; raises AssertionError with the log if there is none in time.
        """
        limit = time.monotonic() + START_SECONDS
        while True:
            with contextlib.suppress(OSError):
                if self.ask(path)[0] == 200:
                    return
            in_time = self.process.poll() is None and time.monotonic() < limit
            assert in_time, self.log.read_text()[-4000:]
            time.sleep(poll_seconds)


def free_port() -> int:
    """
    A TCP port that nobody used a moment ago.
    """
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port


def on_own_core(core: int = LOAD_CORE) -> None:
    """
    Keep this process, the load, off the servers' core.
    """
    os.sched_setaffinity(0, {core})


@contextlib.contextmanager
def start(
    project: Path, what: str, *, core: int = SERVER_CORE, **settings: Any
) -> Iterator[Running]:
    """
    Start a project's `service`, or a `bare` application on stock uvicorn; killed at the end.
    """
    port, admin_port = free_port(), free_port()
    bin_ = project / ".venv" / "bin"
    log = project / f"{what}-{port}.log"
    environment = {n: v for n, v in os.environ.items() if not n.upper().startswith("APP_")}
    command = [bin_ / "subject", "web"]
    if what.startswith("bare"):
        options = ["--port", port, "--loop", "asyncio", "--http", "httptools", "--no-access-log"]
        options += ["--timeout-keep-alive", "75", "--log-level", "warning"]
        command = [bin_ / "python", "-m", "uvicorn", f"{what}:app", *map(str, options)]
    else:
        own = {"port": port, "admin_port": admin_port, **settings}
        own = {"drain_seconds": 0, "readiness_period_seconds": 0} | own
        environment |= {f"APP_{name.upper()}": str(value) for name, value in own.items()}
    with log.open("wb") as out:
        # Appended to, so that the file can be emptied while the service writes.
        process = subprocess.Popen(command, cwd=project, env=environment, stdout=out, stderr=out)
    os.sched_setaffinity(process.pid, {core})
    try:
        yield Running(process=process, port=port, admin_port=admin_port, log=log)
    finally:
        process.kill()
        process.wait()
        log.unlink()
