"""
PostgreSQL: connections with a limit on everything that waits.

A connection whose state is in doubt is cut, not mended: whoever asks next gets a fresh one.
"""

import asyncio
import math
import time
import traceback
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

import asyncpg
from asyncpg.pool import PoolConnectionProxy
from prometheus_client import Counter, Gauge

from .deadline import remaining
from .limits import using
from .logs import get_logger
from .problem import Unavailable
from .settings import Settings, place_of

if TYPE_CHECKING:
    Connection = PoolConnectionProxy[asyncpg.Record]
else:
    Connection = PoolConnectionProxy

__all__ = ["EXPECTED", "Connection", "Database", "connection_options", "open_database"]

# What says that the database can't do it now, by class of SQLSTATE or its whole: connection lost,
# read-only after a failover, ended while idle, refused, no such database, deadlock, out of
# something, lock not free, stopped or over its time, trouble of its machine.
# Source: PostgreSQL's documentation, appendix A.
EXPECTED = ("08", "25006", "25P03", "25P04", "28", "3D000", "40", "53", "55P03", "57", "58")
# The line is lost, or silent, where asyncpg says so; an OSError of the body is none of ours.
LOST = ConnectionError, TimeoutError
# The database tells better what took too long; whoever is frozen tells nothing.
SLACK_SECONDS = 0.2
# An outage is told so often, with the number of failures.
TELL_SECONDS = 10
AWAY = "database at {host}:{port}/{database}: {reason}: {cause}"
FAILURES = Counter("app_database_failures", "Uses of the database that failed.", ["reason"])
IN_USE = Gauge("app_database_connections_in_use", "Connections.")
WAITING = Gauge("app_database_waiting", "Who waits for a connection.")
log = get_logger()


class PoolTimeout(TimeoutError):  # noqa: N818  # the name is the `reason` of the metric
    """
    All connections of the pool are lent out; that is not a failure of the database.
    """


class Database:
    """
    A pool of connections; open it once, in `resources.py`.
    """

    def __init__(self, pool: "asyncpg.Pool[asyncpg.Record]", settings: Settings) -> None:
        self._pool, self._settings = pool, settings
        self.place = place_of(connection_options(settings)["dsn"])
        self._slots = asyncio.Semaphore(settings.pool_size_max)
        self._waiting = self._failures = 0
        self._told = -math.inf
        self._releasing: set[asyncio.Task[None]] = set()

    def connection(self) -> AbstractAsyncContextManager["Connection"]:
        """
        A connection of your own; each statement commits by itself.

        Raises `Unavailable` where the database does not answer in time, or can't.
        """
        return self._hold(self._tell)

    @asynccontextmanager
    async def transaction(self) -> AsyncGenerator["Connection"]:
        """
        A connection in a transaction: all of it, or nothing.
        """
        async with self.connection() as connection:
            transaction = connection.transaction()
            await transaction.start()
            try:
                yield connection
            except Exception as error:
                # Who is frozen does not roll back, but does so when the line is cut.
                if not _is_doubtful(error, connection):
                    await transaction.rollback()
                raise
            await transaction.commit()

    async def ping(self) -> None:
        """
        Raises `Unavailable` unless the database answers; who checks tells of it.
        """
        async with self.quietly() as connection:
            await connection.fetchval("SELECT 1")

    def quietly(self) -> AbstractAsyncContextManager["Connection"]:
        """
        As `connection`, for a check, which tells of a failure itself.
        """
        return self._hold(lambda *_: None)

    @asynccontextmanager
    async def _hold(self, tell: Callable[[dict[str, str]], None]) -> AsyncGenerator["Connection"]:
        connection = None
        try:
            with using("database"):
                connection = await self._checkout()
                IN_USE.inc()
                yield connection
        except BaseException as error:
            is_expected = _is_expected(error, connection)
            # Where it is cancelled, its statement may still run.
            if connection and (not isinstance(error, Exception) or _is_doubtful(error, connection)):
                with suppress(asyncpg.InterfaceError):
                    connection.terminate()
            if not is_expected:
                raise
            told = {"reason": type(error).__name__, "cause": str(error) or "no answer in time"}
            FAILURES.labels(told["reason"]).inc()
            tell(told)
            raise Unavailable(AWAY.format(**told, **self.place), dependency="database") from error
        finally:
            if connection:
                IN_USE.dec()
                await self._give_back(connection)

    async def _checkout(self) -> "Connection":
        ends = time.monotonic() + min(self._settings.pool_checkout_seconds, remaining())
        if self._waiting >= self._settings.pool_waiting_max:
            raise PoolTimeout("too many wait for a connection")
        self._waiting += 1
        WAITING.inc()
        try:
            async with asyncio.timeout_at(ends):
                await self._slots.acquire()
        except TimeoutError as error:
            raise PoolTimeout("no connection in time") from error
        finally:
            self._waiting -= 1
            WAITING.dec()
        # If asyncpg is cancelled just before it starts TLS, it leaves a future behind that reports
        # the lost connection to the event loop. So a connect always runs to its own limit.
        acquiring = asyncio.ensure_future(self._pool.acquire())
        try:
            async with asyncio.timeout_at(ends):
                await asyncio.wait({acquiring})
            return acquiring.result()
        except BaseException:
            acquiring.add_done_callback(self._put_back)
            raise

    def _put_back(self, acquiring: "asyncio.Future[Connection]") -> None:
        """
        Free the slot of a caller that did not get its connection; a late one goes to the pool.
        """
        if acquiring.cancelled() or acquiring.exception():
            self._slots.release()
        else:
            releasing = asyncio.create_task(self._give_back(acquiring.result()))
            self._releasing.add(releasing)
            releasing.add_done_callback(self._releasing.discard)

    async def _give_back(self, connection: "Connection") -> None:
        """
        Undo what a statement changed in the session; what was done before is done, whatever comes.
        """
        seconds = min(self._settings.pool_checkout_seconds, remaining())
        try:
            with suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
                await self._pool.release(connection, timeout=seconds)
        finally:
            self._slots.release()

    def _tell(self, told: dict[str, str]) -> None:
        self._failures += 1
        if time.monotonic() > self._told + TELL_SECONDS:
            log.warning("database_unavailable", **told, **self.place, failures=self._failures)
            self._failures, self._told = 0, time.monotonic()


@asynccontextmanager
async def open_database(settings: Settings) -> AsyncGenerator[Database]:
    """
    The database of `database_url`; nothing is connected until it is needed.
    """
    options = connection_options(settings)
    pool = await asyncpg.create_pool(**options, min_size=0, max_size=settings.pool_size_max)
    try:
        yield Database(pool, settings)
    finally:
        # A frozen database would not take its leave.
        pool.terminate()


def connection_options(settings: Settings) -> dict[str, Any]:
    """
    What `asyncpg.connect` needs to know: where, who, and every limit.
    """
    if settings.database_url is None:
        raise ValueError("APP_DATABASE_URL is not set")
    url, file = settings.database_url.get_secret_value(), settings.database_password_file
    limits = {
        "statement_timeout": settings.database_statement_seconds,
        "lock_timeout": settings.database_lock_seconds,
        "idle_in_transaction_session_timeout": settings.database_idle_in_transaction_seconds,
        "client_connection_check_interval": settings.database_client_check_seconds,
    }

    def password() -> str:
        # Read anew for each connection, so that it may change.
        return file.read_text("utf-8").strip() if file else unquote(urlsplit(url).password or "")

    return {
        "dsn": url,
        "password": password,
        "timeout": settings.database_connect_seconds,
        "command_timeout": settings.database_statement_seconds + SLACK_SECONDS,
        "server_settings": {name: f"{math.ceil(value * 1000)}ms" for name, value in limits.items()},
    }


def _is_expected(error: BaseException, connection: "Connection | None") -> bool:
    """
    Whether the database is to blame; what it refused, or what was no SQL, is a bug of ours.
    """
    if not isinstance(error, asyncpg.PostgresError | asyncpg.InterfaceError | OSError):
        return False
    is_lost = _is_lost(error) or connection is None or _is_closed(connection)
    return is_lost or (getattr(error, "sqlstate", None) or "").startswith(EXPECTED)


def _is_lost(error: BaseException | None) -> bool:
    """
    Whether asyncpg waited in vain, also within a limit of the caller's own; the body may have
    waited for something else.
    """
    while isinstance(error, (*LOST, asyncio.CancelledError)):
        frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
        if any(frame.f_globals.get("__name__", "").startswith("asyncpg.") for frame in frames):
            return True
        error = error.__cause__
    return False


def _is_doubtful(error: BaseException, connection: "Connection") -> bool:
    """
    Whether nobody knows what the connection is good for after *error*.
    """
    is_fatal = getattr(error, "severity_en", None) in {"FATAL", "PANIC"}
    is_standby = getattr(error, "sqlstate", None) == "25006"
    return _is_lost(error) or is_fatal or is_standby or _is_closed(connection)


def _is_closed(connection: "Connection") -> bool:
    try:
        return connection.is_closed()
    except asyncpg.InterfaceError:
        # The pool has taken it back when it was lost.
        return True
