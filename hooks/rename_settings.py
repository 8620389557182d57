"""
Gives settings their new names in the team's files, and tells what it leaves to a person.

    python rename_settings.py [--dry-run] VERSION [PROJECT]

VERSION is one of settings.json, such as 0.3.0; PROJECT is the folder with .copier-answers.yml, or
the current one. It changes files that git has, each at once or not at all, and a second run changes
nothing. A dry run changes nothing and tells the same.

Each line of its output is `renamed FILE:LINE: OLD -> NEW` or `look at FILE:LINE: NAME: WHY`.
It exits with 0, with 1 where a file could not be written or PROJECT is no work tree of git, with 64
for wrong usage; a dry run with 2 if there is something to rename or to look at.
"""

import argparse
import io
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NoReturn

from names import Hit, Renamer

TABLE = Path(__file__).with_name("settings.json")


class Project:
    """
    The files of a work tree, or of the part of it that is below *folder*.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(os.path.realpath(folder))

    def git(self, *arguments: str) -> bytes:
        """
        Raises CalledProcessError when git fails.
        """
        command = ("git", *arguments)
        return subprocess.run(command, cwd=self.folder, check=True, capture_output=True).stdout

    def files(self, *arguments: str) -> list[str]:
        listed = os.fsdecode(self.git("ls-files", "-z", *arguments))
        return [name for name in listed.split("\0") if name]

    def tracked(self) -> dict[str, bool]:
        """
        The files that git has, and whether each waits for a merge.
        """
        found: dict[str, bool] = {}
        for line in self.files("--stage"):
            about, _, path = line.partition("\t")
            found[path] = not about.endswith(" 0")
        return found

    def untracked(self) -> list[str]:
        """
        What git does not have: new files, and `.env`, which nobody should give it.
        """
        others = self.files("--others", "--exclude-standard")
        return others + self.files("--others", "--ignored", "--exclude-standard", ":(glob).env*")

    def read(self, path: str) -> bytes | None:
        """
        None where there is no file, or a link leads to it.
        """
        file = self.folder / path
        if os.path.realpath(file) != str(file) or not file.is_file():
            return None
        return file.read_bytes()

    def write(self, path: str, data: bytes) -> None:
        """
        All of it or nothing, with the mode that the file has.
        """
        file = self.folder / path
        with tempfile.NamedTemporaryFile(
            dir=file.parent, prefix=f".{file.name}.", delete=False
        ) as made:
            new = Path(made.name)
            try:
                made.write(data)
                made.flush()
                os.fsync(made.fileno())
                new.chmod(file.stat().st_mode & 0o7777)
                new.replace(file)
            except OSError:
                new.unlink()
                raise

    def merge(self, path: str, data: bytes, renamer: Renamer) -> tuple[bytes, bool]:
        """
        Merge again what conflicted, as if both sides had always had the new names: the file, and
        whether nothing of it conflicts any more.
        """
        try:
            found = [self.git("cat-file", "blob", f":{n}:./{path}").decode() for n in (2, 1, 3)]
        except (subprocess.CalledProcessError, UnicodeDecodeError):
            return data, False
        if merge_file(found)[0] != data:
            # Somebody was at it since.
            return data, False
        return merge_file([renamer.rename(side, path)[0] for side in found])


def merge_file(sides: list[str]) -> tuple[bytes, bool]:
    """
    As copier merges what was before the update, in the last one, and after it; and whether nothing
    conflicts.
    """
    with tempfile.TemporaryDirectory() as folder:
        command = ["git", "merge-file", "-p"]
        for label in ("before updating", "last update", "after updating"):
            command += ["-L", label]
        for number, side in enumerate(sides):
            file = Path(folder) / str(number)
            file.write_bytes(side.encode())
            command.append(str(file))
        merged = subprocess.run(command, check=False, capture_output=True)
    return merged.stdout, merged.returncode == 0


class Report:
    """
    What is told, a line for each name.
    """

    def __init__(self, *, is_dry: bool) -> None:
        self.done = "would rename" if is_dry else "renamed"
        self.renamed = self.left = 0
        self.longer: dict[str, None] = {}

    def hits(self, path: str, text: str, hits: list[Hit]) -> None:
        for hit in hits:
            place = f"{shown(path)}:{text.count(chr(10), 0, hit.start) + 1}"
            if hit.new:
                self.longer[shown(path)] = None
                self.rename(place, f"{hit.word} -> {hit.new}")
            else:
                self.look_at(place, f"{hit.word}: {hit.why}")

    def rename(self, place: str, how: str) -> None:
        self.renamed += 1
        print(f"{self.done} {place}: {how}")

    def look_at(self, place: str, why: str) -> None:
        self.left += 1
        print(f"look at {place}: {why}")


def shown(path: str) -> str:
    return path if path.isprintable() else ascii(path)


class Run:
    """
    One run over a project.
    """

    def __init__(self, project: Project, renamer: Renamer, *, is_dry: bool) -> None:
        self.project, self.renamer, self.is_dry = project, renamer, is_dry
        self.report = Report(is_dry=is_dry)
        self.failed = 0

    def all_files(self) -> None:
        """
        What can't be read or written is named, and the others are done.
        """
        for path, conflicts in self.project.tracked().items():
            for _, old in self.renamer.in_bytes(os.fsencode(path)):
                self.report.look_at(shown(path), f"the file's name holds {old}")
            try:
                self.one_file(path, conflicts=conflicts)
            except OSError as error:
                self.failed += 1
                print(f"rename_settings: {shown(path)} stays as it was: {error}", file=sys.stderr)
        why = "git does not have this file, so nothing here changes it"
        for path in self.project.untracked():
            self.bytes_of(path, self.project.read(path) or b"", why)

    def bytes_of(self, path: str, data: bytes, why: str) -> None:
        """
        Tell of names where nothing is changed.
        """
        if self.renamer.may_be_in(data):
            for line, old in self.renamer.in_bytes(data):
                self.report.look_at(f"{shown(path)}:{line}", f"{old}: {why}")

    def one_file(self, path: str, *, conflicts: bool) -> None:
        """
        Raises OSError where it can't be read or written; it is as it was then.
        """
        before = self.project.read(path)
        if before is None or not self.renamer.may_be_in(before):
            return
        data, is_merged = before, False
        if conflicts:
            data, is_merged = self.project.merge(path, before, self.renamer)
        try:
            text = data.decode()
        except UnicodeDecodeError:
            text = "\0"
        if "\0" in text:
            self.bytes_of(path, data, "this file is no text in UTF-8")
            return
        renamed, hits = self.renamer.rename(text, path)
        if not self.is_dry and renamed.encode() != before:
            self.project.write(path, renamed.encode())
            if is_merged:
                self.project.git("reset", "--quiet", "--", path)
        if data != before:
            self.report.rename(shown(path), "merged again, both sides with the new names")
        self.report.hits(path, text, hits)


class Parser(argparse.ArgumentParser):
    """
    Wrong usage is 64.
    """

    def error(self, message: str) -> NoReturn:
        print(f"{self.format_usage()}rename_settings: {message}", file=sys.stderr)
        sys.exit(64)


def main() -> int:
    """
    The exit code.
    """
    table = json.loads(TABLE.read_text())
    parser = Parser(prog="rename_settings.py", description=(__doc__ or "").strip().split("\n")[0])
    parser.add_argument("--dry-run", action="store_true", help="change nothing, tell everything")
    parser.add_argument("version", choices=table, help="whose names")
    parser.add_argument("project", nargs="?", default=".", type=Path)
    told = parser.parse_args()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace", line_buffering=True)

    project = Project(told.project)
    try:
        project.git("rev-parse", "--show-toplevel")
    except (OSError, subprocess.CalledProcessError):
        print(f"rename_settings: {told.project} is no work tree of git", file=sys.stderr)
        return 1
    whole = Run(project, Renamer(table[told.version]), is_dry=told.dry_run)
    whole.all_files()
    report = whole.report
    if code := [path for path in report.longer if path.endswith(".py")]:
        print(f"Run `uv run ruff format`: lines have another length in {', '.join(code)}")
    if told.dry_run or report.renamed or report.left:
        where = project.folder.name
        print(
            f"{where}: {report.done} {report.renamed} uses of settings of {told.version}, ", end=""
        )
        print(f"{report.left} left to look at")
    if told.dry_run:
        return 2 if report.renamed or report.left else 0
    return 1 if whole.failed else 0


if __name__ == "__main__":
    sys.exit(main())
