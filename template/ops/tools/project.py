"""
The project that checks look at: its files, its declaration, its command.
"""

import subprocess
import sys
import tomllib
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from ops.tools.declaration import PATH, Declaration, read

__all__ = ["COMMAND_SECONDS", "Project"]

# A check never waits longer for a command of the service.
COMMAND_SECONDS = 8.0


@dataclass(frozen=True)
class Project:
    """
    The checkout at *root*; what is read or asked is kept, so that many checks cost as much as one.
    """

    root: Path

    @cached_property
    def now(self) -> datetime:
        return datetime.now(UTC)

    @cached_property
    def pyproject(self) -> dict[str, Any]:
        return tomllib.loads((self.root / "pyproject.toml").read_text())

    @cached_property
    def package(self) -> str:
        """
        The service's package, as its command names it.
        """
        target: str = next(iter(self.pyproject["project"]["scripts"].values()))
        return target.partition(".")[0]

    @cached_property
    def process_types(self) -> list[str]:
        """
        Of web, worker and job those that this service has.
        """
        roots = {"web": "web", "worker": "worker", "job": "tasks"}
        folder = self.root / "src" / self.package
        return [kind for kind, root in roots.items() if (folder / f"{root}.py").exists()]

    @cached_property
    def has_database(self) -> bool:
        return (self.root / "src" / self.package / "chassis" / "database.py").exists()

    @cached_property
    def declaration(self) -> Declaration:
        """
        `ops/service.yaml`; raises Malformed.
        """
        return read(self.root / PATH)

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """
        A command of the service, such as `config show`; raises subprocess.TimeoutExpired.
        """
        return subprocess.run(
            [sys.executable, "-m", self.package, *arguments],
            cwd=self.root,
            capture_output=True,
            text=True,
            check=False,
            timeout=COMMAND_SECONDS,
        )
