"""
Recipes of the how-to pages, done as they stand.
"""

import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from faulty_postgresql import PostgreSQL
from harness import ROOT

HOW_TO = ROOT / "docs" / "how-to"
Copy = Callable[..., Path]
IMPORTS = """\
from sqlalchemy import text

from .handlers import announce_later
from .sessions import Session, connection_of
"""


def code(page: str) -> list[str]:
    """
    The blocks of Python on a page.
    """
    return re.findall(r"```python\n(.*?)```", (HOW_TO / page).read_text(), re.DOTALL)


def run(project: Path, *command: str, **environment: str) -> str:
    """
    What a tool of the project's environment prints; raises AssertionError when it fails.
    """
    tool, *arguments = command
    ended = subprocess.run(
        [project / ".venv" / "bin" / tool, *arguments],
        cwd=project,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout
    return ended.stdout


@pytest.fixture(name="project", scope="module")
def _project(copy: Copy) -> Path:
    """
    A service with the pages' engine, session and route.
    """
    project = copy(processes=["web", "worker"], database="postgresql")
    package = project / "src" / "order_desk"
    engine, sessions, route = code("orm.md")
    (package / "orm.py").write_text(engine)
    (package / "sessions.py").write_text(sessions)
    routes, resources = package / "routes.py", package / "resources.py"
    before, first, rest = routes.read_text().partition("from .domain import")
    routes.write_text(before + IMPORTS + first + rest + "\n\n" + route)
    text = resources.read_text()
    for old, new in (
        ("from .settings", "from .orm import open_engine\nfrom .settings"),
        ("    database: Database\n", "    database: Database\n    engine: AsyncEngine\n"),
        (
            "database=database,\n",
            "database=database, engine=await stack.enter_async_context(open_engine(settings)),\n",
        ),
        (
            "from .announcer",
            "from sqlalchemy.ext.asyncio import AsyncEngine\n\nfrom .announcer",
        ),
    ):
        assert old in text
        text = text.replace(old, new, 1)
    resources.write_text(text)
    return project


@pytest.fixture(name="service")
def _service(project: Path, start_in: Callable[..., Any], postgresql: PostgreSQL) -> Any:
    url = postgresql.url
    assert start_in(project, "migrate", "up", ready=False, database_url=url).process.wait(60) == 0
    return start_in(project, database_url=url)


def counted(postgresql: PostgreSQL) -> list[int]:
    """
    Notes and messages.
    """
    return [
        postgresql.fetch(f"SELECT count(*) FROM {table}")[0][0]  # noqa: S608  # a constant
        for table in ("notes", "messages")
    ]


@pytest.mark.promise("D1")
def test_session_and_queue(service: Any, postgresql: PostgreSQL) -> None:
    """
    A row by SQLAlchemy's session and its message are committed together before the answer, or not
    at all; an outage is 503.
    """
    written = service.post_json("/v1/notes/orm", {"text": "one"})
    after = counted(postgresql)
    postgresql.execute("ALTER TABLE notes ADD UNIQUE (text) DEFERRABLE INITIALLY DEFERRED")
    refused = service.post_json("/v1/notes/orm", {"text": "one"})
    at_last = counted(postgresql)
    postgresql.kill()
    away = service.post_json("/v1/notes/orm", {"text": "two"})

    assert (written.status, after) == (201, [1, 1])
    # The constraint is looked at by the commit.
    assert (refused.status, at_last) == (500, [1, 1])
    assert away.status == 503
    assert away.json["reason"] == "unavailable: database"


def test_code_of_the_session_is_clean(project: Path) -> None:
    """
    The code on the page passes the linter and the types of a service.
    """
    run(project, "ruff", "check", "--fix-only", "src")
    run(project, "ruff", "format", "src")

    run(project, "ruff", "check", "src")
    run(project, "mypy")


def test_fake_of_a_dependency(copy: Copy) -> None:
    """
    The test on the page passes, and the linter and the types of a service with it.
    """
    project = copy()
    (test,) = [block for block in code("outbound.md") if "class Fake" in block]
    (project / "tests" / "test_announcer.py").write_text(test)

    assert "2 passed" in run(project, "pytest", "-q", "tests/test_announcer.py")
    run(project, "ruff", "check", "tests/test_announcer.py")
    run(project, "ruff", "format", "--check", "tests/test_announcer.py")
    run(project, "mypy")
