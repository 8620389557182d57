"""
`python -m ops drift`: which of the template's files were edited here, and the way back.

ops/tools/sums names them: a checksum, or `-` where answers are in the file; `x` if it is
executable; its name; the answers that bring it. scripts/sums of the template writes it.
"""

import argparse
import difflib
import hashlib
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import yaml

from ops.tools.declaration import PATH, Malformed, Waiver
from ops.tools.project import Project
from ops.tools.template import ANSWERS, COPIER, UNAVAILABLE, Refusal, answers, call, last

__all__ = ["Edit", "look", "register", "rendered", "restore", "scope", "wrong_waivers"]

SUMS = "ops/tools/sums"
CHECK = "template_files"
_ALL = "`uv run python -m ops drift --render` compares them"
_LINE = re.compile(r"([0-9a-f]{64}|-) ([x-]) (\S+)((?: \w+=\S+)*)")


@dataclass(frozen=True, kw_only=True)
class Edit:
    """
    A file that is not the template's any more; *theirs* is the template's, where there is a render.
    """

    name: str
    said: str
    waiver: Waiver | None
    is_waived: bool
    theirs: Path | None

    @property
    def line(self) -> str:
        said = f"{self.name} {self.said}"
        if self.waiver:
            said += f", and the waiver of {self.waiver.by} ended on {self.waiver.until}"
        back = f"`uv run python -m ops drift --restore {self.name}`"
        return f"{said}: {back} brings the template's back, a waiver in {PATH} keeps yours"


@dataclass(frozen=True, kw_only=True)
class _Owned:
    """
    A file of the template's: its *name* here, and *theirs* where there is a render.
    """

    name: str
    theirs: Path | None
    digest: str | None
    is_executable: bool
    is_chosen: bool


def look(project: Project, render: Path | None = None) -> list[Edit]:
    """
    All that differs: of files without answers in them by checksum, or of all from a fresh *render*.
    Nothing where the project has left the template; raises Malformed.
    """
    recorded = answers(project)
    if recorded is None:
        return []
    if problems := wrong_waivers(project):
        raise Malformed(problems)
    return [
        _edit(project, each, said)
        for each in _owned(project, recorded, render)
        if (said := _compare(project.root / each.name, each))
    ]


def scope(project: Project) -> str:
    """
    How many files are compared with their checksum, and which are not: those with answers in them
    differ in each service, so only a render can be compared with them.
    """
    recorded = answers(project)
    if recorded is None:
        return f"nothing was compared, because there is no {ANSWERS}"
    owned = _owned(project, recorded, None)
    here = [each for each in owned if each.is_chosen and (project.root / each.name).exists()]
    left = [each.name for each in here if not each.digest]
    return f"{len(here) - len(left)} files compared with {SUMS}" + (
        f"; not compared, because answers are in them: {', '.join(left)}; {_ALL}" if left else ""
    )


def wrong_waivers(project: Project) -> list[str]:
    """
    Waivers of files that are not the template's, with file and line.
    """
    waivers = [(each, each.file) for each in _waivers(project)]
    names = [each.name for each in _owned(project, {}, None)] if waivers else []
    problems = []
    for waiver, file in waivers:
        if file is None:
            continue
        if waiver.check != CHECK:
            problems.append(f"{waiver.where}: only {CHECK} has files: take `file` away")
        elif file not in names and names != [SUMS]:
            close = difflib.get_close_matches(file, names, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"{SUMS} lists them"
            problems.append(f"{waiver.where}: {file!r} is no file of the template's, {hint}")
    return problems


@contextmanager
def rendered(project: Project) -> Generator[Path]:
    """
    A folder with what the template makes of the recorded answers at the recorded version; raises
    Refusal, and Malformed where the answers are no answers.
    """
    recorded = answers(project)
    if recorded is None:
        raise Refusal(f"there is no {ANSWERS}: this project has left the template", 1)
    source, version = recorded["_src_path"], recorded["_commit"]
    given = {name: answer for name, answer in recorded.items() if not name.startswith("_")}
    with tempfile.TemporaryDirectory() as folder:
        data, made = Path(folder) / "answers.yml", Path(folder) / "made"
        data.write_text(yaml.safe_dump(given), encoding="utf-8")
        options = ("--quiet", "--defaults", "--vcs-ref", version, "--data-file", str(data))
        ended = call(project, *COPIER, "copy", *options, source, str(made))
        if ended.returncode:
            raise Refusal(_why(project, source, version, last(ended)), UNAVAILABLE)
        yield made


def restore(project: Project, names: list[str], render: Path) -> None:
    """
    Put the template's files back, all of *names* or none; raises Refusal where what is here is not
    committed, and would be lost.
    """
    recorded = answers(project) or {}
    known = {each.name: each.theirs for each in _owned(project, recorded, render)}
    sources = {}
    for name in names:
        if name not in known:
            raise Refusal(f"{name!r} is no file of the template's: {SUMS} lists them", 64)
        theirs = known[name]
        if theirs is None or not theirs.is_file():
            raise Refusal(f"{name} is not among what {ANSWERS} chooses", 64)
        asked = project.git(
            "status", "--porcelain", "--ignored", "-uall", "--", f":(literal){name}"
        )
        if os.path.lexists(project.root / name) and (asked.returncode or asked.stdout):
            raise Refusal(f"{name} has changes that git does not keep: commit them first", 1)
        sources[name] = theirs
    for name, theirs in sources.items():
        try:
            _put(theirs, project.root / name)
        except OSError as error:
            raise Refusal(f"{name} can't be written: {error.strerror}", 1) from error


def register(commands: Any) -> None:
    """
    `drift`, which only looks unless it is told to restore.
    """
    one = commands.add_parser(
        "drift",
        help="name the template's files that were edited here",
        description="Names the template's files that were edited here: those without answers in "
        "them by checksum; the others too with --render, which asks the template.",
        epilog="exit status: 0, 1 with --strict if one was edited or if a file can't be restored, "
        "64 wrong usage, 69 the template or copier can't be had, "
        f"78 {ANSWERS} or {PATH} is wrong",
    )
    one.add_argument("--render", action="store_true", help="compare with a fresh render")
    one.add_argument("--diff", action="store_true", help="the same, and show what differs")
    one.add_argument("--strict", action="store_true", help="exit with 1 if one was edited")
    one.add_argument("--restore", nargs="+", metavar="FILE", help="put the template's version back")
    one.set_defaults(function=_drift)


def _drift(arguments: argparse.Namespace, project: Project) -> int:
    try:
        if arguments.restore:
            with rendered(project) as render:
                here = [os.path.relpath(name, project.root) for name in arguments.restore]
                restore(project, here, render)
            return 0
        if arguments.render or arguments.diff:
            with rendered(project) as render:
                edits = look(project, render)
                shown = [_difference(project, edit) for edit in edits if arguments.diff]
        else:
            edits, shown = look(project), []
            print(f"drift: {scope(project)}", file=sys.stderr)
    except Refusal as error:
        print(f"drift: {error}", file=sys.stderr)
        return error.code
    told = [edit.line for edit in edits if not edit.is_waived]
    for text in filter(None, [*told, *shown]):
        print(text)
    return 1 if told and arguments.strict else 0


def _difference(project: Project, edit: Edit) -> str:
    theirs, ours = _text(edit.theirs), _text(project.root / edit.name)
    names = f"a/{edit.name}", f"b/{edit.name}"
    return "\n".join(difflib.unified_diff(theirs, ours, *names, lineterm=""))


def _text(path: Path | None) -> list[str]:
    return path.read_bytes().decode(errors="replace").splitlines() if path and path.exists() else []


def _owned(project: Project, recorded: dict[str, Any], render: Path | None) -> list[_Owned]:
    """
    From the render where there is one: an edited list would not tell.
    """
    source = Project(render) if render else project
    lines = source.lines(SUMS)
    found = []
    for match in filter(None, map(_LINE.fullmatch, lines)):
        digest, mode, pattern, conditions = match.groups()
        wanted = (condition.split("=") for condition in conditions.split())
        found.append(
            _Owned(
                name=_fill(pattern, project),
                # A team may have renamed its package.
                theirs=render / _fill(pattern, source) if render else None,
                digest=None if digest == "-" else digest,
                is_executable=mode == "x",
                is_chosen=all(
                    {*values.split("|")} & {*_each(recorded.get(question))}
                    for question, values in wanted
                ),
            )
        )
    if len(found) == len(lines) > 0:
        return found
    # As if nothing but the list were known.
    theirs = render / SUMS if render else None
    return [_Owned(name=SUMS, theirs=theirs, digest="?", is_executable=False, is_chosen=True)]


def _fill(pattern: str, project: Project) -> str:
    return pattern.replace("{name}", project.name).replace("{package}", project.package)


def _each(answer: Any) -> list[Any]:
    return answer if isinstance(answer, list) else [answer]


def _compare(here: Path, owned: _Owned) -> str:
    """
    What is the matter, or nothing.
    """
    theirs = owned.theirs
    is_chosen = theirs.is_file() if theirs else owned.is_chosen
    said = ""
    if not here.is_file():
        return "is missing" if is_chosen else ""
    if theirs:
        if is_chosen and _content(here) != _content(theirs):
            said = "was edited" if owned.digest else f"was edited, or {ANSWERS} was"
    elif owned.digest and hashlib.sha256(_content(here)).hexdigest() != owned.digest:
        said = "was edited"
    if not said and owned.is_executable and not here.stat().st_mode & 0o111:
        said = "can't be executed any more"
    return said


def _content(path: Path) -> bytes:
    # A checkout may have other ends of lines.
    return path.read_bytes().replace(b"\r\n", b"\n")


def _waivers(project: Project) -> list[Waiver]:
    return project.declaration.waivers if (project.root / PATH).exists() else []


def _edit(project: Project, owned: _Owned, said: str) -> Edit:
    files = {None, owned.name}
    ours = [each for each in _waivers(project) if each.check == CHECK and each.file in files]
    # One that was written anew counts, wherever the earlier one stands.
    waiver = max(ours, key=lambda each: each.until, default=None)
    is_waived = waiver is not None and waiver.until >= project.now.date()
    return Edit(name=owned.name, said=said, waiver=waiver, is_waived=is_waived, theirs=owned.theirs)


def _why(project: Project, source: str, version: str, said: str) -> str:
    """
    Why nothing was rendered, which copier itself says in many lines.
    """
    ended = call(project, *COPIER, "--version")
    if ended.returncode:
        return f"copier can't be had ({last(ended)}): is the package index reachable from here?"
    ended = call(project, "git", "ls-remote", "--exit-code", "--", source, version)
    if not ended.returncode:
        return f"copier can't render {version} of {source} ({said})"
    # It was asked, and has no such thing.
    if ended.returncode == 2:
        return f"the template at {source} has no {version} any more: ask who keeps it for the tag"
    return f"the template at {source} can't be reached ({last(ended)})"


def _put(source: Path, target: Path) -> None:
    """
    Content and mode, all of it or nothing.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.", suffix=".tmp")
    os.close(handle)
    try:
        shutil.copy(source, name)
        Path(name).replace(target)
    finally:
        Path(name).unlink(missing_ok=True)


def main() -> NoReturn:
    """
    For `.ci/run`, which does not wait for what the other commands import.
    """
    project = Project(Path(__file__).parents[2])
    try:
        for edit in look(project):
            if not edit.is_waived:
                print(f"warning: {edit.line}", file=sys.stderr)
        print(f"drift: {scope(project)}", file=sys.stderr)
    except Malformed as error:
        print(error, file=sys.stderr)
        sys.exit(78)
    sys.exit(0)


if __name__ == "__main__":
    main()
