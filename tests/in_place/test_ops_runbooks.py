"""
Runbooks: whatever a log, a problem, an alert or an exit code says leads to a section.
"""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from demo_service.chassis.exits import Exit
from demo_service.chassis.request import STATUSES
from harness import PACKAGE, ROOT, TEMPLATE, modules
from jinja2 import Environment, FileSystemLoader, StrictUndefined

FOLDER = TEMPLATE / "ops" / "runbooks"
REFERENCE = ROOT / "docs" / "reference"
EVERYTHING: dict[str, Any] = {
    "service_name": "order-desk",
    "processes": ["web", "worker", "job"],
    "database": "postgresql",
    "deploy": ["compose", "kubernetes", "systemd", "nomad"],
    "job_name": "backup",
}
# Services whose runbooks say something else.
OTHERS: list[dict[str, Any]] = [
    {"processes": ["web"], "database": "none", "deploy": ["compose"], "job_name": "sweep"},
    {"processes": ["job"], "deploy": ["kubernetes"]},
    {"processes": ["web", "worker"], "deploy": []},
]


def rendered(**answers: Any) -> dict[str, str]:
    """
    The runbooks of a service with everything, or with other answers, as copier renders them.
    """
    environment = Environment(
        loader=FileSystemLoader(ROOT),
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701  # Markdown
    )
    return {
        path.name.removesuffix(".jinja"): environment.from_string(path.read_text()).render(
            **EVERYTHING | answers
        )
        for path in sorted(FOLDER.glob("*.md*"))
    }


TEXTS = rendered()


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


@pytest.mark.parametrize("answers", [{}, *OTHERS], ids=repr)
def test_links_and_tables_resolve(answers: dict[str, Any]) -> None:
    """
    Every link leads to a section, and no two sections of a file have the same anchor.
    """
    texts = rendered(**answers)
    kept = {
        name: text
        for name, text in texts.items()
        if name.removesuffix(".md") in {*(EVERYTHING | answers)["processes"]}
        or (name == "database.md" and (EVERYTHING | answers)["database"] != "none")
        or (name == "process.md" and (EVERYTHING | answers)["processes"] != ["job"])
    }
    anchors = {
        name: [*map(slug, re.findall(r"^#+ (.*)$", _prose(text), re.MULTILINE))]
        for name, text in kept.items()
    }

    for name, text in kept.items():
        assert len(anchors[name]) == len({*anchors[name]})
        for page, anchor in re.findall(r"\]\(([\w.]*)#([^)]+)\)", text):
            assert anchor in anchors[page or name], f"{name}: {page}#{anchor}"


def _prose(text: str) -> str:
    """
    Without the blocks of code, whose comments look like headings.
    """
    return re.sub(r"```.*?```", "", text, flags=re.DOTALL)


SHARED = {"Before you start", "Signals and notes"}


@pytest.mark.parametrize("name", TEXTS)
def test_sections_are_for_a_person_at_night(name: str) -> None:
    """
    A section begins with its symptom, in bold. Then it says where to look and what to do, in this
    order, and since 0.3.1 how to see that it helped. It fits on a screen.
    """
    for section in TEXTS[name].split("\n## ")[1:]:
        title, _, body = section.partition("\n")
        if title in SHARED:
            continue
        steps = re.findall(r"^\*\*(?:\d\. )?(Symptom|Look|Do|Check)\.\*\*", body, re.MULTILINE)
        assert steps in (["Look", "Do", "Check"], ["Symptom", "Look", "Do"]), section
        assert body.strip().startswith("**"), section
        assert len(section.splitlines()) <= (60 if title == "Restore" else 42), section


@pytest.mark.parametrize("answers", [{}, *OTHERS], ids=repr)
def test_no_command_can_hide_its_failure(answers: dict[str, Any]) -> None:
    """
    Nothing ends in `|| true`, and nothing assumes that one sits inside the process: commands use
    the functions that "Before you start" defines.
    """
    for name, text in rendered(**answers).items():
        assert "|| true" not in text, name
        for script in blocks(text):
            if "svc()" not in script:
                assert not re.search(r"\$SERVICE|\$PID|\$LOG|\bcurl\b|127\.0\.0\.1", script), script


def blocks(text: str) -> list[str]:
    """
    The blocks of shell in a page.
    """
    return re.findall(r"^```sh\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("name", TEXTS)
def test_commands_exist(name: str) -> None:
    """
    Each command of the service that a runbook names is there.
    """
    code = (PACKAGE / "__main__.py").read_text()
    for command in re.findall(r"\bsvc ([a-z]\w*)", TEXTS[name]):
        assert re.search(rf"\(\s*\"{command}\"", code), command


def test_whom_to_call_can_be_declared() -> None:
    """
    The owner of a dependency, whom a runbook sends for, has a place in `ops/service.yaml`.
    """
    schema = json.loads((TEMPLATE / "ops" / "tools" / "service.schema.json").read_text())
    dependency = schema["properties"]["spec"]["properties"]["dependencies"]["items"]
    named = re.findall(r"`(\w+)`[^.|]* in `ops/service.yaml`", TEXTS["process.md"])

    assert {*named} == {"owner"}
    assert {*named} <= {*dependency["properties"]}
    assert not {*named} & {*dependency["required"]}


def test_seeds_of_a_part() -> None:
    """
    The files are those of the parts, which copier.yml brings with them.
    """
    text = (ROOT / "copier.yml").read_text()

    assert [*TEXTS] == ["database.md", "job.md", "process.md", "web.md", "worker.md"]
    assert all(f" ops/runbooks/{Path(name).name}" in text for name in TEXTS)


def test_platforms_of_the_how_to() -> None:
    """
    The how-to has the block of each platform, as a service with everything gets it.
    """
    page = (ROOT / "docs" / "how-to" / "runbooks.md").read_text()
    shown = blocks(page.partition("## Platforms")[2])

    assert shown == [
        *(script for script in blocks(TEXTS["process.md"]) if "svc()" in script),
        *(script for script in blocks(rendered(deploy=[])["process.md"]) if "svc()" in script),
    ]
