"""
The safeguards that are taken out, and which of them a change concerns.
"""

import functools
import tomllib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from harness import PACKAGE, ROOT
from reach import reaches_change
from selection import code

__all__ = ["MUTATIONS", "affected", "file_of", "proof_of", "read"]

FOLDER = Path(__file__).parent
FILE = FOLDER / "mutations.toml"
TESTS = ROOT / "tests"


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


def affected(changed: set[Path], *, before: Callable[[Path], str] = lambda _: "") -> list[str]:
    """
    The mutations that a change of these files concerns, all paths from the root of the repository.

    These are the mutations of a changed file, and of one that uses what changed in another, those
    whose test was rewritten, and the new and changed entries of mutations.toml. *before* returns
    the old text of a file. Without it, all of a changed file counts.
    """
    paths = {(ROOT / path).resolve() for path in changed}
    old = read(before(FILE)) if FILE in paths else MUTATIONS
    found, reach = [], functools.cache(partial(reaches_change, changed=paths, before=before))
    for name, mutation in MUTATIONS.items():
        file, (test, function) = file_of(mutation), proof_of(mutation)
        function = function.partition("[")[0]
        is_rewritten = test in paths and (
            code(before(test), function) != code(test.read_text(), function)
        )
        if old.get(name) != mutation or is_rewritten or file in paths or reach(file):
            found.append(name)
    return found
