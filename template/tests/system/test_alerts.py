"""
Alerts fire when they should, and only then; promtool of Prometheus tells.
"""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
RULES = sorted(PROJECT.glob("ops/alerts/*.yaml"))
TESTS = sorted(PROJECT.glob("ops/alerts/tests/*.yaml"))


@pytest.fixture(name="promtool", scope="session")
def _promtool() -> str:
    """
    Where it is; without it the test fails in CI, and is skipped elsewhere.
    """
    if found := shutil.which("promtool"):
        return found
    message = "promtool is missing: apt-get install --no-install-recommends prometheus"
    if os.environ.get("CI"):
        pytest.fail(message)
    pytest.skip(message)


@pytest.mark.promise("M7")
@pytest.mark.parametrize("path", RULES, ids=lambda path: path.stem)
def test_rules(promtool: str, path: Path) -> None:
    """
    Prometheus takes each file of rules.
    """
    check(promtool, "check", "rules", path)


@pytest.mark.promise("M7")
@pytest.mark.parametrize("path", TESTS, ids=lambda path: path.stem)
def test_alerts(promtool: str, path: Path) -> None:
    """
    Each alert fires in a series with its fault and is silent in a healthy one.
    """
    check(promtool, "test", "rules", path)


def check(*command: str | Path) -> None:
    """
    Raises AssertionError with what a tool found.
    """
    ended = subprocess.run(  # noqa: S603  # promtool
        command, capture_output=True, text=True, check=False, timeout=120
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
