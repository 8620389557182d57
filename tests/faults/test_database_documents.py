"""
What the pages about the database show, done.
"""

import contextlib
import re
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from faulty_postgresql import PostgreSQL
from harness import ROOT, WITH_DATABASE, slack, wait_until
from pooler import pool

HOW_TO = ROOT / "docs" / "how-to"
PROBE = """
import asyncio, time
from contextlib import suppress
from sqlalchemy import text
from order_desk.orm import open_engine
from order_desk.chassis.settings import Settings

async def main():
    async with open_engine(Settings(database_url=URL)) as engine:
        async with engine.connect() as connection:
            shown = await connection.execute(text("SHOW statement_timeout"))
            print(shown.scalar_one(), flush=True)
            input()
            begun = time.monotonic()
            with suppress(Exception):
                await connection.execute(text("SELECT 1"))
            print(round(time.monotonic() - begun), flush=True)
    print("over", round(time.monotonic() - begun), flush=True)

asyncio.run(main())
"""


@pytest.fixture(name="answers", scope="module")
def _answers() -> dict[str, Any]:
    return {"database": "postgresql", "telemetry": ["sentry"]}


@pytest.mark.promise("T1", "D1")
def test_orm(project: Path, postgresql: PostgreSQL) -> None:
    """
    The engine of the page has the limits of the settings, on a frozen database too.
    """
    code = re.findall(r"```python\n(.*?)```", (HOW_TO / "orm.md").read_text(), re.DOTALL)[0]
    (project / "src" / "order_desk" / "orm.py").write_text(code)
    command = [str(project / ".venv" / "bin" / "python"), "-c"]
    command.append(PROBE.replace("URL", repr(postgresql.url)))

    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as probe:
        assert probe.stdout
        assert probe.stderr
        first = probe.stdout.readline()
        postgresql.freeze()
        said, errors = probe.communicate("\n", timeout=slack(30))

    assert first == "5s\n", errors
    took, over = map(int, re.findall(r"\d+", said))
    assert 5 <= took <= 5 + slack(3), said + errors
    assert over <= slack(10), said + errors


def test_question_is_the_example() -> None:
    """
    What the page shows of a question stands in the seed.
    """
    shown = re.findall(
        r"^    (.*)$",
        (HOW_TO / "database.md").read_text().partition("## Ask it")[2].partition("## Limits")[0],
        re.MULTILINE,
    )
    seed = (WITH_DATABASE / "notes.py").read_text()

    assert len(shown) == 4
    assert all(line in seed for line in shown)


@pytest.fixture(name="pooled")
def _pooled(migrated_postgresql: PostgreSQL) -> Iterator[Callable[..., str]]:
    """
    The URL of a PgBouncer in a mode, before a database with the tables of the service.
    """
    with contextlib.ExitStack() as stack:

        def pooled(mode: str, **ignored: str) -> str:
            return stack.enter_context(pool(migrated_postgresql.url, mode, **ignored))

        yield pooled


def ignored() -> str:
    """
    The line of the page.
    """
    text = (HOW_TO / "pooler.md").read_text()
    (line,) = re.findall(r"^    ignore_startup_parameters = (.*)$", text, re.MULTILINE)
    return str(line)


@pytest.mark.promise("C9")
def test_pooler_refuses(start: Callable[..., Any], pooled: Callable[..., str]) -> None:
    """
    A pooler that does not take the limits is told by its own words.
    """
    service = start(ready=False, database_url=pooled("session"))

    told = service.wait_for("check_changed", check="database")["error"]
    assert "unsupported startup parameter" in told


def test_pooler_in_session_mode(
    start: Callable[..., Any], pooled: Callable[..., str], migrated_postgresql: PostgreSQL
) -> None:
    """
    With the line of the page and the limits of the role, it serves and the limits hold.
    """
    text = (HOW_TO / "pooler.md").read_text()
    for statement in re.findall(r"^    (ALTER ROLE .*);$", text, re.MULTILINE):
        migrated_postgresql.execute(statement)
    service = start(database_url=pooled("session", ignored=ignored()), pool_size_max=2)

    assert service.get("/v1/notes").status == 200
    shown = service.get("/faults/database/show").json
    assert shown["statement_timeout"] == "5000"
    assert shown["client_connection_check_interval"] == "2000"


def test_pooler_in_transaction_mode(start: Callable[..., Any], pooled: Callable[..., str]) -> None:
    """
    Prepared statements break, as the page says.
    """
    service = start(ready=False, database_url=pooled("transaction", ignored=ignored()))

    def ask() -> list[int]:
        with ThreadPoolExecutor(8) as pool:
            return [one.status for one in pool.map(lambda _: service.get("/v1/notes"), range(40))]

    wait_until(service.is_listening)
    wait_until(lambda: 500 in ask())
    assert re.search(r"prepared statement .{1,40} (already exists|does not exist)", log(service))


def log(service: Any) -> str:
    return str(service.stdout.read_text() + service.stderr.read_text())


def test_limits_of_the_role(postgresql: PostgreSQL, project: Path) -> None:
    """
    The limits that the page gives to the role are the defaults of the settings.
    """
    statements = re.findall(
        r"^    (ALTER ROLE .*);$", (HOW_TO / "pooler.md").read_text(), re.MULTILINE
    )
    text = (project / "src" / "order_desk" / "chassis" / "settings.py").read_text()
    fields = [
        "database_statement",
        "database_lock",
        "database_idle_in_transaction",
        "database_client_check",
    ]

    assert len(statements) == len(fields)
    for statement, field in zip(statements, fields, strict=True):
        postgresql.execute(statement)
        (default,) = re.findall(rf"{field}_seconds: Seconds = (\d+)", text)
        assert statement.endswith(f"'{default}s'")
