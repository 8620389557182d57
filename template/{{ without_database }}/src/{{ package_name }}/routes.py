"""
HTTP in and out: one function per operation.
"""

from contextlib import suppress
from datetime import datetime
from typing import Annotated
from uuid import UUID

from fastapi import Depends, HTTPException, Query, Request
from pydantic import BaseModel, Field

from .chassis.fastapi import RequestModel, Router
from .chassis.problem import Unavailable
from .domain import Note, write_note
from .resources import Resources

__all__ = ["router"]

router = Router(prefix="/v1/notes", tags=["notes"])


async def _resources(request: Request) -> Resources:
    resources: Resources = request.app.state.resources
    return resources


Opened = Annotated[Resources, Depends(_resources)]


class NewNote(RequestModel):
    """
    What a client sends.
    """

    text: str = Field(min_length=1, max_length=2000, examples=["Five weeks, all of them."])


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
async def add_note(new: NewNote, opened: Opened) -> NoteOut:
    """
    Write a note.
    """
    note = write_note(new.text)
    await opened.notes.add(note)
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
    if after is not None and await opened.notes.get(after) is None:
        raise HTTPException(404, "There is no note with the id in 'after'.")
    notes = await opened.notes.page(after=after, size=size + 1)
    has_more = len(notes) > size
    items = [_out(note) for note in notes[:size]]
    return NotePage(items=items, next=items[-1].id if has_more else None)


@router.get("/{note_id}")
async def get_note(note_id: UUID, opened: Opened) -> NoteOut:
    """
    Read one note.
    """
    note = await opened.notes.get(note_id)
    if note is None:
        raise HTTPException(404)
    return _out(note)


def _out(note: Note) -> NoteOut:
    return NoteOut(id=note.id, text=note.text, written_at=note.written_at)
