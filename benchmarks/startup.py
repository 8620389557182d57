"""
Start-up and idle memory of the generated service against the bare FastAPI application.

    uv run python benchmarks/startup.py [--quick] [--pairs N]

From the start of the process to its first 200, and what it holds a moment later; in pairs, one
process after the other. Then the modules that only the service imports, and what they cost.
"""

import argparse
import re
import statistics
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import subjects
from page import Bars, Section, spread

BOUND = 1.3
WHAT = {
    "wall": "process start to first 200, wall time",
    "cpu": "process start to first 200, CPU time",
    "Pss": "idle memory, PSS",
    "Rss": "idle memory, RSS",
}
IDLE_SECONDS = 0.5


def first_answer(project: Path, what: str) -> dict[str, float]:
    """
    Start, wait for the first answer, then look at the memory.
    """
    began = time.perf_counter()
    with subjects.start(project, what) as running:
        running.wait_for("/v1/notes", poll_seconds=0.001)
        figures = {"wall": time.perf_counter() - began, "cpu": running.cpu_seconds}
        time.sleep(IDLE_SECONDS)
        return figures | {kind: running.memory_kib(kind) for kind in ("Pss", "Rss")}


def imports(project: Path, modules: str) -> dict[str, int]:
    """
    Microseconds of each module's own code by `-X importtime`; the median of five runs.
    """
    runs: dict[str, list[int]] = {}
    for _ in range(5):
        ended = subprocess.run(
            [project / ".venv" / "bin" / "python", "-X", "importtime", "-c", f"import {modules}"],
            cwd=project,
            capture_output=True,
            text=True,
            check=True,
        )
        for own, name in re.findall(
            r"^import time: +(\d+) \| +\d+ \| +(\S+)", ended.stderr, re.MULTILINE
        ):
            runs.setdefault(name, []).append(int(own))
    return {name: round(statistics.median(values)) for name, values in runs.items()}


def measure(*, pairs: int) -> dict[str, Any]:
    """
    Ratios by figure, and the imports that the bare application does without.
    """
    subjects.on_own_core()
    with tempfile.TemporaryDirectory() as temporary:
        project = subjects.make_project(Path(temporary), "plain")
        for what in ("bare", "service"):
            # Compiles what has never run.
            first_answer(project, what)
        rows = [
            (first_answer(project, "service"), first_answer(project, "bare")) for _ in range(pairs)
        ]
        # What `web` imports, in the order in which it does.
        chassis = ["logs", "process", "server", "web", "environment"]
        service = "subject.__main__, " + ", ".join(f"subject.chassis.{name}" for name in chassis)
        ours = imports(project, f"{service}, subject.web, subject.settings")
        server = "uvicorn.main, uvicorn.protocols.http.httptools_impl, uvicorn.lifespan.on"
        bare = imports(project, f"{server}, bare")
    ratios = {key: [ours[key] / bare[key] for ours, bare in rows] for key in WHAT}
    medians = {
        key: [statistics.median(row[side][key] for row in rows) for side in (0, 1)] for key in WHAT
    }
    more = {name: own for name, own in ours.items() if name not in bare}
    return {
        "ratios": ratios,
        "medians": medians,
        "pairs": pairs,
        "imports": more,
        "of": (sum(ours.values()), sum(bare.values())),
    }


def section(measured: dict[str, Any]) -> Section:
    """
    As a part of the page.
    """
    bars = Bars(title="Start-up and memory, ratio to bare FastAPI")
    rows = []
    for key, told in WHAT.items():
        ratios = measured["ratios"][key]
        rows.append([told, *spread(ratios), f"≤ {BOUND}"])
        bars.add(key.lower(), statistics.median(ratios), bound=BOUND)
    groups: dict[str, int] = {}
    for name, own in measured["imports"].items():
        top = name.partition(".")[0]
        groups[top] = groups.get(top, 0) + own
    ours, bare = measured["of"]
    largest = sorted(groups.items(), key=lambda item: -item[1])[:20]
    listed = "\n".join(f"| {name} | {own / bare:.3f} |" for name, own in largest)
    return Section(
        title="Start-up and memory",
        text=(
            "The generated service over the bare application on stock uvicorn: "
            f"{measured['pairs']} pairs of processes, one after the other. "
            f"Memory is read {IDLE_SECONDS} s after the first answer"
        ),
        head=["figure", "median", "quartiles", "bound"],
        rows=rows,
        bars={"startup": bars},
        after=(
            f"\nAll imports of the service take {ours / bare:.2f} times those of the bare "
            "application.\nWhat only the service imports, by package, own time over the time of "
            f"all the bare application's imports:\n\n| package | part |\n| --- | --- |\n{listed}\n"
        ),
    )


def run(*, quick: bool, pairs: int = 25) -> dict[str, Any]:
    """
    Measure, quickly to see that it works or long enough to believe it.
    """
    return measure(pairs=2 if quick else pairs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--quick", action="store_true", help="a smoke run")
    parser.add_argument("--pairs", type=int, default=25)
    parser.add_argument("--modules", action="store_true", help="list every module, too")
    options = parser.parse_args()
    measured = run(quick=options.quick, pairs=options.pairs)
    print(section(measured).markdown)
    if options.modules:
        for name, own in sorted(measured["imports"].items(), key=lambda item: -item[1])[:80]:
            print(f"{own:8} µs  {name}")
        for key, (ours, bare) in measured["medians"].items():
            print(f"{key:8} {ours:12.3f} {bare:12.3f}")


if __name__ == "__main__":
    main()
