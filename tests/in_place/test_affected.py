"""
Which mutations a change tries.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from harness import PACKAGE, ROOT
from mutations import FILE, MUTATIONS, affected, file_of, proof_of


def by(key: Callable[[dict[str, Any]], Path]) -> dict[Path, set[str]]:
    """
    The names of the mutations by one of their files.
    """
    found: dict[Path, set[str]] = {}
    for name, mutation in MUTATIONS.items():
        found.setdefault(key(mutation).relative_to(ROOT), set()).add(name)
    return found


def test_each_file_tries_its_safeguards() -> None:
    """
    Whoever changes a file has all its safeguards taken out, each of them.
    """
    missed = [path for path, names in by(file_of).items() if not names <= {*affected({path})}]

    assert missed == []


def test_each_test_tries_what_it_proves() -> None:
    """
    Whoever changes a test sees that it still goes red.
    """
    proofs = by(lambda mutation: proof_of(mutation)[0])
    missed = [path for path, names in proofs.items() if not names <= {*affected({path})}]

    assert missed == []


def test_only_the_rewritten_tests_count() -> None:
    """
    Of a module of tests, those that did not change try nothing.
    """
    path = FILE.parents[1] / "faults" / "test_lifecycle.py"
    old = path.read_text().replace("def test_unready_at_once", "def test_unready")

    names = affected({path.relative_to(ROOT)}, before=lambda _: old)

    assert names
    assert {proof_of(MUTATIONS[name])[1] for name in names} == {"test_unready_at_once"}


def test_users_of_what_changed_try_theirs() -> None:
    """
    Whoever uses a changed function tries its safeguards, through other modules too; whoever uses
    something else of its module does not.
    """
    path = PACKAGE / "chassis" / "problem.py"
    old = path.read_text().replace("def body(", "def body_of_before(")

    names = affected({path.relative_to(ROOT)}, before=lambda _: old)

    files = {MUTATIONS[name]["file"] for name in names}
    assert {"chassis/request.py", "chassis/envelope.py"} <= files
    assert "chassis/database.py" not in files


def test_a_page_tries_nothing() -> None:
    """
    What no mutation has to do with tries none.
    """
    assert affected({Path("README.md"), Path("docs/supply-chain.md")}) == []


def test_new_entries_are_tried() -> None:
    """
    Of the list itself, the entries that are new or changed are tried, and not the others.
    """
    text = FILE.read_text()
    old = text.replace("[L2-drain]", "[L2-other]").replace(
        '"line = line.replace(form, MASK)"', '""'
    )

    assert affected({FILE.relative_to(ROOT)}, before=lambda _: old) == ["C2-mask-logs", "L2-drain"]
    assert affected({FILE.relative_to(ROOT)}) == [*MUTATIONS]
