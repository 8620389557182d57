"""
The runbooks of a generated service, as a person at night uses them.
"""

import os
import re
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness import clean, slack

__all__ = ["NOT_RUN", "Person", "functions", "section"]

NOT_RUN = re.compile(r"<!-- not run: \S.* -->")
BLOCK = re.compile(r"^(?P<before>[^\n]*)\n```sh\n(?P<script>.*?)^```$", re.MULTILINE | re.DOTALL)


def functions(project: Path, platform: str) -> str:
    """
    The block of "Before you start" that one pastes on this platform; "" if it was not chosen.
    """
    books = project / "ops" / "runbooks"
    page = books / "process.md" if (books / "process.md").exists() else books / "job.md"
    titles = {"kubernetes": "Kubernetes", "nomad": "Nomad", "none": "No platform"}
    title = titles.get(platform, platform)
    found = re.findall(rf"^```sh\n(# {title}:.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)
    assert len(found) < 2
    return found[0] if found else ""


def section(project: Path, page: str, title: str) -> str:
    """
    The text of a section; raises AssertionError if there is none.
    """
    text = (project / "ops" / "runbooks" / page).read_text()
    _, found, after = text.partition(f"\n## {title}\n")
    assert found, f"{page} has no section {title}"
    return after.partition("\n## ")[0]


@dataclass(frozen=True, kw_only=True)
class Person:
    """
    Somebody on call, with a shell in which the functions for a process of this machine were pasted.
    """

    project: Path
    service: Any
    role: str = "web"
    settings: dict[str, str] = field(default_factory=dict)
    # Other process types of the machine, by role.
    beside: dict[str, Any] = field(default_factory=dict)

    def look(self, page: str, title: str, **shell: str) -> list[str]:
        """
        What each block of the step "Look" prints, stderr included. Raises AssertionError if one
        prints nothing: then its pattern does not match what it is there for.
        """
        step = section(self.project, page, title).partition("**2. Do.**")[0]
        printed = [
            self.run(found["script"], check=False, **shell) for found in BLOCK.finditer(step)
        ]
        assert printed, f"{page}#{title} has no block to look with"
        for found, text in zip(BLOCK.finditer(step), printed, strict=True):
            assert text.strip(), f"{page}#{title} prints nothing:\n{found['script']}"
        return printed

    def check(self, page: str, title: str) -> list[str]:
        """
        What each block of the step "Check" prints.
        """
        step = section(self.project, page, title).partition("**3. Check.**")[2]
        return [self.run(found["script"]) for found in BLOCK.finditer(step)]

    def run(self, script: str, *, check: bool = False, **shell: str) -> str:
        """
        What a script prints to both streams; with *check* raises AssertionError when it fails.
        """
        log = self.service.stdout.parent / "log"
        log.write_bytes(self.service.stdout.read_bytes() + self.service.stderr.read_bytes())
        pasted = functions(self.project, "none")
        pids = {self.role: self.service.process.pid}
        pids |= {role: service.process.pid for role, service in self.beside.items()}
        paths = {self.role: log} | {role: other.stdout for role, other in self.beside.items()}
        for name, values in (("pid", pids), ("log", paths)):
            filled = " ".join(f"[{role}]={value}" for role, value in values.items())
            pasted = re.sub(rf"(?m)^declare -A {name}=.*$", f"declare -A {name}=({filled})", pasted)
        pasted = re.sub(r"(?m)^role=.*$", f"role={self.role}", pasted)
        for name, value in shell.items():
            # What a section has one fill in.
            script = re.sub(rf"(?m)^{name}=\S+", f"{name}={value}", script)
        folder = self.project / ".venv" / "bin"
        ended = subprocess.run(
            ["bash", "-uo", "pipefail", "-c", pasted + script],
            env=clean(self.settings | {"PATH": f"{folder}:{os.environ['PATH']}"}),
            cwd=self.service.stdout.parent,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=slack(90),
            check=False,
        )
        assert not check or ended.returncode == 0, script + ended.stdout
        printed: str = ended.stdout
        return printed
