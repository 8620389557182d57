"""
What docs/how-to/update.md says is done here, as it stands there.
"""

import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

from harness import ROOT, clean
from releases import NEXT, RELEASES, git
from update.edits import EDITS
from update.losses import contents, crosses_a_migration, losses, statuses

Project = Callable[..., Path]

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


def paste(commands: str, cwd: Path, *, trust: bool = False) -> subprocess.CompletedProcess[str]:
    """
    Run them in bash; the first that fails ends it. Updates trust where the page says so.
    """
    if trust:
        commands = commands.replace("update --defaults", "update --defaults --trust")
    return subprocess.run(
        ["bash", "-ec", commands],
        cwd=cwd,
        env=clean(dict(os.environ)),
        capture_output=True,
        text=True,
        check=False,
    )


def test_update_as_the_page_says(project: Project) -> None:
    """
    The commands work as they are pasted: it is told that there is something new, the update keeps
    what the team did, the way back leaves nothing, and once it is committed there is nothing new.
    """
    folder = project(list(RELEASES)[-1], SOME)
    before, trust = contents(folder), crosses_a_migration(folder)
    update, look, sync, _, commit = section(
        "# Update a service to the newest template"
    ).splitlines()
    check = section("## Before")

    asked = paste(check, folder)
    first = paste(f"{update}\n{look}", folder, trust=trust)
    back = paste(section("## Back"), folder)
    after_that = contents(folder)
    second = paste(f"{update}\n{sync}\n{commit}", folder, trust=trust)
    again = paste(check, folder)

    for ended in (asked, first, back, second, again):
        assert ended.returncode == 0, ended.stdout + ended.stderr
    assert {*re.findall(r"\w+Warning", first.stderr)} == {"MissingFileWarning"}
    assert NEXT in asked.stdout + asked.stderr
    assert " M .copier-answers.yml" in first.stdout
    assert after_that == before
    assert f"_commit: v{NEXT}" in (folder / ".copier-answers.yml").read_text()
    assert statuses(folder) == {}
    assert losses(folder) == []
    assert "up-to-date" in again.stdout + again.stderr


def test_many_as_the_page_says(project: Project, tmp_path: Path) -> None:
    """
    Side by side: what is clean is updated on a branch, what is not is named and left alone.
    """
    for name in ("clean", "dirty"):
        project(list(RELEASES)[-1], EDITS).rename(tmp_path / name)
    (tmp_path / "dirty" / "README.md").write_text("mine\n")

    trust = crosses_a_migration(tmp_path / "clean")
    ended = paste(section("## Two hundred services"), tmp_path, trust=trust)

    named = re.findall(r"(?m)^look at (\w+)/$", ended.stdout)
    assert named == ["dirty"], ended.stdout + ended.stderr
    assert git("branch", "--show-current", cwd=tmp_path / "clean") == "update-template"
    assert f"_commit: v{NEXT}" in (tmp_path / "clean" / ".copier-answers.yml").read_text()
    assert losses(tmp_path / "clean") == []
    assert statuses(tmp_path / "dirty") == {"README.md": " M"}


def test_more_as_the_page_says(project: Project) -> None:
    """
    A database and a worker arrive by one line.
    """
    folder = project(NEXT)

    ended = paste(section("## Choose more, or less"), folder)

    assert ended.returncode == 0, ended.stderr
    assert {"src/order_desk/worker.py", "src/order_desk/notes.py"} <= statuses(folder).keys()
