"""
The section "Restore" of the runbooks, pasted against a real PostgreSQL.
"""

import json
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from books import functions, section
from faulty_postgresql import PostgreSQL
from harness import clean, find_command

pytestmark = pytest.mark.covers(
    "template/*/backup.py",
    "template/*/restore*",
    "template/src/{{ package_name }}/chassis/job.py",
)

Copy = Callable[..., Path]
ROWS = 100
INSERT = f"""
INSERT INTO idempotency_keys (key, request)
SELECT md5(n::text), 'asked' FROM generate_series(1, {ROWS}) n
"""  # noqa: S608  # a number of our own


@pytest.fixture(name="server")
def _server() -> Iterator[PostgreSQL]:
    """
    Debian's server, since its psql, pg_dump and pg_restore are on the PATH.
    """
    for program in ("psql", "pg_dump", "pg_restore"):
        find_command(program)
    with PostgreSQL(tls=True) as server:
        yield server


class Restore:
    """
    Somebody who follows the section in one shell after the other.
    """

    def __init__(self, project: Path, server: PostgreSQL, folder: Path, role: str) -> None:
        self.project, self.server, self.role = project, server, role
        self.new = _named(server.url)
        self.settings = {"APP_DATABASE_URL": server.url, "APP_BACKUP_DIR": str(folder)}
        self.settings |= {"APP_BACKUP_SCRATCH_URL": server.superuser_url}
        text = section(project, "database.md", "Restore")
        self.blocks = re.findall(r"^```sh\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)

    def run(self, script: str, **more: str) -> str:
        """
        What a script prints; raises AssertionError with it when it fails.
        """
        pasted = functions(self.project, "none").replace("role=web", f"role={self.role}")
        # The name of the role is that of the service; here it is another.
        script = script.replace('OWNER "order-desk"', "OWNER service")
        folder = self.project / ".venv" / "bin"
        ended = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", pasted + script],
            env=clean(self.settings | {"PATH": f"{folder}:{os.environ['PATH']}"} | more),
            cwd=self.project,
            capture_output=True,
            text=True,
            check=False,
        )
        assert ended.returncode == 0, script + ended.stdout + ended.stderr
        return ended.stdout

    def create(self, script: str) -> None:
        """
        Make the new database, and point the service at it.
        """
        self.run(script, ADMIN_URL=self.server.superuser_url)
        self.settings["APP_DATABASE_URL"] = self.new


def _named(url: str) -> str:
    """
    The URL of the database that the section makes.
    """
    return re.sub(r"/app\b", "/order-desk-restored", url)


def keys(url: str) -> str:
    """
    The number of rows of a table that every service has, and a sum of their content.
    """
    query = "SELECT count(*), md5(string_agg(key, ',' ORDER BY key)) FROM idempotency_keys"
    return subprocess.run(
        ["psql", "--no-psqlrc", "--tuples-only", url, "-c", query],
        capture_output=True,
        text=True,
        check=True,
    ).stdout


@pytest.mark.promise("P2", "P4")
def test_with_the_job(copy: Copy, server: PostgreSQL, tmp_path: Path) -> None:
    """
    A service with the job `backup`: the first command only looks, the last one restores every row
    into the new database, and the old one stays as it was.
    """
    project = copy(processes=["job"], database="postgresql", deploy=[])
    person = Restore(project, server, tmp_path, "job")
    person.run("svc migrate up")
    server.execute(INSERT)
    person.run("svc job backup")
    before = keys(server.url)

    look, create, restore = person.blocks
    looked = _run_line(person.run(look))
    path = looked["action"].removeprefix("APP_BACKUP_RESTORE=")
    person.create(create)
    restored = _run_line(person.run(re.sub(r"(?m)^restore=\S+", f"restore={path}", restore)))

    assert (looked["is_dry_run"], looked["rows"]) == (True, ROWS)
    assert (restored["is_dry_run"], restored["outcome"], restored["rows"]) == (
        False,
        "success",
        ROWS,
    )
    assert keys(person.new) == keys(server.url) == before


def _run_line(printed: str) -> dict[str, Any]:
    lines = [json.loads(line) for line in printed.splitlines() if line.startswith("{")]
    (found,) = (line for line in lines if line["event"] == "run")
    return dict(found)


@pytest.mark.promise("P2")
def test_without_the_job(copy: Copy, server: PostgreSQL, tmp_path: Path) -> None:
    """
    A service without it: a dump of somebody's is restored into a new database, with no step of the
    schema missing.
    """
    project = copy(processes=["web"], database="postgresql", deploy=[])
    person = Restore(project, server, tmp_path, "job")
    command = f"{project}/.venv/bin/order-desk"
    person.run(f"{command} migrate up")
    server.execute(INSERT)
    person.run(f'pg_dump --format=custom --file=backup.dump "{server.url}"')
    before = keys(server.url)

    create, restore, status = person.blocks
    person.create(create)
    person.run(restore, NEW_URL=person.new)
    steps = person.run(status.replace("svc ", f"{command} "))

    assert keys(person.new) == keys(server.url) == before
    assert "applied" in steps
    assert "missing" not in steps
