"""
The name of a compose project, which its volumes are named after.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from releases import NEXT, RELEASES
from selection import others_nightly
from update.edits import EDITS
from update.future import FUTURE
from update.losses import commit, conflicts, move

pytestmark = pytest.mark.covers(
    "copier.yml",
    "template/compose.yaml.jinja",
)

Project = Callable[..., Path]
Update = Callable[..., None]

ANSWERS = {"database": "postgresql", "deploy": ["compose"]}


def name_in(project: Path) -> str | None:
    """
    What compose.yaml says, or nothing: then the folder decides.
    """
    found = yaml.safe_load((project / "compose.yaml").read_text())
    name: str | None = found.get("name")
    return name


@pytest.mark.parametrize("edits", [EDITS, pytest.param((), marks=pytest.mark.nightly)])
@pytest.mark.parametrize("version", others_nightly(["0.3.1", "0.1.0"]))
def test_volumes_stay_where_they_are(
    version: str, edits: Any, project: Project, update: Update, future: Path
) -> None:
    """
    A service from before compose.yaml had a name keeps none, in this update and in the next one,
    so that its volumes keep theirs.
    """
    answers = ANSWERS if version != "0.1.0" else {"deploy": ["compose"]}
    folder = project(version, edits, **answers)

    update(folder)
    first = name_in(folder)
    commit(folder, "updated")
    move(folder, future)
    update(folder, FUTURE)

    assert (first, name_in(folder)) == (None, None)
    assert "compose.yaml" not in conflicts(folder)


@pytest.mark.parametrize("own", ["", "mine"])
def test_name_stays(own: str, project: Project, update: Update, future: Path) -> None:
    """
    A new service has its own name there, whatever its folder is called; it stays in an update, as
    does one that the team wrote instead.
    """
    folder = project(NEXT, EDITS, **ANSWERS)
    new, path = name_in(folder), folder / "compose.yaml"
    if own:
        path.write_text(path.read_text().replace('name: "order-desk"\n', f"name: {own}\n", 1))
        commit(folder, "named")
    move(folder, future)

    update(folder, FUTURE)

    assert new == "order-desk"
    assert name_in(folder) == (own or "order-desk")
    assert "compose.yaml" not in conflicts(folder)


def test_compose_comes_later(project: Project, update: Update) -> None:
    """
    A service that chooses compose later has no volumes yet, and has the name.
    """
    folder = project([*RELEASES][-1], deploy=[], database="postgresql")

    update(folder, deploy=["compose"])

    assert name_in(folder) == "order-desk"
