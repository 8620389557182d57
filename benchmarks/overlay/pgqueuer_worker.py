"""
The same by pgqueuer, as its documentation has it; with `install` only its schema is made.
"""

import asyncio
import os
import sys
from datetime import timedelta

import asyncpg
from pgqueuer.adapters.drivers.asyncpg import AsyncpgPoolDriver
from pgqueuer.adapters.persistence.queries import Queries
from pgqueuer.core.qm import QueueManager


async def main() -> None:
    pool = await asyncpg.create_pool(os.environ["PGURI"], min_size=0, max_size=10)
    queries = Queries(AsyncpgPoolDriver(pool))
    if "install" in sys.argv:
        await queries.install()
        return
    manager = QueueManager(queries)

    async def pass_by(_: object) -> None: ...

    async def mark(_: object) -> None:
        await pool.execute("INSERT INTO began VALUES (clock_timestamp())")

    async def stay(_: object) -> None:
        await mark(_)
        await asyncio.sleep(10)

    for name, handle in {"pass": pass_by, "mark": mark, "stay": stay}.items():
        manager.entrypoint(name)(handle)
    seconds = timedelta(seconds=1)
    stall = timedelta(seconds=30)
    await manager.run(dequeue_timeout=seconds, batch_size=10, heartbeat_timeout=stall)


asyncio.run(main())
