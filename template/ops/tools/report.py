"""
Runs checks, weighs what they and people found, and shows it.
"""

import json
import subprocess
import textwrap
import threading
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace

from ops.tools.checklist import Checklist, Item
from ops.tools.checks import Check
from ops.tools.declaration import Declaration
from ops.tools.finding import Finding, Result, fails, hide, not_yet, passes, unknown
from ops.tools.project import Project

__all__ = ["CHECK_SECONDS", "Line", "as_json", "as_table", "exit_code", "look", "weigh"]

# For all checks together: they run at once. Longer than a command of the service may take.
CHECK_SECONDS = 90.0
_WIDTH = 80
# The check did not see what it looks for.
_DARK = {Result.UNKNOWN, Result.SLOW}
# Of the first column, which holds the longest result and a blank.
_FIRST = max(map(len, Result)) + 1
_WALKED = "walked each time: "


@dataclass(frozen=True, kw_only=True)
class Line:
    """
    An item and what was found, as in the JSON.
    """

    id: str
    checklist: str
    check: str | None
    result: Result
    evidence: str
    next: str


def look(
    project: Project, checks: Mapping[str, Check], *, seconds: float = CHECK_SECONDS
) -> dict[str, Finding]:
    """
    Every check at once. One that hangs is slow, and one that raises is unknown.
    """
    found: dict[str, Finding] = {}
    threads = {
        name: threading.Thread(target=_try, args=(name, check, project, found), daemon=True)
        for name, check in checks.items()
    }
    for thread in threads.values():
        thread.start()
    deadline = time.monotonic() + seconds
    for thread in threads.values():
        thread.join(max(0.0, deadline - time.monotonic()))
    # A copy: one that hangs may end yet.
    ended = dict(found)
    late = _slow(f"did not end within {seconds:g} s")
    return {name: ended.get(name, late) for name in checks}


def weigh(
    lists: Iterable[Checklist],
    project: Project,
    found: Mapping[str, Finding],
    *,
    with_each_time: bool,
) -> list[Line]:
    """
    A line for each item that says something; a check that did not run says nothing.
    """
    lines = []
    for checklist in lists:
        for item in checklist.items:
            finding = _weigh(item, project, found)
            if finding and (with_each_time or not item.is_each_time):
                line = Line(id=item.id, checklist=item.checklist, check=item.check, **vars(finding))
                lines.append(line)
    return lines


def exit_code(lines: Iterable[Line], declaration: Declaration) -> int:
    results = {line.result for line in lines}
    if Result.FAIL in results:
        return 1
    if declaration.tier is None:
        return 0
    return 1 if results & _DARK else 2 if Result.NOT_YET in results else 0


def as_json(lines: Iterable[Line]) -> str:
    return json.dumps([asdict(line) for line in lines], indent=2)


def as_table(lines: list[Line], lists: Iterable[Checklist], declaration: Declaration) -> str:
    """
    At most 80 columns, and the same without colour.
    """
    rows: list[str] = []
    for checklist in lists:
        ours = [line for line in lines if line.checklist == checklist.name]
        if ours:
            rows += ["", *textwrap.wrap(f"{checklist.title} ({checklist.name})", _WIDTH), ""]
        for line in ours:
            # A box to walk looks like one.
            word = "[ ]" if line.evidence.startswith(_WALKED) else line.result
            rows += _wrap(f"{word:<{_FIRST}}{line.id}: {line.evidence.removeprefix(_WALKED)}")
            rows += _wrap(f"{'':<{_FIRST}}next: {line.next}") if line.next else []
    counts = Counter(line.result for line in lines)
    rows += ["", ", ".join(f"{counts[result]} {result}" for result in Result)]
    bad = [line.id for line in lines if line.result in {Result.FAIL, *_DARK}]
    rows += _wrap(f"{'look at':<{_FIRST}}{', '.join(bad)}") if bad else []
    if declaration.tier is None:
        where = declaration.where("tier")
        said = f'no tier is declared yet ({where}), so "not yet" is not a failure'
        rows += _wrap(f"{'':<{_FIRST}}{said}")
    return "\n".join(rows[1:])


def _try(name: str, check: Check, project: Project, found: dict[str, Finding]) -> None:
    try:
        finding = check(project)
    except subprocess.TimeoutExpired as error:
        command = error.cmd if isinstance(error.cmd, str) else " ".join(map(str, error.cmd))
        finding = _slow(f"`{command}` took longer than {error.timeout:g} s")
    except FileNotFoundError as error:
        # Of a program, such as git in an image without it.
        finding = unknown(f"{error.filename or error} is not there", next="install it")
    except Exception as error:  # noqa: BLE001  # one check never ends the run
        said = f"the check itself is broken: {type(error).__name__}: {error}"
        finding = unknown(said, next="report it to the template; this is a bug of ours")
    found[name] = replace(finding, evidence=hide(finding.evidence), next=hide(finding.next))


def _weigh(item: Item, project: Project, found: Mapping[str, Finding]) -> Finding | None:
    declared = project.declaration.tier
    if declared and declared > item.tier:
        counts = "A" if item.tier == "A" else "A and B"
        return _skip(f"counts for tier {counts}; this service is of tier {declared}")
    if item.check is None:
        return _human(item, project)
    finding = _waived(item.check, project) or found.get(item.check)
    result = finding.result if finding else None
    if finding and declared and result == Result.NOT_YET:
        finding = replace(finding, result=Result.FAIL)
    if finding and not declared and result == Result.FAIL and item.tier != "C":
        finding = replace(finding, result=Result.NOT_YET)
    return finding


def _waived(check: str, project: Project) -> Finding | None:
    # A waiver that was written anew counts, wherever the earlier one stands.
    for waiver in sorted(project.declaration.waivers, key=lambda each: each.until, reverse=True):
        # What is about a file alone is for the check to weigh.
        if waiver.check != check or waiver.file:
            continue
        if waiver.until >= project.now.date():
            return _skip(f"waived by {waiver.by} until {waiver.until}: {waiver.reason}")
        said = f"the waiver of {check} by {waiver.by} ended on {waiver.until}"
        return fails(said, next=f"mend it, and delete the waiver: {waiver.where}")
    return None


def _human(item: Item, project: Project) -> Finding:
    if item.is_each_time:
        return _skip(f"{_WALKED}{item.text}")
    command = f"uv run python -m ops checklist sign {item.id} --by NAME"
    if item.until is None:
        return not_yet(f"nobody signed yet ({item.owner}): {item.text}", next=command)
    if item.until < project.now.date():
        said = f"the signature of {item.signer} ended on {item.until}: {item.text}"
        return fails(said, next=command)
    return passes(f"signed by {item.signer} on {item.since}, until {item.until}")


def _slow(evidence: str) -> Finding:
    return Finding(result=Result.SLOW, evidence=evidence, next="run it again on a quieter machine")


def _skip(evidence: str) -> Finding:
    return Finding(result=Result.SKIP, evidence=evidence)


def _wrap(text: str) -> list[str]:
    # What others sent may hold anything, such as the codes that move a terminal's cursor.
    clean = "".join(c if c.isprintable() else " " for c in text)
    head, rest, blank = clean[:_FIRST], " ".join(clean[_FIRST:].split()), " " * _FIRST
    return textwrap.wrap(
        rest, _WIDTH, initial_indent=head, subsequent_indent=blank, break_on_hyphens=False
    )
