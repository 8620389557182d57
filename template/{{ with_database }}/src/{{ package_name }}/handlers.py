"""
Messages in: one function per name. A message may come more than once, so let it do no harm.
"""

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any
from uuid import UUID

from . import notes
from .chassis.queue import Handler, Message, Payload, enqueue
from .domain import Note
from .resources import Resources

if TYPE_CHECKING:
    from .chassis.database import Connection

__all__ = ["NoteWritten", "announce_later", "handlers"]


class NoteWritten(Payload):
    """
    A new note, to be announced.
    """

    id: UUID


async def announce_later(connection: "Connection", note: Note) -> None:
    """
    Have a worker announce the note, if the transaction of *connection* is committed.
    """
    await enqueue(connection, "note_written", NoteWritten(id=note.id), key=str(note.id))


async def announce(opened: Resources, message: Message[NoteWritten]) -> None:
    """
    Tell the other service; PUT is idempotent, so twice does no harm.
    """
    async with opened.database.connection() as connection:
        note = await notes.get(connection, message.payload.id)
    # Who was deleted meanwhile needs no announcement.
    if note is not None:
        await opened.announcer.announce(note)


def handlers(opened: Resources) -> Mapping[str, Handler[Any]]:
    """
    Who handles the messages of each name.
    """
    return {"note_written": Handler(payload=NoteWritten, handle=partial(announce, opened))}
