"""
A worker whose handlers are full of faults, laid over that of a generated service.
"""

import asyncio
import math
import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

from .broken import broken
from .chassis.database import Database, open_database
from .chassis.deadline import remaining
from .chassis.logs import get_logger
from .chassis.problem import Unavailable
from .chassis.queue import Handler, Message, Payload, enqueue
from .chassis.traceparent import TRACEPARENT
from .chassis.worker import Worker
from .settings import Settings

__all__ = ["compose"]

log = get_logger()


class Fault(Payload):
    """
    What a handler is to do, one after the other.
    """

    sleep: float = 0
    block: float = 0
    swallow: float = 0
    unavailable: int = 0
    fail: int = 0
    broken: str = ""
    die: int = 0
    effect: str = ""
    is_once: bool = False
    hold: float = 0
    enqueue: str = ""
    delay: float = 0


# What nobody may hand to `enqueue`, beside what is right.
WRONG: list[dict[str, Any]] = [
    {"name": ""},
    {"name": "fault\0"},
    {"payload": {"effect": ""}},
    {"payload": Fault(effect="\0")},
    {"key": ""},
    {"key": "k" * 3000},
    {"delay_seconds": -1},
    {"delay_seconds": 1e18},
    {"delay_seconds": math.nan},
    {"delay_seconds": math.inf},
    {"delay_seconds": "5"},
]


@asynccontextmanager
async def compose(settings: Settings) -> AsyncIterator[Worker]:  # noqa: C901  # faults
    async with open_database(settings) as database:

        async def handle(message: Message[Fault]) -> None:  # noqa: C901  # one fault after another
            fault = message.payload
            log.info("began", number=message.id, trace=TRACEPARENT.get(), left=remaining())
            if message.attempt <= fault.die:
                os.kill(os.getpid(), signal.SIGKILL)
            if message.attempt <= fault.unavailable:
                raise Unavailable("nobody answers", dependency="peer")
            if fault.broken:
                raise broken(fault.broken)
            if message.attempt <= fault.fail:
                raise ValueError(f"canary of {settings.token.get_secret_value()}")
            await asyncio.sleep(fault.sleep)
            time.sleep(fault.block)  # noqa: ASYNC251  # the fault
            end = time.monotonic() + fault.swallow
            while time.monotonic() < end:
                with suppress(asyncio.CancelledError):
                    await asyncio.sleep(0.05)
            if fault.effect:
                async with database.transaction() as connection:
                    if fault.is_once:
                        await message.once(connection)
                    await connection.execute("INSERT INTO effects VALUES ($1)", fault.effect)
            if fault.hold:
                async with database.connection() as connection:
                    await connection.execute("SELECT pg_sleep($1)", fault.hold)
            if fault.enqueue == "wrong":
                await _hand_in_wrong(database, message)
            elif fault.enqueue:
                await _enqueue(fault.enqueue, fault.delay)
            log.info("ended", number=message.id)

        async def _enqueue(end: str, delay: float) -> None:
            with suppress(ZeroDivisionError):
                async with database.transaction() as connection:
                    await enqueue(
                        connection,
                        "fault",
                        Fault(effect=end),
                        key="one of a kind",
                        delay_seconds=delay,
                    )
                    await connection.execute("INSERT INTO effects VALUES ($1)", f"with {end}")
                    if end == "rollback":
                        raise ZeroDivisionError
                    if end == "kill before":
                        os.kill(os.getpid(), signal.SIGKILL)
            if end == "kill after":
                os.kill(os.getpid(), signal.SIGKILL)

        handler = Handler(payload=Fault, handle=handle)
        yield Worker(handlers={"fault": handler, "other": handler})


async def _hand_in_wrong(database: Database, message: Message[Fault]) -> None:
    async with database.connection() as connection:
        try:
            await message.once(connection)
        except ValueError as error:
            log.info("refused", text=str(error))
    async with database.transaction() as connection:
        for wrong in WRONG:
            right: dict[str, Any] = {"name": "fault", "payload": Fault(effect="wrong")}
            try:
                await enqueue(connection, **right | wrong)
            except ValueError as error:
                log.info("refused", text=str(error))
        await connection.execute("INSERT INTO effects VALUES ('in the same transaction')")
