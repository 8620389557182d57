"""
Every benchmark of a running service; writes RESULTS.md and its plots.

    uv run python benchmarks/all.py [--quick] [--to FOLDER]

About ten minutes; it wants two cores and a machine that does nothing else.
"""

import argparse
import datetime as dt
import platform
import re
import subprocess
import tempfile
from pathlib import Path

import database
import overload
import requests
import startup
import subjects

HEAD = """\
# Results

`uv run python benchmarks/all.py` wrote this page; [README.md](README.md) says what is measured.
Figures are ratios of processes on one machine with two cores; its speed is no part of them.
{date}, commit {commit}, {versions}.
"""


def versions() -> str:
    """
    What was measured with, by the lock file of a rendered service.
    """
    with tempfile.TemporaryDirectory() as temporary:
        project = subjects.make_project(Path(temporary), "versions")
        python = subprocess.run(
            [project / ".venv" / "bin" / "python", "-V"], capture_output=True, text=True, check=True
        ).stdout.strip()
        lock = (project / "uv.lock").read_text()
    wanted = ("fastapi", "starlette", "uvicorn", "pydantic", "structlog", "httptools", "orjson")
    found = dict(re.findall(r'^name = "(.*)"\nversion = "(.*)"', lock, re.MULTILINE))
    named = [f"{name} {found[name]}" for name in wanted if name in found]
    return ", ".join([python, *named, f"Linux {platform.machine()}"])


def main() -> None:
    """
    Measure and write.
    """
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--quick", action="store_true", help="a smoke run")
    parser.add_argument("--to", type=Path, default=Path(__file__).parent, metavar="FOLDER")
    options = parser.parse_args()
    sections = [
        module.section(module.run(quick=options.quick))
        for module in (requests, database, startup, overload)
    ]
    git = ["git", "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(
        git, cwd=subjects.ROOT, capture_output=True, text=True, check=False
    ).stdout.strip()
    date = dt.datetime.now(dt.UTC).date()
    page = HEAD.format(date=date, commit=commit or "unknown", versions=versions())
    for section in sections:
        page += f"\n\n{section.markdown}"
        for name, bars in section.bars.items():
            (options.to / f"results-{name}.svg").write_text(bars.svg)
    (options.to / "RESULTS.md").write_text(page)


if __name__ == "__main__":
    main()
