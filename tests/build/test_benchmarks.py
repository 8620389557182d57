"""
The benchmarks run, and write numbers.
"""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from harness import ROOT


@pytest.mark.covers("benchmarks/*")
def test_benchmarks_write_numbers(tmp_path: Path) -> None:
    """
    The one command measures requests, database, start-up and overload, and writes the page.
    """
    command = [
        sys.executable,
        str(ROOT / "benchmarks" / "all.py"),
        "--quick",
        "--to",
        str(tmp_path),
    ]

    ended = subprocess.run(command, capture_output=True, text=True, check=False)

    assert ended.returncode == 0, ended.stderr
    page = (tmp_path / "RESULTS.md").read_text()
    titles = re.findall(r"^## (.*)$", page, re.MULTILINE)
    assert titles == ["CPU per request", "PostgreSQL", "Start-up and memory", "Overload"]
    rows = re.findall(r"^\| .* \|$", page, re.MULTILINE)
    assert len([row for row in rows if re.search(r"\d\.\d\d", row)]) >= 4 + 4 + 2
    for plot in re.findall(r"\]\((results-\w+\.svg)\)", page):
        assert (tmp_path / plot).read_text().startswith("<svg ")
    assert str(ROOT) not in page
