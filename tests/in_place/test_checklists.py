"""
Checklists: what is wrong is named by file and line, what a machine finds out nobody ticks, what
people signed ends.
"""

import errno
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import ops.__main__ as command
import pytest
from harness import ROOT, TEMPLATE
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from ops.tools import checklist, report
from ops.tools.checks import CHECKS
from ops.tools.declaration import Declaration, Malformed, read
from ops.tools.finding import Finding, Result, fails, not_yet, nothing, passes, unknown
from ops.tools.project import Project

TODAY = datetime.now(UTC).date()
DECLARATION = """\
apiVersion: backstage.io/v1alpha1
kind: Component
metadata:
  name: order-desk
spec:
  type: service
  lifecycle: experimental
  owner: acme/payments_2
  tier: <A, B or C>
  people:
    owner: Ada Lovelace
    second: Grace Hopper
  contact: "#orders"
  escalation: the head of payments
  objectives:
    availability: {percent: 99.9, days: 28}
  dependencies: []
  waivers: []
"""
LIST = """\
# Things

Some words.

- `good`: It is good. *Check: `good`.*
- `later`: It may be known later. *Check: `later`.*
- `rare`: Of the highest tier. *Check: `later`. Tier A.*

## What only a human can do

- [ ] `drill`: It was done
  on purpose. *Owner: payments. Valid for 180 days.*
- [ ] `away`: Somebody else did it. *Owner: payments. Not the owner. Valid for 90 days.*
- [ ] `walk`: Walk. *Each time.*
"""
FINDINGS: dict[str, Finding] = {
    "good": passes("1 of 1"),
    "later": not_yet("nobody knows", next="wait"),
    "bad": fails("0 of 1", next="mend it"),
    "dark": unknown("no light", next="switch it on"),
    "slow": Finding(result=Result.SLOW, evidence="still at it", next="run it again"),
    "empty": nothing("0 of 0"),
}
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(name="root")
def _root(tmp_path: Path) -> Path:
    """
    A project of one list, whose tier is not declared.
    """
    (tmp_path / "ops/checklists").mkdir(parents=True)
    (tmp_path / "ops/service.yaml").write_text(DECLARATION)
    (tmp_path / "ops/checklists/things.md").write_text(LIST)
    return tmp_path


@pytest.fixture(name="run")
def _run(root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """
    `python -m ops checklist` with four checks that find what FINDINGS say.
    """
    checks = {name: (lambda _, found=found: found) for name, found in FINDINGS.items()}

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["ops", "checklist", *arguments])
        monkeypatch.setattr(command, "ROOT", root)
        monkeypatch.setattr(command, "CHECKS", checks)
        with pytest.raises(SystemExit) as ended:
            command.main()
        return int(ended.value.code or 0), *capsys.readouterr()

    return run


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def declare(root: Path, tier: str = "A", waivers: str = "[]") -> None:
    edit(root / "ops/service.yaml", "<A, B or C>", tier)
    edit(root / "ops/service.yaml", "waivers: []", f"waivers: {waivers}")


def signed(by: str, on: date, until: date) -> str:
    return f" Signed: {by}, {on}, until {until}.*"


def results(out: str) -> dict[str, str]:
    return {item["id"]: item["result"] for item in json.loads(out)}


@pytest.mark.promise("P1")
def test_day_one_is_not_red(run: Run) -> None:
    """
    While no tier is declared, what can't be known yet is "not yet", and the exit status 0.
    """
    code, out, _ = run("run", "--json")

    assert code == 0
    assert results(out) == {
        "good": "pass",
        "later": "not yet",
        "rare": "not yet",
        "drill": "not yet",
        "away": "not yet",
    }


@pytest.mark.promise("P1")
def test_declared_tier_is_red(run: Run, root: Path) -> None:
    """
    Once the tier is declared, the same items fail; what people do stays open.
    """
    declare(root)

    code, out, _ = run("run", "--json")

    assert code == 1
    assert results(out) == {
        "good": "pass",
        "later": "fail",
        "rare": "fail",
        "drill": "not yet",
        "away": "not yet",
    }


def test_only_people_are_left(run: Run, root: Path) -> None:
    """
    With open human items alone the status is 2, and 0 when all are signed.
    """
    declare(root)
    things = root / "ops/checklists/things.md"
    things.write_text(re.sub(r".*`later`.*\n", "", LIST))

    assert run("run")[0] == 2
    for item in ("drill", "away"):
        assert run("sign", item, "--by", "Grace Hopper")[0] == 0
    assert run("run")[0] == 0


@pytest.mark.parametrize(("tier", "result"), [("A", "fail"), ("B", "skip"), ("C", "skip")])
def test_tiers_decide_what_counts(run: Run, root: Path, tier: str, result: str) -> None:
    """
    An item of tier A is skipped, and says why, in a service of tier B or C.
    """
    declare(root, tier)

    items = {item["id"]: item for item in json.loads(run("run", "--json")[1])}

    assert items["rare"]["result"] == result
    assert result == "fail" or f"this service is of tier {tier}" in items["rare"]["evidence"]


def test_shape_of_json(run: Run) -> None:
    """
    A list of items, each with six members, and evidence in each.
    """
    items = json.loads(run("run", "things", "--json")[1])

    for item in items:
        assert list(item) == ["id", "checklist", "check", "result", "evidence", "next"]
        assert item["evidence"]
        assert item["next"] or item["result"] in {"pass", "skip", "does not apply"}
    assert [item["check"] for item in items[:2]] == ["good", "later"]
    # Of a list that is named, what is walked each time is shown, too.
    assert items[-1]["id"] == "walk"


def test_table_fits(run: Run, root: Path) -> None:
    """
    At most 80 columns, plain text, whatever a check found.
    """
    edit(root / "ops/checklists/things.md", "`drill`", "`" + "-".join(["drill"] * 12) + "`")
    edit(root / "ops/checklists/things.md", "# Things", "# " + "Long " * 30)

    code, out, _ = run("run", "things")

    assert code == 0
    assert "\n[ ]            walk: Walk.\n" in out
    assert max(map(len, out.splitlines())) <= 80
    assert "\x1b" not in out


def test_status_runs_nothing(run: Run) -> None:
    """
    `status` shows what people signed, and no check.
    """
    assert set(results(run("status", "--json")[1])) == {"drill", "away"}


def test_waiver(run: Run, root: Path) -> None:
    """
    A waiver skips its check with reason and name; after its end it fails.
    """
    waiver = "[{{check: later, reason: it rains, by: Ada, until: {}}}]"
    declare(root, "C", waiver.format(TODAY))
    items = {item["id"]: item for item in json.loads(run("run", "--json")[1])}
    assert items["later"]["result"] == "skip"
    assert items["later"]["evidence"] == f"waived by Ada until {TODAY}: it rains"

    edit(root / "ops/service.yaml", f"until: {TODAY}", f"until: {TODAY - timedelta(days=1)}")
    code, out, _ = run("status", "--json")

    assert code == 1
    items = {item["id"]: item for item in json.loads(out)}
    assert "the waiver of later by Ada ended on" in items["later"]["evidence"]


def test_waiver_is_renewed(run: Run, root: Path) -> None:
    """
    Of two waivers of a check the later one counts.
    """
    waiver = "{{check: later, reason: it rains, by: Ada, until: {}}}"
    days = [TODAY - timedelta(days=1), TODAY]
    declare(root, "C", f"[{', '.join(waiver.format(day) for day in days)}]")

    assert results(run("run", "--json")[1])["later"] == "skip"


def test_signature_ends(run: Run, root: Path) -> None:
    """
    A signature that has ended fails, even before the tier is declared.
    """
    ended = signed("Grace", TODAY - timedelta(days=181), TODAY - timedelta(days=1))
    things = root / "ops/checklists/things.md"
    edit(things, "[ ] `drill`", "[x] `drill`")
    edit(things, "180 days.*", f"180 days.{ended}")

    code, out, _ = run("run", "--json")

    assert code == 1
    assert results(out)["drill"] == "fail"


GOOD = signed("Grace", TODAY, TODAY + timedelta(days=90))
BROKEN = [
    ("# Things", "Things", ":1: begins without `# Title`"),
    ("- `good`", "- [ ] `good`", ":5: good: a machine finds this out, and nobody ticks it"),
    ("- `good`", "- [x] `good`", ":5: good: a machine finds this out, and nobody ticks it"),
    ("`good`.*", "`god`.*", ":5: good: 'god' is no check, did you mean 'good'?"),
    ("`good`.*", "`good`. Owner: me.*", ":5: good: a check has no owner"),
    ("Tier A", "Tier D", ":7: 'Tier D' is not understood"),
    ("Tier A", "Tier A. Tier B", ":7: 'Tier B' is not understood, or there twice"),
    ("`later`: It", "`good`: It", ":6: good is in ops/checklists/things.md:5, too"),
    ("`later`:", "`Later On`:", ":6: an item begins with its id"),
    ("- `later`", "- later", ":6: an item begins with its id"),
    ("*Check: `good`.*", "", ":5: good: has neither a box nor a check"),
    ("- [ ] `walk`", "-[ ] `walk`", ":13: a box in the midst of text"),
    ("- [ ] `walk`", "- [] `walk`", ":14: an item begins with its id"),
    ("- [ ] `walk`", "  - [ ] `walk`", ":14: an item is in another one"),
    ("[ ] `walk`", "`walk`", ":14: walk: has neither a box nor a check"),
    ("Owner: payments. Valid", "Valid", ":11: drill: add *Owner: name. Valid for 180 days.*"),
    ("180 days", "some days", ":11: 'Valid for some days' is not understood"),
    ("180 days", "0 days", ":11: 'Valid for 0 days' is not understood"),
    ("[ ] `drill`", "[x] `drill`", ":11: drill: is ticked, but nobody signed"),
    ("90 days.*", f"90 days.{GOOD}", ":13: away: is signed, but not ticked"),
    (
        "[ ] `walk`: Walk. *Each time.*",
        "[x] `walk`: W. *Owner: p. Valid for 9 days. Signed: Al, 2026-02-30, until 2026-03-01.*",
        ":14: walk: 'Al, 2026-02-30, until 2026-03-01' holds no date",
    ),
    ("*Each time.*", "*Each time. Owner: me.*", ":14: walk: is walked each time, so nobody"),
    ("Walk. *Each time.*", "Walk. *Each time.*\n\n  ```sh\n  ls\n  ```", ":16: a program: make it"),
    (LIST, "", ":1: begins without `# Title`"),
    (LIST, "# Things\n", ":1: holds no item"),
]


@pytest.mark.parametrize(("old", "new", "told"), BROKEN, ids=[each[2] for each in BROKEN])
def test_broken_checklist(run: Run, root: Path, old: str, new: str, told: str) -> None:
    """
    What is wrong in a checklist is named with file and line, and the exit status is 78.
    """
    edit(root / "ops/checklists/things.md", old, new)

    code, out, said = run("run")

    assert (code, out) == (78, "")
    assert f"ops/checklists/things.md{told}" in said


def test_program_with_a_reason(run: Run, root: Path) -> None:
    """
    A command in a checklist says why no machine runs it.
    """
    why = "\n\n  <!-- by hand: it needs two people -->\n  ```sh\n  ls\n  ```"
    edit(root / "ops/checklists/things.md", "Walk. *Each time.*", f"Walk. *Each time.*{why}")

    assert run("run")[0] == 0


def test_all_problems_at_once(run: Run, root: Path) -> None:
    """
    Each mistake has its own line.
    """
    things = root / "ops/checklists/things.md"
    for old, new, _ in BROKEN[1:2] + BROKEN[16:17]:
        edit(things, old, new)
    edit(root / "ops/service.yaml", "waivers: []", "waivers: []")

    assert len(run("run")[2].splitlines()) == 2


def test_eleven_boxes(run: Run, root: Path) -> None:
    """
    Nobody walks more than ten boxes.
    """
    boxes = "".join(f"- [ ] `b-{n}`: Walk. *Each time.*\n" for n in range(8))
    edit(root / "ops/checklists/things.md", "- [ ] `walk`", f"{boxes}- [ ] `walk`")

    code, _, said = run("run")

    assert code == 78
    assert "things.md:22: 11 boxes" in said


@pytest.mark.parametrize("content", [b"\xff\xfe", None], ids=["no-text", "no-file"])
def test_unreadable_checklist(run: Run, root: Path, content: bytes | None) -> None:
    """
    A list that is no text, or no list at all, is named.
    """
    things = root / "ops/checklists/things.md"
    things.write_bytes(content) if content else things.unlink()

    code, _, said = run("run")

    assert code == 78
    assert said.startswith("ops/checklists")


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("<A, B or C>", "D", ":9: spec.tier must be A, B or C, got 'D'"),
        ("tier:", "teir:", ":9: spec.teir is unknown, did you mean 'tier'?"),
        ("tier:", "teir:", ":5: spec.tier is missing"),
        ("second:", "owner:", ":12: spec.people.owner is there twice, first in line 11"),
        ("99.9", "100", ":16: spec.objectives.availability.percent must be a number above 0"),
        ("99.9", "1:30", ":16: spec.objectives.availability.percent must be a number above 0"),
        ("days: 28", "days: true", ":16: spec.objectives.availability.days must be a whole"),
        ("dependencies: []", "dependencies: [x]", ":17: spec.dependencies[0] must be a mapping"),
        ("waivers: []", "waivers: [{check: later}]", ":18: spec.waivers[0].until is missing"),
        (
            "waivers: []",
            "waivers: [{check: layter, reason: r, by: b, until: 2027-01-31}]",
            ":18: 'layter' is no check, did you mean 'later'?",
        ),
        (
            "waivers: []",
            "waivers: [{check: later, reason: r, by: b, until: 2027-02-30}]",
            ":18: spec.waivers[0].until must be a date such as 2027-01-31, got '2027-02-30'",
        ),
        ("waivers: []", "waivers: [", ":19: can't be read as YAML"),
        ("waivers: []", "waivers: *others", ":18: can't be read as YAML: write aliases"),
        ("contact:", "1:", ":13: the key '1' must be text"),
        ("name: order-desk", "name: order desk", ":4: metadata.name must be at most 63 letters"),
        (DECLARATION, "- a list", ":1: the file must be a mapping"),
        (DECLARATION, "", ":1: is empty"),
        (DECLARATION, "[" * 5000, ":1: can't be read as YAML"),
        ("kind", "\0", ":1: can't be read as YAML"),
    ],
)
def test_broken_declaration(run: Run, root: Path, old: str, new: str, told: str) -> None:
    """
    What is wrong in the declaration is named with file and line, and the exit status is 78.
    """
    edit(root / "ops/service.yaml", old, new)

    code, out, said = run("run")

    assert (code, out) == (78, "")
    assert f"ops/service.yaml{told}" in said


def test_declaration_is_missing(run: Run, root: Path) -> None:
    """
    Without a declaration nothing runs.
    """
    (root / "ops/service.yaml").unlink()

    assert run("run")[0] == 78


@pytest.mark.parametrize(("mark", "ending"), [("", "\n"), ("", "\r\n"), ("\ufeff", "\r\n")])
def test_sign(run: Run, root: Path, mark: str, ending: str) -> None:
    """
    One line changes, everything else stays byte for byte; signing again renews.
    """
    things = root / "ops/checklists/things.md"
    before = (mark + LIST.replace("\n", ending)).encode()
    things.write_bytes(before)
    earlier = TODAY - timedelta(days=100)
    assert (
        run("sign", "drill", "--by", "Dr. Grace  M. Hopper, Adm.", "--date", str(earlier))[0] == 0
    )

    code, out, _ = run("sign", "drill", "--by", "Dr. Grace  M. Hopper, Adm.")

    signature = signed("Dr. Grace M. Hopper, Adm.", TODAY, TODAY + timedelta(days=180)).encode()
    expected = before.replace(b"[ ] `drill`", b"[x] `drill`")
    assert things.read_bytes() == expected.replace(b"180 days.*", b"180 days." + signature)
    assert code == 0
    assert str(TODAY + timedelta(days=180)) in out
    assert results(run("status", "--json")[1])["drill"] == "pass"
    assert [path.name for path in things.parent.iterdir()] == ["things.md"]


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (("good", "--by", "Al"), 64, "good is found out by the check good"),
        (("walk", "--by", "Al"), 64, "walk is walked each time"),
        (("dril", "--by", "Al"), 64, "'dril' is no item, did you mean 'drill'?"),
        (("drill", "--by", " "), 64, "can't stand in Markdown"),
        (("drill", "--by", "*Al*"), 64, "can't stand in Markdown"),
        (("drill", "--by", "Al\x1b[2J"), 64, "can't stand in Markdown"),
        (("drill", "--by", "\u202eAl"), 64, "can't stand in Markdown"),
        (("drill", "--by", "Al. Tier A"), 64, "can't stand in Markdown"),
        (("drill",), 64, "--by"),
        (("drill", "--by", "Al", "--date", "2026-02-30"), 64, "invalid fromisoformat value"),
        (("drill", "--by", "Al", "--date", "2999-01-01"), 64, "2999-01-01 is to come"),
        (("drill", "--by", " @PayMents"), 78, "things.md:11: drill: is signed by"),
        (("away", "--by", "ada  LOVELACE "), 78, "things.md:13: away: is signed by"),
    ],
)
@pytest.mark.promise("P6")
def test_who_may_not_sign(
    run: Run, root: Path, arguments: tuple[str, ...], code: int, told: str
) -> None:
    """
    Machine items, unknown ones, the owner in any spelling, days to come: refused, nothing written.
    """
    ended, _, said = run("sign", *arguments)

    assert ended == code
    assert told in said
    assert (root / "ops/checklists/things.md").read_text() == LIST


@pytest.mark.promise("P6")
def test_owner_wrote_own_name(run: Run, root: Path) -> None:
    """
    The owner's name in the file, written by hand, is found as well; so is an owner nobody named.
    """
    things = root / "ops/checklists/things.md"
    edit(things, "[ ] `away`", "[x] `away`")
    until = TODAY + timedelta(days=90)
    edit(things, "90 days.*", f"90 days.{signed('Ada Lovelace', TODAY, until)}")
    assert (
        "ops/checklists/things.md:13: away: is signed by 'Ada Lovelace', the owner" in run("run")[2]
    )

    edit(root / "ops/service.yaml", "owner: Ada Lovelace", "owner: <who>")

    code, _, said = run("run")
    assert code == 78
    assert "ops/service.yaml:11 names nobody" in said


@pytest.mark.parametrize(
    ("since", "until", "told"),
    [(1, 20, "which is to come"), (0, 91, "sign again"), (0, -1, "sign again")],
)
def test_dates_by_hand(run: Run, root: Path, since: int, until: int, told: str) -> None:
    """
    A signature from the future, or longer than allowed, is an error.
    """
    things = root / "ops/checklists/things.md"
    edit(things, "[ ] `away`", "[x] `away`")
    days = [TODAY + timedelta(days=each) for each in (since, until)]
    edit(things, "90 days.*", f"90 days.{signed('Grace', *days)}")

    code, _, said = run("run")

    assert code == 78
    assert told in said


def test_sign_that_is_interrupted(run: Run, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A full disk leaves the list as it was, and no rest of another file.
    """

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)

    code, _, said = run("sign", "drill", "--by", "Grace")

    assert code == 78
    assert "things.md:11: can't be written: No space left on device" in said
    assert {path.name: path.read_text() for path in (root / "ops/checklists").iterdir()} == {
        "things.md": LIST
    }


@pytest.mark.parametrize("arguments", [("run", "thing"), ("walk",), (), ("run", "--jsno")])
def test_wrong_usage(run: Run, arguments: tuple[str, ...]) -> None:
    """
    Exit status 64, and what is known.
    """
    code, out, said = run(*arguments)

    assert (code, out) == (64, "")
    assert said


def test_reader_has_seen_enough(root: Path) -> None:
    """
    Where stdout is closed by its reader, such as `head`, nothing is said of it.
    """
    (root / "ops/checklists/things.md").write_text("# T\n\n- [ ] `x`: It. *Each time.*\n")
    for path in ("__init__.py", "__main__.py", "tools"):
        (root / "ops" / path).symlink_to(TEMPLATE / "ops" / path)
    reader, writer = os.pipe()
    os.close(reader)

    ended = subprocess.run(
        [sys.executable, "-m", "ops", "checklist", "status", "things"],
        cwd=root,
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        timeout=30,
    )

    os.close(writer)
    assert (ended.returncode, ended.stderr) == (141, "")


def test_help_says_the_exit_codes(run: Run) -> None:
    """
    Each exit status is explained where people look, within 80 columns.
    """
    code, out, _ = run("run", "--help")

    assert code == 0
    assert re.findall(r"(?m)^  (\d+) ", out) == ["0", "1", "2", "64", "78"]


@pytest.mark.promise("P1")
def test_checks_that_hang_or_break(root: Path) -> None:
    """
    One that hangs is slow and one that breaks unknown, each with a reason, and both hold up nobody.
    """
    forever = threading.Event()

    def hangs(_: Project) -> Finding:
        forever.wait()
        return passes("never")

    def breaks(_: Project) -> Finding:
        raise ZeroDivisionError("by nothing\x1b[2J")

    def waits(_: Project) -> Finding:
        subprocess.run(["sleep", "60"], check=True, timeout=0.01)
        return passes("never")

    def lacks(_: Project) -> Finding:
        subprocess.run(["no-such-program"], check=True)
        return passes("never")

    def good(_: Project) -> Finding:
        return passes("1")

    begun = time.monotonic()
    found = report.look(
        Project(root),
        {"hangs": hangs, "breaks": breaks, "waits": waits, "lacks": lacks, "good": good},
        seconds=2,
    )

    assert time.monotonic() - begun < 30
    assert {name: each.result for name, each in found.items()} == {
        "hangs": Result.SLOW,
        "breaks": Result.UNKNOWN,
        "waits": Result.SLOW,
        "lacks": Result.UNKNOWN,
        "good": Result.PASS,
    }
    assert found["hangs"].evidence == "did not end within 2 s"
    assert re.fullmatch(r"`sleep 60` took longer than [\d.]+ s", found["waits"].evidence)
    assert found["lacks"].evidence == "no-such-program is not there"
    assert "ZeroDivisionError: by nothing" in found["breaks"].evidence
    forever.set()


@pytest.mark.parametrize("password", ["hunter2", "hun@ter2", "hun/ter2", "hun#ter2"])
def test_no_password_is_told(run: Run, root: Path, password: str) -> None:
    """
    What stands before the host in a URL gets into no finding and no error.
    """
    url = f"https://ada:{password}@prometheus.example.com/x"

    def breaks(_: Project) -> Finding:
        raise ValueError(url)

    found = report.look(
        Project(root),
        {"fails": lambda _: fails(f"{url} is closed", next=f"open {url}"), "breaks": breaks},
    )
    edit(root / "ops/service.yaml", "<A, B or C>", url)
    said = run("run")[2]

    assert "://…@prometheus.example.com/x is closed" in found["fails"].evidence
    assert "service.yaml:9: spec.tier must be A, B or C, got 'https://…@prom" in said
    assert "ter2" not in said + "".join(str(each) for each in found.values())


@pytest.mark.promise("P1")
@pytest.mark.parametrize(
    ("check", "tier", "code", "word"),
    [
        ("dark", "<A, B or C>", 0, "unknown"),
        ("dark", "C", 1, "unknown"),
        ("slow", "<A, B or C>", 0, "slow"),
        ("slow", "C", 1, "slow"),
        ("empty", "<A, B or C>", 0, "does not apply"),
        ("empty", "C", 0, "does not apply"),
    ],
)
def test_results_that_are_neither(  # noqa: PLR0917
    run: Run, root: Path, check: str, tier: str, code: int, word: str
) -> None:
    """
    A check that could not look, or was slow, is red once the tier is declared; one that has nothing
    to look at is never red, and does not count as passed.
    """
    edit(root / "ops/service.yaml", "<A, B or C>", tier)
    text = f"# T\n\n- `x`: It. *Check: `{check}`.*\n- `y`: It. *Check: `good`.*\n"
    (root / "ops/checklists/things.md").write_text(text)

    ended, out, _ = run("run")
    items = json.loads(run("run", "--json")[1])

    assert ended == code
    assert re.search(rf"^{word} +x: {FINDINGS[check].evidence}$", out, re.MULTILINE)
    counts = dict.fromkeys(Result, 0) | {Result.PASS: 1, Result(word): 1}
    assert "\n" + ", ".join(f"{count} {each}" for each, count in counts.items()) in out
    assert ("look at" in out) == (check != "empty")
    assert [item["result"] for item in items] == [word, "pass"]


def rendered(source: str, **answers: Any) -> str:
    """
    As copier does it.
    """
    environment = Environment(
        loader=FileSystemLoader(ROOT),
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701  # YAML
    )
    environment.filters["to_json"] = json.dumps
    return environment.from_string((TEMPLATE / source).read_text()).render(**answers)


OWNERS = ["your-team", "acme/payments_2", "Payments"]


@pytest.fixture(name="declaration", params=OWNERS)
def _declaration(request: pytest.FixtureRequest, tmp_path: Path) -> Declaration:
    path = tmp_path / "service.yaml"
    path.write_text(
        rendered(
            "ops/service.yaml.jinja",
            service_name="x" * 52,
            description="Grüße: it's # one",
            owner=request.param,
            processes=["web", "worker", "job"],
            database="postgresql",
        )
    )
    return read(path)


def test_backstage_takes_it(declaration: Declaration) -> None:
    """
    What Backstage's schemas and validators of Component, Entity and EntityMeta demand, in November
    2026; they allow other members in `spec`, and none at the top.
    """
    values = declaration.values

    assert set(values) <= {"apiVersion", "kind", "metadata", "spec", "relations", "status"}
    assert values["apiVersion"] in {"backstage.io/v1alpha1", "backstage.io/v1beta1"}
    assert values["kind"] == "Component"
    name = values["metadata"]["name"]
    assert len(name) <= 63
    assert re.fullmatch(r"([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]", name)
    assert isinstance(values["metadata"]["description"], str)
    for key in ("type", "lifecycle", "owner"):
        assert isinstance(values["spec"][key], str)
        assert values["spec"][key]
    # [kind:][namespace/]name; a namespace is compared in lower case, and is a DNS label.
    *namespace, owner = values["spec"]["owner"].rpartition(":")[2].split("/")
    assert len(namespace) <= 1
    assert all(re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", each.lower()) for each in namespace)
    assert re.fullmatch(r"([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]", owner)
    # What is a date to YAML 1.1 would not survive the way through JSON.
    assert values == json.loads(json.dumps(values))


def test_declaration_of_a_new_project(declaration: Declaration) -> None:
    """
    Nothing is known yet, and each placeholder has its line.
    """
    assert declaration.tier is None
    assert declaration.get("people.owner") is None
    assert "spec.tier" in declaration.placeholders
    assert re.fullmatch(r"ops/service\.yaml:\d+", declaration.where("people.owner"))


@pytest.mark.parametrize("owner", OWNERS)
def test_our_checklists(tmp_path: Path, declaration: Declaration, owner: str) -> None:
    """
    Each list is right, each check that it names exists, and each check stands in a list.
    """
    folder = tmp_path / "ops/checklists"
    folder.mkdir(parents=True)
    for path in sorted((TEMPLATE / "ops/checklists").iterdir()):
        (folder / path.name.removesuffix(".jinja")).write_text(
            rendered(f"ops/checklists/{path.name}", owner=owner, processes=["web"])
        )
    lists = checklist.read_all(tmp_path)

    assert checklist.lint(lists, declaration, CHECKS, TODAY) == []
    assert set(CHECKS) == {item.check for each in lists for item in each.items if item.check}
    assert {each.name for each in lists} == {
        "deploy",
        "first-deploy",
        "incident",
        "restore-drill",
        "rollback",
        "vacation",
    }


def test_vacation_is_signed_by_others(tmp_path: Path) -> None:
    """
    Deploy, rollback and restore are for somebody else than the owner.
    """
    (tmp_path / "ops/checklists").mkdir(parents=True)
    text = rendered("ops/checklists/vacation.md.jinja", owner="payments")
    (tmp_path / "ops/checklists/vacation.md").write_text(text)
    [vacation] = checklist.read_all(tmp_path)

    others = {item.id for item in vacation.items if item.is_for_others}
    assert {"vacation-deploy", "vacation-rollback", "vacation-restore"} <= others


def test_no_problem_without_a_reason() -> None:
    """
    An exception of the declaration says what is wrong.
    """
    assert str(Malformed(["a", "b"])) == "a\nb"
