"""
Which tests a change runs: its files decide, so that the same change always runs the same tests.

A test runs always, unless it has one of two markers. `covers` names the files that the test is
about: it runs if the change touches one of them, or the test's own code. `nightly` runs each night.
Whoever names a test on the command line, by `::` or `-k`, gets it in any case.
"""

import ast
import functools
import os
import subprocess
import tomllib
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest
from harness import PACKAGE, ROOT
from reach import reaches_change

__all__ = [
    "IS_NIGHTLY",
    "before",
    "changed",
    "code",
    "imported",
    "left_out",
    "others_nightly",
    "touches",
]

IS_NIGHTLY = bool(os.environ.get("FIVEWEEKS_NIGHTLY"))
TESTS = ROOT / "tests"


def others_nightly(items: Iterable[Any], always: int = 1, *, arguments: int = 1) -> list[Any]:
    """
    The first items for every change, and the others for the night, as parameters of a test; each is
    a tuple if they are for so many *arguments*.
    """
    found = list(items)
    rest = [item if arguments > 1 else (item,) for item in found[always:]]
    return [*found[:always], *(pytest.param(*item, marks=pytest.mark.nightly) for item in rest)]


def left_out(item: pytest.Item) -> str:
    """
    Why a test does not run now; empty if it does.
    """
    if IS_NIGHTLY:
        return ""
    if item.get_closest_marker("nightly"):
        return "nightly"
    covers = [marker.args for marker in item.iter_markers("covers")]
    if not covers or any(map(touches, covers)):
        return ""
    is_new = any(_is_new(ROOT / name) for name in imported(item.path) & changed())
    return "" if is_new else "nothing that it covers changed"


def touches(patterns: Sequence[str]) -> bool:
    """
    Whether the change touches a file that matches one of the patterns (`*` matches `/` too), or
    what a module of a service that matches uses of another one.
    """

    def is_covered(path: str) -> bool:
        return any(fnmatchcase(path, pattern) for pattern in patterns)

    modules = [path for path in PACKAGE.rglob("*.py") if is_covered(str(path.relative_to(ROOT)))]
    reach = functools.partial(reaches_change, changed=_changed_paths(), before=before)
    return any(map(is_covered, changed())) or any(map(reach, modules))


@functools.cache
def _changed_paths() -> frozenset[Path]:
    return frozenset(ROOT / path for path in changed())


@functools.cache
def changed() -> frozenset[str]:
    """
    The files that differ from where this branch left main, with what is not committed. On main, and
    where no main is known, those that differ from the newest release. FIVEWEEKS_BASE wins.
    """
    found = _git("diff", "--name-only", _base()).splitlines()
    return frozenset([*found, *_git("ls-files", "--others", "--exclude-standard").splitlines()])


@functools.cache
def before(path: Path) -> str:
    """
    The text of a file without the change; empty if the change added it.
    """
    try:
        return _git("show", f"{_base()}:{path.relative_to(ROOT)}")
    except subprocess.CalledProcessError:
        return ""


@functools.cache
def code(text: str, function: str = "") -> str:
    """
    What a module of tests does, or one function of it: without imports and markers, so that what
    only decides when a test runs is no change of it.
    """
    return "\n".join(dump for name, dump in _functions(text) if not function or name == function)


@functools.cache
def _functions(text: str) -> list[tuple[str, str]]:
    found = ast.parse(text)
    for node in ast.walk(found):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            node.decorator_list = [
                one for one in node.decorator_list if "parametrize" in ast.unparse(one)
            ]
    return [
        (getattr(node, "name", ""), ast.dump(node))
        for node in found.body
        if not isinstance(node, ast.Import | ast.ImportFrom)
        and not ast.unparse(node).startswith("pytestmark = ")
    ]


@functools.cache
def _is_new(path: Path) -> bool:
    return code(before(path)) != code(path.read_text())


@functools.cache
def _base() -> str:
    return os.environ.get("FIVEWEEKS_BASE") or _merge_base()


def _merge_base() -> str:
    try:
        base, head = _git("merge-base", "HEAD", "origin/main"), _git("rev-parse", "HEAD")
    except subprocess.CalledProcessError:
        base = head = ""
    if base != head:
        return base
    releases: dict[str, str] = tomllib.loads((ROOT / "releases.toml").read_text())
    return list(releases.values())[-1]


def _git(*arguments: str) -> str:
    ended = subprocess.run(
        ["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return ended.stdout.strip()


@functools.cache
def imported(path: Path) -> frozenset[str]:
    """
    A module of the tests and those that it imports from there, as paths from the root; without the
    harness, on which all tests stand: those that run always are enough to try it.
    """
    found, waiting = set[Path](), [path]
    while waiting:
        one = waiting.pop()
        if one in found:
            continue
        found.add(one)
        for node in ast.walk(ast.parse(one.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            folders = (TESTS, TESTS / "instruments", one.parent)
            places = [folder / f"{name}.py" for name in names for folder in folders]
            waiting += filter(Path.is_file, places)
    return frozenset(str(one.relative_to(ROOT)) for one in found if one != TESTS / "harness.py")
