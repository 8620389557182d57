"""
The project that checks look at: its files, its declaration, its command.
"""

import json
import os
import re
import subprocess
import sys
import tomllib
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import Any

from ops.tools.declaration import PATH, Declaration, read

__all__ = ["Project", "problems"]

# A check never waits longer for a command of the service. This is no measure of the service: on a
# busy machine a command that takes one second may take ten times as long.
COMMAND_SECONDS = 60.0


@dataclass(frozen=True)
class Project:
    """
    The checkout at *root*; what is read or asked is kept, so that many checks cost as much as one.
    """

    root: Path
    # Checks run at once: the first that needs the settings asks for them, the others wait for it.
    _lock: Lock = field(default_factory=Lock, repr=False, compare=False)

    @cached_property
    def now(self) -> datetime:
        return datetime.now(UTC)

    @cached_property
    def pyproject(self) -> dict[str, Any]:
        return tomllib.loads((self.root / "pyproject.toml").read_text("utf-8"))

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

    @cached_property
    def name(self) -> str:
        name: str = self.pyproject["project"]["name"]
        return name

    def said(self, path: str) -> Any:
        """
        What the declaration says at *path* below `spec`; None for nothing and for a placeholder.
        """
        return self.declaration.get(path)

    @cached_property
    def _shown(self) -> subprocess.CompletedProcess[str]:
        # Its limits can be compared without the database of production.
        url = {"APP_DATABASE_URL": "postgresql://localhost/assumed"} if self.has_database else {}
        return self.run("config", "show", "--all", **(url | os.environ))

    @cached_property
    def settings(self) -> dict[str, str]:
        """
        What is in force here; a database that nobody named is assumed. Empty where *problems* has
        an entry.
        """
        with self._lock:
            lines = self._shown.stdout.splitlines()
        pairs = (line.partition("  # ")[0].partition("=") for line in lines if "  # " in line)
        return {name: text for name, _, text in pairs}

    @cached_property
    def problems(self) -> dict[str, str]:
        """
        What is wrong with the settings here, by variable.
        """
        with self._lock:
            return problems(self._shown)

    def texts(self, *patterns: str) -> dict[str, str]:
        """
        The files of these patterns, by name, without comments: lines that in Markdown are headings.
        """
        found = (path for pattern in patterns for path in sorted(self.root.glob(pattern)))
        texts = {self.name_of(path): path.read_text("utf-8") for path in found if path.is_file()}
        return {
            name: text if name.endswith(".md") else re.sub(r"(?m)^\s*#.*\n?", "", text)
            for name, text in texts.items()
        }

    def lines(self, name: str) -> list[str]:
        """
        Of a file that may be missing, without blanks around.
        """
        path = self.root / name
        return [*map(str.strip, path.read_text("utf-8").splitlines())] if path.exists() else []

    def name_of(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix()

    def git(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """
        Asks nobody for a password; raises subprocess.TimeoutExpired.
        """
        return self.call("git", *arguments, GIT_TERMINAL_PROMPT="0")

    def run(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """
        A command of the service, such as `config show`; raises subprocess.TimeoutExpired.
        """
        return self.call(sys.executable, "-m", self.package, *arguments, **environment)

    def call(self, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """
        A command in the checkout, which reads no input; raises subprocess.TimeoutExpired.
        """
        return subprocess.run(
            command,
            cwd=self.root,
            env=os.environ | environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=COMMAND_SECONDS,
        )


def problems(ended: subprocess.CompletedProcess[str]) -> dict[str, str]:
    """
    What a command logged of variables that are wrong.
    """
    lines = (ended.stdout + ended.stderr).splitlines()
    told = [json.loads(line) for line in lines if line.startswith("{")]
    return {each["variable"]: each["problem"] for each in told if "variable" in each}
