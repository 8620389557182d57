"""
Messages that failed too often wait here for a person: look at them, try them again, drop them.
"""

import asyncio
from collections import Counter
from collections.abc import Sequence

import asyncpg

from .database import open_database
from .problem import Unavailable
from .settings import Settings

__all__ = ["run"]

WHICH = "FROM messages WHERE dead_at IS NOT NULL AND (id = ANY($1) OR $2 OR name = $3)"
ACTS = {
    "retry": """
        UPDATE messages SET dead_at = NULL, enqueued_at = now(), ready_at = now(), failures = 0
        WHERE id = ANY($1)
    """,
    "drop": "DELETE FROM messages WHERE id = ANY($1)",
}
LISTED_MAX = 50


def run(
    settings: Settings,
    act: str,
    *,
    ids: Sequence[int] = (),
    all: bool = False,  # noqa: A002  # as in the command
    name: str | None = None,
    count: int | None = None,
) -> bool:
    """
    List, retry or drop; whether it was as told.

    Without ids, nothing is changed unless exactly *count* messages match.
    """
    which = list(ids), all or (act == "list" and not ids and not name), name
    wanted = len(set(ids)) if ids and count is None else count
    try:
        return asyncio.run(_run(settings, act, which, wanted))
    except asyncpg.PostgresError as error:
        raise Unavailable(f"database: {type(error).__name__}: {error}") from error


async def _run(
    settings: Settings, act: str, which: tuple[list[int], bool, str | None], wanted: int | None
) -> bool:
    async with open_database(settings) as database, database.transaction() as connection:
        if act == "list":
            count = await connection.fetchval(f"SELECT count(*) {WHICH}", *which)
            columns = "id, name, dead_at, attempts, error, payload::text, context::text"
            order = f"ORDER BY dead_at, id LIMIT {LISTED_MAX}"
            for row in await connection.fetch(f"SELECT {columns} {WHICH} {order}", *which):
                _show(row, whole=bool(which[0]))
            print(f"{count} dead" + (f", {LISTED_MAX} shown" if count > LISTED_MAX else ""))
            return True
        rows = await connection.fetch(f"SELECT id, name {WHICH} FOR UPDATE", *which)
        names = Counter(row["name"] for row in rows)
        told = ", ".join(f"{number} of {name}" for name, number in sorted(names.items())) or "none"
        if wanted is None:
            print(f"{act} would take {told}; nothing is done without --count {len(rows)}")
            return True
        if wanted != len(rows):
            print(f"{act}: {told} would be taken, which is not {wanted}; nothing is done")
            return False
        await connection.execute(ACTS[act], [row["id"] for row in rows])
        print(f"{act}: {told}")
        return True


def _show(row: "asyncpg.Record", *, whole: bool) -> None:
    error = (row["error"] or "").strip()
    last = error.rpartition("\n")[2][:200]
    died = f"{row['dead_at']:%Y-%m-%dT%H:%M:%SZ}"
    print(f"{row['id']}  {row['name']}  {died}  attempts {row['attempts']}  {last}")
    if whole:
        print(f"payload {row['payload']}\ncontext {row['context']}\n{error}\n")
