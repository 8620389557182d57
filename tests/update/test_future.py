"""
What the releases so far did not try: a next one that changes everything around the team's lines.
"""

import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import copier
import pytest
from harness import ROOT
from releases import NEXT, RELEASES
from selection import others_nightly
from update.edits import EDITS
from update.future import FUTURE
from update.losses import commit, conflicts, contents, losses, move, ours, statuses

Project = Callable[..., Path]
Update = Callable[..., None]

PY_TYPED = "src/order_desk/py.typed"
PAGE = ROOT / "docs" / "reference" / "conflicts.md"

EVERYTHING = {
    "processes": ["web", "worker", "job"],
    "database": "postgresql",
    "telemetry": ["sentry", "opentelemetry"],
    "deploy": ["compose", "kubernetes", "systemd", "nomad"],
}
CHOSEN: list[Any] = others_nightly(
    [
        {},
        EVERYTHING,
        EVERYTHING | {"ci": "gitlab"},
        {"processes": ["web", "job"]},
        {"processes": ["job"]},
    ],
    2,
)

# A name in docs/reference/conflicts.md, the file, and the edit: a pattern and what it becomes.
UNAVOIDABLE = {
    "bound": ("pyproject.toml", r'"uvicorn>=[0-9.]+', '"uvicorn>=0.54.0'),
    "block": ("pyproject.toml", r'(    "orjson.*\n)', r'\1    "zstandard>=0.25",\n'),
    "image": ("Dockerfile", r"(ARG BASE_IMAGE=).*", r"\1registry.example.com/python:3.13"),
    "rule": ("AGENTS.md", r"(- A test's docstring .*\n)", r"\1- Ask twice.\n"),
    "action": (".github/workflows/ci.yml", "checkout@[0-9a-f]{40}", f"checkout@{'1' * 40}"),
    "hot-fix": ("src/order_desk/chassis/probe.py", r"Ask the process", "Ask that process"),
    "new file": ("tests/system/test_next.py", r"\A", '"""\nOurs.\n"""\n'),
}


@pytest.mark.parametrize("answers", CHOSEN)
def test_nasty_release_takes_nothing(
    answers: dict[str, Any], project: Project, at: Project, future: Path, tmp_path: Path
) -> None:
    """
    Every dependency's bound moves, one comes and one goes at the end of each block, images move,
    each comment, a setting and a question are new, and every file has another line: no conflict,
    and with all edits together nothing of the team's is lost.
    """
    folder, fresh = project(NEXT, EDITS, **answers), tmp_path / "order-desk"
    move(folder, future)
    told: dict[str, Any] = {"defaults": True, "quiet": True, "vcs_ref": f"v{FUTURE}"}

    copier.run_update(folder, overwrite=True, **told)

    assert conflicts(folder) == []
    assert losses(folder) == []
    copier.run_copy(future.as_uri(), fresh, data=answers, **told)
    commit(fresh, "pristine")
    before, after = (contents(each) for each in (at(NEXT, **answers), fresh))
    # Seeds changed, too, and none of that arrived.
    assert [name for name in before if before[name] == after.get(name)] == [PY_TYPED]
    assert statuses(folder).keys() == {*ours(at(NEXT, **answers)), *ours(fresh)} - {PY_TYPED}
    assert "pager: nobody" in (folder / ".copier-answers.yml").read_text()
    merged = tomllib.loads((folder / "pyproject.toml").read_text())
    names = [re.split("[>=]", line)[0] for line in merged["project"]["dependencies"]]
    assert names[-2:] == ["anyio", "cachetools"]
    assert "httpx2" not in names


@pytest.mark.parametrize("name", others_nightly(UNAVOIDABLE))
def test_unavoidable_conflict(name: str, project: Project, future: Path) -> None:
    """
    Where a team edited the very line that the template changes, that one file is in conflict:
    git has it as unmerged, where copier's last line sends people to look; `.ci/run check` refuses
    it, and the page of conflicts tells of it.
    """
    path, pattern, new = UNAVOIDABLE[name]
    folder = project(NEXT)
    move(folder, future)
    text = (folder / path).read_text() if (folder / path).exists() else ""
    edited, count = re.subn(pattern, new, text)
    (folder / path).write_text(edited)
    commit(folder, "edited")
    assert count

    ended = copier_update(folder)

    assert conflicts(folder) == [path]
    assert statuses(folder)[path] in {"UU", "AA"}
    assert "git status --short" in ended.stderr
    checked = subprocess.run(
        [".ci/run", "check"], cwd=folder, capture_output=True, text=True, check=False
    )
    assert checked.returncode == 1
    assert f"{path}:" in checked.stderr
    assert f"| {name} |" in PAGE.read_text()


def test_file_that_the_template_takes_away(project: Project, future: Path) -> None:
    """
    What nobody tells: a file of ours that the template drops goes, also if the team edited it. Git
    shows it.
    """
    folder = project(NEXT, **EVERYTHING)
    move(folder, future)
    (folder / "deploy" / "compose" / "role.sh").write_text("# mine\n")
    commit(folder, "edited")

    copier_update(folder)

    assert statuses(folder)["deploy/compose/role.sh"] == " D"
    assert conflicts(folder) == []


@pytest.mark.skipif("0.1.0" not in RELEASES, reason="a case of 0.1.0 alone")
def test_first_layout(project: Project, update: Update) -> None:
    """
    From 0.1.0, lines of the team that lie beside the next service in `compose.yaml` conflict once.
    """
    folder = project("0.1.0", ["add_variable"], database="postgresql")

    update(folder)

    assert conflicts(folder) == ["compose.yaml"]
    assert "| first layout |" in PAGE.read_text()


@pytest.mark.nightly
def test_description_beside_the_version(project: Project, update: Update) -> None:
    """
    Another description conflicts with the team's version: the lines touch.
    """
    folder = project(NEXT)
    text = (folder / "pyproject.toml").read_text()
    (folder / "pyproject.toml").write_text(text.replace('"0.1.0"', '"2.0.0"', 1))
    commit(folder, "edited")

    update(folder, description="Does another thing.")

    assert conflicts(folder) == ["pyproject.toml"]
    assert "| description |" in PAGE.read_text()


def copier_update(project: Path) -> subprocess.CompletedProcess[str]:
    """
    The command, as a person calls it.
    """
    command: list[str | Path] = [Path(sys.executable).parent / "copier", "update", "--defaults"]
    return subprocess.run(command, cwd=project, capture_output=True, text=True, check=True)
