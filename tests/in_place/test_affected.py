"""
Which mutations a change tries.
"""

from pathlib import Path

from harness import ROOT
from mutations import FILE, MUTATIONS, affected, file_of, proof_of


def test_each_file_tries_its_safeguards() -> None:
    """
    Whoever changes a file has all its safeguards taken out, each of them.
    """
    missed = [
        name
        for name, mutation in MUTATIONS.items()
        if name not in affected({file_of(mutation).relative_to(ROOT)})
    ]

    assert missed == []


def test_each_test_tries_what_it_proves() -> None:
    """
    Whoever changes a test sees that it still goes red.
    """
    missed = [
        name
        for name, mutation in MUTATIONS.items()
        if name not in affected({proof_of(mutation)[0].relative_to(ROOT)})
    ]

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
