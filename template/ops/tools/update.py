"""
`update`: bring the newest release of the template, with what it asks of people; or change nothing.
"""

import argparse
import ast
import re
import signal
import sys
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import yaml

from ops.tools.project import Project
from ops.tools.template import ANSWERS, COPIER, UNAVAILABLE, Refusal, answers, call, last, release

__all__ = ["register"]

LOCK = "uv.lock"
NOT_TRUSTED, CONFIGURATION = 77, 78
# A change request of GitHub holds 65,536 characters.
CHANGES_MAX = 40_000
EXITS = """\
exit status:
  0   up to date, or updated and nothing is left to be decided
  1   the work tree is not clean, or the update failed; nothing was changed
  2   updated, but people must act: conflicts, what a migration left, no uv.lock, no formatter
  64  wrong usage, such as an older release
  69  the template or copier can't be reached; nothing was changed
  77  the update runs a migration of the template: look at it, then --trust
  78  .copier-answers.yml is wrong, or has an answer that is no longer valid
"""


@dataclass(frozen=True, kw_only=True)
class Step:
    """
    From one release to another of the template at *source*, of which *folder* is a clone, and whose
    files are shown below the address *pages*.
    """

    source: str
    old: str
    new: str
    folder: Path
    pages: str

    def link(self, text: str, target: str) -> str:
        """
        A link to a page of the release, or its text and path where the source has no web address.
        """
        target = f"CHANGELOG.md{target}" if target.startswith("#") else target
        return f"[{text}]({self.pages}/{target})" if self.pages else f"{text} (`{target}`)"


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


def _recorded(project: Project) -> dict[str, Any]:
    """
    Raises Refusal and Malformed where nothing says what the project was made from.
    """
    found = answers(project)
    if found is None:
        told = f"there is no {ANSWERS}: this project was not made by copier, or left the template"
        raise Refusal(told, CONFIGURATION)
    source = found["_src_path"]
    if not re.match(r"[a-z+]+://|[^/:]+@[^/:]+:|gh:|gl:|/", source):
        told = f"_src_path in {ANSWERS} is {source!r}: write the template's whole address, commit"
        raise Refusal(told, CONFIGURATION)
    return found


def _update(arguments: argparse.Namespace, project: Project) -> int:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    try:
        with tempfile.TemporaryDirectory() as folder:
            return _run(arguments, project, Path(folder) / "template")
    except Refusal as error:
        print(f"python -m ops update: {error}", file=sys.stderr)
        return error.code


def _interrupt(*_: object) -> NoReturn:
    raise Refusal("it was ended before it was done; nothing was changed", 1)


def _run(arguments: argparse.Namespace, project: Project, folder: Path) -> int:
    before = _recorded(project)
    lock = _expect_clean(project)
    step = _find(project, before, arguments.to, folder)
    if step.new == step.old:
        print(f"There is nothing newer than {step.old}")
        return 0
    _git(project, "clone", "--quiet", "--depth=1", f"--branch={step.new}", step.source, str(folder))
    migrations = _migrations(step)
    if arguments.dry_run:
        print(_summary(step, [], migrations, ""))
        return 0
    if migrations and not arguments.trust:
        told = f"the update to {step.new} runs: {'; '.join(migrations)}"
        told += f". Nothing was changed. Read {step.link('what it does', 'hooks/README.md')}, then "
        raise Refusal(f"{told}add --trust", NOT_TRUSTED)
    with _as_it_was(project, lock):
        printed = _copy(project, step, trusted=arguments.trust)
        if lock is not None:
            (project.root / LOCK).write_bytes(lock)
        problems = [f"`{name}` has conflict markers" for name in _conflicts(project)]
        problems = problems or _finish(project)
        # A migration names in these lines what it leaves to a person.
        problems += [line for line in printed.splitlines() if line.startswith("look at ")]
        files = _git(project, "status", "--short", "--untracked-files=all", "--", ".")
        text = _summary(step, problems, migrations, files)
        if arguments.summary:
            arguments.summary.write_text(text, "utf-8")
    print(text)
    return 2 if problems else 0


def _expect_clean(project: Project) -> bytes | None:
    """
    What is in uv.lock if only that is not committed, as `uv run` writes it before this starts.
    """
    path = project.root / LOCK
    status = ("status", "--porcelain", "--untracked-files=normal", "--", ".")
    if _git(project, *status, *([f":(exclude){LOCK}"] if path.exists() else [])):
        told = "the work tree is not clean: commit; or, after an update that was killed, go back: "
        raise Refusal(told + "git restore --staged --worktree . && git clean --force -d .", 1)
    return path.read_bytes() if _git(project, *status) else None


def _finish(project: Project) -> list[str]:
    """
    What keeps the project from having a lock file and formatted lines: a migration may have given
    them another length.
    """
    changed = _git(project, "diff", "--relative", "--name-only", "--diff-filter=M", "--", "*.py")
    format_ = (sys.executable, "-m", "ruff", "format", "--quiet", "--", *changed.splitlines())
    for name, command in {"uv lock": ("uv", "lock"), "ruff format": format_}.items():
        if command[-1] != "--" and (ended := call(project, *command)).returncode:
            return [f"`{name}` failed: {last(ended)}"]
    return []


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
        raise Refusal(told, UNAVAILABLE)
    newest = max(tags, key=release, default=old)
    if wanted and wanted not in tags:
        raise Refusal(f"{source} has no release {wanted!r}; the newest is {newest}", 64)
    if wanted and release(wanted) < release(old):
        raise Refusal(f"{wanted} is older than {old}: to go back, git revert the update", 64)
    new = wanted or (newest if release(newest) > release(old) else old)
    return Step(source=source, old=old, new=new, folder=folder, pages=_pages(answers, source, new))


def _pages(answers: dict[str, Any], source: str, new: str) -> str:
    """
    Where a browser finds the files of the release, without what may be a password in *source*.
    """
    found = re.match(
        r"(?:https?://(?:[^@/]*@)?|ssh://[^@/]*@|[^/:@]+@)([^/:]+(?::\d+)?)[/:](.+)", source
    )
    blob = "-/blob" if answers.get("ci") == "gitlab" else "blob"
    return f"https://{found[1]}/{found[2].removesuffix('.git')}/{blob}/{new}" if found else ""


def _migrations(step: Step) -> list[str]:
    """
    The scripts of the template that copier runs, and what each says of itself.
    """
    config = yaml.safe_load((step.folder / "copier.yml").read_text("utf-8"))
    told = []
    for each in config.get("_migrations", []):
        version = str(each.get("version", step.new))
        if release(step.old) < release(version) <= release(step.new):
            script = re.search(r"hooks/\S+?\.py", str(each.get("command", "")))
            name = script[0] if script else "a command of copier.yml"
            path = step.folder / name
            said = ast.get_docstring(ast.parse(path.read_text("utf-8"))) if path.is_file() else None
            about = f" ({said.splitlines()[0]})" if said else ""
            told.append(f"the migration to {version}, `{name}`{about}")
    return told


def _copy(project: Project, step: Step, *, trusted: bool) -> str:
    """
    What migrations print; raises Refusal when copier fails.
    """
    told = ["--defaults", "--skip-answered", "--quiet", f"--vcs-ref={step.new}"]
    trust = ["--trust"] if trusted else []
    ended = call(project, *COPIER, "update", *told, *trust)
    if ended.returncode:
        # So it tells of an answer that is no longer valid.
        code = CONFIGURATION if last(ended).startswith("ValueError: ") else 1
        raise Refusal(f"copier failed, and nothing was changed: {last(ended)}", code)
    return ended.stdout


def _conflicts(project: Project) -> list[str]:
    markers = "^(<<<<<<<|>>>>>>>)( |$)"
    command = ("git", "grep", "-I", "-l", "--untracked", "-E", markers, "--", ".")
    return call(project, *command).stdout.splitlines()


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
    for section in re.split(r"(?m)^(?=## )", path.read_text("utf-8") if path.exists() else ""):
        named = re.match(r"## \[?(v?\d[^\s\]]*)", section)
        if named and release(step.old) < release(named[1]) <= release(step.new):
            kept.append(re.sub(r"(?m)^(?=##)", "#", section.strip()))
    text = "\n\n".join(kept) or "The template's changelog does not say."
    # Here, a link within the template would lead into this repository.
    relative = r"\[([^\]]+)\]\((?!\w+:)([^)\s]+)\)"
    return re.sub(relative, lambda link: step.link(link[1], link[2]), text)


@contextmanager
def _as_it_was(project: Project, lock: bytes | None) -> Generator[None]:
    """
    The tree was clean but for *lock*, which copier would refuse, too. If anything ends this early,
    also a signal, it ends where it began.
    """
    path = project.root / LOCK
    try:
        if lock is not None:
            path.unlink()
            call(project, "git", "restore", "--source=HEAD", "--staged", "--worktree", "--", LOCK)
        yield
    except BaseException:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        _git(project, "restore", "--source=HEAD", "--staged", "--worktree", "--", ".")
        _git(project, "clean", "--quiet", "--force", "-d", "--", ".")
        if lock is not None:
            path.write_bytes(lock)
        raise


def _git(project: Project, *arguments: str) -> str:
    """
    Raises Refusal when git fails.
    """
    ended = call(project, "git", *arguments)
    if ended.returncode:
        raise Refusal(f"`git {arguments[0]}` failed: {last(ended)}", UNAVAILABLE)
    return ended.stdout
