"""
A job without other process types: what its team gets is about the job.
"""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ownership import owners

Render = Callable[..., Path]
DEPLOY = ["compose", "kubernetes", "systemd", "nomad"]
# What only a service that answers has: its example, and that it answers.
STRANGE = {
    "example": r"(?i)note|announc|page_size|memory\.py|domain\.py|routes\.py",
    "answers": r"\bHTTP\b|(?i:\bports?\b|\bsmoke\b|livez|readyz|\b800[01]\b|\b503\b)",
}
# The same words for something else: notes are also what people write down, the database has a port,
# and so has what a job calls.
ELSE = (
    r"notes for whoever changes this code|notes of the last deploy|prBodyNotes|notebook"
    r"|uv notes when|`host`, `port` and `database`|ports:\n +- port: 443"
)


def own(project: Path) -> Iterator[tuple[str, str]]:
    """
    The files that a team owns or shares, without the template's part of what is shared.
    """
    for path in sorted(path for path in project.rglob("*") if path.is_file()):
        name = str(path.relative_to(project))
        text = path.read_text()
        if owners(name) == ["shared"] and name == ".env.example":
            yield name, text.partition("# Yours below.")[2]
        elif owners(name) in (["seed"], ["shared"]):
            yield name, text


@pytest.mark.parametrize("deploy", [[], DEPLOY], ids=["nowhere", "everywhere"])
@pytest.mark.parametrize("database", ["none", "postgresql"])
def test_is_about_its_job(database: str, deploy: list[str], render: Render) -> None:
    """
    No file of the team's, nor its name, is about the example of a service that answers, or about
    answering.
    """
    project = render(processes=["job"], database=database, deploy=deploy)

    found = {
        f"{name}: {line.strip()}"
        for name, text in own(project)
        for pattern in STRANGE.values()
        for line in [name, *re.sub(ELSE, "", text).splitlines()]
        if re.search(pattern, line)
    }

    assert found == set()


@pytest.mark.parametrize(
    "answers",
    [
        {"processes": ["job"]},
        {"processes": ["job"], "database": "postgresql"},
        {"processes": ["worker"], "database": "postgresql"},
        {},
        {"database": "postgresql"},
    ],
)
def test_smoke_is_there_where_a_test_asks(answers: dict[str, Any], render: Render) -> None:
    """
    The fixture with a request of the team's is there where a test uses it, and nowhere else.
    """
    project = render(**answers)

    conftest = (project / "tests" / "conftest.py").read_text()
    is_asked = any("smoke" in path.read_text() for path in project.glob("tests/system/test_*.py"))

    assert ("smoke" in conftest) is is_asked
