"""
The worker against bare pgqueuer, on one PostgreSQL: throughput, latency, and a SIGKILL.

    uv run python benchmarks/worker.py [--quick]

Both are processes with ten messages at once and a look at the queue each second. Throughput and
CPU are of messages that do nothing; latency is from the commit to the handler, with an idle
worker; recovery is from the SIGKILL of a worker until another begins with its message, at a stall
limit of 30 s. pgqueuer goes into an environment of its own.
"""

import argparse
import asyncio
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import asyncpg
import subjects

sys.path.insert(0, str(subjects.ROOT / "template" / "tests"))
import postgresql

OVERLAY = subjects.ROOT / "benchmarks" / "overlay"
PUT = {
    "ours": """
        INSERT INTO messages (name, payload) SELECT $1, '{}' FROM generate_series(1, $2)
    """,
    "pgqueuer": """
        INSERT INTO pgqueuer (priority, entrypoint, payload, status)
        SELECT 0, $1, null, 'queued' FROM generate_series(1, $2)
    """,
}
TABLES = {"ours": "messages", "pgqueuer": "pgqueuer"}
Ask = Callable[..., Awaitable[float]]


class Subject:
    """
    One of the two: how it is started, and its queue.
    """

    def __init__(self, name: str, base: Path, url: str) -> None:
        self.name, self._url = name, url
        self._environment = dict(os.environ)
        if name == "ours":
            answers = ("processes=[worker]", "database=postgresql")
            overlay = {"worker.py": OVERLAY / "worker.py"}
            project = subjects.make_project(base, name, *answers, overlay=overlay)
            self._command = [str(project / ".venv" / "bin" / "subject")]
            self._environment |= {"APP_DATABASE_URL": url, "APP_READINESS_PERIOD_SECONDS": "0"}
            self._run("migrate", "up")
            self._arguments = ["worker"]
        else:
            venv = base / "pgqueuer"
            subprocess.run(["uv", "venv", "--quiet", venv], check=True)
            python = venv / "bin" / "python"
            install = ["uv", "pip", "install", "--quiet", "--python", python, "pgqueuer==1.6.*"]
            subprocess.run([*install, "asyncpg"], check=True)
            self._command = [str(python), str(OVERLAY / "pgqueuer_worker.py")]
            self._environment |= {"PGURI": url}
            self._run("install")
            self._arguments = []

    def start(self) -> subjects.Running:
        ports = {"APP_PORT": str(subjects.free_port()), "APP_ADMIN_PORT": str(subjects.free_port())}
        process = subprocess.Popen(
            [*self._command, *self._arguments],
            env=self._environment | ports,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.sched_setaffinity(process.pid, {subjects.SERVER_CORE})
        return subjects.Running(process=process, port=0, admin_port=0, log=Path(os.devnull))

    def _run(self, *arguments: str) -> None:
        command = [*self._command, *arguments]
        subprocess.run(command, env=self._environment, check=True, stdout=subprocess.DEVNULL)


async def until(ask: Callable[[], Awaitable[object]]) -> None:
    limit = time.monotonic() + 120
    while not await ask():
        assert time.monotonic() < limit
        await asyncio.sleep(0.005)


async def measure(subject: Subject, url: str, *, is_quick: bool) -> dict[str, float]:
    connection, count = await asyncpg.connect(url), 500 if is_quick else 10_000
    put, left = PUT[subject.name], f"SELECT count(*) FROM {TABLES[subject.name]}"  # noqa: S608
    begun = "SELECT count(*) FROM began"
    figures: dict[str, float] = {}

    # Throughput: between a tenth and all of them.
    await connection.execute(put, "pass", count)
    running = subject.start()

    async def is_under(number: int) -> bool:
        return bool(await connection.fetchval(left) <= number)

    await until(lambda: is_under(count * 9 // 10))
    rest, began, cpu = await connection.fetchval(left), time.monotonic(), running.cpu_seconds
    await until(lambda: is_under(0))
    figures["messages a second"] = rest / (time.monotonic() - began)
    figures["CPU, us a message"] = (running.cpu_seconds - cpu) / rest * 1e6

    # Latency of an idle worker.
    waits = []
    for _ in range(5 if is_quick else 40):
        await connection.execute("TRUNCATE began")
        await asyncio.sleep(random.uniform(0.5, 1.5))  # noqa: S311
        await connection.execute(put, "mark", 1)
        at = await connection.fetchval("SELECT clock_timestamp()")
        await until(lambda: connection.fetchval(begun))
        waits.append((await connection.fetchval("SELECT * FROM began") - at).total_seconds())
    figures["latency s, median"] = statistics.median(waits)
    figures["latency s, worst"] = max(waits)

    # A SIGKILL in the middle; the other begins.
    if not is_quick:
        await connection.execute("TRUNCATE began")
        await connection.execute(put, "stay", 1)
        await until(lambda: connection.fetchval(begun))
        await asyncio.sleep(3)
        second = subject.start()
        await asyncio.sleep(2)
        running.process.kill()
        killed = time.monotonic()
        await connection.execute("TRUNCATE began")
        await until(lambda: connection.fetchval(begun))
        figures["recovery s"] = time.monotonic() - killed
        second.process.kill()
        second.process.wait()
    running.process.kill()
    running.process.wait()
    await connection.close()
    return figures


def compare(base: Path, admin: str, *, is_quick: bool) -> None:
    for name in ("ours", "pgqueuer"):
        with postgresql.database(admin) as url:
            postgresql.execute(url, "CREATE TABLE began (at timestamptz)")
            subject = Subject(name, base, url)
            found = asyncio.run(measure(subject, url, is_quick=is_quick))
        for figure, value in found.items():
            print(f"{name:<10}{figure:<22}{value:10.3f}", flush=True)


def main() -> None:
    """
    Measure and print.
    """
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--quick", action="store_true", help="a smoke run")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        base = Path(temporary)
        with postgresql.server(base) as admin:
            compare(base, admin, is_quick=options.quick)


if __name__ == "__main__":
    main()
