"""
The how-to pages, whose commands the tests run as they stand.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

from harness import ROOT, clean
from releases import git, make_repository

__all__ = ["World", "blocks", "commit", "conflicts", "paste", "surroundings"]

# Addresses of pages, which lead to a folder of the test.
ADDRESS = "https://git.example.com/"


def blocks(page: str, heading: str) -> list[str]:
    """
    What is set as code below this heading of a how-to, in order; commands are indented, and other
    texts fenced.
    """
    text = (ROOT / "docs" / "how-to" / f"{page}.md").read_text()
    section = re.split(r"(?m)^#+ ", text.partition(f"# {heading}\n")[2])[0]
    fenced = r"^```[a-z]*\n([\s\S]*?)^```$"
    found = re.findall(rf"{fenced}|((?:^    .*\n(?:\n(?=    ))?)+)", section, re.MULTILINE)
    return [text or re.sub(r"(?m)^    ", "", indented).strip() for text, indented in found]


def surroundings(folder: Path, origin: Path | str) -> dict[str, str]:
    """
    An environment in which the addresses of the pages lead to *origin*, and `uvx` starts the copier
    that is tested; what it needs lies in *folder*.
    """
    folder.mkdir(exist_ok=True)
    command = folder / "uvx"
    # As in `uvx --from REQUIREMENT COMMAND ...`.
    command.write_text(f'#!/bin/sh\nshift 2\nexec "{Path(sys.executable).parent}/$@"\n')
    command.chmod(0o755)
    (folder / "settings.yml").write_text("{}\n")
    config = folder / "gitconfig"
    where = origin.as_uri() if isinstance(origin, Path) else origin
    config.write_text(
        "[user]\n name = test\n email = test@example.com\n[init]\n defaultBranch = main\n"
        f'[url "{where}/"]\n insteadOf = {ADDRESS}\n'
    )
    return {
        "COPIER_CACHE_DIR": str(folder / "copier"),
        "COPIER_SETTINGS_PATH": str(folder / "settings.yml"),
        "GIT_CONFIG_GLOBAL": str(config),
        "PATH": f"{folder}:{os.environ['PATH']}",
    }


def paste(
    commands: str, cwd: Path, environment: dict[str, str], *, check: bool = True
) -> subprocess.CompletedProcess[str]:
    """
    Run them as if a person had pasted them, at no terminal; raises AssertionError with what they
    said when one fails and *check* is true.
    """
    ended = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", commands],
        cwd=cwd,
        env=clean(dict(os.environ)) | environment,
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    assert not check or ended.returncode == 0, ended.stdout + ended.stderr
    return ended


class World:
    """
    A folder with what the addresses of the pages lead to, and the environment for it. Both our
    repository and an organisation's have our releases, unless *is_acme_empty*.
    """

    def __init__(self, folder: Path, *, is_acme_empty: bool = False) -> None:
        self.folder, self.origin = folder, folder / "origin"
        for name in ("upstream", "acme"):
            (self.origin / name).mkdir(parents=True)
        self.upstream = make_repository(self.origin / "upstream" / "fiveweeks.git")
        # In a clone of another branch, what is released next is on that.
        git("branch", "--force", "main", "HEAD", cwd=self.upstream)
        git("symbolic-ref", "HEAD", "refs/heads/main", cwd=self.upstream)
        self.acme = self.origin / "acme" / "fiveweeks.git"
        if is_acme_empty:
            git("init", "--quiet", "--bare", self.acme, cwd=folder)
        else:
            self.acme.symlink_to(self.upstream, target_is_directory=True)
        self.environment = surroundings(folder / "surroundings", self.origin)

    def set(self, settings: str) -> None:
        """
        Write copier's settings.
        """
        Path(self.environment["COPIER_SETTINGS_PATH"]).write_text(settings)

    def paste(self, commands: str, cwd: Path, *, check: bool = True, **more: str) -> str:
        """
        What the commands print.
        """
        ended = paste(commands, cwd, self.environment | more, check=check)
        return ended.stdout + ended.stderr

    def release(self, version: str, *edits: tuple[str, str, str]) -> None:
        """
        Release ours once more: each edit names a file, what it has, and what it gets instead of
        the first of it.
        """
        work = self.folder / f"release-{version}"
        git("clone", "--quiet", self.upstream, work, cwd=self.folder)
        for name, old, new in edits:
            path = work / name
            assert old in path.read_text(), f"{name}: {old!r}"
            path.write_text(path.read_text().replace(old, new, 1))
        git("commit", "--quiet", "--all", "--message", f"Release {version}", cwd=work)
        git("tag", f"v{version}", cwd=work)
        git("push", "--quiet", "origin", "HEAD", f"v{version}", cwd=work)


def commit(project: Path) -> None:
    """
    Commit everything, in a repository that may be new.
    """
    git("init", "--quiet", cwd=project)
    git("add", "--all", cwd=project)
    git("commit", "--quiet", "--message", "as it is", cwd=project)


def conflicts(project: Path) -> list[str]:
    """
    Files in which an update left markers.
    """
    found = subprocess.run(
        ["git", "grep", "--untracked", "-l", "-E", "^(<<<<<<<|>>>>>>>)"],
        cwd=project,
        capture_output=True,
        text=True,
        check=False,
    )
    return found.stdout.split()
