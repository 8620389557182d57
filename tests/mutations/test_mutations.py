"""
A safeguard whose test stays green without it does not exist: each is taken out in turn.
"""

import os
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
from harness import ROOT

MUTATIONS = tomllib.loads((Path(__file__).parent / "mutations.toml").read_text())


@pytest.mark.parametrize("name", MUTATIONS)
def test_goes_red(faulty_with: Callable[..., Path], name: str) -> None:
    """
    Without the safeguard its test fails; tests/faults shows that it passes with it.
    """
    mutation = MUTATIONS[name]
    faulty = faulty_with(**mutation.get("answers", {}))
    path = faulty / "src" / "order_desk" / mutation["file"]
    text = path.read_text()
    module, _, function = mutation["test"].partition("::")
    test = ROOT / "tests" / "faults" / f"test_{module}.py"

    assert text.count(mutation["old"]) == 1
    path.write_text(text.replace(mutation["old"], mutation["new"]))
    try:
        ended = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-x", f"{test}::{function}"],
            cwd=ROOT,
            env=os.environ | {"FIVEWEEKS_PROJECT": str(faulty)},
            capture_output=True,
            text=True,
            check=False,
        )
    finally:
        path.write_text(text)

    assert ended.returncode == 1, ended.stdout
    assert "1 failed" in ended.stdout, ended.stdout
