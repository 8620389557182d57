"""
A service that drops the template: what is pasted is docs/how-to/leave.md.
"""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from harness import ROOT
from pages import World, blocks, commit, paste
from releases import NEXT, git
from selection import others_nightly

from questions import QUESTIONS

PAGE = "leave"
SOURCE = "https://git.example.com/upstream/fiveweeks.git"
WHOLE = {name: QUESTIONS[name][-1] for name in ("processes", "database", "telemetry", "deploy")}
covers = pytest.mark.covers("docs/how-to/leave.md")


@pytest.fixture(name="world", scope="module")
def _world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("leaving"))


@pytest.fixture(name="leave")
def _leave(world: World, tmp_path: Path) -> Callable[..., Path]:
    """
    Make a service, declare it, and have it leave as the page says; its checks and tests run with
    *is_tested* only.
    """

    def leave(*, is_tested: bool, **answers: Any) -> Path:
        project = tmp_path / "order-desk"
        data = tmp_path / "answers.yml"
        data.write_text(yaml.safe_dump(answers))
        copy = f"--defaults --vcs-ref v{NEXT} --data-file {data} {SOURCE} {project}"
        world.paste(f"uvx --from copier copier copy --quiet {copy}", tmp_path)
        declared = project / "ops" / "service.yaml"
        declared.write_text(declared.read_text().replace("<A, B or C>", "C"))
        world.paste("uv sync --quiet", project)
        commit(project)
        (take,) = blocks(PAGE, "Take with you")
        delete, renovate = blocks(PAGE, "Delete")
        (mend,) = blocks(PAGE, "Make it yours")
        world.paste(take, project)
        world.paste(delete, project)
        subprocess.run([sys.executable, "-c", renovate], cwd=project, check=True)
        said = world.paste(mend.replace(".ci/run", ".ci/run" if is_tested else ":"), project)
        assert is_tested == (" passed" in said)
        return project

    return leave


def red(project: Path) -> set[str]:
    """
    The items of the checklists that fail or could not be looked at.
    """
    ended = subprocess.run(
        [".venv/bin/python", "-m", "ops", "checklist", "run", "--json"],
        cwd=project,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode in {0, 1, 2}, ended.stderr
    return {
        item["id"] for item in json.loads(ended.stdout) if item["result"] in {"fail", "unknown"}
    }


@pytest.mark.parametrize("ci", others_nightly(["github", "gitlab"]))
def test_nothing_names_the_template(leave: Callable[..., Path], world: World, ci: str) -> None:
    """
    What is left names the template only where the page says so; no checklist is red because of it,
    Renovate looks after the pipeline, and an update ends with an error and changes nothing.
    """
    project = leave(is_tested=False, ci=ci)

    named = git("grep", "-l", "-i", "-E", "copier|fiveweeks", cwd=project).split()
    listed = (ROOT / "docs" / "how-to" / "leave.md").read_text()
    unlisted = [
        name for name in named if f"`{name}`" not in listed and not name.startswith("ops/tools/")
    ]
    assert unlisted == []
    for path in (path for path in project.glob(".ci/*.yml") if path.is_file()):
        jobs = yaml.safe_load(path.read_text())
        assert {"check", "test", "publish"} <= {*jobs}
        assert not {"update", "propose"} & {*jobs}
    assert (project / "docs" / "reference" / "events.md").exists()
    assert "template" not in (project / "README.md").read_text()
    assert not {name for name in red(project) if "template" in name}
    rules = json.loads((project / "renovate.json").read_text())["packageRules"]
    assert rules
    assert all(rule.get("enabled", True) for rule in rules)
    update = paste("uvx --from copier copier update", project, world.environment, check=False)
    assert update.returncode != 0
    command = [".venv/bin/python", "-m", "ops", "update"]
    asked = subprocess.run(command, cwd=project, capture_output=True, text=True, check=False)
    assert asked.returncode in {1, 78}, asked.stderr
    assert ".copier-answers.yml" in asked.stderr
    assert "Traceback" not in asked.stderr
    assert git("status", "--porcelain", cwd=project) == ""


def test_without_the_page_checklists_are_red(world: World, tmp_path: Path) -> None:
    """
    Who deletes the answers and nothing else is told by the checklists.
    """
    project = tmp_path / "order-desk"
    copy = f"--defaults --vcs-ref v{NEXT} {SOURCE} {project}"
    world.paste(f"uvx --from copier copier copy --quiet {copy}; cd {project}; uv sync -q", tmp_path)
    declared = project / "ops" / "service.yaml"
    declared.write_text(declared.read_text().replace("<A, B or C>", "C"))
    (project / ".copier-answers.yml").unlink()
    commit(project)

    assert "template-version" in red(project)


@covers
@pytest.mark.parametrize(
    "answers",
    others_nightly([{**WHOLE, "ci": "gitlab"}, {}]),
    ids=lambda answers: "whole" if answers else "default",
)
def test_tests_are_green_afterwards(
    leave: Callable[..., Path], start_in: Callable[..., Any], answers: dict[str, Any]
) -> None:
    """
    After leaving, all checks and tests of the service pass, and it serves.
    """
    project = leave(is_tested=True, **answers)

    if not answers:
        service = start_in(project)
        assert service.get("/v1/notes").status == 200
        assert service.stop() == 0
