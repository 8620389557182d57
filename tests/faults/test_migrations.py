"""
Steps of the database's schema: forward, back, and everything that is in their way.
"""

import asyncio
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from textwrap import dedent, indent
from typing import Any

import asyncpg
import pytest
from faulty_postgresql import PostgreSQL
from harness import ROOT, wait_until

pytestmark = pytest.mark.covers(
    "template/src/{{ package_name }}/chassis/database.py",
    "template/src/{{ package_name }}/chassis/migrations.py",
    "template/src/{{ package_name }}/__main__.py",
)

STEP = '''"""
Made by a test.
"""

from alembic import op

revision = {name!r}
down_revision = {before!r}


def upgrade() -> None:
{up}


def downgrade() -> None:
{down}
'''
SLOW = "SELECT pg_sleep(60)"
Migrate = Callable[..., Any]
Add = Callable[..., Path]


@pytest.fixture(name="project", scope="module")
def _project(copy: Callable[..., Path]) -> Path:
    """
    A service as it is generated: its seeds are part of what is tested.
    """
    given = os.environ.get("FIVEWEEKS_PROJECT")
    return Path(given) if given else copy(database="postgresql")


@pytest.fixture(name="migrate")
def _migrate(start: Callable[..., Any], postgresql: PostgreSQL) -> Migrate:
    """
    Run `migrate` to its end, unless told otherwise.
    """

    def migrate(*arguments: str, wait: bool = True, **settings: Any) -> Any:
        settings = {"database_url": postgresql.url, **settings}
        command = start("migrate", *arguments, ready=False, **settings)
        if wait:
            command.wait(seconds=60)
        return command

    return migrate


@pytest.fixture(name="add")
def _add(project: Path) -> Iterator[Add]:
    """
    Write a step behind that of the example; it is removed at the end.
    """
    written: list[Path] = []

    def add(
        name: str, *up: str, down: tuple[str, ...] = (), before: str = "0001_notes", code: str = ""
    ) -> Path:
        statements = [f"op.execute({sql!r})" for sql in up]
        back = [f"op.execute({sql!r})" for sql in down]
        text = STEP.format(
            name=name,
            before=before,
            up=indent(code or "\n".join(statements) or "pass", "    "),
            down=indent("\n".join(back) or "pass", "    "),
        )
        path = next(project.glob("src/*/migrations/versions")) / f"{name}.py"
        path.write_text(text)
        written.append(path)
        return path

    yield add
    for path in written:
        path.unlink(missing_ok=True)


@contextmanager
def transaction(url: str, statement: str) -> Iterator[Callable[[], object]]:
    """
    Someone else's transaction that stays open; call the result to commit it.
    """
    with asyncio.Runner() as runner:
        connection = runner.run(asyncpg.connect(url, timeout=10))
        runner.run(connection.execute(f"BEGIN; {statement}"))
        yield lambda: runner.run(connection.execute("COMMIT"))
        connection.terminate()


def write(postgresql: PostgreSQL, count: int) -> None:
    postgresql.execute(
        "INSERT INTO notes (id, text, written_at)"
        " SELECT gen_random_uuid(), 'x', now() FROM generate_series(1, $1::int)",
        count,
    )


def tables(postgresql: PostgreSQL) -> set[str]:
    rows = postgresql.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    return {row["tablename"] for row in rows}


def states(command: Any) -> dict[str, str]:
    assert command.process.returncode == 0
    return {line["step"]: line["state"] for line in command.events("migration")}


@pytest.mark.promise("D5")
def test_forward_and_back(migrate: Migrate, postgresql: PostgreSQL) -> None:
    """
    `up` applies what is missing, once; `down` takes it back; `status` tells.
    """
    assert states(migrate("status")) == {"0001_notes": "missing"}

    first, second = migrate("up"), migrate("up")

    assert [line["step"] for line in first.events("migration_applied")] == ["0001_notes"]
    assert second.events("migrated", steps=0)
    assert states(migrate("status")) == {"0001_notes": "applied"}
    assert migrate("down", "1", "--yes-remove", "0").process.returncode == 0
    assert tables(postgresql) == {"alembic_version"}
    assert states(migrate("status")) == {"0001_notes": "missing"}
    assert migrate("up").process.returncode == 0
    assert "notes" in tables(postgresql)


def test_how_to(migrate: Migrate, add: Add, postgresql: PostgreSQL) -> None:
    """
    The step that the how-to shows goes forward and back.
    """
    shown = (ROOT / "docs" / "how-to" / "migrations.md").read_text()
    step = shown.partition("docstrings:\n")[2].partition("Then:")[0]
    add("0002_author").write_text(dedent(step))

    assert migrate("up").events("migration_applied", step="0002_author")
    assert "author" in columns(postgresql)
    assert migrate("down", "1", "--yes-remove", "0").process.returncode == 0
    assert "author" not in columns(postgresql)


def columns(postgresql: PostgreSQL) -> set[str]:
    query = "SELECT column_name FROM information_schema.columns WHERE table_name = 'notes'"
    return {row["column_name"] for row in postgresql.fetch(query)}


@pytest.mark.promise("P4")
def test_dry_run(migrate: Migrate, postgresql: PostgreSQL) -> None:
    """
    `up --dry-run` prints the SQL, and nothing happens.
    """
    command = migrate("up", "--dry-run")

    (planned,) = command.events("migration_planned", step="0001_notes")
    assert "CREATE TABLE notes" in planned["sql"]
    assert command.process.returncode == 0
    assert tables(postgresql) == set()


@pytest.mark.promise("P4")
def test_rows_are_removed_only_when_told_how_many(migrate: Migrate, postgresql: PostgreSQL) -> None:
    """
    `down` is a dry run until told the count; with another one, nothing happens and it exits 64.
    """
    migrate("up")
    write(postgresql, 3)

    dry = migrate("down", "1")

    assert dry.process.returncode == 0
    assert dry.events(
        "migration_planned", step="0001_notes", removes={"idempotency_keys": 0, "notes": 3}
    )
    assert dry.events("migration_dry_run", steps=1, rows_removed=3)
    for wrong in ("0", "2", "4"):
        refused = migrate("down", "1", "--yes-remove", wrong)
        assert refused.process.returncode == 64
        assert "3 rows" in refused.events("migration_refused")[0]["cause"]
    assert len(postgresql.fetch("SELECT 1 FROM notes")) == 3
    assert migrate("down", "1", "--yes-remove", "3").process.returncode == 0


@pytest.mark.promise("P4")
@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM notes WHERE text = 'old'",
        "TRUNCATE notes",
        "DROP TABLE IF EXISTS notes CASCADE",
        "ALTER TABLE notes DROP COLUMN text",
        "ALTER TABLE public.notes ADD a int, DROP text",
    ],
)
def test_up_removes_nothing_untold(
    migrate: Migrate, add: Add, postgresql: PostgreSQL, statement: str
) -> None:
    """
    A step that removes something from a table with rows is not applied before the count is told.
    """
    migrate("up")
    write(postgresql, 2)
    add("0002_less", statement)

    refused = migrate("up")

    assert refused.process.returncode == 64
    assert "--yes-remove 2" in refused.events("migration_refused")[0]["action"]
    assert len(postgresql.fetch("SELECT text FROM notes")) == 2
    assert migrate("up", "--yes-remove", "2").events("migration_applied", step="0002_less")


def test_what_loses_nothing_needs_no_word(
    migrate: Migrate, add: Add, postgresql: PostgreSQL
) -> None:
    """
    Constraints and defaults may go; so may what was never there before this very command.
    """
    add(
        "0002_strict",
        "ALTER TABLE notes ADD CONSTRAINT a CHECK (text <> ''), ALTER text SET DEFAULT 'a'",
        "ALTER TABLE notes DROP CONSTRAINT a, ALTER COLUMN text DROP DEFAULT",
        "CREATE TABLE other (note uuid REFERENCES notes (id) ON DELETE CASCADE)",
        "DROP TABLE other",
    )
    assert migrate("up").process.returncode == 0
    write(postgresql, 1)
    add("0003_strict", "ALTER TABLE notes ALTER text DROP NOT NULL", before="0002_strict")

    assert migrate("up").process.returncode == 0


@pytest.mark.promise("P4")
def test_rows_that_come_later_stay(migrate: Migrate, postgresql: PostgreSQL) -> None:
    """
    What is written between the count and the lock is not removed: the step is not done.
    """
    migrate("up")
    write(postgresql, 3)
    insert = "INSERT INTO notes (id, text, written_at) VALUES (gen_random_uuid(), 'x', now())"
    with transaction(postgresql.url, insert) as commit:
        command = migrate("down", "1", "--yes-remove", "3", wait=False, migration_lock_seconds=0.5)
        command.wait_for("migration_waits", step="0001_notes")

        commit()

        assert command.wait() == 75
    assert len(postgresql.fetch("SELECT 1 FROM notes")) == 4


@pytest.mark.promise("P4")
def test_floor(migrate: Migrate, add: Add, postgresql: PostgreSQL) -> None:
    """
    Not taken back are: a step without downgrade(), more than there are, and a newer release's.
    """
    step = add("0002_floor", "CREATE TABLE floor ()")
    step.write_text(step.read_text().partition("def downgrade")[0])
    migrate("up")

    causes = [migrate("down", *words).events("migration_refused") for words in (["1"], ["3"])]
    step.unlink()
    causes.append(migrate("down", "1").events("migration_refused"))

    assert [one["cause"] for (one,) in causes] == [
        "0002_floor has no downgrade()",
        "there are only 2",
        "0002_floor is of a newer release",
    ]
    assert {"notes", "floor"} < tables(postgresql)


REWRITTEN = """
from alembic import op

revision = "{name}"
down_revision = None


def upgrade() -> None:
    op.execute("CREATE TABLE orders ()")


def downgrade() -> None:
    op.execute("DROP TABLE orders")
"""


@pytest.fixture(name="rewrite")
def _rewrite(project: Path) -> Iterator[Callable[[str, str], Path]]:
    """
    Put another file in the place of the example's step; it is as before at the end.
    """
    step = next(project.glob("src/*/migrations/versions/0001_notes.py"))
    before, written = step.read_text(), list[Path]()

    def rewrite(name: str, text: str) -> Path:
        step.unlink(missing_ok=True)
        written.append(step.with_name(f"{name}.py"))
        written[-1].write_text(text)
        return written[-1]

    yield rewrite
    for path in written:
        path.unlink(missing_ok=True)
    step.write_text(before)


@pytest.mark.promise("D5")
@pytest.mark.parametrize("name", ["0001_notes", "0001_orders", "0001_carts"])
def test_rewritten_step(
    migrate: Migrate,
    start: Callable[..., Any],
    rewrite: Callable[[str, str], Path],
    postgresql: PostgreSQL,
    name: str,
) -> None:
    """
    An applied step that was rewritten, also under another name, is named with the way back by
    `migrate`, `preflight` and readiness, and nothing is done.
    """
    # The name in front of what the database has, by their order.
    told = min(name, "0001_notes")
    migrate("up")
    rewrite(name, REWRITTEN.format(name=name))

    ended = [migrate(*words) for words in (["status"], ["up"], ["down", "1"], ["up", "--dry-run"])]
    preflight = start("preflight", ready=False, database_url=postgresql.url)
    service = start(ready=False, database_url=postgresql.url)
    warning = service.wait_for("check_changed", is_up=False)

    broken = ended[0].events("migration_broken")[0]
    for command in ended:
        assert command.process.returncode == 70
        (broken,) = command.events("migration_broken")
        assert broken["cause"].startswith(f"{told} is not the code that was applied")
        assert broken["action"].startswith("restore the file as it was applied")
    assert ended[0].events("migration", step=told, state="changed")
    assert preflight.process.wait(30) == 70
    assert f"fail  migrations: {broken['cause']}" in preflight.stdout.read_text()
    assert broken["cause"] in warning["error"]
    assert "orders" not in tables(postgresql)


@pytest.mark.promise("D5")
def test_reformatted_step(
    migrate: Migrate, rewrite: Callable[[str, str], Path], project: Path
) -> None:
    """
    Layout, comments, docstrings, annotations and what takes a step back may change.
    """
    migrate("up")
    path = next(project.glob("src/*/migrations/versions/0001_notes.py"))
    text = path.read_text().partition("def downgrade")[0]
    for old, new in (
        ("Make the tables.", "Write another sentence."),
        ("() -> None:", "():  # changed"),
        ("            ", "  "),
        ('revision = "', 'revision: str = "'),
        ("from alembic import op", "import alembic.op as op"),
        ('op.execute("CREATE INDEX', "op.execute(\n        'CREATE' \"  INDEX"),
    ):
        assert old in text
        text = text.replace(old, new)
    rewrite("0001_notes", text)

    assert states(migrate("status")) == {"0001_notes": "applied"}
    assert migrate("up").events("migrated", steps=0)


@pytest.mark.promise("D5")
def test_steps_without_record(
    migrate: Migrate, rewrite: Callable[[str, str], Path], postgresql: PostgreSQL
) -> None:
    """
    Of what a release up to 0.3.1 applied, the code is unknown until the next `migrate up`.
    """
    migrate("up")
    postgresql.execute("COMMENT ON TABLE alembic_version IS NULL")
    before = migrate("status")
    again = migrate("up")
    rewrite("0001_notes", REWRITTEN.format(name="0001_notes"))

    after = migrate("status")

    assert states(before) == {"0001_notes": "applied"}
    assert again.events("migrated", steps=0)
    assert after.events("migration", step="0001_notes", state="changed")


@pytest.mark.promise("D5")
def test_renamed_step_without_record(
    migrate: Migrate, rewrite: Callable[[str, str], Path], postgresql: PostgreSQL
) -> None:
    """
    A step that a release up to 0.3.1 applied, and that got another name since, is found.
    """
    migrate("up")
    postgresql.execute("COMMENT ON TABLE alembic_version IS NULL")
    rewrite("0001_orders", REWRITTEN.format(name="0001_orders"))

    refused = migrate("up")

    assert refused.process.returncode == 70
    assert refused.events("migration_broken")[0]["cause"].startswith("0001_notes is not the code")


@pytest.mark.promise("D5")
@pytest.mark.parametrize(
    ("code", "left"),
    [
        ('op.execute("DROP TABLE more")', "1 steps before it are done, nothing of it"),
        (
            'op.execute("DROP TABLE more")\n    op.execute("COMMIT")',
            "1 steps before it are done, a part of it may be",
        ),
        (
            'with op.get_context().autocommit_block():\n        op.execute("DROP TABLE more")',
            "1 steps before it are done, a part of it may be",
        ),
    ],
    ids=["transaction", "COMMIT", "autocommit_block"],
)
def test_step_back_that_fails(
    migrate: Migrate, add: Add, postgresql: PostgreSQL, code: str, left: str
) -> None:
    """
    What was done before a step failed is told: the steps in front of it, and whether a part of it
    is committed.
    """
    step = add("0002_more", "CREATE TABLE more ()", before="0001_notes")
    step.write_text(step.read_text().replace("    pass", f'    {code}\n    op.execute("nonsense")'))
    add("0003_last", "CREATE TABLE last ()", down=("DROP TABLE last",), before="0002_more")
    migrate("up")

    failed = migrate("down", "2", "--yes-remove", "0")

    assert failed.process.returncode == 70
    (event,) = failed.events("migration_broken")
    assert event["cause"].startswith("0002_more: ")
    assert event["action"] == f"mend the step; {left}"
    assert ("more" in tables(postgresql)) == left.endswith("nothing of it")
    assert states(migrate("status")) == {
        "0001_notes": "applied",
        "0002_more": "applied",
        "0003_last": "missing",
    }


@pytest.mark.promise("D5")
def test_previous_release_on_newer_schema(
    migrate: Migrate, add: Add, start: Callable[..., Any], postgresql: PostgreSQL
) -> None:
    """
    A release that does not know the last step serves on its schema, and `up` leaves it alone.
    """
    step = add("0002_newer", "ALTER TABLE notes ADD COLUMN author text")
    migrate("up")
    step.unlink()

    service = start(database_url=postgresql.url)

    assert service.post_json("/v1/notes", {"text": "old code"}).status == 201
    assert states(migrate("status")) == {"0001_notes": "applied", "0002_newer": "unknown"}
    assert migrate("up").events("migrated", steps=0)


@pytest.mark.promise("L1")
def test_ready_when_migrations_come(
    migrate: Migrate, start: Callable[..., Any], postgresql: PostgreSQL
) -> None:
    """
    Without migrations: live, not ready, one warning; ready within 5 s after they came.
    """
    service = start(ready=False, database_url=postgresql.url)
    warning = service.wait_for("check_changed", is_up=False)
    began = time.monotonic()
    while time.monotonic() < began + 3:
        assert service.get("/livez", admin=True).status == 200
        assert service.get("/readyz", admin=True).status == 503
    before = [line for line in service.lines() if line["level"] not in {"info", "debug"}]

    assert migrate("up").process.returncode == 0

    wait_until(service.is_ready, seconds=5)
    assert before == [warning]
    assert "0001_notes: run `migrate up`" in warning["error"]


@pytest.mark.promise("D5")
def test_busy_table(migrate: Migrate, add: Add, postgresql: PostgreSQL) -> None:
    """
    A step that waits for a table gives way to others after the limit, and is tried again.
    """
    migrate("up")
    add("0002_more", "CREATE TABLE more ()", "ALTER TABLE notes ADD COLUMN author text")
    with transaction(postgresql.url, "SELECT count(*) FROM notes") as commit:
        command = migrate("up", wait=False, migration_lock_seconds=0.5)
        command.wait_for("migration_waits")
        # While it pauses, nobody waits for it.
        postgresql.execute("SET lock_timeout = 1000; SELECT count(*) FROM notes")
        assert "more" not in tables(postgresql)

        commit()

        assert command.wait() == 0
    assert postgresql.fetch("SELECT author FROM notes") == []


def test_one_at_a_time(migrate: Migrate, add: Add) -> None:
    """
    A second `migrate up` waits for the first, and exits 75 when that takes too long.
    """
    add("0002_slow", SLOW)
    first = migrate("up", wait=False)
    first.wait_for("migration_applied", step="0001_notes")

    second = migrate("up", wait=False, migration_lock_seconds=0.1)

    assert second.wait() == 75
    assert [line["level"] for line in second.events("migration_waits")] == ["warning"] * 4 + [
        "error"
    ]
    assert first.process.poll() is None


def test_statement_limit(migrate: Migrate, add: Add) -> None:
    """
    A statement over its limit ends the command with 69, and the step is undone.
    """
    add("0002_slow", "CREATE TABLE slow ()", SLOW)

    command = migrate("up", migration_statement_seconds=1, migration_lock_seconds=0.5)

    assert command.process.returncode == 69
    (told,) = command.events("database_unavailable")
    assert "statement timeout" in told["cause"]
    assert "APP_MIGRATION_STATEMENT_SECONDS" in told["action"]
    assert states(migrate("status"))["0002_slow"] == "missing"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=["SIGTERM", "SIGKILL"])
def test_stopped(
    migrate: Migrate, add: Add, postgresql: PostgreSQL, number: signal.Signals
) -> None:
    """
    A command that is stopped does not say that it is done, its step is undone, its lock is free.
    """
    step = add("0002_slow", "CREATE TABLE slow ()", SLOW)
    command = migrate("up", wait=False, database_client_check_seconds=0.5)
    command.wait_for("migration_applied", step="0001_notes")
    sleeping = "SELECT 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep'"
    wait_until(lambda: postgresql.fetch(sleeping))

    command.send_signal(number)

    assert command.wait(seconds=10) == (75 if number == signal.SIGTERM else -number)
    wait_until(lambda: not postgresql.fetch(sleeping), seconds=2)
    assert "slow" not in tables(postgresql)
    step.unlink()
    assert migrate("up").process.returncode == 0


def test_outside_of_transactions(migrate: Migrate, add: Add, postgresql: PostgreSQL) -> None:
    """
    What PostgreSQL does in no transaction goes into an autocommit block.
    """
    code = """with op.get_context().autocommit_block():
    op.execute("CREATE INDEX CONCURRENTLY by_text ON notes (text)")"""
    add("0002_index", code=code)

    assert migrate("up").process.returncode == 0

    assert postgresql.fetch("SELECT 1 FROM pg_index WHERE indexrelid = 'by_text'::regclass")


def test_broken_step(migrate: Migrate, add: Add, postgresql: PostgreSQL) -> None:
    """
    A step that fails exits 70 and leaves nothing behind; those in front of it stay.
    """
    add("0002_broken", "CREATE TABLE half ()", "CREATE TABLE nonsense (a unknown_type)")

    command = migrate("up")

    assert command.process.returncode == 70
    (event,) = command.events("migration_broken")
    assert event["cause"].startswith("0002_broken: ")
    assert "unknown_type" in event["cause"]
    assert "Traceback" not in command.stderr.read_text()
    assert states(migrate("status")) == {"0001_notes": "applied", "0002_broken": "missing"}
    assert "half" not in tables(postgresql)


def test_steps_that_are_no_chain(migrate: Migrate, add: Add, postgresql: PostgreSQL) -> None:
    """
    Two steps behind the same one, a wrong name or no Python: 70 with one event, nothing is done.
    """
    add("0002_one")
    add("0002_two")
    two = migrate("up")
    add("0002_two", before="0002_one").write_text("import nonsense\n")
    broken = migrate("up")

    for command, told in ((two, "0002_two is behind 0002_one by its name"), (broken, "nonsense")):
        assert command.process.returncode == 70
        (event,) = command.lines()
        assert event["event"] == "migration_broken"
        assert told in event["cause"]
    assert tables(postgresql) == set()


@pytest.mark.promise("C9")
@pytest.mark.parametrize("words", [["up"], ["down", "1"], ["status"]], ids=" ".join)
def test_no_database(migrate: Migrate, postgresql: PostgreSQL, words: list[str]) -> None:
    """
    A database that refuses, lacks, or does not answer: 69 and one event with cause and action.
    """
    wrong = {
        "password authentication failed": postgresql.url_with_wrong_password,
        'database "missing" does not exist': postgresql.url_of_missing_database,
    }
    commands = {told: migrate(*words, database_url=url) for told, url in wrong.items()}
    postgresql.freeze()
    commands["TimeoutError"] = migrate(*words, database_connect_seconds=1)
    postgresql.kill()
    commands["ConnectionRefusedError"] = migrate(*words)

    for told, command in commands.items():
        assert command.process.returncode == 69
        (event,) = command.lines()
        assert event["event"] == "database_unavailable"
        assert told in event["cause"]
        assert "APP_DATABASE_URL" in event["action"]
