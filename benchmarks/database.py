"""
CPU per request that asks PostgreSQL, over a bare pool in a bare application; and how soon a
service is back after the database was restarted.

    uv run python benchmarks/database.py [--quick]
"""

import argparse
import contextlib
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import subjects
from page import Bars, Section, spread
from requests import NAMES, Subject

sys.path += [
    str(subjects.ROOT / folder) for folder in ("tests", "tests/instruments", "template/tests")
]
from faulty_postgresql import PostgreSQL

BOUND, BACK_SECONDS = 1.3, 5


def measure(*, rounds: int, count: int, restarts: int) -> dict[str, Any]:
    """
    CPU seconds per request by subject and method, and the seconds until an answer after restarts.
    """
    subjects.on_own_core()
    with (
        tempfile.TemporaryDirectory() as temporary,
        PostgreSQL() as server,
        contextlib.ExitStack() as stack,
    ):
        os.environ["DATABASE_URL"] = server.url
        project = subjects.make_project(Path(temporary), "subject", "database=postgresql")
        command = [str(project / ".venv" / "bin" / "subject"), "migrate", "up"]
        subprocess.run(
            command, env={"APP_DATABASE_URL": server.url}, check=True, capture_output=True
        )
        wanted: dict[str, Any] = {"bare_database": {}, "service": {"database_url": server.url}}
        running = {
            what: stack.enter_context(subjects.start(project, what, **settings))
            for what, settings in wanted.items()
        }
        for one in running.values():
            one.wait_for("/openapi.json" if one is running["bare_database"] else "/v1/notes")
        found = {what: Subject(running=one) for what, one in running.items()}
        keys = [(what, method) for what in found for method in ("GET", "POST")]
        for what, method in keys:
            found[what].cost(method, count)
        costs: dict[tuple[str, str], list[float]] = {key: [] for key in keys}
        for _ in range(rounds):
            for what, method in random.sample(keys, len(keys)):
                costs[what, method].append(found[what].cost(method, count))
        back = []
        for _ in range(restarts):
            server.restart()
            begun = time.monotonic()
            running["service"].wait_for("/v1/notes")
            back.append(time.monotonic() - begun)
    return {"costs": costs, "rounds": rounds, "count": count, "back": back}


def run(*, quick: bool) -> dict[str, Any]:
    """
    Measure, quickly to see that it works or long enough to believe it.
    """
    if quick:
        return measure(rounds=2, count=50, restarts=1)
    return measure(rounds=40, count=300, restarts=10)


def section(measured: dict[str, Any]) -> Section:
    """
    The part of the page.
    """
    costs, rows, bars = measured["costs"], [], Bars("CPU per request with PostgreSQL")
    for method in ("GET", "POST"):
        pairs = zip(costs["service", method], costs["bare_database", method], strict=True)
        ratios = [service / bare for service, bare in pairs]
        rows.append([f"CPU, {method}", *spread(ratios), f"≤ {BOUND}"])
        bars.add(method, statistics.median(ratios), bound=BOUND)
    rows.append(["back after a restart, s", *spread(measured["back"]), f"≤ {BACK_SECONDS}"])
    return Section(
        title="PostgreSQL",
        text=(
            f"CPU time of the {NAMES['C']}'s process over that of the bare application with a bare "
            f"pool of asyncpg: {measured['rounds']} rounds, in each a burst of {measured['count']} "
            "requests to both, with both methods, in random order. "
            "Each request asks the database once. "
            "Then the database is shut down at once and started again, with idle connections in "
            "the pool: seconds from its being ready to the first 200"
        ),
        head=["figure", "median", "quartiles", "bound"],
        rows=rows,
        bars={"database": bars},
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--quick", action="store_true", help="a smoke run")
    found = section(run(quick=parser.parse_args().quick))
    print(found.markdown)
    for name, bars in found.bars.items():
        (Path(tempfile.gettempdir()) / f"results-{name}.svg").write_text(bars.svg)


if __name__ == "__main__":
    main()
