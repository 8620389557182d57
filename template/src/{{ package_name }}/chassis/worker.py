"""
The worker process: takes messages from the queue and hands them to their handlers.

Each message is handled at least once, by one worker at a time: a lease, renewed by a thread of its
own, outlives a slow handler and a blocked event loop, but not the process.
"""

import asyncio
import random
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any
from uuid import uuid4

import asyncpg
import orjson
from prometheus_client import Counter, Gauge, Histogram
from pydantic import ValidationError
from structlog.contextvars import bind_contextvars

from .arguments import Name
from .backlog import EXPECTED, watch
from .database import Database, open_database
from .deadline import DEADLINE
from .excerpt import Excerpt, brief, traceback_text
from .health import Check
from .life import Compose, Parts, Running, live
from .limits import CURRENT, Current
from .logs import get_logger
from .problem import Unavailable
from .process import Process
from .queue import DONE, Handler, Message, Payload
from .traceparent import TRACEPARENT

__all__ = ["Worker", "run"]

# Twice without a result: perhaps it kills its workers. Of such, a worker handles one at a time, so
# that the others that it was handled with do not die of it too.
FETCH = """
    WITH suspect AS (
        SELECT id FROM messages
        WHERE dead_at IS NULL AND ready_at <= now() AND name = ANY($3)
            AND lease IS NOT NULL AND failures > 1
        ORDER BY ready_at, id LIMIT $5 FOR UPDATE SKIP LOCKED
    ), other AS (
        SELECT id FROM messages
        WHERE dead_at IS NULL AND ready_at <= now() AND name = ANY($3)
            AND (lease IS NULL OR failures < 2)
        ORDER BY ready_at, id LIMIT $4 FOR UPDATE SKIP LOCKED
    )
    UPDATE messages
    SET lease = $1, ready_at = now() + make_interval(secs => $2), key = NULL,
        attempts = attempts + 1, failures = failures + 1
    WHERE id IN (SELECT id FROM suspect UNION ALL SELECT id FROM other LIMIT $4)
    RETURNING id, name, payload::text, context::text, lease, attempts, failures, enqueued_at,
        extract(epoch FROM now() - enqueued_at)::float8 AS age,
        id IN (SELECT id FROM suspect) AS is_suspect
"""
# What a handler has locked, by `Message.once`, nobody else can fetch either.
BEAT = """
    UPDATE messages SET ready_at = now() + make_interval(secs => $3) WHERE id IN (
        SELECT id FROM messages WHERE id = ANY($1) AND lease = ANY($2) FOR UPDATE SKIP LOCKED
    )
"""
AGAIN = """
    UPDATE messages
    SET lease = NULL, ready_at = now() + make_interval(secs => $3), error = $4,
        failures = failures - $5
    WHERE id = $1 AND lease = $2
"""
DEAD = """
    UPDATE messages SET lease = NULL, dead_at = now(), error = $3 WHERE id = $1 AND lease = $2
"""
PAUSE_SECONDS = 1
# Time for a handler to end when it is cancelled.
CANCEL_SECONDS = 0.3
# Longest pause before a message is tried again: what does not answer may do so any minute.
FAILED_MAX_SECONDS, UNAVAILABLE_MAX_SECONDS = 3600, 60
# What a message needs does not answer, for so long: then it is dead like one that fails.
UNAVAILABLE_AGE_SECONDS = 7 * 86_400
ERROR_MAX_CHARACTERS = 10_000

HANDLED = Counter("app_messages_handled", "By what became of them.", ["name", "outcome"])
SECONDS = Histogram("app_message_duration_seconds", "Handling a message.", ["name"])
IN_FLIGHT = Gauge("app_messages_in_flight", "Messages being handled.")
log = get_logger()


@dataclass(frozen=True, kw_only=True)
class Worker(Parts):
    """
    The parts of a worker: who handles the messages of each name.
    """

    handlers: Mapping[Name, Handler[Any]]


@dataclass(kw_only=True)
class _Handling:
    """
    A message in this worker's hands, until this instant of time.monotonic at most.
    """

    message: Message[Any]
    row: "asyncpg.Record"
    until: float


def run(compose: Compose, process: Process) -> None:
    """
    Handle messages until told to stop; ends the process itself, with an exit code of `Exit`.
    """
    # Connections of its own, however busy the handlers keep theirs.
    own = process.settings.model_copy(update={"pool_size_max": 2})

    @asynccontextmanager
    async def composed(settings: Any) -> AsyncGenerator[_Wired]:
        async with open_database(own) as database, compose(settings) as worker:
            consumer = _Consumer(worker.handlers, process, database)
            process.supervise("backlog", partial(watch, database, worker.handlers, own))
            process.supervise_thread("beat", consumer.beat)
            queue = Check(name="queue", probe=consumer.ping, place=database.place)
            yield _Wired(
                checks=[*worker.checks, queue],
                tasks=worker.tasks,
                threads=worker.threads,
                consumer=consumer,
            )

    async def serve(wired: _Wired, _: Running) -> Callable[[], Awaitable[None]]:
        consuming = process.supervise("messages", wired.consumer.consume)
        return partial(wired.consumer.finish, consuming)

    live(composed, serve, process)


class _Consumer:
    """
    Fetches, hands over, and writes down what became of each message.
    """

    def __init__(
        self, handlers: Mapping[str, Handler[Any]], process: Process, database: Database
    ) -> None:
        self._handlers, self._process, self._database = handlers, process, database
        self._settings = process.settings
        # By id; the thread that renews the leases reads it, too.
        self._running: dict[int, _Handling] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._over = asyncio.Event()

    async def consume(self) -> None:
        """
        Fetch whenever there is room, until told to stop.
        """
        stop = asyncio.ensure_future(self._process.stop.wait())
        while not stop.done():
            rows = await self._fetch()
            for row in rows or ():
                self._begin(row)
            if len(self._process.abandoned) >= self._settings.message_concurrency:
                # What became of their messages is told first.
                if self._tasks:
                    await asyncio.wait(self._tasks, timeout=PAUSE_SECONDS)
                raise RuntimeError("too many handlers go on after their deadline")
            # At once when a message ends; but an outage is told once a second.
            woken = {stop} if rows is None else {stop, *self._tasks}
            pause = self._settings.message_poll_seconds * random.uniform(0.5, 1)  # noqa: S311
            pause = PAUSE_SECONDS if rows is None else pause
            await asyncio.wait(woken, timeout=pause, return_when=asyncio.FIRST_COMPLETED)

    async def finish(self, consuming: "asyncio.Task[None]") -> None:
        """
        Let what runs end within the time of grace, and put the rest back at once.
        """
        self._process.closing.set()
        limit = time.monotonic() + self._settings.grace_seconds
        await asyncio.wait({consuming, *self._tasks}, timeout=self._settings.grace_seconds)
        while self._tasks and time.monotonic() < limit:
            await asyncio.wait(self._tasks, timeout=limit - time.monotonic())
        if self._tasks:
            log.warning("grace_exceeded", **self._process.stacks())
            self._over.set()
            await asyncio.wait(self._tasks, timeout=CANCEL_SECONDS * 3)

    async def ping(self) -> None:
        """
        Raises unless there is a queue.
        """
        async with self._database.connection() as connection:
            await connection.fetch("SELECT id, lease, failures FROM messages LIMIT 1")

    def beat(self) -> None:
        """
        Renew the leases, on a loop and connection of its own: a handler may block the other.
        """
        asyncio.run(self._beat())

    async def _beat(self) -> None:
        own = self._settings.model_copy(update={"pool_size_max": 1})
        async with open_database(own) as database:
            while True:
                now, pause = time.monotonic(), self._settings.heartbeat_seconds
                # Only these: one whose fetch was answered too late is nobody's, and lapses.
                held = [one.message for one in self._running.copy().values() if now < one.until]
                ids, leases = [one.id for one in held], [one.lease for one in held]
                try:
                    if held:
                        async with database.connection() as connection:
                            stall = self._settings.message_stall_seconds
                            await connection.execute(BEAT, ids, leases, stall)
                except EXPECTED as error:
                    _tell(error, database)
                    pause = PAUSE_SECONDS
                await asyncio.sleep(pause)

    async def _fetch(self) -> "list[asyncpg.Record] | None":
        """
        Fetch as many messages as there is room for; None if the database can't.
        """
        room = self._settings.message_concurrency - len(self._running)
        if room <= 0:
            return []
        suspects = int(not any(one.row["is_suspect"] for one in self._running.values()))
        stall, names = self._settings.message_stall_seconds, list(self._handlers)
        try:
            async with self._database.connection() as connection:
                return await connection.fetch(FETCH, uuid4(), stall, names, room, suspects)
        except EXPECTED as error:
            _tell(error, self._database)
            return None

    def _begin(self, row: "asyncpg.Record") -> None:
        if known := self._running.get(row["id"]):
            # Our own: its lease had lapsed, and begins anew.
            known.message.lease = row["lease"]
            return
        message: Message[Any] = Message(
            id=row["id"],
            name=row["name"],
            payload=Payload(),  # read when its handler begins
            attempt=row["attempts"],
            enqueued_at=row["enqueued_at"],
            lease=row["lease"],
        )
        seconds = self._settings.message_deadline_seconds + self._settings.message_stall_seconds
        handling = _Handling(message=message, row=row, until=time.monotonic() + seconds)
        self._running[message.id] = handling
        IN_FLIGHT.set(len(self._running))
        task = asyncio.create_task(self._handle(handling), name=f"message {message.id}")
        self._tasks.add(task)
        task.add_done_callback(partial(self._end, message.id))

    def _end(self, number: int, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        self._running.pop(number)
        IN_FLIGHT.set(len(self._running))
        # A mistake of ours ends the process, as in every callback.
        task.result()

    async def _handle(self, handling: _Handling) -> None:
        """
        Hand the message over, write down what became of it, and tell it in one line.
        """
        message, row, began = handling.message, handling.row, time.monotonic()
        given = orjson.loads(row["context"])
        context = {"message_id": message.id}
        context |= {"request_id": given["request_id"]} if "request_id" in given else {}
        if parent := given.get("traceparent", ""):
            context["trace_id"] = parent[3:35]
        bind_contextvars(**context)
        TRACEPARENT.set(parent)
        CURRENT.set(current := Current())

        reason, error = "killed", None
        if row["failures"] <= self._settings.message_attempts:
            reason, error = await self._run(message, row["payload"])
        outcome, sql, *arguments = self._verdict(row, reason, error)
        if await self._write(sql, message, arguments) and reason not in {"", "grace"}:
            self._process.errors[reason] += 1
        self._report(row, outcome, reason, error)
        HANDLED.labels(message.name, outcome).inc()
        seconds = time.monotonic() - began
        SECONDS.labels(message.name).observe(seconds)
        fields = {
            "name": message.name,
            "attempt": message.attempt,
            "outcome": outcome,
            "duration_ms": round(seconds * 1000, 3),
            "age_ms": round(row["age"] * 1000),
        }
        fields |= {"reason": reason} if reason else {}
        fields |= {"dependency": current.dependency} if current.dependency else {}
        fields |= {"error": brief(error)} if error else {}
        self._process.logs.line("message", "warning" if reason else "info", context | fields)

    async def _run(self, message: Message[Any], payload: str) -> tuple[str, BaseException | None]:
        """
        Run the handler to its end or deadline; why it failed, if it did, and with which exception.
        """
        handler, limit = self._handlers[message.name], self._settings.message_deadline_seconds
        current = CURRENT.get()

        async def work() -> None:
            DEADLINE.set(time.monotonic() + limit)
            try:
                message.payload = handler.payload.model_validate_json(payload)
            except ValidationError as error:
                # Its text ends with advice for programmers, at an address of pydantic's.
                found = [(".".join(map(str, one["loc"])), one["msg"]) for one in error.errors()]
                told = ", ".join(": ".join(filter(None, one)) for one in found)
                raise ValueError(f"not a {handler.payload.__name__}: {told}") from None
            await handler.handle(message)

        task = asyncio.create_task(work(), name=f"handler {message.name} {message.id}")
        over = asyncio.create_task(self._over.wait())
        await asyncio.wait({task, over}, timeout=limit, return_when=asyncio.FIRST_COMPLETED)
        is_over = over.done()
        over.cancel()
        if not task.done():
            current.dependency = "".join(current.uses[:1])
            task.cancel()
            await asyncio.wait({task}, timeout=CANCEL_SECONDS)
            if not task.done():
                self._abandon(task)
            else:
                _ = task.cancelled() or task.exception()
            return ("grace", None) if is_over else ("deadline", TimeoutError(f"after {limit:g} s"))
        error = asyncio.CancelledError() if task.cancelled() else task.exception()
        current.dependency = error.dependency if isinstance(error, Unavailable) else ""
        reason = "unavailable" if isinstance(error, Unavailable) else "bug"
        return reason if error else "", error

    def _abandon(self, task: "asyncio.Task[None]") -> None:
        """
        Leave a handler behind that ignores its cancellation.
        """
        self._process.abandoned.add(task)
        task.add_done_callback(self._process.abandoned.discard)
        # Nobody asks for its result any more.
        task.add_done_callback(lambda task: task.cancelled() or task.exception())

    def _verdict(
        self, row: "asyncpg.Record", reason: str, error: BaseException | None
    ) -> tuple[Any, ...]:
        """
        What becomes of a message: a word for it, the statement, and its further arguments.
        """
        settings, failures = self._settings, row["failures"]
        cut, text = self._process.logs.sink.cut, f"stopped: {reason}"
        if error:
            text = traceback_text(Excerpt(cut, ERROR_MAX_CHARACTERS).exceptions(error))
        if reason == "killed":
            text = f"{failures - 1} workers ended while they handled it, without a word"
        masked = self._process.logs.sink.mask(text.encode(errors="backslashreplace")).decode()
        text = masked.replace("\0", "")[-ERROR_MAX_CHARACTERS:]
        is_patient = reason == "unavailable" and row["age"] < UNAVAILABLE_AGE_SECONDS
        most = UNAVAILABLE_MAX_SECONDS if is_patient else FAILED_MAX_SECONDS
        number = min(row["attempts"] if is_patient else failures, 20)
        pause = min(settings.message_backoff_seconds * 2 ** (number - 1), most)
        pause *= random.uniform(0.8, 1.2)  # noqa: S311  # no secret
        if not reason:
            return "done", DONE
        if reason == "grace":
            return "requeued", AGAIN, 0.0, text, 1
        if is_patient:
            return "retried", AGAIN, pause, text, 1
        if failures >= settings.message_attempts or reason == "unavailable":
            return "dead", DEAD, text
        return "retried", AGAIN, pause, text, 0

    async def _write(self, sql: str, message: Message[Any], arguments: list[Any]) -> bool:
        """
        Write a result down, until its lease must have lapsed: a short outage does not cost it.
        """
        limit = time.monotonic() + self._settings.message_stall_seconds
        while time.monotonic() < limit:
            try:
                async with self._database.connection() as connection:
                    await connection.execute(sql, message.id, message.lease, *arguments)
            except EXPECTED as error:
                _tell(error, self._database)
                await asyncio.sleep(PAUSE_SECONDS)
            else:
                return True
        return False

    def _report(
        self, row: "asyncpg.Record", outcome: str, reason: str, error: BaseException | None
    ) -> None:
        """
        Tell of what a person must mend: each bug in the log, its first and the end to the tracker.
        """
        if reason == "bug":
            log.error("message_failed", name=row["name"], exc_info=error)
        if outcome == "dead":
            command = f"dead list {row['id']}"
            log.error("message_dead", name=row["name"], reason=reason, action=f"see `{command}`")
        if outcome == "dead" or (reason == "bug" and row["failures"] == 1):
            self._process.tell(error, event="message_dead", kind=f"message {row['name']}")


@dataclass(frozen=True, kw_only=True)
class _Wired(Parts):
    consumer: _Consumer


def _tell(error: Exception, database: Database) -> None:
    # The database itself has logged what is `Unavailable`.
    if not isinstance(error, Unavailable):
        told = {"reason": type(error).__name__, "cause": str(error)}
        log.warning("queue_unavailable", **told, **database.place)
