"""
The check of an updated project: its own `.ci/run check`, after the formatter, as
docs/how-to/update.md says.
"""

import os
import subprocess
import sys
from pathlib import Path

from harness import clean

__all__ = ["prepare", "red"]

# The tools come from the environment of these tests, so no project needs one of its own. Whether
# the lock file is current is the only step that this leaves out.
UV = """\
#!/bin/sh
[ "$1 $2" != "run --locked" ] || {{ shift 2; PATH="{tools}:$PATH" exec "$@"; }}
[ "$1 $2" = "lock --check" ]
"""


def prepare(folder: Path) -> dict[str, str]:
    """
    An environment whose `uv` starts the tools of these tests, which keep in *folder* what they know
    of dependencies and of files that they have seen.
    """
    command = folder / "uv"
    command.write_text(UV.format(tools=Path(sys.executable).parent))
    command.chmod(0o755)
    environment: dict[str, str] = clean(dict(os.environ))
    return environment | {
        "PATH": f"{folder}:{os.environ['PATH']}",
        "MYPY_CACHE_DIR": str(folder / "mypy"),
        "RUFF_CACHE_DIR": str(folder / "ruff"),
    }


def red(project: Path, environment: dict[str, str], *, formatted: bool) -> str:
    """
    What `.ci/run check` finds in an updated project, or nothing.
    """
    lock = project / "uv.lock"
    is_new = not lock.exists()
    lock.touch()
    commands = (["uv", "run", "--locked", "ruff", "format", "--quiet"], [".ci/run", "check"])
    try:
        for command in commands if formatted else commands[1:]:
            ended = subprocess.run(
                command, cwd=project, env=environment, capture_output=True, text=True, check=False
            )
            if ended.returncode:
                return ended.stdout + ended.stderr
    finally:
        if is_new:
            lock.unlink()
    return ""
