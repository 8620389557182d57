"""
Steps between the states of the database's schema, by Alembic; SQLAlchemy is used for nothing else.

A step is named like its file, their order is that of the names, and each is one transaction.
The comment on Alembic's table records a digest of the code of each step that was applied.
"""

import ast
import asyncio
import io
import logging
import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache, partial
from hashlib import sha256
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

__all__ = ["Refused", "compare", "database_check", "differs", "known", "migrate", "status"]

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
# These parts of a file may change after it was applied: they did not make the schema.
HARMLESS = "import ", "from ", "def downgrade(", "revision", "down_revision"
# The database can't, or lets this role not.
UNAVAILABLE = (*EXPECTED, "42501")
LOCKED = {"55P03", "40P01"}
RECORD = re.compile(r"(\S+)=(\w{16})")

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


@lru_cache(maxsize=1)
def known() -> dict[str, str]:
    """
    The steps of this release, oldest first, each with a digest of the code that makes the schema.
    """
    found = {}
    for path in (files(PACKAGE) / "migrations" / "versions").iterdir():
        if path.name.endswith(".py") and path.name[0] not in "_.":
            words = " ".join(_words(ast.parse(path.read_text(encoding="utf-8"))))
            found[path.name[:-3]] = sha256(words.encode()).hexdigest()[:16]
    return dict(sorted(found.items()))


def _words(module: ast.Module) -> Iterator[str]:
    """
    Names and values in their order, which formatters and versions of Python leave as they are.
    """
    for part in module.body:
        nodes = [] if ast.unparse(part).startswith(HARMLESS) else [*ast.walk(part)]
        docstrings = [node.value for node in nodes if isinstance(node, ast.Expr)]
        for node in nodes:
            for name, value in ast.iter_fields(node):
                if isinstance(value, str | int | float) and node not in docstrings:
                    yield from str(value).split() if name != "kind" else ()


async def compare(query: Callable[[str], Awaitable[Any]]) -> tuple[list[str], list[str], str]:
    """
    The steps that a database lacks, those that were applied with other code, and its last one.

    *query* is `fetchval` of a connection; the last one is empty if there is none.
    """
    steps, found = known(), None
    if await query("SELECT to_regclass('alembic_version')"):
        comment = "coalesce(obj_description(tableoid, 'pg_class'), '')"
        found = await query(f"SELECT version_num || ' ' || {comment} FROM alembic_version")  # noqa: S608
    last, newest = (found or " ").split(" ")[0], max(steps, default="")
    # Releases up to 0.3.1 apply without a record, and leave the record of what they take back.
    records = {name: code for name, code in RECORD.findall(found or "") if name <= last}
    names = {*records, *steps} if last in records else {*records}
    changed = {name for name in names if steps.get(name) != records.get(name)}
    # A step behind all that this release knows is of a newer one, which has what this one needs.
    changed |= {last} - {"", *steps}
    changed = {name for name in changed if name <= min(last, newest)}
    return [name for name in steps if name > last], sorted(changed), last


def database_check(database: Database) -> Check:
    """
    That the database answers, and has the steps of this release.
    """

    async def probe() -> None:
        async with database.quietly() as connection:
            missing, changed, _ = await compare(connection.fetchval)
        if changed:
            raise differs(changed)
        if missing:
            raise RuntimeError(f"it lacks {', '.join(missing)}: run `migrate up`")

    return Check(name="database", probe=probe, place=database.place)


async def status(settings: Settings, tell: Tell) -> None:
    """
    Tell of each step whether it is applied, missing, changed, or unknown to this release.
    """
    async with _connected(settings) as connection:
        missing, changed, last = await compare(connection.fetchval)
    unknown = {last} - {"", *known()}
    states = {"applied": known(), "missing": missing, "unknown": unknown, "changed": changed}
    words = {name: word for word, names in states.items() for name in names}
    for name, word in sorted(words.items()):
        tell("info", "migration", step=name, state=word)
    if changed:
        raise differs(changed)


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
        plan, last = await _plan(raw.fetchval, back)
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
        # What a release up to 0.3.1 applied has no record.
        if not plan and last in known():
            await raw.execute(_recording(last))
        engine = create_async_engine(
            "postgresql+asyncpg://", async_creator=reuse, poolclass=NullPool
        )
        async with engine.connect() as connection:
            for number, step in enumerate(plan):
                begun = list[Any]()
                work = partial(connection.run_sync, _apply, step, begun)
                try:
                    await _patiently(work, tell, step.name)
                except Exception as error:
                    error.add_note(await _left(raw, number, begun))
                    raise
                if back:
                    tell("info", "migration_taken_back", step=step.name)
                else:
                    tell("info", "migration_applied", step=step.name)
        tell("info", "migrated", steps=len(plan))


async def _plan(query: Callable[[str], Awaitable[Any]], back: int) -> tuple[list[Step], str]:
    """
    The steps to take, what each would remove, and the last one that is applied; raises `Refused`
    where there is no way.
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
    names, changed, last = await compare(query)
    if changed:
        raise differs(changed)
    make = MigrationStep.upgrade_from_script
    if back:
        applied = [name for name in steps if name not in names]
        names, make = applied[: -back - 1 : -1], MigrationStep.downgrade_from_script
        fixed = [name for name in names if not getattr(steps[name].module, "downgrade", None)]
        told = f"{last} is of a newer release" if last not in {"", *steps} else ""
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
    return plan, last


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


def _apply(connection: "Connection", step: Step, begun: list[Any]) -> None:
    from alembic.operations import Operations
    from alembic.runtime.migration import MigrationContext

    function = step.run.migration_fn

    def run() -> None:
        begun.append(connection.exec_driver_sql("SELECT pg_current_xact_id()").scalar_one())
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
        connection.exec_driver_sql(_recording(step.name, is_applied=step.run.is_upgrade))

    step.run.migration_fn = run
    options = {"transaction_per_migration": True, "fn": lambda *_: [step.run]}
    context = MigrationContext.configure(connection, opts=options)
    try:
        with Operations.context(context):
            context.run_migrations()
    finally:
        step.run.migration_fn = function


def _recording(last: str, *, is_applied: bool = True) -> str:
    """
    The statement that records all steps up to *last*, or before it.
    """
    steps = [f"{n}={d}" for n, d in known().items() if n < last or (is_applied and n == last)]
    return f"COMMENT ON TABLE alembic_version IS '{' '.join(steps)}'"


async def _left(raw: "asyncpg.Connection[asyncpg.Record]", number: int, begun: list[Any]) -> str:
    """
    What is done after the step behind *number* others failed: it may have committed by itself.
    """
    ends = {"in doubt"} if begun else {"aborted"}
    with suppress(asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
        ends = {await raw.fetchval("SELECT pg_xact_status($1)", xid) for xid in begun}
    part = "nothing of it" if ends <= {"aborted"} else "a part of it may be"
    return f"{number} steps before it are done, {part}"


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
async def _connected(settings: Settings) -> AsyncGenerator["asyncpg.Connection[asyncpg.Record]"]:
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


def differs(changed: list[str]) -> Refused:
    """
    The refusal of a database that was made by other code.
    """
    told = f"{', '.join(changed)} is not the code that was applied"
    action = "restore the file as it was applied, and write the change as a new step"
    return Refused(Exit.BUG, "migration_broken", f"{told}: {action}", action)


def _state(error: BaseException) -> str:
    """
    The SQLSTATE, which SQLAlchemy wraps.
    """
    return getattr(getattr(error, "orig", error), "sqlstate", None) or ""


def _explained(error: Exception) -> Refused:
    # The name of the step, and what is left of it.
    name, left = [*getattr(error, "__notes__", []), "", ""][:2]
    cause = f"{name}: {type(error).__name__}: {error}".removeprefix(": ").removesuffix(": ")
    code, event, told = Exit.BUG, "migration_broken", "mend the step"
    is_lost = isinstance(error, (OSError, TimeoutError, asyncpg.InterfaceError))
    if _state(error) in LOCKED:
        told = "others use what it needs; try again later, or when there is less to do"
        code, event = Exit.TEMPORARY, "migration_waits"
    elif is_lost or _state(error).startswith(UNAVAILABLE):
        told = "check APP_DATABASE_URL, its role, and that the database runs"
        if _state(error) == "57014":
            told = "raise APP_MIGRATION_STATEMENT_SECONDS, or let the step do less at a time"
        is_ours = isinstance(error, asyncpg.ClientConfigurationError)
        code = Exit.CONFIGURATION if is_ours else Exit.UNAVAILABLE
        event = "database_unavailable"
    return Refused(code, event, cause, f"{told}; {left}".removesuffix("; "))
