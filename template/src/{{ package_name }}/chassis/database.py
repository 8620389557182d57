"""
PostgreSQL: connections with a limit on everything that waits.

A connection on which something went wrong is cut, not mended: whoever asks next gets a fresh one.
"""

import asyncio
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

import asyncpg
from asyncpg.pool import PoolConnectionProxy
from prometheus_client import Counter, Gauge

from .deadline import remaining
from .logs import get_logger
from .problem import Unavailable
from .settings import Settings

if TYPE_CHECKING:
    Connection = PoolConnectionProxy[asyncpg.Record]
else:
    Connection = PoolConnectionProxy

__all__ = ["Connection", "Database", "open_database"]

# What says that the database can't do it now, by class of SQLSTATE or its whole:
# connection lost, refused, out of something, stopped, a limit reached, no such database.
# Source: PostgreSQL's documentation, appendix A.
EXPECTED = ("08", "28", "53", "57", "55P03", "25P03", "25P04", "3D000")
FAILURES = Counter("app_database_failures", "Uses of the database that failed.", ["reason"])
IN_USE = Gauge("app_database_connections_in_use", "Connections.")
WAITING = Gauge("app_database_waiting", "Who waits for a connection.")
log = get_logger()


class Database:
    """
    A pool of connections; open it once, in `resources.py`.
    """

    def __init__(self, pool: "asyncpg.Pool[asyncpg.Record]", settings: Settings) -> None:
        self._pool, self._settings, self._waiting = pool, settings, 0

    @asynccontextmanager
    async def connection(self) -> AsyncIterator["Connection"]:
        """
        A connection of your own; each statement commits by itself.

        Raises `Unavailable` where the database does not answer in time, or can't.
        """
        connection = await self._checkout()
        is_whole = False
        try:
            IN_USE.inc()
            yield connection
            is_whole = True
        except Exception as error:
            state = getattr(error, "sqlstate", None)
            # What the database refused, such as a value that is there twice, harms no connection.
            is_whole = state is not None and not state.startswith(EXPECTED)
            if isinstance(error, (OSError, TimeoutError, asyncpg.InterfaceError)) or (
                state and not is_whole
            ):
                raise _unavailable(error) from error
            raise
        finally:
            IN_USE.dec()
            if not is_whole:
                connection.terminate()
            # Not the request's time any more; the limit is the statement's.
            await self._pool.release(connection)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator["Connection"]:
        """
        A connection in a transaction: all of it, or nothing.
        """
        async with self.connection() as connection, connection.transaction():
            yield connection

    async def ping(self) -> None:
        """
        Raises `Unavailable` unless the database answers.
        """
        async with self.connection() as connection:
            await connection.fetchval("SELECT 1")

    async def _checkout(self) -> "Connection":
        seconds = min(self._settings.pool_checkout_seconds, remaining())
        if self._waiting >= self._settings.pool_waiting_max:
            raise _unavailable(TimeoutError("too many wait for a connection"))
        self._waiting += 1
        WAITING.set(self._waiting)
        try:
            return await self._pool.acquire(timeout=seconds)
        except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            raise _unavailable(error) from error
        finally:
            self._waiting -= 1
            WAITING.set(self._waiting)


@asynccontextmanager
async def open_database(settings: Settings) -> AsyncIterator[Database]:
    """
    The database of `database_url`; nothing is connected until it is needed.
    """
    if settings.database_url is None:
        raise ValueError("APP_DATABASE_URL is not set")
    limits = {
        "statement_timeout": settings.db_statement_seconds,
        "lock_timeout": settings.db_lock_seconds,
        "idle_in_transaction_session_timeout": settings.db_idle_in_transaction_seconds,
        "client_connection_check_interval": settings.db_client_check_seconds,
    }

    url = urlsplit(settings.database_url.get_secret_value())

    def password() -> str:
        # Read anew for each connection, so that it may change.
        file = settings.database_password_file
        return file.read_text().strip() if file else unquote(url.password or "")

    pool = asyncpg.create_pool(
        url.geturl(),
        password=password,
        min_size=0,
        max_size=settings.pool_size_max,
        timeout=settings.db_connect_seconds,
        # A database that is frozen does not end a statement by itself.
        command_timeout=settings.db_statement_seconds,
        server_settings={name: f"{math.ceil(value * 1000)}ms" for name, value in limits.items()},
    )
    await pool
    try:
        yield Database(pool, settings)
    finally:
        # A frozen database would not take its leave.
        pool.terminate()
        await asyncio.sleep(0)


def _unavailable(error: BaseException) -> Unavailable:
    reason = type(error).__name__
    FAILURES.labels(reason).inc()
    log.warning("database_unavailable", reason=reason, cause=str(error))
    return Unavailable(f"database: {reason}: {error}")
