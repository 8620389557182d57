"""
Checklists: Markdown that reads well in any viewer, and the items that are in it.
"""

import os
import re
import tempfile
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

from ops.tools.declaration import Declaration, Malformed, did_you_mean

__all__ = ["FOLDER", "Checklist", "Item", "Misuse", "is_same_person", "lint", "read_all", "sign"]

FOLDER = "ops/checklists"
BOXES = 10

_ITEM = re.compile(
    r"(?:\[(?P<box>[ xX])\] )?`(?P<id>[a-z0-9]+(?:-[a-z0-9]+)*)`: (?P<text>.*)", re.DOTALL
)
_BOX = re.compile(r"\[[ xX]?\]")
# What stands in emphasis at an item's end, each once; a name may hold dots.
_DETAILS = {
    "check": r"Check: `(\w+)`",
    "tier": r"Tier ([ABC])",
    "owner": r"Owner: (\S.*)",
    "other": r"Not the (owner)",
    "days": r"Valid for ([1-9][0-9]{0,3}) days",
    "signed": r"Signed: (\S.*, [0-9-]{10}, until [0-9-]{10})",
    "each": r"(Each) time",
}
_SPLIT = re.compile(r"\.\s+(?=Check:|Tier |Owner:|Not the |Valid |Signed:|Each )|\.\s*$")
_SHELLS = {"", "bash", "console", "sh", "shell", "zsh"}
_BY_HAND = re.compile(r"<!-- by hand: \S.* -->")


class Misuse(Exception):  # noqa: N818  # of the command line
    """
    What was asked for makes no sense.
    """


@dataclass(frozen=True, kw_only=True)
class Item:
    """
    Bound to a check, or walked each time, or signed by a person and valid for *days*.
    """

    id: str
    checklist: str
    line: int
    end: int
    text: str
    is_ticked: bool
    check: str | None
    tier: str
    owner: str
    is_for_others: bool
    is_each_time: bool
    days: int
    signer: str = ""
    since: date | None = None
    until: date | None = None

    @property
    def where(self) -> str:
        return f"{FOLDER}/{self.checklist}.md:{self.line}"


@dataclass(frozen=True, kw_only=True)
class Checklist:
    """
    *problems* begin with file and line.
    """

    name: str
    title: str
    items: list[Item]
    problems: list[str]


def read_all(root: Path) -> list[Checklist]:
    """
    Every list, in the order of their names; raises Malformed where there is none.
    """
    lists = []
    for path in sorted((root / FOLDER).glob("*.md")):
        try:
            lists.append(_parse(path.stem, path.read_bytes().decode()))
        except (OSError, UnicodeDecodeError) as error:
            raise Malformed([f"{FOLDER}/{path.name}:1: can't be read: {error}"]) from error
    if not lists:
        raise Malformed([f"{FOLDER}:1: holds no checklist: bring them back with git"])
    return lists


def lint(
    lists: list[Checklist], declaration: Declaration, checks: Collection[str], today: date
) -> list[str]:
    """
    Everything that is wrong with the lists, and with the waivers.
    """
    problems = [problem for checklist in lists for problem in checklist.problems]
    first: dict[str, str] = {}
    for checklist in lists:
        for item in checklist.items:
            if item.id in first:
                problems.append(f"{item.where}: {item.id} is in {first[item.id]}, too: rename one")
            first.setdefault(item.id, item.where)
            said = _unknown_check(item, checks) or _wrong_signature(item, declaration, today)
            problems += [f"{item.where}: {item.id}: {said}"] if said else []
    problems += [
        f"{waiver.where}: {waiver.check!r} is no check{did_you_mean(waiver.check, checks)}"
        for waiver in declaration.waivers
        if waiver.check not in checks
    ]
    return problems


def sign(  # what it takes to lint the file before it is there
    root: Path,
    item: Item,
    *,
    by: str,
    on: date,
    declaration: Declaration,
    checks: Collection[str],
    today: date,
) -> date:
    """
    Ticks and signs the item in its file, and touches nothing else; returns the last day.
    """
    if item.check:
        raise Misuse(f"{item.id} is found out by the check {item.check}: nobody signs it")
    if item.is_each_time:
        raise Misuse(f"{item.id} is walked each time: nobody signs it")
    by = " ".join(by.split())
    path = (root / FOLDER / f"{item.checklist}.md").resolve()
    lines = _lines(path.read_bytes().decode())
    source = "".join(lines[item.line - 1 : item.end])
    until = on + timedelta(days=item.days)
    source = re.sub(r"\[[ xX]\]", "[x]", source, count=1)
    source = re.sub(r"\s+Signed: [^*]*(?=\*\s*$)", "", source)
    signature = f" Signed: {by}, {on}, until {until}.*"
    source = re.sub(r"\*(\s*)$", lambda end: signature + end[1], source)
    text = "".join([*lines[: item.line - 1], source, *lines[item.end :]])
    # Names can hold anything: what can't be read back is not written.
    after = _parse(item.checklist, text)
    if not by.isprintable() or (item.id, by) not in [(new.id, new.signer) for new in after.items]:
        raise Misuse(f"{by!r} can't stand in Markdown: give a name of letters and blanks")
    problems = lint([after], declaration, checks, today)
    if ours := [problem for problem in problems if problem.startswith(f"{item.where}:")]:
        raise Malformed(ours)
    _replace(path, text.encode())
    return until


def is_same_person(one: str, other: str) -> bool:
    return _person(one) == _person(other)


def _person(name: str) -> str:
    return " ".join(name.casefold().split()).removeprefix("@")


def _unknown_check(item: Item, checks: Collection[str]) -> str:
    if item.check is None or item.check in checks:
        return ""
    return f"{item.check!r} is no check{did_you_mean(item.check, checks)}"


def _wrong_signature(item: Item, declaration: Declaration, today: date) -> str:
    if item.since is None or item.until is None:
        return ""
    said = ""
    where = declaration.where("people.owner")
    owner = declaration.get("people.owner") if item.is_for_others else None
    if is_same_person(item.signer, item.owner):
        said = f"is signed by {item.signer!r}, its owner: somebody else signs"
    elif item.is_for_others and owner is None:
        said = f"not the owner signs, and {where} names nobody: name the owner there"
    elif owner and is_same_person(item.signer, owner):
        said = f"is signed by {item.signer!r}, the owner ({where}): somebody else signs"
    elif item.since > today:
        said = f"is signed on {item.since}, which is to come: sign when it is done"
    elif not item.since <= item.until <= item.since + timedelta(days=item.days):
        said = f"ends on {item.until}, not {item.days} days after {item.since}: sign again"
    return said


def _parse(name: str, text: str) -> Checklist:
    # Some editors begin a file with it.
    tokens = MarkdownIt().parse(text.removeprefix("\ufeff"))
    title = tokens[1].content if len(tokens) > 1 and tokens[0].tag == "h1" else ""
    read = list(_read(name, tokens))
    items = [each for each in read if isinstance(each, Item)]
    problems = [each for each in read if isinstance(each, tuple)]
    boxes = [item for item in items if item.check is None]
    if len(boxes) > BOXES:
        say = f"{len(boxes)} boxes, and nobody walks more than {BOXES}: split the list or delete"
        problems.append((boxes[BOXES].line, say))
    if not title:
        problems.append((1, "begins without `# Title`: add one"))
    if not read:
        problems.append((1, "holds no item: write some, or delete the file"))
    where = [f"{FOLDER}/{name}.md:{line}: {say}" for line, say in sorted(problems)]
    return Checklist(name=name, title=title, items=items, problems=where)


def _read(name: str, tokens: list[Token]) -> Iterator[Item | tuple[int, str]]:
    """
    Items, and what is wrong in which line.
    """
    depth = 0
    for index, token in enumerate(tokens):
        line = token.map[0] + 1 if token.map else 1
        depth += {"list_item_open": 1, "list_item_close": -1}.get(token.type, 0)
        if token.type == "list_item_open" and depth > 1:
            yield line, "an item is in another one: begin it at the margin"
        if token.type == "fence" and token.info.partition(" ")[0] in _SHELLS:
            if not _BY_HAND.match(tokens[index - 1].content):
                yield line, "a program: make it a check, or say `<!-- by hand: why -->` before it"
        elif token.type == "inline":
            begins = depth == 1 and tokens[index - 2].type == "list_item_open"
            plain = "".join(c.content for c in token.children or () if c.type == "text")
            if len(_BOX.findall(plain)) > (begins and bool(_BOX.match(plain))):
                yield line, "a box in the midst of text: begin its line with `- [ ] `"
            elif begins:
                made = _item(name, token)
                yield (line, made) if isinstance(made, str) else made


def _item(name: str, token: Token) -> Item | str:
    """
    The item, or what is wrong with it.
    """
    start, end = token.map or [0, 0]
    found = _ITEM.fullmatch(token.content)
    if not found:
        return "an item begins with its id in backticks, as in - [ ] `its-id`: what was done"
    text, details = found["text"], ""
    if len(parts := re.split(r"(?<=\s)\*(?=\S)", text)) > 1 and text.endswith("*"):
        details = " ".join(parts[-1][:-1].split())
        text = text[: -len(parts[-1]) - 1]
    given: dict[str, str] = {}
    for detail in filter(None, _SPLIT.split(details)):
        for key, pattern in _DETAILS.items():
            if (match := re.fullmatch(pattern, detail)) and key not in given:
                given[key] = match[1]
                break
        else:
            return f"{detail!r} is not understood, or there twice: see docs of `python -m ops`"
    said = _contradiction(found["id"], found["box"], given)
    if said:
        return f"{found['id']}: {said}"
    signer, *days = re.split(r", (?:until )?(?=[0-9-]{10})", given.get("signed", ""))
    try:
        dates = [date.fromisoformat(day) for day in days]
    except ValueError:
        return f"{found['id']}: {given['signed']!r} holds no date such as 2027-01-31"
    return Item(
        id=found["id"],
        checklist=name,
        line=start + 1,
        end=end,
        text=" ".join(text.split()),
        is_ticked=found["box"] in {"x", "X"},
        check=given.get("check"),
        tier=given.get("tier", "C"),
        owner=given.get("owner", ""),
        is_for_others="other" in given,
        is_each_time="each" in given,
        days=int(given.get("days", "0")),
        signer=signer,
        since=dates[0] if dates else None,
        until=dates[1] if dates else None,
    )


def _contradiction(name: str, box: str | None, given: dict[str, str]) -> str:
    human = given.keys() & {"owner", "other", "days", "signed", "each"}
    if "check" in given:
        if box:
            return "a machine finds this out, and nobody ticks it: take the box away"
        return "a check has no owner and no signature: take them away" if human else ""
    if not box:
        return "has neither a box nor a check: add `[ ] ` or *Check: `name`.*"
    said = ""
    if "each" in given:
        said = "is walked each time, so nobody signs it" if len(human) > 1 else ""
    elif not {"owner", "days"} <= human:
        said = "add *Owner: name. Valid for 180 days.* or *Each time.*"
    elif box == " " and "signed" in given:
        said = "is signed, but not ticked: sign it again"
    elif box != " " and "signed" not in given:
        said = f"is ticked, but nobody signed: `python -m ops checklist sign {name} --by NAME`"
    return said


def _lines(text: str) -> list[str]:
    """
    As Markdown counts them, with their ends.
    """
    return re.split(r"(?<=\n)|(?<=\r)(?!\n)", text)


def _replace(path: Path, content: bytes) -> None:
    """
    All of it or nothing.
    """
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(path.stat().st_mode)
        Path(name).replace(path)
    finally:
        Path(name).unlink(missing_ok=True)
