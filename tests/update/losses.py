"""
What an update took from a team: the lines that it added, those that it took out, and the files that
it deleted, as git tells them between the tags `pristine` and `edited` of its repository.
"""

import re
from collections.abc import Collection
from pathlib import Path

import yaml
from ownership import owners
from releases import NEXT, crosses_migration, git

__all__ = [
    "carried",
    "commit",
    "conflicts",
    "contents",
    "crosses_a_migration",
    "is_seed",
    "losses",
    "move",
    "ours",
    "statuses",
]

MARKER = re.compile(r"^(<<<<<<<|=======|>>>>>>>)( |$)", re.MULTILINE)


def commit(project: Path, tag: str) -> None:
    """
    Commit all that is there, and name that.
    """
    if not (project / ".git").exists():
        git("init", "--quiet", cwd=project)
    git("add", "--all", cwd=project)
    git("commit", "--quiet", "--allow-empty", "--message", tag, cwd=project)
    git("tag", "--force", tag, cwd=project)


def move(project: Path, repository: Path) -> None:
    """
    Let a project take its updates from another repository, as if it came from there.
    """
    answers = project / ".copier-answers.yml"
    line = f"_src_path: {repository.as_uri()}"
    answers.write_text(re.sub("(?m)^_src_path: .*", line, answers.read_text()))
    commit(project, "moved")


def crosses_a_migration(project: Path) -> bool:
    """
    Whether an update from this project's version to the newest runs a migration.
    """
    answers = yaml.safe_load((project / ".copier-answers.yml").read_text())
    return crosses_migration(answers["_commit"].removeprefix("v"), NEXT)


def is_seed(name: str) -> bool:
    """
    Whether a file is the team's from its first day on.
    """
    return owners(name) == ["seed"]


def contents(folder: Path) -> dict[str, bytes]:
    """
    What is in each file of a project, by its path, but for what git ignores.
    """
    listed = git("ls-files", "-z", "--cached", "--others", "--exclude-standard", cwd=folder)
    names = {name for name in listed.split("\0") if name and (folder / name).is_file()}
    return {name: (folder / name).read_bytes() for name in sorted(names)}


def ours(folder: Path) -> dict[str, bytes]:
    """
    What is in the files that are not the team's, without the name of the compose project, which a
    service from before it had one does not get (test_compose_name.py), and without the settings of
    the example, which a job alone keeps if it had them.
    """
    found = {name: text for name, text in contents(folder).items() if not is_seed(name)}
    found[".env.example"] = found[".env.example"].partition(b"# Yours below.\n")[0]
    if compose := found.get("compose.yaml"):
        found["compose.yaml"] = re.sub(rb"(?m)^name: .*\n", b"", compose, count=1)
    return found


def statuses(project: Path) -> dict[str, str]:
    """
    What git says of each path that is not as it was committed.
    """
    lines = git("status", "--porcelain", "--untracked-files=all", "--no-renames", cwd=project)
    return {line[3:]: line[:2] for line in lines.splitlines()}


def conflicts(project: Path) -> list[str]:
    """
    The files in which two sides are left: markers, what could not be applied, or git's own word.
    """
    found = {name for name, status in statuses(project).items() if "U" in status or status == "AA"}
    for name, content in contents(project).items():
        if name.endswith((".rej", ".orig")) or MARKER.search(content.decode(errors="replace")):
            found.add(name)
    return sorted(found)


def losses(project: Path, *, arriving: Collection[str] = ()) -> list[str]:
    """
    What of the team's is not there any more, a sentence each; seeds must be as they were, but for
    those that arrive.
    """
    found = []
    for name in filter(is_seed, statuses(project).keys() - {*arriving}):
        was = _text(project, "edited", name)
        if was is None:
            found.append(f"{name}: a seed came")
        elif not (project / name).exists() or (project / name).read_text() != carried(was):
            found.append(f"{name}: a seed was touched")
    edits = git("diff", "--name-status", "--no-renames", "pristine", "edited", cwd=project)
    for status, name in (line.split("\t") for line in edits.splitlines()):
        path = project / name
        if status == "D":
            found += [f"{name}: came back"] if path.exists() and name not in arriving else []
        elif not path.exists():
            found.append(f"{name}: is gone")
        elif not is_seed(name):
            found += [f"{name}: {what}" for what in _lost(project, name)]
    return found


def carried(text: str) -> str:
    """
    The team's text with what a migration renames in it.
    """
    names = r"(connect|statement|lock|idle_in_transaction|client_check)_seconds"
    text = re.sub(r"\bAPP_DB_", "APP_DATABASE_", text)
    return re.sub(rf"\bdb_({names})\b", r"database_\1", text)


def _text(project: Path, tag: str, name: str) -> str | None:
    """
    The text of a file as it was committed, if it was.
    """
    if not git("ls-tree", tag, "--", name, cwd=project):
        return None
    return git("show", f"{tag}:{name}", cwd=project) + "\n"


def _lost(project: Path, name: str) -> list[str]:
    """
    Lines of the team that are not there in their order, and lines of ours that came back.
    """
    difference = git("diff", "--unified=0", "pristine", "edited", "--", name, cwd=project)
    hunks = difference.partition("\n@@")[2].splitlines()
    added = [line[1:] for line in hunks if line.startswith("+")]
    now = (project / name).read_text().splitlines()
    rest = iter(now)
    found = [f"lost {line!r}" for line in map(carried, added) if line not in rest]
    before = (_text(project, "pristine", name) or "").splitlines()
    out = {line[1:] for line in hunks if line.startswith("-")} - {*added}
    again = [line for line in before if line.strip() and before.count(line) == 1 and line in out]
    return found + [f"has {line!r} again" for line in again if line in now]
