"""
Which tests a change runs.
"""

import ast
import functools
import os
import subprocess
import sys
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path

import pytest
from harness import ROOT
from mutations import MUTATIONS, file_of, proof_of
from selection import imported

ABOUT = "tests/build/test_benchmarks.py"
AT_NIGHT = "tests/update/test_layout.py"


@pytest.fixture(name="clone", scope="module")
def _clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """
    The tests as they are here, committed.
    """
    folder = tmp_path_factory.mktemp("selection") / "clone"
    subprocess.run(["git", "clone", "--quiet", "--shared", ROOT, folder], check=True)
    there = {"GIT_DIR": str(folder / ".git"), "GIT_WORK_TREE": str(ROOT)}
    for command in (["add", "--all", "."], ["commit", "--quiet", "--allow-empty", "-m", "now"]):
        subprocess.run(["git", *command], cwd=ROOT, env=os.environ | there, check=True)
    subprocess.run(["git", "reset", "--quiet", "--hard"], cwd=folder, check=True)
    return folder


def collected(clone: Path, *arguments: str, **environment: str) -> str:
    """
    What pytest would run, and how many tests it leaves out.
    """
    given = dict(os.environ) | {"FIVEWEEKS_BASE": "HEAD", "FIVEWEEKS_NIGHTLY": ""} | environment
    # Some plugins take longer to load than the tests to collect.
    without = [f"-pno:{name}" for name in ("anyio", "hypothesispytest", "schemathesis", "xdist")]
    command = [sys.executable, "-m", "pytest", *without, "--collect-only", "-q", *arguments]
    ended = subprocess.run(
        command, cwd=clone, env=given, capture_output=True, text=True, check=False
    )
    return ended.stdout


def test_what_nothing_touched_is_left_out(clone: Path) -> None:
    """
    A test that says what it covers is left out if nothing of that changed, and the summary says so.
    """
    told = collected(clone, ABOUT)

    assert "test_benchmarks_write_numbers" not in told
    assert "1 tests left out: nothing that it covers changed" in told


@pytest.mark.parametrize("name", ["benchmarks/new.py", ABOUT], ids=Path)
def test_what_a_change_touches_runs(clone: Path, name: str) -> None:
    """
    It runs if the change touches what it covers, or the test.
    """
    path = clone / name
    text = path.read_text() if path.exists() else None
    path.write_text(f"{text or ''}\nNEW = 1\n")
    try:
        told = collected(clone, ABOUT)
    finally:
        path.unlink() if text is None else path.write_text(text)

    assert "test_benchmarks_write_numbers" in told


@pytest.mark.parametrize(
    ("arguments", "environment"),
    [([AT_NIGHT], {"FIVEWEEKS_NIGHTLY": "1"}), ([AT_NIGHT, "-k", "sorted"], {})],
    ids=["night", "name"],
)
def test_what_is_asked_for_runs(
    clone: Path, arguments: list[str], environment: dict[str, str]
) -> None:
    """
    At night, and for whoever names them, all values of a parameter are tried; else the first ones.
    """
    usual, all_of_them = (
        collected(clone, *given, **more).count("::test_our_dependencies_are_not_sorted[")
        for given, more in (([AT_NIGHT], {}), (arguments, environment))
    )

    assert usual == 3
    assert all_of_them > 10


def test_a_test_depends_on_what_it_imports() -> None:
    """
    Helpers count too, and those that they import.
    """
    found = imported(ROOT / "tests" / "build" / "test_leaving.py")

    assert {"tests/build/test_leaving.py", "tests/pages.py", "tests/releases.py"} <= found
    assert "tests/instruments/openloop.py" not in found


def patterns() -> Iterator[tuple[str, str]]:
    """
    What the tests say they cover, with the module that says it.
    """
    for path in sorted((ROOT / "tests").glob("*/test_*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "pytest.mark.covers":
                yield from ((path.name, ast.literal_eval(argument)) for argument in node.args)


@functools.cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def markers(path: Path, function: str, kind: str) -> list[list[str]]:
    """
    The arguments of the markers of this kind that a test has, or its module.
    """
    found = []
    for node in parsed(path).body:
        is_all = isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "pytestmark"
        of = [node.value] if isinstance(node, ast.Assign) and is_all else []
        of += node.decorator_list if getattr(node, "name", "") == function else []  # type: ignore[attr-defined]
        for one in of:
            call = one.func if isinstance(one, ast.Call) else one
            if ast.unparse(call) == f"pytest.mark.{kind}":
                given = one.args if isinstance(one, ast.Call) else []
                found.append([ast.literal_eval(argument) for argument in given])
    return found


def test_a_change_runs_the_test_of_each_safeguard_in_it() -> None:
    """
    Whoever touches a file with a safeguard has the test run that proves it.
    """
    missed: list[str] = []
    for name, mutation in MUTATIONS.items():
        path, function = proof_of(mutation)
        function = function.partition("[")[0]
        covers = markers(path, function, "covers")
        file = str(file_of(mutation).relative_to(ROOT))
        is_covered = any(fnmatchcase(file, pattern) for one in covers for pattern in one)
        if (covers and not is_covered) or markers(path, function, "nightly"):
            missed.append(name)

    assert missed == []


def test_what_is_covered_exists() -> None:
    """
    A test that covers a file that is gone would never run.
    """
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    names, found = ended.stdout.splitlines(), [*patterns()]

    assert len(found) > 40
    assert [
        (module, pattern)
        for module, pattern in found
        if not any(fnmatchcase(name, pattern) for name in names)
    ] == []
