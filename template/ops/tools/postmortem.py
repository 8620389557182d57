"""
Postmortems: a timeline from the service's own log, and actions with an owner and a date.
"""

import argparse
import json
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from markdown_it import MarkdownIt

from ops.tools.project import Project

__all__ = ["Action", "Timeline", "actions", "faults", "hints", "register"]

TEMPLATE = "template.md"
# A day in minutes, and as much as somebody reads; what is beyond is counted.
MINUTES_MAX, TOLD_MAX, LINE_MAX = 1440, 200, 1 << 20
# Told each time that they happen; other warnings and errors the first time, then counted.
ALWAYS = {"started", "stopping", "stopped", "stopped_by_force", "check_changed", "crash"}
ALWAYS |= {"loop_stuck", "log_level_changed", "grace_exceeded", "migrated"}
# By name, so that no text of the application, and of nobody's request, gets into a document.
FIELDS = {"revision", "process_type", "check", "is_up", "status", "of", "suppressed", "dependency"}
FIELDS |= {"outcome", "reason", "variable", "level_now", "exit_code", "job", "signal", "logger"}
# Hyphen, en dash and em dash: nothing.
DASHES = "-\u2013\u2014"
PLAIN = re.compile(r"[\w.:/+-]{1,80}")
BLAME = {
    r"human error|operator error": "what made it the sensible thing to do at that time?",
    r"should(?:n't| not)? have|could have": "what did they see and know then?",
    r"careless\w*|negligen\w*|sloppy|forgot": "what in the system let one slip go that far?",
    r"root cause": "which factors came together, and which of them are still there?",
    r"obvious\w*|simply|just had to": "to whom was it visible, where, and when?",
}


@dataclass(frozen=True, kw_only=True)
class Action:
    """
    A row of the table of actions; *owner* is empty where nobody is named.
    """

    path: Path
    line: int
    what: str
    owner: str
    due: date | None
    is_done: bool


def actions(path: Path) -> list[Action]:
    """
    The rows of the tables that have the columns action, owner, due and done.
    """
    found: list[Action] = []
    names: list[str] = []
    cells: list[str] = []
    line = 0
    text = path.read_text(encoding="utf-8", errors="replace")
    for token in MarkdownIt("commonmark").enable("table").parse(text):
        if token.type == "tr_open":
            cells, line = [], (token.map or [0])[0] + 1
        elif token.type == "inline":
            cells.append(token.content.strip())
        elif token.type == "thead_close":
            names = [cell.lower() for cell in cells]
        elif token.type == "table_close":
            names = []
        elif token.type == "tr_close" and {"action", "owner", "due", "done"} <= {*names}:
            row = dict(zip(names, cells, strict=False))
            # What is in angle brackets is still to be filled in, unless it is a link.
            row = {name: re.sub(r"<[^:@>]*>.*", "", text) for name, text in row.items()}
            if any(row.values()):
                found.append(_action(path, line, row))
    return found


def _action(path: Path, line: int, row: dict[str, str]) -> Action:
    try:
        due = date.fromisoformat(row["due"])
    except ValueError:
        due = None
    is_done = row["done"].lower().strip(DASHES) not in {"", "no", "not yet", "open", "todo", "[ ]"}
    what, owner = row["action"], row["owner"].strip(DASHES)
    return Action(path=path, line=line, what=what, owner=owner, due=due, is_done=is_done)


def _written(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.glob("*.md")) if path.name != TEMPLATE]


def faults(folder: Path, today: date) -> list[str]:
    """
    Actions without owner or date, and those that are overdue: file, line, what to do.
    """
    told: list[str] = []
    for path in _written(folder):
        found = actions(path)
        where = f"ops/postmortems/{path.name}"
        if not found:
            told.append(f"{where}:1: no action: write one into the table of actions")
        for action in found:
            at = f"{where}:{action.line}"
            if not action.owner:
                told.append(f"{at}: nobody owns {action.what!r}: name one person")
            if action.due is None:
                told.append(f"{at}: {action.what!r} has no date: write it as YYYY-MM-DD")
            elif action.due < today and not action.is_done:
                told.append(f"{at}: {action.what!r} was due {action.due}: do it, or say a new date")
    return told


def hints(folder: Path) -> list[str]:
    """
    Words that end the looking, each with a question that goes on.
    """
    return [
        f"ops/postmortems/{path.name}:{number}: hint: {found[0]!r}: {question}"
        for path in _written(folder)
        for number, line in enumerate(
            path.read_text(encoding="utf-8", errors="replace").splitlines(), 1
        )
        for pattern, question in BLAME.items()
        if (found := re.search(rf"\b(?:{pattern})\b", line, re.IGNORECASE))
    ]


@dataclass(kw_only=True)
class Timeline:
    """
    What happened between two times, by the events of the log; bounded, however long that is.
    """

    begin: datetime
    end: datetime
    unreadable: int = 0
    left_out: int = 0
    told: list[tuple[datetime, str]] = field(default_factory=list)
    kinds: Counter[str] = field(default_factory=Counter)
    minutes: dict[datetime, list[int]] = field(default_factory=dict)
    revisions: set[str] = field(default_factory=set)

    def read(self, lines: Iterable[bytes]) -> None:
        """
        Take in a log; what stands before the JSON of a line, as kubectl or journald put it, goes.
        """
        for line in lines:
            if not line.strip():
                continue
            try:
                event = json.loads(line[line.index(b"{") :])
                at = _time(event["timestamp"])
                name, level = str(event["event"]), str(event["level"])
            except (ValueError, KeyError, TypeError, RecursionError, argparse.ArgumentTypeError):
                self.unreadable += 1
                continue
            if self.begin <= at <= self.end:
                self._take(at, name, level, event)

    def _take(self, at: datetime, name: str, level: str, event: dict[str, Any]) -> None:
        if name == "request":
            minute = at.replace(second=0, microsecond=0)
            if minute in self.minutes or len(self.minutes) < MINUTES_MAX:
                both = self.minutes.setdefault(minute, [0, 0])
                both[0] += 1
                both[1] += isinstance(status := event.get("status"), int) and status >= 500
            if not event.get("reason"):
                return
        plain = {key: str(event[key]) for key in sorted(FIELDS & event.keys())}
        plain = {key: text for key, text in plain.items() if PLAIN.fullmatch(text)}
        # Events of third parties are prose, which may hold anything.
        name = name if PLAIN.fullmatch(name) else "an event of a library"
        kind = " ".join([name, *(plain[key] for key in ("reason", "dependency") if key in plain)])
        if name not in ALWAYS and level not in {"warning", "error", "critical"}:
            return
        is_first = kind in self.kinds or len(self.kinds) < TOLD_MAX
        self.kinds[kind if is_first else "others"] += 1
        if name not in ALWAYS and self.kinds[kind] != 1:
            return
        if len(self.told) >= TOLD_MAX:
            self.left_out += 1
            return
        shown = plain if name in {"started", "crash"} else {**plain, "revision": ""}
        fields = " ".join(f"{key}={text}" for key, text in shown.items() if text)
        deployed = ""
        if name == "started":
            revision = plain.get("revision", "unknown")
            is_new = bool(self.revisions) and revision not in self.revisions
            deployed = " (another revision: a deploy)" if is_new else ""
            self.revisions.add(revision)
        self.told.append((at, f"{level}: `{name}` {fields}".rstrip() + deployed))

    def rows(self) -> Iterator[str]:
        """
        Markdown: events by time, then kinds by number, then requests by minute.
        """
        yield from ("| UTC | event |", "| --- | --- |")
        for at, told in sorted(self.told):
            yield f"| {at:%Y-%m-%d %H:%M:%S} | {told} |"
        yield f"\nMore events than are shown: {self.left_out}. Unreadable lines: {self.unreadable}."
        yield from ("\n| kind | times |", "| --- | --- |")
        yield from (f"| `{kind}` | {number} |" for kind, number in self.kinds.most_common(50))
        yield from ("\n| minute, UTC | requests | 500 and above |", "| --- | --- | --- |")
        for minute, (all_, bad) in sorted(self.minutes.items()):
            yield f"| {minute:%Y-%m-%d %H:%M} | {all_} | {bad} |"


def _time(text: str) -> datetime:
    try:
        at = datetime.fromisoformat(text)
        utc = at.astimezone(UTC)
    except (ValueError, OverflowError):
        raise argparse.ArgumentTypeError(f"must be as 2026-11-23T03:50Z, got {text!r}") from None
    if at.tzinfo is None:
        raise argparse.ArgumentTypeError(f"must say its zone, such as {text}Z, got {text!r}")
    return utc


def _lines(stream: Any) -> Iterator[bytes]:
    """
    Lines of bounded length; of a longer one the parts are no JSON, and counted as such.
    """
    return iter(lambda: stream.readline(LINE_MAX), b"")


def _new(arguments: argparse.Namespace, project: Project) -> int:
    if arguments.begin >= arguments.end:
        print("--from must be before --to", file=sys.stderr)
        return 64
    folder = project.root / "ops" / "postmortems"
    slug = re.sub(r"[^a-z0-9]+", "-", arguments.title.lower()).strip("-")[:60] or "incident"
    path = folder / f"{arguments.begin:%Y-%m-%d}-{slug}.md"
    if path.exists():
        print(f"{path} is there already: name another --title", file=sys.stderr)
        return 64
    timeline = Timeline(begin=arguments.begin, end=arguments.end)
    try:
        text = (folder / TEMPLATE).read_text(encoding="utf-8")
        with ExitStack() as files:
            # All are opened before one is read.
            opened = [files.enter_context(log.open("rb")) for log in arguments.logs]
            for stream in opened or [sys.stdin.buffer]:
                timeline.read(_lines(stream))
    except OSError as error:
        print(f"{error.filename}: {error.strerror}: name a file that can be read", file=sys.stderr)
        return 64
    head = f"# Postmortem: {' '.join(arguments.title.split())}"
    text = re.sub(r"\A# .*", lambda _: head, text)
    span = f"{arguments.begin:%Y-%m-%d %H:%M} to {arguments.end:%Y-%m-%d %H:%M} UTC"
    text = text.replace("<!-- timeline -->", "\n".join([f"{span}.\n", *timeline.rows()]))
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        print(f"{path}: {error.strerror}: nothing is written", file=sys.stderr)
        return 64
    told = f"{len(timeline.told)} events, {timeline.unreadable} unreadable lines"
    print(f"{path.relative_to(project.root)}: {told}")
    return 0


def _check(_: argparse.Namespace, project: Project) -> int:
    folder = project.root / "ops" / "postmortems"
    wrong = faults(folder, project.now.date())
    print(*hints(folder), *wrong, sep="\n", end="\n" if wrong or hints(folder) else "")
    return 1 if wrong else 0


def register(commands: Any) -> None:
    """
    `postmortem new` and `postmortem check`.
    """
    acts = commands.add_parser("postmortem", help="begin one, or check their actions")
    acts = acts.add_subparsers(dest="act", required=True, metavar="new|check")
    new = acts.add_parser("new", help="write one, with a timeline from JSON logs")
    new.add_argument("--from", dest="begin", type=_time, required=True, metavar="TIME")
    new.add_argument("--to", dest="end", type=_time, required=True, metavar="TIME")
    new.add_argument("--title", default="incident", help="in a few words")
    new.add_argument("logs", nargs="*", type=Path, metavar="LOG", help="else from stdin")
    new.set_defaults(function=_new)
    check = acts.add_parser("check", help="name actions without owner or date, or overdue")
    check.set_defaults(function=_check)
