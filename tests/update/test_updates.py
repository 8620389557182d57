"""
A project of any release, edited as teams edit, takes the next version without a conflict and
without losing a line.
"""

import subprocess
from collections.abc import Callable, Iterable
from importlib.metadata import version as installed
from pathlib import Path
from typing import Any

import pytest
import yaml
from harness import ROOT
from releases import NEXT, RELEASES, git
from selection import IS_NIGHTLY, others_nightly
from update.edits import EDITS
from update.losses import carried, commit, conflicts, contents, is_seed, losses, ours, statuses

from questions import pairwise

Project = Callable[..., Path]
Update = Callable[..., None]
Findings = Callable[..., str]

NEWEST = list(RELEASES)[-1]
FIRST_AND_LAST = others_nightly([NEWEST, *[*RELEASES][:-1]], 2)

# Answers beside the defaults, for the newest two releases.
CHOSEN: list[Any] = others_nightly(
    [(version, answers) for version in list(RELEASES)[-2:] for answers in pairwise()]
)

# A conflict that 0.1.0 has once: there, nothing parts what a team wrote from the next service.
KNOWN = {"0.1.0": ["compose.yaml"]}
# And one where the team's formatter has another width: in 0.1.0 it rewrote this file, too.
MAIN = "src/order_desk/__main__.py"


def will_change(at: Project, version: str, **answers: Any) -> set[str]:
    """
    The files that differ between a release and the working tree, where nobody edited anything, but
    for seeds: those of them alone in which a migration renames something.
    """
    before, after = (contents(at(each, **answers)) for each in (version, NEXT))
    return {
        name
        for name in {*before, *after}
        if (
            carried(before.get(name, b"").decode()) != before.get(name, b"").decode()
            if is_seed(name)
            else before.get(name) != after.get(name)
        )
    }


def take_the_template_s(folder: Path) -> None:
    """
    Resolve the one conflict that a width of lines makes in a service of 0.1.0, as the page of
    conflicts says.
    """
    if conflicts(folder) == [MAIN]:
        git("checkout", "--theirs", MAIN, cwd=folder)


@pytest.mark.parametrize("version", FIRST_AND_LAST)
def test_pristine_project_becomes_a_fresh_one(
    version: str, project: Project, at: Project, update: Update, findings: Findings
) -> None:
    """
    What nobody edited is, after an update, what a new project has; seeds stay as they were, and new
    ones don't come.
    """
    folder = project(version)

    update(folder)

    assert conflicts(folder) == losses(folder) == []
    assert statuses(folder).keys() == will_change(at, version)
    assert ours(folder) == ours(at(NEXT))
    assert findings(folder, formatted=False) == ""


@pytest.mark.parametrize("version", FIRST_AND_LAST)
def test_edited_project_loses_nothing(
    version: str, project: Project, at: Project, update: Update, findings: Findings
) -> None:
    """
    Every edit that teams make, all in one project: no conflict, each line still there, and nothing
    changes but what the template changed. Its own check is green.
    """
    folder = project(version, EDITS)

    update(folder)

    assert conflicts(folder) == ([MAIN] if version == "0.1.0" else [])
    assert [loss for loss in losses(folder) if not loss.startswith(MAIN)] == []
    assert statuses(folder).keys() - {MAIN} <= will_change(at, version)
    take_the_template_s(folder)
    assert findings(folder) == ""


@pytest.mark.parametrize("name", others_nightly(EDITS))
def test_single_edit_is_kept(
    name: str, project: Project, at: Project, update: Update, findings: Findings
) -> None:
    """
    Each edit alone: the same, and what it did not touch is as in a new project.
    """
    folder = project(NEWEST, [name])
    touched = contents(folder).items() ^ contents(at(NEWEST)).items()

    update(folder)

    assert conflicts(folder) == losses(folder) == []
    differing = ours(folder).items() ^ ours(at(NEXT)).items()
    assert {name for name, _ in differing} <= {name for name, _ in touched}
    assert findings(folder) == ""


@pytest.mark.parametrize("case", CHOSEN)
@pytest.mark.parametrize("edits", [[], EDITS], ids=["pristine", "edited"])
def test_answers_are_updated(
    case: tuple[str, dict[str, Any]],
    edits: Iterable[str],
    *,
    project: Project,
    at: Project,
    update: Update,
    findings: Findings,
) -> None:
    """
    The same with other answers.
    """
    version, answers = case
    folder = project(version, edits, **answers)

    update(folder)

    known = [*KNOWN.get(version, []), MAIN] if version == "0.1.0" and edits else []
    assert {*conflicts(folder)} <= {*known}
    assert [loss for loss in losses(folder) if loss.split(":")[0] not in conflicts(folder)] == []
    left = statuses(folder).keys() - {*conflicts(folder)}
    assert left <= will_change(at, version, **answers)
    if not edits:
        assert ours(folder) == ours(at(NEXT, **answers))
    take_the_template_s(folder)
    if not conflicts(folder):
        assert findings(folder) == ""


def test_one_project_goes_through_all_releases(
    project: Project, update: Update, findings: Findings
) -> None:
    """
    A project with every edit, from the first release through each to the next: no conflict and no
    lost line anywhere on the way, and its own check is green at the end.
    """
    folder = project(next(iter(RELEASES)), EDITS)

    for version in [*list(RELEASES)[1:], NEXT]:
        update(folder, version)

        take_the_template_s(folder)
        assert conflicts(folder) in ([], [MAIN]), version
        assert [loss for loss in losses(folder) if not loss.startswith(MAIN)] == [], version
        commit(folder, version)
    assert findings(folder) == ""


@pytest.mark.parametrize("version", others_nightly([*RELEASES][::-1]))
def test_tests_are_green_afterwards(
    version: str, project: Project, update: Update, uv: Callable[..., object]
) -> None:
    """
    After an update, what the how-to says is enough: `uv sync`, and all checks of the edited project
    pass, its own tests among them.
    """
    folder = project(version, EDITS)
    update(folder)
    take_the_template_s(folder)
    uv("sync", "--quiet", cwd=folder)
    commit(folder, "updated")

    ended = subprocess.run([".ci/run"], cwd=folder, capture_output=True, text=True, check=False)

    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_copier_is_the_oldest_that_is_allowed() -> None:
    """
    The version that the tests update with is the one that `copier.yml` names as the oldest.
    """
    named = yaml.safe_load((ROOT / "copier.yml").read_text())["_min_copier_version"]

    assert IS_NIGHTLY or installed("copier") == named
