"""
HTTP in and out: one function per operation.
"""

from contextlib import suppress
from datetime import datetime
from typing import Annotated
from uuid import UUID

from fastapi import Depends, Header, HTTPException, Query, Request
from pydantic import BaseModel, Field

from . import notes
from .chassis.database import Connection
from .chassis.fastapi import RequestModel, Router
from .chassis.idempotency import KEY, once
from .chassis.problem import Unavailable
from .domain import Note, write_note
from .resources import Resources

__all__ = ["router"]

router = Router(prefix="/v1/notes", tags=["notes"])


async def _resources(request: Request) -> Resources:
    resources: Resources = request.app.state.resources
    return resources


Opened = Annotated[Resources, Depends(_resources)]
Key = Annotated[str | None, Header(alias="Idempotency-Key", pattern=KEY)]


class NewNote(RequestModel):
    """
    What a client sends.
    """

    # PostgreSQL keeps no U+0000.
    text: str = Field(
        min_length=1, max_length=2000, pattern=r"^[^\x00]*$", examples=["Five weeks, all of them."]
    )


class NoteOut(BaseModel):
    """
    What a client gets.
    """

    id: UUID
    text: str
    written_at: datetime


class NotePage(BaseModel):
    """
    A part of the list; `next` goes into `after` for the part behind it.
    """

    items: list[NoteOut]
    next: UUID | None


@router.post("", status_code=201)
async def add_note(new: NewNote, opened: Opened, key: Key = None) -> NoteOut:
    """
    Write a note; with an `Idempotency-Key`, sending it again writes no other.
    """

    async def write(connection: Connection) -> Note:
        note = write_note(new.text)
        await notes.add(connection, note)
        return note

    note = await once(opened.database, write, kind=Note, operation="add_note", key=key, request=new)
    # The note is kept without it. The failure is logged and counted already.
    with suppress(Unavailable):
        await opened.announcer.announce(note)
    return _out(note)


@router.get("")
async def list_notes(
    opened: Opened, after: UUID | None = None, size: Annotated[int, Query(ge=1)] = 20
) -> NotePage:
    """
    List notes, a page at a time.
    """
    size = min(size, opened.settings.page_size_max)
    async with opened.database.connection() as connection:
        if after is not None and await notes.get(connection, after) is None:
            raise HTTPException(404, "There is no note with the id in 'after'.")
        found = await notes.page(connection, after=after, size=size + 1)
    has_more = len(found) > size
    items = [_out(note) for note in found[:size]]
    return NotePage(items=items, next=items[-1].id if has_more else None)


@router.get("/{note_id}")
async def get_note(note_id: UUID, opened: Opened) -> NoteOut:
    """
    Read one note.
    """
    async with opened.database.connection() as connection:
        note = await notes.get(connection, note_id)
    if note is None:
        raise HTTPException(404)
    return _out(note)


def _out(note: Note) -> NoteOut:
    return NoteOut(id=note.id, text=note.text, written_at=note.written_at)
