"""
What docs/how-to/update.md says is done here, as it stands there.
"""

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from harness import ROOT, clean
from pages import blocks, surroundings
from releases import NEXT, git
from update.edits import EDITS
from update.losses import commit as commit_all
from update.losses import conflicts, contents, losses, statuses

Project = Callable[..., Path]
Findings = Callable[..., str]

PAGE = (ROOT / "docs" / "how-to" / "update.md").read_text()
# What teams do most; the tests of updates do all.
SOME = ["add_dependency", "add_variable", "rewrite_readme", "hot_fix"]


def section(heading: str) -> str:
    """
    The first commands of a section, as they are pasted.
    """
    text = PAGE.split(f"{heading}\n")[1]
    found = re.search(r"(?m)(^ {4,}.*\n)+", text)
    assert found is not None
    return found[0]


def paste(commands: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """
    Run them in bash; the first that fails ends it.
    """
    return subprocess.run(
        ["bash", "-ec", commands],
        cwd=cwd,
        env=clean(dict(os.environ)) | environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.covers("docs/how-to/update.md", "copier.yml", "hooks/*", "template/.ci/*")
def test_update_as_the_page_says(project: Project, findings: Findings) -> None:
    """
    The commands work as they are pasted: it is told that there is something new, the update keeps
    what the team did, the way back leaves nothing, and once it is committed there is nothing new.
    Its check is green, also where a migration gave lines of the team another length.
    """
    folder = project("0.2.0", SOME, processes=["web", "job"], database="postgresql")
    before = contents(folder)
    update, look, sync, form, _, commit = section(
        "# Update a service to the newest template"
    ).splitlines()
    # As the page says of this release.
    update = update.replace("update --defaults", "update --defaults --trust")
    check = section("## Before")

    asked = paste(check, folder)
    first = paste(f"{update}\n{look}", folder)
    back = paste(section("## Back"), folder)
    after_that = contents(folder)
    second = paste(f"{update}\n{sync}\n{form}\n{commit}", folder)
    again = paste(check, folder)

    for ended in (asked, first, back, second, again):
        assert ended.returncode == 0, ended.stdout + ended.stderr
    assert {*re.findall(r"\w+Warning", first.stderr)} == {"MissingFileWarning"}
    assert NEXT in asked.stdout + asked.stderr
    assert " M .copier-answers.yml" in first.stdout
    assert after_that == before
    assert f"_commit: v{NEXT}" in (folder / ".copier-answers.yml").read_text()
    assert statuses(folder) == {}
    assert [loss for loss in losses(folder) if not loss.endswith("a seed was touched")] == []
    assert "up-to-date" in again.stdout + again.stderr
    assert findings(folder, formatted=False) == ""


def be_dirty(folder: Path) -> None:
    (folder / "README.md").write_text("mine\n")


def work_on_something(folder: Path) -> None:
    """
    A commit on another branch, which is checked out.
    """
    git("switch", "--quiet", "--create", "something", cwd=folder)
    (folder / "idea.txt").write_text("half done\n")
    git("add", "--all", cwd=folder)
    git("commit", "--quiet", "--message", "An idea", cwd=folder)


def delete_ops(folder: Path) -> None:
    """
    As docs/how-to/checklists.md says.
    """
    shutil.rmtree(folder / "ops")
    bounds = folder / "pyproject.toml"
    bounds.write_text(bounds.read_text().replace('"src", "tests", "ops"', '"src", "tests"'))
    commit_all(folder, "edited")


def have_a_fault(folder: Path) -> None:
    """
    A type error of the team's own.
    """
    (folder / "src" / "order_desk" / "faulty.py").write_text('"""\nFaulty.\n"""\n\nONE: int = ""\n')
    commit_all(folder, "edited")


def be_current(folder: Path) -> None:
    """
    Nothing but what the newest release brought.
    """
    assert f"v{NEXT}" in (folder / ".copier-answers.yml").read_text()


SOME_PARTS = {"processes": ["web", "job"], "database": "postgresql"}
# But for the one that conflicts in a service of 0.1.0: docs/reference/conflicts.md.
USUAL = [name for name in EDITS if name != "change_width"]
# What each checkout is, what is done to it, and what the table must say.
FLEET: dict[str, tuple[str, list[str], dict[str, Any], Callable[[Path], None] | None, str]] = {
    "billing": ("0.1.0", USUAL, {}, work_on_something, "updated"),
    "conflicting": ("0.1.0", ["add_variable"], {"database": "postgresql"}, None, "conflicts"),
    "current": (NEXT, [], {}, be_current, "nothing new"),
    "dirty": ("0.2.0", [], {}, be_dirty, "not updated: commit or stash your changes"),
    "faulty": ("0.3.0", [], {}, have_a_fault, "updated, but .ci/run check is red"),
    "orders": ("0.2.0", list(EDITS), SOME_PARTS, None, "updated"),
    "payments": ("0.2.0", [], SOME_PARTS, None, "updated"),
    "without-ops": ("0.1.0", [], {}, delete_ops, "updated"),
}


@pytest.mark.covers("docs/how-to/update.md", "copier.yml", "hooks/*", "template/.ci/*")
def test_many_as_the_page_says(project: Project, repository: Path, tmp_path: Path) -> None:
    """
    Side by side, of every release, with a database and without: each checkout is named, starts from
    its default branch, and is updated, formatted, locked and checked on a branch of its own. A
    table says which are done. What is not is left alone, or not committed.
    """
    fleet = tmp_path / "fleet"
    fleet.mkdir()
    for name, (version, edits, answers, then, _) in FLEET.items():
        project(version, edits, **answers).rename(fleet / name)
        if then:
            then(fleet / name)
    (fleet / "no-service").mkdir()
    commands = blocks("update", "Two hundred services")[0].replace("v1.2.0", f"v{NEXT}")
    environment = surroundings(tmp_path / "surroundings", repository.parent) | {
        # One environment for all, as they have the same dependencies: to make each takes long.
        "UV_PROJECT_ENVIRONMENT": str(tmp_path / "venv"),
        "MYPY_CACHE_DIR": str(tmp_path / "mypy"),
    }

    ended = paste(commands, fleet, **environment)

    assert ended.returncode == 0, ended.stdout + ended.stderr
    logs = Path(ended.stdout.rpartition(" is in ")[2].strip().rstrip("."))
    rows = [re.split(r" {2,}", line) for line in (logs / "table").read_text().splitlines()]
    expected = [[name, f"v{version}", said] for name, (version, *_, said) in FLEET.items()]
    assert rows == expected, "".join(path.read_text()[-3000:] for path in logs.glob("*.log"))
    assert (logs / "table").read_text() in ended.stdout
    for name, (*_, said) in FLEET.items():
        assert f"{name} ...\n" in ended.stdout
        if said == "updated":
            assert git("branch", "--show-current", cwd=fleet / name) == "update-template"
            assert git("log", "-1", "--format=%s", cwd=fleet / name).endswith(f" to v{NEXT}")
            assert f"_commit: v{NEXT}" in (fleet / name / ".copier-answers.yml").read_text()
            assert statuses(fleet / name) == {}
    # Nothing of another branch came with it.
    assert not (fleet / "billing" / "idea.txt").exists()
    # Locked anew, and by this machine's index.
    assert [loss for loss in losses(fleet / "billing") if not loss.startswith("uv.lock: ")] == []
    assert statuses(fleet / "dirty") == {"README.md": " M"}
    assert conflicts(fleet / "conflicting") == ["compose.yaml"]
    assert git("rev-parse", "HEAD", cwd=fleet / "faulty") == git(
        "rev-parse", "main", cwd=fleet / "faulty"
    )
    assert not (fleet / "without-ops" / "ops").exists()


def test_more_as_the_page_says(project: Project) -> None:
    """
    A database and a worker arrive by one line.
    """
    folder = project(NEXT)

    ended = paste(section("## Choose more, or less"), folder)

    assert ended.returncode == 0, ended.stderr
    assert {"src/order_desk/worker.py", "src/order_desk/notes.py"} <= statuses(folder).keys()
