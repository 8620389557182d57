"""
The files of a team, as each release made them, go with the template's newest ones.
"""

import itertools
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from releases import NEXT, RELEASES
from selection import others_nightly
from update.losses import carried, contents, is_seed

from questions import QUESTIONS, is_allowed

Project = Callable[..., Path]
Findings = Callable[..., str]

NEWEST = list(RELEASES)[-1]
# The answers that bring seeds in Python.
CHOICES = [
    answers
    for processes, database in itertools.product(QUESTIONS["processes"], QUESTIONS["database"])
    if is_allowed(answers := {"processes": processes, "database": database})
]
# These have every seed of a release once.
ALL_SEEDS: list[dict[str, Any]] = [
    {"processes": ["web", "worker", "job"], "database": "postgresql"},
    {"processes": ["web", "job"], "database": "none"},
]


# All seeds of the newest release and of the oldest.
FIRST = [(version, ALL_SEEDS[0]) for version in (NEWEST, "0.1.0")]


@pytest.mark.parametrize(
    ("version", "answers"),
    others_nightly(
        [
            *FIRST,
            *(case for case in itertools.product(RELEASES, CHOICES) if case not in FIRST),
        ],
        len(FIRST),
        arguments=2,
    ),
)
def test_seeds_of_a_release_fit(
    version: str,
    answers: dict[str, Any],
    at: Project,
    findings: Findings,
    tmp_path: Path,
) -> None:
    """
    Whatever was chosen, an update ends with a green check: it leaves seeds as they were, but for
    what a migration renames, and all other files are as in a new project.
    """
    folder = tmp_path / "order-desk"
    shutil.copytree(at(NEXT, **answers), folder, ignore=shutil.ignore_patterns(".git"))
    for name in filter(is_seed, contents(at(NEXT, **answers))):
        (folder / name).unlink()
    for name, text in contents(at(version, **answers)).items():
        if is_seed(name):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(carried(text.decode()))
            (folder / name).chmod((at(version, **answers) / name).stat().st_mode)

    found = findings(folder)

    assert found == ""
