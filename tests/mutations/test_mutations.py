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
from harness import PACKAGE, ROOT
from selection import IS_NIGHTLY, changed

MUTATIONS = tomllib.loads((Path(__file__).parent / "mutations.toml").read_text())


def sample(config: pytest.Config) -> list[str]:
    """
    The mutations to try: those of a module that changed, and with `-k` or at night all.
    """
    if IS_NIGHTLY or config.option.keyword:
        return list(MUTATIONS)
    folder = PACKAGE.relative_to(ROOT)
    return [name for name, one in MUTATIONS.items() if str(folder / one["file"]) in changed()]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """
    A test for each mutation of the sample.
    """
    if "name" in metafunc.fixturenames:
        metafunc.parametrize("name", sample(metafunc.config))


def test_every_text_is_there() -> None:
    """
    What a mutation replaces stands once in its file, and its test exists; those not tried, too.
    """
    for name, mutation in MUTATIONS.items():
        path = PACKAGE / mutation["file"]
        module, _, function = mutation["test"].partition("::")
        tests = (ROOT / "tests" / "faults" / f"test_{module}.py").read_text()

        assert path.read_text().count(mutation["old"]) == 1, name
        assert f"def {function.partition('[')[0]}(" in tests, name


def test_goes_red(faulty_with: Callable[..., Path], copy: Callable[..., Path], name: str) -> None:
    """
    Without the safeguard its test fails; tests/faults shows that it passes with it.
    """
    mutation = MUTATIONS[name]
    # Some tests are of the seeds, too, which the faults would replace.
    make = copy if mutation.get("seeds") else faulty_with
    faulty = make(**mutation.get("answers", {}))
    path = faulty / "src" / "order_desk" / mutation["file"]
    text = path.read_text()
    module, _, function = mutation["test"].partition("::")
    test = ROOT / "tests" / "faults" / f"test_{module}.py"

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
