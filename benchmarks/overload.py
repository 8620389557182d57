"""
Goodput and probes at 1, 2, 4 and 8 times capacity, with and without the shedder.

    uv run python benchmarks/overload.py [--quick] [--repeats N]

A handler that computes for 20 ms, an open-loop load that the server can't slow down, directly and
through haproxy with the configuration of docs/how-to/haproxy.md, a connection per request or kept
alive. Capacity is measured just before each run, in a closed loop.
"""

import argparse
import asyncio
import contextlib
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import subjects
from page import Bars, Section

sys.path.append(str(subjects.ROOT / "tests" / "instruments"))
import balancer
import openloop

PATH = "/overload/work"
DEADLINE_SECONDS = 2.0
TIMES = (1, 2, 4, 8)
BOUND = 0.85
# A shedder that never finds the loop late enough, and takes in whatever comes.
OFF = {"shed_lag_seconds": 3600, "in_flight_max": 1_000_000}


@dataclass(frozen=True, kw_only=True)
class Way:
    """
    How the load reaches the service.
    """

    through_haproxy: bool
    keep_alive: bool

    @property
    def name(self) -> str:
        kind = "kept alive" if self.keep_alive else "new each"
        return f"{'haproxy' if self.through_haproxy else 'direct'}, {kind}"


WAYS = [Way(through_haproxy=one, keep_alive=two) for one in (False, True) for two in (False, True)]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """
    One run.
    """

    goodput: float
    load: openloop.Load


def known(project: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """
    Those of *settings* that the service reads.
    """
    command = [project / ".venv" / "bin" / "subject", "config", "doc"]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return {name: value for name, value in settings.items() if f"APP_{name.upper()}=" in text}


@contextlib.contextmanager
def serving(project: Path, way: Way, settings: dict[str, Any]) -> Iterator[tuple[int, int, int]]:
    """
    The service, perhaps behind haproxy: the port to ask, its own port, its admin port.
    """
    limits: dict[str, Any] = {"request_deadline_seconds": DEADLINE_SECONDS, "log_level": "warning"}
    # What a request contains has less time than it: a rule of the settings.
    shares = {"header_receive": 0.5, "out_total": 0.8, "out_attempt": 0.4, "out_connect": 0.2}
    limits |= {f"{name}_seconds": share * DEADLINE_SECONDS for name, share in shares.items()}
    limits |= settings
    with contextlib.ExitStack() as stack:
        service = stack.enter_context(subjects.start(project, "service", **limits))
        service.wait_for(f"{PATH}?seconds=0")
        port = service.port
        if way.through_haproxy:
            # It inherits the load's core.
            balanced = balancer.balance(project, [(service.port, service.admin_port)])
            port, _ = stack.enter_context(balanced)
        yield port, service.port, service.admin_port


def run_once(
    project: Path, way: Way, settings: dict[str, Any], *, times: float, seconds: float
) -> Outcome:
    """
    Capacity, then the load.
    """
    with serving(project, way, settings) as (port, own_port, admin_port):

        async def load() -> Outcome:
            capacity = await openloop.capacity(own_port, PATH, seconds=min(2, seconds))
            found = await openloop.drive(
                port,
                PATH,
                rate=capacity * times,
                seconds=seconds,
                deadline=DEADLINE_SECONDS,
                keep_alive=way.keep_alive,
                admin_port=admin_port,
            )
            return Outcome(goodput=len(found.good) / (capacity * seconds), load=found)

        return asyncio.run(load())


def measure(
    *, repeats: int, without: int, seconds: float, ways: list[Way], times: tuple[int, ...]
) -> dict[str, Any]:
    """
    Every way and load, interleaved, *repeats* times with and *without* times without the shedder.
    """
    subjects.on_own_core()
    openloop.raise_file_limit()
    here, overlay = Path(__file__).parent, subjects.ROOT / "tests" / "faults" / "overlay"
    files = {"web.py": here / "overlay" / "overload.py", "overload.py": overlay / "overload.py"}
    outcomes: dict[tuple[Way, int, bool], list[Outcome]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        project = subjects.make_project(Path(temporary), "overload", overlay=files)
        off = known(project, OFF)
        for repeat in range(repeats):
            for way in ways:
                for factor in times:
                    for shed in (True, False) if repeat < without and off else (True,):
                        settings = {} if shed else off
                        found = run_once(project, way, settings, times=factor, seconds=seconds)
                        outcomes.setdefault((way, factor, shed), []).append(found)
                        print(_progress(way, factor, found, shed=shed), file=sys.stderr)
    return {"outcomes": outcomes, "seconds": seconds, "has_shedder": bool(off)}


def _progress(way: Way, factor: int, found: Outcome, *, shed: bool) -> str:
    statuses = dict(found.load.statuses)
    return f"{way.name}, {factor}x, shedder {shed}: goodput {found.goodput:.2f}, {statuses}"


def section(measured: dict[str, Any]) -> Section:
    """
    As a part of the page.
    """
    bars = Bars(title="Goodput by load, without and with the shedder")
    rows = []
    for (way, factor, shed), found in sorted(measured["outcomes"].items(), key=_order):
        goodputs = [one.goodput for one in found]
        loads = [one.load for one in found]
        bound = f"≥ {BOUND}" if shed and factor > 1 else ""
        percentiles = [
            f"{statistics.median(one.percentile(status, percent) for one in loads):.2f}"
            for status in (200, 503)
            for percent in (50, 99)
        ]
        rows.append(
            [
                way.name,
                f"{factor}x",
                "on" if shed else "off",
                f"{statistics.median(goodputs):.2f}",
                ", ".join(f"{goodput:.2f}" for goodput in sorted(goodputs)),
                bound,
                str(sum(len(one.late) for one in loads)),
                *percentiles,
                f"{statistics.mean(one.probe_success for one in loads):.0%}",
                f"{max(one.lateness for one in loads) * 1000:.0f}",
            ]
        )
        series = "with the shedder" if shed else "without"
        if not way.keep_alive:
            place = "haproxy" if way.through_haproxy else "direct"
            bars.add(f"{place} {factor}x", statistics.median(goodputs), series=series)
    return Section(
        title="Overload",
        text=(
            f"A handler that computes for 20 ms, runs of {measured['seconds']:g} s, random "
            f"arrivals, a request deadline of {DEADLINE_SECONDS:g} s. "
            "Goodput is the answers 200 within their deadline that came before the run's end, "
            "over capacity x time; capacity is measured in a closed loop just before each run. "
            "Late are the accepted requests without a 200 in time, all runs together. "
            "Times are seconds since the request was due, the median of the runs. "
            "Probes: /livez and /readyz twice a second, within 1 s. "
            "Lateness is the load's own, in ms"
            + ("" if measured["has_shedder"] else ". This service knows no shedder")
        ),
        head=[
            *("way", "load", "shedder", "goodput", "each run", "bound", "late"),
            *("200 p50", "p99", "503 p50", "p99", "probes", "lateness"),
        ],
        rows=rows,
        bars={"overload": bars},
    )


def _order(item: tuple[tuple[Way, int, bool], object]) -> tuple[bool, bool, int, bool]:
    way, factor, shed = item[0]
    return way.through_haproxy, way.keep_alive, factor, shed


def run(*, quick: bool, repeats: int = 2, without: int = 1) -> dict[str, Any]:
    """
    Measure, quickly to see that it works or long enough to believe it.
    """
    if quick:
        return measure(repeats=1, without=1, seconds=1.5, ways=[WAYS[0], WAYS[3]], times=(4,))
    return measure(
        repeats=repeats, without=without, seconds=10, ways=[WAYS[0], WAYS[3]], times=TIMES
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--quick", action="store_true", help="a smoke run")
    parser.add_argument("--repeats", type=int, default=2)
    options = parser.parse_args()
    print(section(run(quick=options.quick, repeats=options.repeats)).markdown)


if __name__ == "__main__":
    main()
