"""
Requests that give the database trouble, beside those of the example; only with a database.
"""

import asyncio
import gc
import time
from contextlib import suppress
from typing import Any

from fastapi import Request

from .chassis.database import open_database
from .chassis.fastapi import Router
from .chassis.limits import Limits
from .chassis.problem import Unavailable

__all__ = ["router"]

router = Router(prefix="/faults/database")

TWICE = """
INSERT INTO notes (id, text, written_at)
SELECT id, '', now() FROM gen_random_uuid() id, generate_series(1, 2)
"""


def _database(request: Request) -> Any:
    return request.app.state.resources.database


async def _keep(held: Any, statement: str, seconds: float) -> dict[str, bool]:
    """
    A connection in which a statement was executed, kept for so long.
    """
    async with held as connection:
        await connection.execute(statement)
        await asyncio.sleep(seconds)
    return {}


@router.get("/sleep")
async def sleep(request: Request, seconds: float) -> dict[str, bool]:
    async with _database(request).connection() as connection:
        await connection.execute("SELECT pg_sleep($1)", seconds)
    return {}


@router.get("/impatient")
async def impatient(request: Request) -> dict[str, bool]:
    """
    A limit of the team's own around a statement.
    """
    async with _database(request).connection() as connection, asyncio.timeout(0.2):
        await connection.execute("SELECT pg_sleep(1)")
    return {}


@router.get("/cut-connects")
@Limits(deadline_seconds=60)
async def cut_connects(request: Request) -> dict[str, int]:
    """
    Connects that are cut in each turn of the event loop that they need, one after the other.
    """
    seconds, failed = 0.06, 0
    settings = request.app.state.resources.settings.model_copy(
        update={"pool_checkout_seconds": seconds}
    )
    for turns in [*range(1, 25)] * 2:
        async with open_database(settings) as database:
            slow = asyncio.create_task(_turn_slowly(seconds / turns))
            try:
                async with database.connection():
                    pass
            except Unavailable:
                failed += 1
            slow.cancel()
    # What was left behind is reported when it is collected.
    await asyncio.sleep(0.5)
    gc.collect()
    return {"failed": failed}


async def _turn_slowly(seconds: float) -> None:
    """
    Each turn of the event loop takes this long.
    """
    with suppress(asyncio.CancelledError):
        while True:
            time.sleep(seconds)  # noqa: ASYNC251  # the fault
            await asyncio.sleep(0)


@router.get("/transaction")
async def transaction(request: Request, seconds: float) -> dict[str, bool]:
    """
    Two statements of which the second may not come to its end.
    """
    async with _database(request).transaction() as connection:
        await connection.execute(
            "INSERT INTO notes VALUES (DEFAULT, gen_random_uuid(), 'x', now())"
        )
        await connection.execute("SELECT pg_sleep($1)", seconds)
    return {}


@router.get("/hold")
async def hold(request: Request, seconds: float) -> dict[str, bool]:
    """
    A connection that its request keeps for itself.
    """
    return await _keep(_database(request).connection(), "SELECT 1", seconds)


@router.get("/lock")
async def lock(request: Request, seconds: float) -> dict[str, bool]:
    """
    Keeps the table of notes from everyone else.
    """
    return await _keep(_database(request).transaction(), "LOCK notes", seconds)


@router.get("/show")
async def show(request: Request) -> dict[str, str]:
    """
    The session's settings that limit it.
    """
    async with _database(request).connection() as connection:
        rows = await connection.fetch(
            "SELECT name, setting FROM pg_settings WHERE name ~ 'timeout$|^client_connection'"
        )
    return dict(rows)


@router.get("/forget")
async def forget(request: Request) -> dict[str, bool]:
    """
    Takes a limit away, and a lock, and keeps both.
    """
    async with _database(request).connection() as connection:
        await connection.execute("SET statement_timeout = 0")
        await connection.execute("SELECT pg_advisory_lock(1)")
    return {}


@router.get("/brief")
@Limits(deadline_seconds=0.5)
async def brief(request: Request, seconds: float, idle: float = 0) -> dict[str, bool]:
    """
    A statement, and then nothing of the database's, within a deadline of its own.
    """
    async with _database(request).connection() as connection:
        await connection.execute("SELECT pg_sleep($1)", seconds)
    await asyncio.sleep(idle)
    return {}


@router.get("/wrong/{kind}")
async def wrong(request: Request, kind: str) -> dict[str, bool]:
    """
    Errors for which the database is not to blame.
    """
    statements: dict[str, tuple[Any, ...]] = {
        "sql": ("SELECT nothing FROM nowhere",),
        "type": ("SELECT $1::int", "text"),
        "count": ("SELECT $1::int",),
        "twice": (TWICE,),
    }
    async with _database(request).transaction() as connection:
        if kind == "unavailable":
            raise Unavailable("another service")
        if kind == "file":
            raise FileNotFoundError("not the database's")
        if kind == "timeout":
            raise TimeoutError("not the database's")
        if kind == "line":
            raise ConnectionResetError("not the database's")
        if kind == "bug":
            raise RuntimeError("not about the database")
        await connection.execute(*statements[kind])
    return {}


@router.get("/backend")
async def backend(request: Request) -> dict[str, int]:
    async with _database(request).connection() as connection:
        return {"pid": await connection.fetchval("SELECT pg_backend_pid()")}
