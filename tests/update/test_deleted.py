"""
What a team deleted stays deleted, whatever a release or a later choice would add to it.
"""

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from harness import ROOT
from releases import RELEASES
from selection import others_nightly
from update.losses import commit, conflicts, contents, statuses

Project = Callable[..., Path]
Update = Callable[..., None]
Findings = Callable[..., str]

# What the pages name.
DOCUMENTED = ["ops", "ops/alerts", "renovate.json"]
FOLDERS = [
    ".github/workflows",
    "deploy/kubernetes/base",
    "deploy/nomad",
    "deploy/systemd",
    "ops/alerts",
    "ops/checklists",
    "ops/dashboards",
    "ops/runbooks",
    "ops/tools",
    "tests/system",
]
PLATFORMS = {"deploy": ["compose", "kubernetes", "systemd", "nomad"]}
MORE = {"processes": ["web", "worker", "job"], "database": "postgresql"}
# What is deleted, the answers before, and what is chosen with the update.
CASES: dict[str, tuple[list[str], dict[str, Any], dict[str, Any]]] = {
    "the tools": (["ops", "renovate.json"], {}, {}),
    "each folder, and then more": (FOLDERS, PLATFORMS, MORE),
}


def delete(folder: Path, paths: list[str]) -> None:
    """
    As a team does: from git, and from what else names them.
    """
    for path in (folder / name for name in paths):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
    if not (folder / "ops" / "__main__.py").exists():
        bounds = folder / "pyproject.toml"
        bounds.write_text(bounds.read_text().replace('"src", "tests", "ops"', '"src", "tests"'))
    # What Python left there keeps the folder on a laptop.
    (folder / "ops" / "tools" / "__pycache__").mkdir(parents=True)
    commit(folder, "edited")


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("version", others_nightly(RELEASES))
def test_stays_deleted(
    version: str, name: str, *, project: Project, update: Update, findings: Findings
) -> None:
    """
    From every release: nothing comes back or arrives in a folder that the team emptied. The check
    of the project is green, where no part was chosen that a person still has to wire.
    """
    deleted, before, chosen = CASES[name]
    folder = project(version, **before)
    delete(folder, deleted)

    update(folder, **chosen)

    assert conflicts(folder) == []
    back = [each for each in statuses(folder) if each.startswith(tuple(f"{d}/" for d in deleted))]
    assert [each for each in back if each in contents(folder)] == []
    assert not (folder / "renovate.json").exists() or "renovate.json" not in deleted
    if not chosen:
        assert findings(folder) == ""


def test_brackets_in_a_path(project: Project, update: Update, tmp_path: Path) -> None:
    """
    A folder whose path would be a pattern is looked into all the same: its new files arrive.
    """
    folder = tmp_path / "orders [eu]*" / "order-desk"
    folder.parent.mkdir()
    project("0.1.0").rename(folder)

    update(folder)

    assert (folder / "ops" / "tools" / "update.py").exists()
    assert (folder / ".github" / "workflows" / "update.yml").exists()


def test_what_the_pages_allow_to_delete() -> None:
    """
    Each path that a page tells to delete, but for what leaves the template, is tried here.
    """
    named = set()
    for page in sorted((ROOT / "docs").rglob("*.md")):
        if page.name not in {"leave.md", "events.md"}:
            found = re.findall(r"[Dd]eletes? `([a-z./]+)`", page.read_text())
            # What git ignores is not the template's.
            named |= {path.rstrip("/") for path in found} - {".dev"}

    assert named == {*DOCUMENTED}
