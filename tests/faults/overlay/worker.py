"""
A worker whose handlers are full of faults, laid over that of a generated service.
"""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from .chassis.database import open_database
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
    die: int = 0
    effect: str = ""
    is_once: bool = False
    enqueue: str = ""
    delay: float = 0


@asynccontextmanager
async def compose(settings: Settings) -> AsyncIterator[Worker]:  # noqa: C901  # faults
    async with open_database(settings) as database:

        async def handle(message: Message[Fault]) -> None:  # one fault after another
            fault = message.payload
            log.info("began", number=message.id, trace=TRACEPARENT.get(), left=remaining())
            if message.attempt <= fault.die:
                os.kill(os.getpid(), signal.SIGKILL)
            if message.attempt <= fault.unavailable:
                raise Unavailable("nobody answers")
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
            if fault.enqueue:
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
