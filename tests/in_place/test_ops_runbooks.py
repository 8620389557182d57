"""
Runbooks: whatever a log, a problem, an alert or an exit code says leads to a section.
"""

import re
from pathlib import Path

import pytest
from demo_service.chassis.exits import Exit
from demo_service.chassis.request import STATUSES
from harness import PACKAGE, ROOT, TEMPLATE, modules

FOLDER = TEMPLATE / "ops" / "runbooks"
TEXTS = {path.name: path.read_text() for path in sorted(FOLDER.glob("*.md"))}
REFERENCE = ROOT / "docs" / "reference"


def slug(heading: str) -> str:
    """
    The anchor that GitHub makes of a heading.
    """
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


ANCHORS = {
    name: [slug(text) for text in re.findall(r"^#+ (.*)$", page, re.MULTILINE)]
    for name, page in TEXTS.items()
}
# Ids in the tables, and headings.
IDS = {
    name: set(re.findall(r"`([\w-]+)`", page.partition("\n## ")[0]))
    | {*re.findall(r"^## ([\w-]+)$", page, re.MULTILINE)}
    for name, page in TEXTS.items()
}
EVERYWHERE = set().union(*IDS.values())


@pytest.mark.promise("P2")
def test_every_event_that_warns_has_a_section() -> None:
    """
    Each event of level warning or worse; those of a request or message have a section per reason.
    """
    rows = re.findall(
        r"^\| `(\w+)` \| ([^|]+) \|", (REFERENCE / "events.md").read_text(), re.MULTILINE
    )
    warn = {name for name, level in rows if re.search("warning|error|critical", level)}

    assert len(warn) > 20
    assert warn - {"request", "message"} <= EVERYWHERE


@pytest.mark.promise("P2")
def test_every_reason_has_a_section() -> None:
    """
    Each reason that an answer, a refused client or a message can have.
    """
    text = "\n".join(path.read_text() for path in modules())
    reasons = set(re.findall(r"_Refusal\(\d+, \"(\w+)\"", text))
    reasons |= {*STATUSES}
    reasons |= set(re.findall(r"reason=\"(\w+)\"", text))

    assert {"deadline", "shed", "bug", "malformed", "unavailable"} <= reasons
    assert reasons <= EVERYWHERE


@pytest.mark.promise("P2")
def test_every_exit_code_has_a_section() -> None:
    """
    Each one but 0, in the runbook of what serves and in that of jobs.
    """
    table = (REFERENCE / "interface.md").read_text().partition("## Exit codes")[2]
    documented = re.findall(r"^\| ([\d, ]+) \|", table.partition("\n## ")[0], re.MULTILINE)
    codes = {int(code) for codes in documented for code in codes.split(",")} - {0}

    assert set(Exit) - {0} <= codes
    assert {f"exit-{code}" for code in codes} <= EVERYWHERE
    assert {f"exit-{code.value}" for code in Exit if code} <= IDS["job.md"]


@pytest.mark.promise("P2")
def test_every_alert_has_a_section() -> None:
    """
    Each alert links the section with its name, in the file of its part.
    """
    for path in sorted((TEMPLATE / "ops" / "alerts").glob("*.yaml*")):
        text = path.read_text()
        alerts = re.findall(r"^ *- alert: (\w+)$", text, re.MULTILINE)
        page = path.name.partition(".")[0] + ".md"
        links = re.findall(r"runbook_url: .*\{\{ runbooks \}\}.*/([^/'\s]+)'", text)
        assert alerts
        assert set(links) == {f"{page}#{name.lower()}" for name in alerts}
        assert {name.lower() for name in alerts} <= {*ANCHORS[page]}


@pytest.mark.parametrize("name", TEXTS)
def test_links_and_tables_resolve(name: str) -> None:
    """
    Every link leads to a section, and no two sections have the same anchor.
    """
    assert len(ANCHORS[name]) == len({*ANCHORS[name]})
    for page, anchor in re.findall(r"\]\(([\w.]*)#([^)]+)\)", TEXTS[name]):
        assert anchor in ANCHORS[page or name]


@pytest.mark.parametrize("name", TEXTS)
def test_sections_are_for_a_person_at_night(name: str) -> None:
    """
    A symptom, what to look at and what to do, in this order; what any section may say alone is in
    process.md.
    """
    shared = {"First look", "Roll back", "Scale", "Signals and notes"}
    for section in TEXTS[name].split("\n## ")[1:]:
        if section.partition("\n")[0] not in shared:
            found = re.findall(r"^\*\*(\w+)\.\*\*", section, re.MULTILINE)
            steps = re.findall(r"^(\*\*|\d)\S.*", section, re.MULTILINE)
            assert found == ["Symptom", "Look", "Do"] or steps == ["**", "1", "2", "3", "4"], (
                section
            )
        assert len(section.splitlines()) <= 24


@pytest.mark.parametrize("name", TEXTS)
def test_commands_exist(name: str) -> None:
    """
    Each command of the service that a runbook names is there.
    """
    code = (PACKAGE / "__main__.py").read_text()
    for command in re.findall(r"(?:\"\$SERVICE\"|\bsvc) (\w+)", TEXTS[name]):
        assert f'("{command}"' in code


def test_seeds_of_a_part() -> None:
    """
    The files are those of the parts, which copier.yml brings with them.
    """
    text = (ROOT / "copier.yml").read_text()

    assert [*TEXTS] == ["database.md", "job.md", "process.md", "web.md", "worker.md"]
    assert all(f"/ops/runbooks/{Path(name).name}" in text for name in TEXTS)
