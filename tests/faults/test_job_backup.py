"""
The backup of the example, killed at any moment.
"""

import asyncio
import hashlib
import json
import os
import random
import re
import resource
import subprocess
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from faulty_postgresql import PostgreSQL
from harness import ROOT, clean
from warm import COLD

pytestmark = pytest.mark.covers(
    "template/src/{{ package_name }}/chassis/job.py",
    "template/src/{{ package_name }}/chassis/lock.py",
    "template/*/backup.py",
)

KILLS = 20


@pytest.fixture(name="project", scope="module")
def _project(copy: Callable[..., Path]) -> Path:
    """
    A service as it comes, whose example has numbers that PostgreSQL counts.
    """
    return copy(processes=["web", "job"], database="postgresql")


@dataclass(frozen=True, kw_only=True)
class Backups:
    """
    The folder of the backups, and how to start a command that makes them or uses them.
    """

    folder: Path
    run: Callable[..., Any]


BackupsOf = Callable[[int], Backups]


@pytest.fixture(name="postgresql")
def _postgresql(migrated_postgresql: PostgreSQL) -> PostgreSQL:
    """
    With the tables of the service.
    """
    return migrated_postgresql


@pytest.fixture(name="backups_of")
def _backups_of(
    start_in: Callable[..., Any], project: Path, postgresql: PostgreSQL, tmp_path: Path
) -> BackupsOf:
    """
    Backups of a database with so many notes.
    """

    def backups_of(notes: int) -> Backups:
        folder = tmp_path / "backups"
        folder.mkdir()
        urls = {"database_url": postgresql.url, "backup_scratch_url": postgresql.superuser_url}

        def run(*arguments: str, **settings: Any) -> Any:
            options = {"ready": False, "prefix": COLD, "backup_dir": folder}
            return start_in(project, *arguments, **options | urls | settings)

        postgresql.execute(
            "INSERT INTO notes (id, text, written_at) SELECT gen_random_uuid(), md5(n::text), now()"  # noqa: S608
            f" FROM generate_series(1, {notes}) n"
        )
        return Backups(folder=folder, run=run)

    return backups_of


@pytest.mark.covers("template/*/backup.py", "template/src/*/chassis/job.py")
@pytest.mark.promise("J1")
def test_killed_at_any_moment(postgresql: PostgreSQL, backups_of: BackupsOf) -> None:
    """
    What has the name of a backup is one; the run after a killed one takes away what that left.
    """
    backups = backups_of(20_000)
    began = time.monotonic()
    assert backups.run("job", "backup").wait(seconds=60) == 0
    usual, left = time.monotonic() - began, set[str]()
    for _ in range(KILLS):
        killed = backups.run("job", "backup").process
        # Whatever it does then.
        time.sleep(random.uniform(0.3, 1) * usual)  # noqa: S311  # no secret
        killed.kill()
        killed.wait()
        left |= {path.suffix for path in backups.folder.iterdir()} | _scratch(postgresql)
        for path in backups.folder.glob("*.zip"):
            _assert_whole(path)

    last = backups.run("job", "backup")
    assert last.wait(seconds=60) == 0, last.lines()
    # Some kills must have hit the middle, or this proves nothing.
    assert left == {".zip", ".partial", "app_backup_scratch"}
    assert {path.suffix for path in backups.folder.iterdir()} == {".zip"}
    assert _scratch(postgresql) == set()


def _scratch(postgresql: PostgreSQL) -> set[str]:
    rows = postgresql.fetch("SELECT datname FROM pg_database WHERE datname LIKE '%scratch%'")
    return {row["datname"] for row in rows}


def _assert_whole(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        manifest = json.loads(archive.read("manifest.json"))
        for name, table in manifest["tables"].items():
            data = archive.read(f"{name}.copy")
            assert hashlib.sha256(data).hexdigest() == table["sha256"]
            assert data.count(b"\n") == table["rows"]


@pytest.mark.promise("P4")
def test_steps_of_the_how_to(project: Path, postgresql: PostgreSQL, backups_of: BackupsOf) -> None:
    """
    What docs/how-to/backup.md has one paste at 4 am restores every row into a new database.
    """
    backups = backups_of(100)
    made = backups.run("job", "backup")
    assert made.wait() == 0
    postgresql.execute("CREATE DATABASE new OWNER service")
    text = (ROOT / "docs" / "how-to" / "backup.md").read_text().partition("## Restore at 4 am")[2]
    steps = "\n".join(re.findall(r"^    (.*)$", text.partition("\n## ")[0], re.MULTILINE))
    new = postgresql.url.removesuffix("app") + "new"
    steps = steps.replace("postgresql://USER:PASSWORD@HOST:5432/NEW_DATABASE", new)

    ended = subprocess.run(
        ["bash", "-ec", steps],
        env=clean(
            {
                "PATH": f"{project / '.venv' / 'bin'}:{os.environ['PATH']}",
                "APP_DATABASE_URL": postgresql.url,
                "APP_BACKUP_DIR": str(backups.folder),
            }
        ),
        capture_output=True,
        text=True,
        check=False,
    )

    lines = [json.loads(line) for line in ended.stdout.splitlines() if line.startswith("{")]
    looked, restored = [line for line in lines if line["event"] == "run"]
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert (looked["is_dry_run"], looked["rows"]) == (True, 100)
    assert (restored["is_dry_run"], restored["rows"], restored["outcome"]) == (
        False,
        100,
        "success",
    )


def restored(backups: Backups, path: Path, url: str) -> dict[str, Any]:
    """
    The line of the run that restores this backup.
    """
    service = backups.run("job", "restore", backup_restore=path, database_url=url)
    service.wait(seconds=60)
    (line,) = (line for line in service.lines() if line["event"] == "run")
    return dict(line)


async def number_of_a_new_note(url: str) -> int:
    """
    What PostgreSQL counts for a row that is written now.
    """
    insert = "INSERT INTO notes (id, text, written_at) VALUES (gen_random_uuid(), 'next', now())"
    connection = await asyncpg.connect(url, timeout=10, command_timeout=60)
    try:
        number: int = await connection.fetchval(f"{insert} RETURNING number")
    finally:
        await connection.close(timeout=10)
    return number


def test_numbers_go_on_after_a_restore(postgresql: PostgreSQL, backups_of: BackupsOf) -> None:
    """
    The next row of a restored table gets the next number. A backup whose sequence can't be put back
    is refused, and leaves the database empty.
    """
    backups = backups_of(100)
    assert backups.run("job", "backup").wait() == 0
    (path,) = backups.folder.glob("*.zip")
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    manifest = json.loads(members["manifest.json"])
    manifest["sequences"]["public.notes_number_seq"] = [0, True]
    broken = backups.folder / "broken.zip"
    with zipfile.ZipFile(broken, "w") as archive:
        for name, data in (members | {"manifest.json": json.dumps(manifest).encode()}).items():
            archive.writestr(name, data)
    postgresql.execute("CREATE DATABASE new OWNER service")
    new = postgresql.url.removesuffix("app") + "new"
    assert backups.run("migrate", "up", database_url=new).wait() == 0

    refused = restored(backups, broken, new)
    whole = restored(backups, path, new)
    added = asyncio.run(number_of_a_new_note(new))

    assert (refused["outcome"], refused["exit_code"]) == ("failed", 70)
    assert (whole["outcome"], whole["rows"]) == ("success", 100)
    assert added == 101


def test_told_to_stop(postgresql: PostgreSQL, backups_of: BackupsOf) -> None:
    """
    A backup that is stopped takes away what it made, and ends with 75.
    """
    backups = backups_of(20_000)
    service = backups.run("job", "backup")
    limit = time.monotonic() + 20
    while not _scratch(postgresql):
        assert time.monotonic() < limit
    code = service.stop()

    assert code == 75
    assert [*backups.folder.iterdir()] == []
    assert _scratch(postgresql) == set()


def test_disk_is_full(backups_of: BackupsOf) -> None:
    """
    A file that can't be written is not the database's fault: one line that says so, nothing left.
    """
    backups = backups_of(50_000)
    _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    service = backups.run("job", "backup")
    resource.prlimit(service.process.pid, resource.RLIMIT_FSIZE, (100_000, most))

    assert service.wait() == 70
    (line,) = service.lines()
    assert line["event"] == "run"
    assert "can't write" in line["cause"]
    assert "File too large" in line["cause"]
    assert [*backups.folder.iterdir()] == []
