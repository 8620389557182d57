"""
`update`: bring the newest release of the template, with what it asks of people; or change nothing.
"""

import argparse
import ast
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import yaml

from ops.tools.project import Project

__all__ = ["ANSWERS", "COPIER", "Refused", "read_answers", "register", "release"]

ANSWERS = ".copier-answers.yml"
# The oldest that the template is tested with, and not yet the next major one.
COPIER = "copier>=9.19.1,<10"
UNAVAILABLE, NOT_TRUSTED, CONFIGURATION = 69, 77, 78
# For each command; a first download of copier, or of a big template, fits in.
LIMIT_SECONDS = 600.0
# A change request of GitHub holds 65,536 characters.
CHANGES_MAX = 40_000
EXITS = """\
exit status:
  0   up to date, or updated and nothing is left to be decided
  1   the work tree is not clean, or the update failed; nothing was changed
  2   updated, but people must act: conflicts, what a migration left, or no uv.lock
  64  wrong usage, such as an older release
  69  the template or copier can't be reached; nothing was changed
  77  the update runs a migration of the template: look at it, then --trust
  78  .copier-answers.yml is wrong, or has an answer that is no longer valid
"""


class Refused(Exception):  # noqa: N818  # nothing is wrong with us
    """
    One sentence, with the exit status.
    """

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, kw_only=True)
class Step:
    """
    From one release to another of the template at *source*, of which *folder* is a clone.
    """

    source: str
    old: str
    new: str
    folder: Path


def release(tag: str) -> tuple[int, ...]:
    """
    To be compared; nothing for what is no release. An organisation's 1.2.0.post1 follows 1.2.0.
    """
    found = re.fullmatch(r"v?(\d+)\.(\d+)\.(\d+)(?:\.post(\d+))?(?:-\d+-g[0-9a-f]+)?", tag)
    return tuple(int(number or -1) for number in found.groups()) if found else ()


def register(commands: Any) -> None:
    """
    `update`, with its options.
    """
    one = commands.add_parser(
        "update",
        help="bring the newest release of the template",
        epilog=EXITS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    one.add_argument("--to", metavar="TAG", help="a release, such as v1.2.0 (default: the newest)")
    one.add_argument("--dry-run", action="store_true", help="only say what it would bring")
    one.add_argument("--trust", action="store_true", help="run migrations of the template")
    one.add_argument("--summary", type=Path, metavar="FILE", help="write what changed, as Markdown")
    one.set_defaults(function=_update)


def read_answers(project: Project) -> dict[str, Any]:
    """
    What the project was generated from; raises Refused.
    """
    path = project.root / ANSWERS
    try:
        answers: dict[str, Any] = yaml.safe_load(path.read_text())
    except FileNotFoundError:
        told = f"there is no {ANSWERS}: this project was not made by copier, or left the template"
        raise Refused(CONFIGURATION, told) from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        told = f"{ANSWERS} can't be read ({' '.join(str(error).split())[:200]}): take it from git"
        raise Refused(CONFIGURATION, told) from error
    for name in ("_src_path", "_commit"):
        if not isinstance(answers, dict) or not isinstance(answers.get(name), str):
            raise Refused(CONFIGURATION, f"{ANSWERS} has no {name}: take it from git's history")
    source = answers["_src_path"]
    if not re.match(r"[a-z+]+://|[^/:]+@[^/:]+:|gh:|gl:|/", source):
        told = f"_src_path in {ANSWERS} is {source!r}: write the template's whole address, commit"
        raise Refused(CONFIGURATION, told)
    return answers


def _update(arguments: argparse.Namespace, project: Project) -> int:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    try:
        with tempfile.TemporaryDirectory() as folder:
            return _run(arguments, project, Path(folder) / "template")
    except Refused as error:
        print(f"python -m ops update: {error}", file=sys.stderr)
        return error.code


def _interrupt(*_: object) -> NoReturn:
    raise Refused(1, "it was ended before it was done; nothing was changed")


def _run(arguments: argparse.Namespace, project: Project, folder: Path) -> int:
    before = read_answers(project)
    _expect_clean(project)
    step = _find(project, before, arguments.to, folder)
    if step.new == step.old:
        print(f"There is nothing newer than {step.old}")
        return 0
    _git(project, "clone", "--quiet", "--depth=1", f"--branch={step.new}", step.source, folder)
    migrations = _migrations(step)
    if arguments.dry_run:
        print(_summary(step, [], migrations, ""))
        return 0
    if migrations and not arguments.trust:
        told = f"the update to {step.new} runs: {'; '.join(migrations)}"
        raise Refused(NOT_TRUSTED, f"{told}. Look at it, then add --trust; nothing was changed")
    with _as_it_was(project):
        printed = _copy(project, step, trusted=arguments.trust)
        problems = [f"`{name}` has conflict markers" for name in _conflicts(project)]
        if not problems and (locked := _call(project, "uv", "lock")).returncode:
            problems = [f"`uv lock` failed: {_last(locked)}"]
        # What a migration tells of and does not dare to change.
        problems += [line for line in printed.splitlines() if line.startswith("look at ")]
        files = _git(project, "status", "--short", "--untracked-files=all", "--", ".")
        text = _summary(step, problems, migrations, files)
        if arguments.summary:
            arguments.summary.write_text(text)
    print(text)
    return 2 if problems else 0


def _expect_clean(project: Project) -> None:
    if _git(project, "status", "--porcelain", "--untracked-files=normal", "--", "."):
        told = "the work tree is not clean: commit; or, after an update that was killed, go back: "
        raise Refused(1, told + "git restore --staged --worktree . && git clean --force -d .")


def _find(project: Project, answers: dict[str, Any], wanted: str | None, folder: Path) -> Step:
    """
    The way to the release that is wanted.
    """
    source = re.sub(r"^gh:/*", "https://github.com/", answers["_src_path"])
    source = re.sub(r"^gl:/*", "https://gitlab.com/", source)
    old = answers["_commit"]
    listed = _git(project, "ls-remote", "--tags", "--refs", "--", source)
    tags = [tag for tag in re.findall(r"refs/tags/(\S+)", listed) if release(tag)]
    if release(old) and "-" not in old and old not in tags:
        told = f"{source} has no {old} any more, which this was made from: have the tag restored"
        raise Refused(UNAVAILABLE, told)
    newest = max(tags, key=release, default=old)
    if wanted and wanted not in tags:
        raise Refused(64, f"{source} has no release {wanted!r}; the newest is {newest}")
    if wanted and release(wanted) < release(old):
        raise Refused(64, f"{wanted} is older than {old}: to go back, git revert the update")
    new = wanted or (newest if release(newest) > release(old) else old)
    return Step(source=source, old=old, new=new, folder=folder)


def _migrations(step: Step) -> list[str]:
    """
    What copier runs of the template's: the command, and what its script says of itself.
    """
    config = yaml.safe_load((step.folder / "copier.yml").read_text())
    told = []
    for each in config.get("_migrations", []):
        version = str(each.get("version", step.new))
        if release(step.old) < release(version) <= release(step.new):
            command = each.get("command", "")
            words = command if isinstance(command, str) else " ".join(map(str, command))
            script = re.search(r"hooks/\S+\.py", words)
            path = step.folder / (script[0] if script else "")
            said = ast.get_docstring(ast.parse(path.read_text())) if path.is_file() else None
            about = f" ({said.splitlines()[0]})" if said else ""
            told.append(f"the migration to {version}, `{words}`{about}")
    return told


def _copy(project: Project, step: Step, *, trusted: bool) -> str:
    """
    What migrations print; raises Refused when copier fails.
    """
    # uvx does not look at the project's.
    indexes = project.pyproject.get("tool", {}).get("uv", {}).get("index", [])
    index = [f"--default-index={each['name']}={each['url']}" for each in indexes[:1]]
    told = ["--defaults", "--skip-answered", "--quiet", f"--vcs-ref={step.new}"]
    trust = ["--trust"] if trusted else []
    ended = _call(project, "uvx", *index, "--from", COPIER, "copier", "update", *told, *trust)
    if ended.returncode:
        # So it tells of an answer that is no longer valid.
        code = CONFIGURATION if _last(ended).startswith("ValueError: ") else 1
        raise Refused(code, f"copier failed, and nothing was changed: {_last(ended)}")
    return ended.stdout


def _conflicts(project: Project) -> list[str]:
    markers = "^(<<<<<<<|>>>>>>>)( |$)"
    command = ("git", "grep", "-I", "-l", "--untracked", "-E", markers, "--", ".")
    return _call(project, *command).stdout.splitlines()


def _summary(step: Step, problems: list[str], migrations: list[str], files: str) -> str:
    """
    Markdown, first what people must do; its first line could be the title of a commit.
    """
    changes = _changes(step)
    items = re.findall(r"(?ms)^- .*?(?=^- |^#|^$|\Z)", changes)
    asked = [item.strip() for item in items if re.search(r"\bDo this\b", item)]
    parts = [f"Update the template from {step.old} to {step.new}", ""]
    for title, lines in (
        ("For people to decide", [f"- {problem}" for problem in problems]),
        ("For people to do", asked),
        ("Run on the way", [f"- {each}" for each in migrations]),
        ("What changed in the template", [changes[:CHANGES_MAX]]),
        ("What changed here", ["```text", *files.splitlines(), "```"] if files else []),
    ):
        parts += [f"## {title}", "", *lines, ""] if lines else []
    return "\n".join(parts)


def _changes(step: Step) -> str:
    """
    Of the template's changelog the releases between the two.
    """
    path = step.folder / "CHANGELOG.md"
    kept = []
    for section in re.split(r"(?m)^(?=## )", path.read_text() if path.exists() else ""):
        named = re.match(r"## \[?(v?\d[^\s\]]*)", section)
        if named and release(step.old) < release(named[1]) <= release(step.new):
            kept.append(re.sub(r"(?m)^(?=##)", "#", section.strip()))
    return "\n\n".join(kept) or "The template's changelog does not say."


@contextmanager
def _as_it_was(project: Project) -> Iterator[None]:
    """
    The tree was clean: whatever ends this early, and be it a signal, ends where it began.
    """
    try:
        yield
    except BaseException:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        _git(project, "restore", "--source=HEAD", "--staged", "--worktree", "--", ".")
        _git(project, "clean", "--quiet", "--force", "-d", "--", ".")
        raise


def _git(project: Project, *arguments: str | Path) -> str:
    """
    Raises Refused when git fails.
    """
    ended = _call(project, "git", *arguments)
    if ended.returncode:
        raise Refused(UNAVAILABLE, f"`git {arguments[0]}` failed: {_last(ended)}")
    return ended.stdout


def _call(project: Project, *command: str | Path) -> subprocess.CompletedProcess[str]:
    """
    Asks nobody, and takes what it started with it; raises Refused where it takes too long.
    """
    try:
        process = subprocess.Popen(
            command,
            cwd=project.root,
            env=os.environ | {"GIT_TERMINAL_PROMPT": "0"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
    except OSError as error:
        raise Refused(UNAVAILABLE, f"{command[0]} can't be run: {error.strerror}") from error
    try:
        out, err = process.communicate(timeout=LIMIT_SECONDS)
    except subprocess.TimeoutExpired:
        told = f"`{command[0]}` took more than {LIMIT_SECONDS:g} s"
        raise Refused(UNAVAILABLE, told) from None
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    return subprocess.CompletedProcess(command, process.returncode, out, err)


def _last(ended: subprocess.CompletedProcess[str]) -> str:
    """
    The last line that it said: of a traceback, what is wrong.
    """
    return (ended.stderr.strip().splitlines() or ["nothing was said"])[-1]
