"""
The queue: a table. A message is put there in the transaction of what it tells of, or not at all.

A message that is being handled is leased to a worker: `lease` names that lease, and `ready_at` is
its end. Who has lost the lease can't change the message any more.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Generic, TypeVar
from uuid import UUID

import orjson
from pydantic import BaseModel, ConfigDict, Field, InstanceOf
from structlog.contextvars import get_contextvars

from .arguments import Checked, Name, Text, check
from .problem import Unavailable
from .traceparent import TRACEPARENT

if TYPE_CHECKING:
    from .database import Connection

__all__ = ["Handler", "Message", "Payload", "enqueue"]

# One that waits is locked until the transaction ends: else a worker could begin with it before
# what it now tells of too can be seen.
ENQUEUE = """
    INSERT INTO messages AS waiting (name, payload, context, key, enqueued_at, ready_at)
    SELECT $1, $2::text::jsonb, $3::text::jsonb, $4, due, due
    FROM (SELECT now() + make_interval(secs => $5) AS due) AS delayed
    ON CONFLICT (name, key) DO UPDATE SET
        payload = excluded.payload,
        context = excluded.context,
        enqueued_at = least(waiting.enqueued_at, excluded.enqueued_at),
        ready_at = least(waiting.ready_at, excluded.ready_at)
    RETURNING id
"""
DONE = "DELETE FROM messages WHERE id = $1 AND lease = $2"


class Payload(BaseModel):
    """
    Base of what messages hold: no unknown field, no type guessed ("5" is not 5), no NaN.
    """

    model_config = ConfigDict(
        strict=True, extra="forbid", frozen=True, allow_inf_nan=False, hide_input_in_errors=True
    )


P = TypeVar("P", bound=Payload)


@dataclass(kw_only=True)
class Message(Generic[P]):
    """
    What a handler gets. It may get the same message again, with another *attempt*.

    *enqueued_at* is when the message was due: at its enqueue, or after its delay.
    """

    id: int
    name: str
    payload: P
    attempt: int
    enqueued_at: datetime
    lease: UUID = field(repr=False)

    async def once(self, connection: "Connection") -> None:
        """
        Make what the transaction of *connection* does happen once: the message ends with it.

        Raises `Unavailable` when another worker has the message; let it roll the transaction back.
        """
        if not connection.is_in_transaction():
            raise ValueError("Message.once: connection is not in a transaction")
        if await connection.execute(DONE, self.id, self.lease) == "DELETE 0":
            raise Unavailable(f"another worker has message {self.id}", dependency="queue")


@dataclass(frozen=True, kw_only=True)
class Handler(Checked, Generic[P]):
    """
    What is to be done with the messages of a name; an exception means: again, later.
    """

    payload: type[P]
    handle: Callable[[Message[P]], Awaitable[None]]


async def enqueue(
    connection: "Connection",
    name: Name,
    payload: InstanceOf[Payload],
    *,
    key: Text | None = None,
    delay_seconds: Annotated[float, Field(ge=0, le=10 * 366 * 86_400)] = 0,
) -> int:
    """
    Put a message into the queue when the transaction of *connection* is committed; its id.

    While one of this name and *key* waits, it takes the new payload instead: it is handled once.
    Raises ValueError, before anything is written, if an argument is wrong.
    """
    check(enqueue, name=name, payload=payload, key=key, delay_seconds=delay_seconds)
    text = payload.model_dump_json()
    if "\\u0000" in text.replace("\\\\", ""):
        raise ValueError("enqueue: payload holds U+0000, which PostgreSQL can't keep")
    trace = {"traceparent": TRACEPARENT.get(), "request_id": get_contextvars().get("request_id")}
    context = orjson.dumps({key: value for key, value in trace.items() if value}).decode()
    number: int = await connection.fetchval(ENQUEUE, name, text, context, key, delay_seconds)
    return number
