"""
A job without other process types, which had the example of a service that answers up to 0.3.2.
"""

from collections.abc import Callable
from pathlib import Path

import pytest
from releases import NEXT
from selection import others_nightly
from update.edits import EDITS
from update.future import FUTURE
from update.losses import commit, conflicts, contents, is_seed, losses, move, statuses

Project = Callable[..., Path]
Update = Callable[..., None]

ALONE = {"processes": ["job"]}
EXAMPLE = ("APP_PAGE_SIZE_MAX", "APP_ANNOUNCE_URL")


def settings(project: Path) -> list[str]:
    """
    Those of the example that `.env.example` names.
    """
    text = (project / ".env.example").read_text()
    return [name for name in EXAMPLE if name in text]


@pytest.mark.parametrize("edits", [(), EDITS], ids=["pristine", "edited"])
@pytest.mark.parametrize("database", others_nightly(["none", "postgresql"]))
def test_older_one_keeps_its_example(
    database: str, edits: dict[str, object], *, project: Project, update: Update, future: Path
) -> None:
    """
    A job alone of an earlier release keeps its seeds and the settings that they read, in the next
    update and in the one behind it.
    """
    folder = project("0.3.2", edits, database=database, **ALONE)

    update(folder)
    assert conflicts(folder) == losses(folder) == []
    assert {name for name in statuses(folder) if is_seed(name)} == set()
    first = settings(folder)
    commit(folder, "updated")
    move(folder, future)
    update(folder, FUTURE)

    assert conflicts(folder) == []
    assert {name for name in statuses(folder) if is_seed(name)} == set()
    assert (first, settings(folder)) == ([*EXAMPLE], [*EXAMPLE])


def test_new_one_gets_no_example(project: Project, update: Update, future: Path) -> None:
    """
    An update brings nothing of the example to a job alone, and merges the settings of its team.
    """
    folder = project(NEXT, ["add_setting", "add_example_of_setting"], **ALONE)
    before = {name: text for name, text in contents(folder).items() if is_seed(name)}
    move(folder, future)

    update(folder, FUTURE)

    assert conflicts(folder) == losses(folder) == []
    assert {name: text for name, text in contents(folder).items() if is_seed(name)} == before
    assert settings(folder) == []


def test_file_of_the_team_stays(project: Project, update: Update) -> None:
    """
    If a team has a file of the name that a seed has, it keeps its own when it chooses that part.
    """
    folder = project(NEXT, **ALONE)
    own = folder / "src" / "order_desk" / "domain.py"
    own.write_text('"""\nInvoices.\n"""\n')
    commit(folder, "edited")

    update(folder, processes=["web", "job"])

    assert own.read_text() == '"""\nInvoices.\n"""\n'
    assert (own.parent / "announcer.py").exists()
    assert (own.parent / "routes.py").exists()
