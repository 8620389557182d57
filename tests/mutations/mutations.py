"""
The safeguards that are taken out, and which of them a change concerns.
"""

import ast
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from harness import PACKAGE, ROOT

__all__ = ["MUTATIONS", "affected", "file_of", "proof_of", "read"]

FOLDER = Path(__file__).parent
FILE = FOLDER / "mutations.toml"
TESTS = ROOT / "tests"
OVERLAY = TESTS / "faults" / "overlay"
# Every test needs what is in these.
SHARED = {
    TESTS / "conftest.py",
    TESTS / "faults" / "conftest.py",
    *FOLDER.glob("*.py"),
    *(OVERLAY / name for name in ("settings.py", "web.py")),
}


def read(text: str) -> dict[str, dict[str, Any]]:
    """
    The mutations of a text such as that of mutations.toml, by name.
    """
    return tomllib.loads(text)


MUTATIONS = read(FILE.read_text())


def file_of(mutation: dict[str, Any]) -> Path:
    """
    The file of the template that a mutation changes.
    """
    return PACKAGE.joinpath(mutation["file"]).resolve()


def proof_of(mutation: dict[str, Any]) -> tuple[Path, str]:
    """
    The module and the name of the test that goes red; the name may end in parameters.
    """
    module, _, function = mutation["test"].partition("::")
    return TESTS / "faults" / f"test_{module}.py", function


def affected(changed: set[Path], *, before: str = "") -> list[str]:
    """
    The mutations that a change of these files concerns, all paths from the root of the repository.

    A file concerns a mutation if it is the file that the mutation changes, a module that imports
    that file, the test that goes red, or a module that the test uses. Where mutations.toml itself
    has changed, *before* is its old text, and its new and changed entries are named; without it
    all are.
    """
    paths = {(ROOT / path).resolve() for path in changed}
    old = read(before) if FILE in paths else MUTATIONS
    return [
        name
        for name, mutation in MUTATIONS.items()
        if old.get(name) != mutation
        or not paths.isdisjoint(_concerning(file_of(mutation), proof_of(mutation)[0]))
    ]


@cache
def _concerning(file: Path, test: Path) -> frozenset[Path]:
    importers = {path for path in _modules() if file in _imported(path)}
    return frozenset({file, *importers, *_used(test), *_overlay_of(test), *SHARED})


@cache
def _modules() -> list[Path]:
    return [path.resolve() for path in PACKAGE.rglob("*.py")]


@cache
def _used(path: Path) -> frozenset[Path]:
    """
    A test module and the helpers that it imports, and what those import.
    """
    found, to_do = set[Path](), [path]
    while to_do:
        if (one := to_do.pop()) not in found:
            found.add(one)
            to_do += _imported(one)
    return frozenset(found)


@cache
def _overlay_of(test: Path) -> frozenset[Path]:
    """
    The faults that a test module asks for: those of its name, and those whose routes it names.
    """
    text = test.read_text()
    return frozenset(
        path
        for path in OVERLAY.glob("*.py")
        if test.stem == f"test_{path.stem}" or f"/{path.stem}" in text or f'"{path.stem}"' in text
    )


@cache
def _imported(path: Path) -> frozenset[Path]:
    """
    The files of this repository that a module imports.
    """
    return frozenset(_find_imported(path))


def _find_imported(path: Path) -> Iterator[Path]:
    for node in ast.walk(ast.parse(path.read_text())):
        level, names = 0, list[str]()
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            level = node.level
            prefix = [node.module] if node.module else []
            names = [*prefix, *(".".join([*prefix, alias.name]) for alias in node.names)]
        elif isinstance(node, ast.Call) and getattr(node.func, "id", "") == "import_module":
            # As in `import_module(".chassis.worker", __package__)`.
            level = 1
            names = [
                text.value.lstrip(".")
                for text in node.args
                if isinstance(text, ast.Constant) and isinstance(text.value, str)
            ]
        folders = [path.parents[level - 1]] if level else [TESTS, PACKAGE.parents[1] / "tests"]
        for name in names:
            for folder in folders:
                file = folder.joinpath(*name.split(".")).with_suffix(".py")
                if file.exists():
                    yield file.resolve()
