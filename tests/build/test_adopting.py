"""
The template in a service that was there before: what is pasted is docs/how-to/adopt.md.
"""

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from harness import ROOT
from pages import World, blocks, commit, conflicts

PAGE = "adopt"
BEFORE = ROOT / "tests" / "build" / "parcel_desk"
AFTER = "100.0.0"
OVERWRITTEN = [
    ".github/workflows/ci.yml",
    ".gitignore",
    "Dockerfile",
    "README.md",
    "pyproject.toml",
]


@pytest.fixture(name="world", scope="module")
def _world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("adopting"))


@pytest.fixture(name="old")
def _old(tmp_path: Path) -> Path:
    """
    A service as others write them, committed.
    """
    folder = tmp_path / "parcel-desk"
    shutil.copytree(BEFORE, folder, ignore=shutil.ignore_patterns("__pycache__", ".*_cache"))
    commit(folder)
    return folder


@pytest.mark.covers("docs/how-to/adopt.md", "tests/build/parcel_desk/*")
def test_adopt(world: World, old: Path, start_in: Callable[..., Any]) -> None:
    """
    Step by step as the page says: nothing of the service is lost, its endpoints answer under the
    chassis as they did, all tests are green, and the next update comes without a conflict.
    """
    for number, block in enumerate(blocks(PAGE, "Make room")):
        assert number == 0
        world.paste(block, old)
    lay, bring_back = blocks(PAGE, "Lay the template over it")
    assert world.paste(lay, old).split() == OVERWRITTEN
    world.paste(bring_back, old)
    turn, web, settings, clean = blocks(PAGE, "Put your routes into the chassis")
    world.paste(turn, old)
    package = old / "src" / "parcel_desk"
    (package / "web.py").write_text(web)
    (package / "settings.py").write_text(settings)
    world.paste(clean, old)
    said = world.paste(blocks(PAGE, "Let old code pass")[0], old)

    assert " passed" in said
    assert "A preview of " in said
    assert " skipped" not in said
    changes = git_lines("diff", "--name-status", "--find-renames=50%", "main", cwd=old)
    assert not [line for line in changes if line.startswith("D")]
    for line in (BEFORE / ".gitignore").read_text().splitlines():
        assert line in (old / ".gitignore").read_text().splitlines()
    assert (old / "README.md").read_text() == (BEFORE / "README.md").read_text()
    assert os.access(old / "scripts" / "announce-preview", os.X_OK)
    assert "tzdata" in (old / "Dockerfile").read_text()
    linted = subprocess.run(
        ["hadolint", "Dockerfile"], cwd=old, capture_output=True, text=True, check=False
    )
    assert linted.returncode == 0, linted.stdout

    def look(project: Path) -> None:
        service = start_in(project)
        assert service.get("/health").json == {"ok": True, "depot": "north"}
        assert service.get("/quote?grams=1001&more=1").json == {"cents": 900, "weight": "1 kB"}
        sent = service.post_json("/parcels", {"to": "Utrecht", "grams": "300", "more": 1})
        assert sent.status == 201
        assert sent.json == {"number": sent.json["number"], "to": "Utrecht", "grams": 300}
        assert service.get(f"/parcels/{sent.json['number']}").json == sent.json
        unknown = service.get("/parcels/none")
        assert (unknown.status, unknown.json["detail"]) == (404, "no such parcel")
        assert service.stop() == 0

    look(old)
    chassis = "template/src/{{ package_name }}/chassis/exits.py"
    world.release(
        AFTER,
        (chassis, '"""\n', '"""\nNext. '),
        ("template/Dockerfile.jinja", "{{ uv_image }}:0.13", "{{ uv_image }}:0.14"),
        ("template/pyproject.toml.jinja", '"orjson>=3.13,<4"', '"orjson>=3.13,<5"'),
    )
    world.paste("uvx --from copier copier update --quiet --defaults", old)

    assert not conflicts(old)
    assert "Next. " in (package / "chassis" / "exits.py").read_text()
    assert git_lines("status", "--porcelain", cwd=old) == [
        f" M {name}"
        for name in (
            ".copier-answers.yml",
            "Dockerfile",
            "pyproject.toml",
            "src/parcel_desk/chassis/VERSION",
            "src/parcel_desk/chassis/exits.py",
        )
    ]
    look(old)


def git_lines(*arguments: str, cwd: Path) -> list[str]:
    """
    What git prints, line by line.
    """
    command = ["git", *arguments]
    return subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, check=True
    ).stdout.splitlines()


def test_nothing_is_overwritten_unasked(world: World, old: Path) -> None:
    """
    At no terminal and without `--overwrite` copier stops at the first file that is there, and what
    the page says takes back what it left.
    """
    (block, _) = blocks(PAGE, "Lay the template over it")
    copy = block.splitlines()[0]

    said = world.paste(copy.replace("--overwrite ", ""), old, check=False)
    left = git_lines("status", "--porcelain", cwd=old)
    world.paste("git clean -fdq", old)

    assert "Interactive session required" in said
    assert left
    assert all(line.startswith("??") for line in left)
    assert git_lines("status", "--porcelain", cwd=old) == []


def test_what_is_overwritten_is_told_and_in_git(world: World, old: Path) -> None:
    """
    With `--overwrite`, what the service had, too, is listed, and one command takes all back.
    """
    (make_room,) = blocks(PAGE, "Make room")
    lay, _ = blocks(PAGE, "Lay the template over it")
    world.paste(make_room, old)

    listed = world.paste(lay, old).split()
    world.paste("git reset --quiet --hard; git clean -fdq; git switch --quiet main", old)

    assert listed == OVERWRITTEN
    for path in (path for path in BEFORE.rglob("*") if path.is_file()):
        if "__pycache__" not in path.parts:
            assert (old / path.relative_to(BEFORE)).read_bytes() == path.read_bytes()
    assert git_lines("status", "--porcelain", cwd=old) == []
