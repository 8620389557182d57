"""
The releases of the template, as tags of a repository of their own: a clone may have none.
"""

import os
import subprocess
import tomllib
from pathlib import Path

import yaml
from harness import ROOT

__all__ = ["NEXT", "RELEASES", "add_release", "crosses_migration", "git", "make_repository"]

RELEASES: dict[str, str] = tomllib.loads((ROOT / "releases.toml").read_text())
"""The commit of each version, oldest first."""

NEXT = "99.0.0"
"""What the tests call the working tree, as if it were released now."""

# The same tree is the same commit, whoever makes it and when.
_IDENTITY = {
    f"GIT_{who}_{what}": value
    for who in ("AUTHOR", "COMMITTER")
    for what, value in (
        ("NAME", "test"),
        ("EMAIL", "test@example.com"),
        ("DATE", "2026-01-01T00:00:00Z"),
    )
}


def crosses_migration(old: str, new: str) -> bool:
    """
    Whether an update from *old* to *new* runs a migration, and so needs trust: only then may a test
    give it.
    """
    migrations = yaml.safe_load((ROOT / "copier.yml").read_text()).get("_migrations", [])
    return any(_parts(old) < _parts(each["version"]) <= _parts(new) for each in migrations)


def _parts(version: str) -> list[int]:
    return [int(part) for part in version.split(".")]


def git(*arguments: str | Path, cwd: Path, **environment: str) -> str:
    """
    What git prints, without the end of the line.
    """
    ended = subprocess.run(
        ["git", *arguments],
        cwd=cwd,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout.rstrip("\n")


def make_repository(folder: Path) -> Path:
    """
    A bare repository of the template in *folder*, which must not be there, with a tag for each
    release, and the working tree, with what is not committed, as the release NEXT.

    Raises AssertionError where a release's commit is missing, as in a shallow clone.
    """
    git("clone", "--quiet", "--bare", "--shared", "--no-tags", ROOT, folder, cwd=ROOT)
    for version, commit in RELEASES.items():
        git("tag", f"v{version}", commit, cwd=folder)
    add_release(folder, ROOT, NEXT)
    return folder


def add_release(repository: Path, tree: Path, version: str) -> None:
    """
    Release what is in the folder *tree*, but for what its .gitignore names, on top of the newest.
    """
    there = {"GIT_DIR": str(repository), "GIT_WORK_TREE": str(tree)}
    git("add", "--all", ".", cwd=tree, **there)
    written = git("write-tree", cwd=tree, **there)
    command = ("commit-tree", written, "-p", "HEAD", "-m", f"Release {version}")
    commit = git(*command, cwd=tree, **there, **_IDENTITY)
    git("update-ref", "HEAD", commit, cwd=repository)
    git("tag", f"v{version}", commit, cwd=repository)
