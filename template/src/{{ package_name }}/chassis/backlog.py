"""
What waits in the queue, and what is dead: counted now and then, for the metrics.
"""

import asyncio
from collections.abc import Collection
from contextlib import suppress
from operator import itemgetter

import asyncpg
from prometheus_client import Gauge

from .database import Database
from .logs import get_logger
from .problem import Unavailable
from .settings import Settings

__all__ = ["EXPECTED", "watch"]

# Of each kind so many are looked at, along its index: a queue of millions is looked at as fast as
# one of thousands, and the numbers then say "at least".
COUNT_MAX = 10_000
LOOK = f"""
    WITH waiting AS (
        SELECT name, ready_at FROM messages WHERE dead_at IS NULL
        ORDER BY ready_at, id LIMIT {COUNT_MAX}
    ), dead AS (
        SELECT name FROM messages WHERE dead_at IS NOT NULL ORDER BY dead_at LIMIT {COUNT_MAX}
    )
    SELECT name, count(*) AS depth, 0 AS dead, greatest(
        extract(epoch FROM now() - min(ready_at)), 0
    )::float8 AS oldest
    FROM waiting GROUP BY name
    UNION ALL SELECT name, 0, count(*), 0 FROM dead GROUP BY name
"""  # noqa: S608  # a number of ours
FORGET = """
    DELETE FROM messages WHERE id IN (
        SELECT id FROM messages WHERE dead_at < now() - make_interval(days => $1)
        ORDER BY dead_at LIMIT 1000 FOR UPDATE SKIP LOCKED
    )
"""
# No schema yet, no permission: they may come. What else the database can't do is Unavailable.
EXPECTED = (Unavailable, asyncpg.PostgresError)
LOOK_SECONDS = 5

DEPTH = Gauge("app_messages_waiting", "Messages that are not dead; at most 10,000.", ["name"])
OLDEST = Gauge("app_messages_oldest_seconds", "How long the oldest has been ready.", ["name"])
DEADS = Gauge("app_messages_dead", "Messages that wait for a person; at most 10,000.", ["name"])
log = get_logger()


async def watch(database: Database, handled: Collection[str], settings: Settings) -> None:
    """
    Look at the queue now and then; forget what has long been dead.
    """
    known: set[str] = set()
    while True:
        # While nobody knows, no number is better than an old one.
        rows: list[asyncpg.Record] = []
        with suppress(*EXPECTED):
            async with database.connection() as connection:
                rows = await connection.fetch(LOOK)
                await connection.execute(FORGET, settings.message_dead_days)
        unknown = {row["name"] for row in rows} - {*handled}
        if new := unknown - known:
            log.warning("messages_unknown", names=sorted(new)[:20])
        known = unknown
        _show(rows, handled)
        await asyncio.sleep(LOOK_SECONDS)


def _show(rows: "list[asyncpg.Record]", handled: Collection[str]) -> None:
    """
    Fill the gauges; what nobody here handles is one name.
    """
    for gauge in (DEPTH, OLDEST, DEADS):
        gauge.clear()
    for row in sorted(rows, key=itemgetter("oldest")):
        name = row["name"] if row["name"] in handled else "unknown"
        DEPTH.labels(name).inc(row["depth"])
        DEADS.labels(name).inc(row["dead"])
        OLDEST.labels(name).set(row["oldest"])
