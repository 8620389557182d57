"""
A worker whose handlers do nothing, or write down when they began.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from .chassis.database import open_database
from .chassis.queue import Handler, Message, Payload
from .chassis.worker import Worker
from .settings import Settings

__all__ = ["compose"]


class Nothing(Payload):
    """
    There is nothing to tell.
    """


@asynccontextmanager
async def compose(settings: Settings) -> AsyncIterator[Worker]:
    async with open_database(settings) as database:

        async def pass_by(_: Message[Nothing]) -> None: ...

        async def mark(_: Message[Nothing]) -> None:
            async with database.connection() as connection:
                await connection.execute("INSERT INTO began VALUES (clock_timestamp())")

        async def stay(message: Message[Nothing]) -> None:
            await mark(message)
            await asyncio.sleep(10)

        handlers = {"pass": pass_by, "mark": mark, "stay": stay}
        yield Worker(
            handlers={
                name: Handler(payload=Nothing, handle=handle) for name, handle in handlers.items()
            }
        )
