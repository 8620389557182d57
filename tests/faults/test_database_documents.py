"""
What the pages about the database show, done.
"""

import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from faulty_postgresql import PostgreSQL
from harness import ROOT, WITH_DATABASE

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
    (code,) = re.findall(r"```python\n(.*?)```", (HOW_TO / "orm.md").read_text(), re.DOTALL)
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
        said, errors = probe.communicate("\n", timeout=30)

    assert first == "5s\n", errors
    took, over = map(int, re.findall(r"\d+", said))
    assert took == 5, said + errors
    assert over <= 9, said + errors


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


def test_limits_of_the_role(postgresql: PostgreSQL, project: Path) -> None:
    """
    The limits that the page gives to the role are the defaults of the settings.
    """
    statements = re.findall(
        r"^    (ALTER ROLE .*);$", (HOW_TO / "pooler.md").read_text(), re.MULTILINE
    )
    text = (project / "src" / "order_desk" / "chassis" / "settings.py").read_text()
    fields = ["db_statement", "db_lock", "db_idle_in_transaction", "db_client_check"]

    assert len(statements) == len(fields)
    for statement, field in zip(statements, fields, strict=True):
        postgresql.execute(statement)
        (default,) = re.findall(rf"{field}_seconds: Seconds = (\d+)", text)
        assert statement.endswith(f"'{default}s'")
