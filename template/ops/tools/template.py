"""
The template that this project was made from: what is recorded of it, and commands that ask it.
"""

import os
import re
import signal
import subprocess
from typing import Any

import yaml

from ops.tools.declaration import Malformed
from ops.tools.finding import hide
from ops.tools.project import Project

__all__ = ["ANSWERS", "COPIER", "UNAVAILABLE", "Refusal", "answers", "call", "last", "release"]

ANSWERS = ".copier-answers.yml"
# The oldest copier that the template is tested with, and not yet the next major one.
COPIER = ("uvx", "--quiet", "--from", "copier>=9.19.1,<10", "copier")
# What can't be had: git, copier, the template, its tag.
UNAVAILABLE = 69
# For one command: a first download of copier, or of a big template, fits in.
LIMIT_SECONDS = 600.0


class Refusal(Exception):  # noqa: N818  # a state, not a fault of ours
    """
    What was asked for can't be done here and now, and the exit code that says so.
    """

    def __init__(self, said: str, code: int) -> None:
        super().__init__(hide(said))
        self.code = code


def release(tag: str) -> tuple[int, ...]:
    """
    To be compared; nothing for what is no release. An organisation's 1.2.0.post1 follows 1.2.0.
    """
    found = re.fullmatch(r"v?(\d+)\.(\d+)\.(\d+)(?:\.post(\d+))?(?:-\d+-g[0-9a-f]+)?", tag)
    return tuple(int(number or -1) for number in found.groups()) if found else ()


def answers(project: Project) -> dict[str, Any] | None:
    """
    What is recorded, None where nothing is, as in a project that left; raises Malformed.
    """
    path = project.root / ANSWERS
    if not path.exists():
        return None
    line, said = 1, "is no mapping with _src_path and _commit"
    try:
        found = yaml.safe_load(path.read_bytes())
        if isinstance(found, dict) and all(
            found.get(name) and isinstance(found[name], str) for name in ("_src_path", "_commit")
        ):
            return found
    except (yaml.YAMLError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        line, said = mark.line + 1 if mark else 1, "can't be read as YAML"
    raise Malformed(
        [f"{ANSWERS}:{line}: {said}: bring it back with git, and don't edit it by hand"]
    )


def call(project: Project, *command: str) -> subprocess.CompletedProcess[str]:
    """
    What a command said; it is ended with all that it started, and asks nobody. Raises Refusal
    where it is not there, or takes too long.
    """
    # uvx does not look at the project's.
    indexes = project.pyproject.get("tool", {}).get("uv", {}).get("index", [])
    index = {"UV_DEFAULT_INDEX": "{name}={url}".format(**indexes[0])} if indexes else {}
    try:
        process = subprocess.Popen(
            command,
            cwd=project.root,
            env=index | os.environ | {"GIT_TERMINAL_PROMPT": "0"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
    except OSError as error:
        told = f"{command[0]} can't be run ({error.strerror}): install it"
        raise Refusal(told, UNAVAILABLE) from error
    try:
        out, err = process.communicate(timeout=LIMIT_SECONDS)
    except subprocess.TimeoutExpired as error:
        told = f"`{command[0]}` took longer than {LIMIT_SECONDS:g} s"
        raise Refusal(told, UNAVAILABLE) from error
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
    return subprocess.CompletedProcess(command, process.returncode, out, err)


def last(ended: subprocess.CompletedProcess[str]) -> str:
    """
    The last line that it said: of a traceback, what is wrong.
    """
    return ((ended.stderr or ended.stdout).strip().splitlines() or ["nothing was said"])[-1]
