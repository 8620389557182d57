"""
Who holds a lock is alone; however it ends, the lock is free again.
"""

import asyncio
import fcntl
import os
import tempfile
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from importlib import import_module
from pathlib import Path

from .arguments import FileName, check
from .settings import Settings

__all__ = ["Lost", "Overlap", "hold"]

# How often the connection that holds it is tried.
LOOK_SECONDS = 1.0
# Returns when somebody else may have the lock.
Lost = Callable[[], Awaitable[object]]


class Overlap(Exception):  # noqa: N818  # no error
    """
    Somebody else has it.
    """


def hold(settings: Settings, key: FileName) -> AbstractAsyncContextManager[Lost]:
    """
    Take the lock at once or raise `Overlap`: in the database, or in a file where there is none.
    """
    check(hold, key=key)
    return (_in_database if settings.database_url else _in_file)(settings, key)


@asynccontextmanager
async def _in_file(settings: Settings, key: str) -> AsyncGenerator[Lost]:
    """
    On this machine only; the kernel frees it, however the process ends. Raises `OSError`.
    """
    try:
        path = (settings.job_lock_dir or Path(tempfile.gettempdir())) / f"{key}.lock"
        # Behind a link that somebody laid there would be somebody's file.
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise Overlap from None
    # Nothing takes it away.
    yield asyncio.Event().wait


@asynccontextmanager
async def _in_database(settings: Settings, key: str) -> AsyncGenerator[Lost]:
    """
    Of the session of a connection of its own: the database frees it when that is gone.
    """
    open_database = import_module(".database", __package__).open_database
    async with open_database(settings) as database, database.connection() as connection:
        # For a machine that vanished: it has the lock for ten seconds more.
        for name, value in (("idle", 4), ("interval", 2), ("count", 3)):
            await connection.execute(f"SET tcp_keepalives_{name} = {value}")
        take = "SELECT pg_try_advisory_lock(hashtextextended($1, 0))"
        if not await connection.fetchval(take, f"job {key}"):
            raise Overlap

        async def lost() -> None:
            with suppress(Exception):
                while True:
                    await asyncio.sleep(LOOK_SECONDS)
                    await connection.execute("SELECT 1")

        yield lost
