"""
An operation that a client may repeat: the same key, one effect and the same answer.

Source: draft-ietf-httpapi-idempotency-key-header. Keys are in the table of 0001_notes.py.
"""

from collections.abc import Awaitable, Callable
from hashlib import sha256
from typing import Annotated, TypeVar

from pydantic import BaseModel, Field, InstanceOf, TypeAdapter

from .arguments import Text, check
from .database import Connection, Database
from .problem import Refused, Unavailable

__all__ = ["KEY", "once"]

# The draft has quotes around it, most clients have none.
KEY = r'^(?:"[A-Za-z0-9._:-]{8,128}"|[A-Za-z0-9._:-]{8,128})$'
# Each new key makes room for itself: what is older goes, more of it than comes.
KEEP, CLEANED = "24 hours", 10

T = TypeVar("T")


async def once(
    database: Database,
    effect: Callable[[Connection], Awaitable[T]],
    *,
    kind: type[T],
    operation: Text,
    key: Annotated[str, Field(pattern=KEY)] | None,
    request: InstanceOf[BaseModel],
) -> T:
    """
    What *effect* returns, of *kind*; with a key that was there before, what it returned then.

    Effect and key are one transaction. The *operation* names what is done, and for whom, if keys of
    different clients may be alike. Raises `Refused` where the key came with another *request*.
    """
    check(once, effect=effect, operation=operation, key=key, request=request)
    async with database.transaction() as connection:
        if key is None:
            return await effect(connection)
        key, answers = f"{operation} {key.strip(chr(34))}", TypeAdapter(kind)
        digest = sha256(request.model_dump_json().encode()).digest()
        # Waits for whoever is at it with the same key.
        is_new = await connection.fetchval(
            "INSERT INTO idempotency_keys (key, request) VALUES ($1, $2)"
            " ON CONFLICT (key) DO NOTHING RETURNING true",
            key,
            digest,
        )
        if not is_new:
            query = "SELECT request, answer FROM idempotency_keys WHERE key = $1"
            row = await connection.fetchrow(query, key)
            if row is None:
                raise Unavailable("idempotency: the key has just expired", dependency="database")
            if row["request"] != digest:
                raise Refused("This Idempotency-Key came with another request before.")
            return answers.validate_json(row["answer"])
        answer = await effect(connection)
        query = "UPDATE idempotency_keys SET answer = $2 WHERE key = $1"
        await connection.execute(query, key, answers.dump_json(answer))
        await connection.execute(
            f"""
            DELETE FROM idempotency_keys WHERE key IN (
                SELECT key FROM idempotency_keys WHERE written_at < now() - interval '{KEEP}'
                ORDER BY written_at LIMIT {CLEANED} FOR UPDATE SKIP LOCKED
            )
            """  # noqa: S608  # constants
        )
        return answer
