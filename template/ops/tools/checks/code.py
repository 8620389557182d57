"""
Checks of what is in the repository.
"""

import subprocess

from ops.tools.finding import Finding, fails, not_yet, passes
from ops.tools.project import COMMAND_SECONDS, Project

__all__ = ["lock_file"]


def lock_file(project: Project) -> Finding:
    """
    uv.lock is there and says what pyproject.toml asks for.
    """
    if not (project.root / "uv.lock").exists():
        return not_yet("there is no uv.lock", next="run `uv lock`, and commit it")
    command = ["uv", "lock", "--check", "--offline"]
    ended = subprocess.run(
        command,
        cwd=project.root,
        capture_output=True,
        text=True,
        check=False,
        timeout=COMMAND_SECONDS,
    )
    if ended.returncode:
        said = (ended.stderr.strip().splitlines() or [""])[-1]
        return fails(f"`uv lock --check` says {said!r}", next="run `uv lock`, and commit it")
    return passes("uv.lock agrees with pyproject.toml")
