"""
Steps between the states of the database's schema, by Alembic; SQLAlchemy is used for nothing else.

A step is named like its file, their order is that of the names, and each is one transaction.
"""

import asyncio
import io
import logging
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from importlib.resources import files
from inspect import getsource
from typing import TYPE_CHECKING, Any
from zlib import crc32

import asyncpg

from .database import EXPECTED, Database, connection_options
from .exits import Exit
from .health import Check
from .settings import Settings

if TYPE_CHECKING:
    from alembic.runtime.migration import MigrationStep
    from sqlalchemy import Connection

__all__ = ["Refused", "database_check", "lacking", "migrate", "status"]

PACKAGE = (__package__ or "").partition(".")[0]
# The advisory lock of whoever changes the schema.
LOCK = crc32(b"migrate")
# Whoever waits for a busy table holds up all that come after: so not for long, and again.
PAUSES_SECONDS = 0.5, 1, 2, 4
# What removes rows, or values from rows, and from where; the same in a comment is taken for it.
REMOVES = re.compile(
    r"\b(?:DROP\s+TABLE(?:\s+IF\s+EXISTS)?|TRUNCATE(?:\s+TABLE)?|DELETE\s+FROM"
    r"|ALTER\s+TABLE(?:\s+IF\s+EXISTS)?"
    r"(?=[^;]*\bDROP\s+(?!CONSTRAINT|DEFAULT|NOT|IDENTITY|EXPRESSION)))"
    r'\s+(?:ONLY\s+)?([\w."]+(?:\s*,\s*[\w."]+)*)',
    re.IGNORECASE,
)
# The database can't, or lets this role not.
UNAVAILABLE = (*EXPECTED, "42501")
LOCKED = {"55P03", "40P01"}

Tell = Callable[..., None]


class Refused(Exception):  # noqa: N818  # what the command says
    """
    Why it did not happen, and in *action* what to do.
    """

    def __init__(self, code: Exit, event: str, cause: str, action: str) -> None:
        super().__init__(cause)
        self.code, self.event, self.action = code, event, action


@dataclass(frozen=True, kw_only=True)
class Step:
    """
    A step forward or back; of the tables that it removes something from, the *rows*.
    """

    name: str
    run: "MigrationStep"
    sql: str
    rows: dict[str, int]


def known() -> list[str]:
    """
    The steps of this release, oldest first.
    """
    names = (path.name for path in (files(PACKAGE) / "migrations" / "versions").iterdir())
    return sorted(name[:-3] for name in names if name.endswith(".py") and name[0] not in "_.")


async def lacking(query: Callable[[str], Awaitable[Any]]) -> tuple[list[str], str | None]:
    """
    The steps that a database lacks, and its last one; *query* is `fetchval` of a connection.
    """
    steps, last = known(), None
    if await query("SELECT to_regclass('alembic_version')"):
        last = await query("SELECT version_num FROM alembic_version")
    if last is None:
        return steps, None
    # What this release does not know is a step of a newer one, which has all that this one needs.
    return steps[steps.index(last) + 1 :] if last in steps else [], last


def database_check(database: Database) -> Check:
    """
    That the database answers, and has the steps of this release.
    """

    async def probe() -> None:
        async with database.quietly() as connection:
            missing, _ = await lacking(connection.fetchval)
        if missing:
            raise RuntimeError(f"it lacks {', '.join(missing)}: run `migrate up`")

    return Check(name="database", probe=probe, place=database.place)


async def status(settings: Settings, tell: Tell) -> None:
    """
    Tell of each step whether it is applied, missing, or unknown to this release.
    """
    async with _connected(settings) as connection:
        missing, last = await lacking(connection.fetchval)
    for name in known():
        tell("info", "migration", step=name, state="missing" if name in missing else "applied")
    if last not in {None, *known()}:
        tell("info", "migration", step=last, state="unknown")


async def migrate(settings: Settings, tell: Tell, *, back: int, removes: int | None) -> None:
    """
    Apply what is missing, or take *back* so many steps, if just as many rows go as *removes* says.

    Without that number, only tell of it.
    """
    from sqlalchemy.ext.asyncio import create_async_engine
    from sqlalchemy.pool import NullPool

    # It tells of each of its plugins and steps; `tell` does so of ours.
    logging.getLogger("alembic").setLevel(logging.WARNING)
    async with _connected(settings) as raw:

        async def reuse(*_: object, **__: object) -> object:
            return raw

        lock = partial(raw.execute, "SELECT pg_advisory_lock($1)", LOCK)
        if removes is not None:
            await _patiently(lock, tell, "another migrate")
        plan = await _plan(raw.fetchval, back)
        rows = sum(sum(step.rows.values()) for step in plan)
        if removes is None:
            for step in plan:
                tell("info", "migration_planned", step=step.name, removes=step.rows, sql=step.sql)
            tell("info", "migration_dry_run", steps=len(plan), rows_removed=rows)
            return
        if rows != removes:
            told = f"{rows} rows would be removed, not {removes}; nothing was done"
            action = f"look with --dry-run; if they may go, say --yes-remove {rows}"
            raise Refused(Exit.USAGE, "migration_refused", told, action)
        engine = create_async_engine(
            "postgresql+asyncpg://", async_creator=reuse, poolclass=NullPool
        )
        async with engine.connect() as connection:
            for step in plan:
                await _patiently(partial(connection.run_sync, _apply, step), tell, step.name)
                if back:
                    tell("info", "migration_taken_back", step=step.name)
                else:
                    tell("info", "migration_applied", step=step.name)
        tell("info", "migrated", steps=len(plan))


async def _plan(query: Callable[[str], Awaitable[Any]], back: int) -> list[Step]:
    """
    The steps to take, and what each would remove; raises `Refused` where there is no way.
    """
    from alembic.runtime.migration import MigrationStep
    from alembic.script import ScriptDirectory

    script = ScriptDirectory(str(files(PACKAGE) / "migrations"))
    steps = {name: script.get_revision(name) for name in known()}
    for name, before in zip(steps, [None, *steps], strict=False):
        if steps[name].down_revision != before:
            told = f"{name} is behind {before} by its name, not by its down_revision"
            action = f"let down_revision be {before!r}, and give each step the name of its file"
            raise Refused(Exit.BUG, "migration_broken", told, action)
    names, last = await lacking(query)
    make = MigrationStep.upgrade_from_script
    if back:
        applied = [name for name in steps if name not in names]
        names, make = applied[: -back - 1 : -1], MigrationStep.downgrade_from_script
        fixed = [name for name in names if not getattr(steps[name].module, "downgrade", None)]
        told = f"{last} is of a newer release" if last not in {None, *steps} else ""
        told = told or (f"there are only {len(names)}" if len(names) < back else "")
        told = told or (f"{fixed[0]} has no downgrade()" if fixed else "")
        if told:
            action = "take back fewer, and a newer release's steps by that release"
            raise Refused(Exit.USAGE, "migration_refused", told, action)
    plan = []
    for name in names:
        run = make(script.revision_map, steps[name])
        sql = _sql(run.migration_fn)
        tables = {table for found in REMOVES.findall(sql) for table in re.split(r"\s*,\s*", found)}
        there = [t for t in sorted(tables) if await query(f"SELECT to_regclass('{t}')")]
        rows = {table: await query(f"SELECT count(*) FROM {table}") for table in there}  # noqa: S608
        plan.append(Step(name=name, run=run, sql=sql, rows=rows))
    return plan


def _sql(function: Callable[[], None]) -> str:
    """
    What a step would execute; its source, where it depends on what the database answers.
    """
    from alembic.operations import Operations
    from alembic.runtime.migration import MigrationContext

    written = io.StringIO()
    options = {"as_sql": True, "output_buffer": written}
    try:
        with Operations.context(
            MigrationContext.configure(dialect_name="postgresql", opts=options)
        ):
            function()
    except Exception:  # noqa: BLE001  # it will be told when it runs
        return getsource(function)
    return written.getvalue().strip()


def _apply(connection: "Connection", step: Step) -> None:
    from alembic.operations import Operations
    from alembic.runtime.migration import MigrationContext

    function = step.run.migration_fn

    def run() -> None:
        for table, rows in step.rows.items():
            # From here on nobody adds any; who reads may go on.
            connection.exec_driver_sql(f"LOCK TABLE {table} IN SHARE ROW EXCLUSIVE MODE")
            now = connection.exec_driver_sql(f"SELECT count(*) FROM {table}").scalar_one()  # noqa: S608
            if now > rows:
                told = f"{table} had {rows} rows and has {now}; {step.name} was not done"
                raise Refused(
                    Exit.TEMPORARY, "migration_refused", told, "look again, and tell anew"
                )
        function()

    step.run.migration_fn = run
    options = {"transaction_per_migration": True, "fn": lambda *_: [step.run]}
    context = MigrationContext.configure(connection, opts=options)
    try:
        with Operations.context(context):
            context.run_migrations()
    finally:
        step.run.migration_fn = function


async def _patiently(work: Callable[[], Awaitable[object]], tell: Tell, name: str) -> None:
    """
    Do *work*, some more times where it waits for a lock.
    """
    for pause in (*PAUSES_SECONDS, None):
        try:
            await work()
        except Exception as error:
            error.add_note(name)
            if pause is None or _state(error) not in LOCKED:
                raise
            tell("warning", "migration_waits", step=name, seconds=pause)
            await asyncio.sleep(pause)
        else:
            return


@asynccontextmanager
async def _connected(settings: Settings) -> AsyncIterator["asyncpg.Connection[asyncpg.Record]"]:
    """
    A connection with limits of its own; whatever goes wrong with it becomes `Refused`.
    """
    limits = {
        "lock_timeout": f"{settings.migration_lock_seconds}s",
        "statement_timeout": f"{settings.migration_statement_seconds}s",
        "client_connection_check_interval": f"{settings.database_client_check_seconds}s",
    }
    options = connection_options(settings) | {"server_settings": limits}
    options["command_timeout"] = settings.migration_statement_seconds + 1
    try:
        connection = await asyncpg.connect(**options)
        try:
            yield connection
        finally:
            connection.terminate()
    except Refused:
        raise
    except Exception as error:
        raise _explained(error) from error


def _state(error: BaseException) -> str:
    """
    The SQLSTATE, which SQLAlchemy wraps.
    """
    return getattr(getattr(error, "orig", error), "sqlstate", None) or ""


def _explained(error: Exception) -> Refused:
    cause = f"{type(error).__name__}: {error}".removesuffix(": ")
    cause = ": ".join([*getattr(error, "__notes__", ())[:1], cause])
    if _state(error) in LOCKED:
        told = "others use what it needs; try again later, or when there is less to do"
        return Refused(Exit.TEMPORARY, "migration_waits", cause, told)
    is_lost = isinstance(error, (OSError, TimeoutError, asyncpg.InterfaceError))
    if is_lost or _state(error).startswith(UNAVAILABLE):
        told = "check APP_DATABASE_URL, its role, and that the database runs"
        if _state(error) == "57014":
            told = "raise APP_MIGRATION_STATEMENT_SECONDS, or let the step do less at a time"
        is_ours = isinstance(error, asyncpg.ClientConfigurationError)
        code = Exit.CONFIGURATION if is_ours else Exit.UNAVAILABLE
        return Refused(code, "database_unavailable", cause, told)
    return Refused(Exit.BUG, "migration_broken", cause, "mend the step; nothing of it was done")
