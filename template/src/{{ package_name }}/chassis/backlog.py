"""
The metrics of the queue: how much waits, for how long, and what is dead.
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

# LOOK reads at most so many rows of each kind, along an index: a queue of millions costs no more
# than one of thousands, and the numbers then mean "at least".
COUNT_MAX = 10_000
# A try moves `ready_at`, so a message that was tried is as old as since `enqueued_at`. One in its
# first try does not wait, and has no age until its lease ends. Handled names are there in any case,
# so that an empty queue differs from one that can't be read.
LOOK = f"""
    WITH waiting AS (
        (SELECT name, attempts, lease, enqueued_at, ready_at FROM messages
        WHERE dead_at IS NULL AND ready_at <= now() ORDER BY ready_at, id LIMIT {COUNT_MAX})
        UNION ALL
        (SELECT name, attempts, lease, enqueued_at, ready_at FROM messages
        WHERE dead_at IS NULL AND ready_at > now() ORDER BY ready_at, id LIMIT {COUNT_MAX})
    ), aged AS (
        SELECT name, CASE WHEN attempts > 1 OR attempts = 1 AND lease IS NULL THEN 'retried'
            ELSE 'ready' END AS state, enqueued_at, ready_at FROM waiting
    ), dead AS (
        SELECT name FROM messages WHERE dead_at IS NOT NULL ORDER BY dead_at LIMIT {COUNT_MAX}
    )
    SELECT name, state, count(*) AS depth, 0 AS dead, greatest(extract(epoch FROM now() -
        min(CASE state WHEN 'retried' THEN enqueued_at ELSE ready_at END)), 0)::float8 AS oldest
    FROM aged GROUP BY name, state
    UNION ALL SELECT name, 'ready', 0, count(*), 0 FROM dead GROUP BY name
    UNION ALL SELECT name, 'ready', 0, 0, 0 FROM unnest($1::text[]) AS name
"""  # noqa: S608  # a number of ours
FORGET = """
    DELETE FROM messages WHERE id IN (
        SELECT id FROM messages WHERE dead_at < now() - make_interval(days => $1)
        ORDER BY dead_at LIMIT 1000 FOR UPDATE SKIP LOCKED
    )
"""
# A schema or a permission that is missing may come; every other failure is `Unavailable`.
EXPECTED = (Unavailable, asyncpg.PostgresError)
LOOK_SECONDS = 5

DEPTH = Gauge("app_messages_waiting", "Messages that are not dead; at most 20,000.", ["name"])
OLDEST = Gauge("app_messages_oldest_seconds", "Since the oldest was due.", ["name", "state"])
DEADS = Gauge("app_messages_dead", "Messages that wait for a person; at most 10,000.", ["name"])
log = get_logger()


async def watch(database: Database, handled: Collection[str], settings: Settings) -> None:
    """
    Look at the queue every few seconds, and delete messages that have long been dead.
    """
    known = {*handled, "unknown"}
    while True:
        # If the queue can't be read, no number is better than an old one: WorkerDown sees that.
        rows: list[asyncpg.Record] = []
        with suppress(*EXPECTED):
            async with database.connection() as connection:
                rows = await connection.fetch(LOOK, [*handled, "unknown"])
                await connection.execute(FORGET, settings.message_dead_days)
        if new := {row["name"] for row in rows} - known:
            log.warning("messages_unknown", names=sorted(new)[:20])
        known = {*handled, "unknown", *(row["name"] for row in rows)}
        for gauge in (DEPTH, OLDEST, DEADS):
            gauge.clear()
        # Names without a handler here are counted as `unknown`: its age is that of the oldest.
        for row in sorted(rows, key=itemgetter("oldest")):
            name = row["name"] if row["name"] in handled else "unknown"
            DEPTH.labels(name).inc(row["depth"])
            DEADS.labels(name).inc(row["dead"])
            OLDEST.labels(name, row["state"]).set(row["oldest"])
        await asyncio.sleep(LOOK_SECONDS)
