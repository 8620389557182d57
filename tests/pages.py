"""
The how-to pages, whose commands the tests run as they stand.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

from harness import ROOT, clean

__all__ = ["blocks", "paste", "surroundings"]

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
    commands: str, cwd: Path, *, check: bool = True, **environment: str
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
