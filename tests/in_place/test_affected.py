"""
Which mutations a change tries.
"""

from pathlib import Path

from harness import PACKAGE, ROOT
from mutations import FILE, MUTATIONS, affected, file_of, proof_of

CHASSIS = (PACKAGE / "chassis").relative_to(ROOT)


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
    Whoever changes a test, or what it imports, sees that it still goes red.
    """
    missed = [
        name
        for name, mutation in MUTATIONS.items()
        if name not in affected({proof_of(mutation)[0].relative_to(ROOT)})
    ]
    for_outages = affected({Path("tests/faulty_postgresql.py")})

    assert missed == []
    assert "D2-one-warning" in for_outages
    assert "C2-mask-logs" not in for_outages


def test_importers_count() -> None:
    """
    A change of a module may break a safeguard in what it imports, which it uses.
    """
    names = affected({CHASSIS / "worker.py"})

    assert [name for name in names if MUTATIONS[name]["file"] == "chassis/database.py"]
    assert "C9-explain-ports" not in names


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

    assert affected({FILE.relative_to(ROOT)}, before=old) == ["C2-mask-logs", "L2-drain"]
    assert affected({FILE.relative_to(ROOT)}) == [*MUTATIONS]
