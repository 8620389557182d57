"""
What is chosen later arrives by `copier update --data`: with its seeds, once, and nothing else.
"""

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from releases import NEXT, RELEASES
from selection import others_nightly
from update.edits import EDITS
from update.losses import carried, commit, conflicts, contents, is_seed, losses, ours, statuses

Project = Callable[..., Path]
Update = Callable[..., None]
Findings = Callable[..., str]

WITH_DATABASE = {"database": "postgresql"}
EVERYTHING = {
    "processes": ["web", "worker", "job"],
    "database": "postgresql",
    "telemetry": ["sentry", "opentelemetry"],
    "deploy": ["compose", "kubernetes", "systemd", "nomad"],
}

# What a project has, and what it chooses.
LATER: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "database": ({}, WITH_DATABASE),
    "worker": (WITH_DATABASE, {"processes": ["web", "worker"]}),
    "worker and database": ({}, WITH_DATABASE | {"processes": ["web", "worker"]}),
    "job": ({}, {"processes": ["web", "job"]}),
    "job with a database": (WITH_DATABASE, {"processes": ["web", "job"]}),
    "web": ({"processes": ["job"]}, {"processes": ["web", "job"]}),
    "worker beside a job": (
        {"processes": ["job"]} | WITH_DATABASE,
        {"processes": ["worker", "job"]} | WITH_DATABASE,
    ),
    "platforms": ({}, {"deploy": ["compose", "kubernetes", "systemd", "nomad"]}),
    "pipeline": ({}, {"ci": "gitlab"}),
    "telemetry": ({}, {"telemetry": ["sentry", "opentelemetry"]}),
    "everything": ({}, EVERYTHING),
}

MEMORY = "src/order_desk/memory.py"
FIRST_STEP = "src/order_desk/migrations/versions/0001_notes.py"

# These have nothing that a person still has to wire.
WIRED = {"platforms", "pipeline", "telemetry", "job"}

# As in test_updates.py: there, lines of the team lie beside the next service.
PARTED = {"0.1.0": {"worker", "job with a database", "web"}}

CASES = [
    (version, name, state)
    for version, name, state in itertools.product(RELEASES, LATER, ["pristine", "edited"])
    if not (state == "edited" and name in PARTED.get(version, ()))
]


@pytest.mark.parametrize("case", others_nightly(CASES[::-1]), ids="-".join)
def test_part_arrives_once(
    case: tuple[str, str, str],
    project: Project,
    at: Project,
    update: Update,
    findings: Findings,
) -> None:
    """
    From every release: what is ours is as if it had been chosen at once, the part's seeds are
    there, and nothing of the team's is another. A second time changes nothing, and brings back no
    seed that the team deleted; unchosen, what is ours goes, and seeds stay. The project's own check
    is green, where nothing is left to be wired.
    """
    version, name, state = case
    is_edited = state == "edited"
    before, chosen = LATER[name]
    folder = project(version, EDITS if is_edited else (), **before)
    fresh = contents(at(NEXT, **before | chosen))
    held, old = contents(folder), contents(at(version, **before))
    new = {each for each in fresh.keys() - contents(at(NEXT, **before)).keys() if is_seed(each)}
    # What an older release gave to a job alone stays as it is, and so does its first migration.
    new -= {*held, *([FIRST_STEP] if before.keys() & WITH_DATABASE.keys() else [])}

    update(folder, **chosen)

    assert conflicts(folder) == []
    # What is ours of the choice before goes, also where the team had edited it.
    gone = {f"{each}: is gone" for each in old.keys() - fresh.keys()}
    assert {*losses(folder, arriving=new)} <= gone
    there = contents(folder)
    assert {each: there[each] for each in new} == {each: fresh[each] for each in new}
    if not is_edited:
        assert ours(folder) == ours(at(NEXT, **before | chosen))
    differing = {each for each in {*old, *fresh} if old.get(each) != fresh.get(each)}
    # A migration may rename something in a seed.
    may = new | {each for each in differing if not is_seed(each)}
    may |= {each for each, text in held.items() if carried(text.decode()) != text.decode()}
    assert statuses(folder).keys() <= may
    if name in WIRED and not is_edited:
        assert findings(folder, formatted=False) == ""

    for index, each in enumerate(sorted(new)):
        if index % 2:
            (folder / each).unlink()
        else:
            (folder / each).write_text("# mine\n")
    commit(folder, "again")
    update(folder, **chosen)
    assert statuses(folder) == {}

    update(folder, **_as_it_was(before, chosen))
    assert conflicts(folder) == []
    # Without a database notes are kept in memory, which is a choice, too.
    assert {each for each in statuses(folder) if is_seed(each)} <= {MEMORY}
    if not is_edited:
        assert ours(folder) == ours(at(NEXT, **before))
    assert {each for each in held if is_seed(each)} <= contents(folder).keys()


def _as_it_was(before: dict[str, Any], chosen: dict[str, Any]) -> dict[str, Any]:
    """
    The answers that undo a choice.
    """
    defaults: dict[str, Any] = {
        "processes": ["web"],
        "database": "none",
        "telemetry": [],
        "deploy": ["compose"],
        "ci": "github",
    }
    return {name: before.get(name, defaults[name]) for name in chosen}
