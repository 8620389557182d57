"""
The seeds' application without the chassis: stock FastAPI, its routes and models word for word.

    uvicorn bare:app

`requests.py` compares its answers and its OpenAPI paths with those of a generated service.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated
from uuid import UUID, uuid4

from fastapi import APIRouter, Depends, FastAPI, HTTPException, Query, Request
from pydantic import BaseModel, Field

__all__ = ["app", "create"]

router = APIRouter(prefix="/v1/notes", tags=["notes"])


@dataclass(frozen=True, kw_only=True)
class Note:
    """
    As in the seeds.
    """

    id: UUID
    text: str
    written_at: datetime


class NotesInMemory:
    """
    As in the seeds, bounded too.
    """

    def __init__(self, *, most: int = 10_000) -> None:
        self._notes: dict[UUID, Note] = {}
        self._most = most

    async def add(self, note: Note) -> None:
        while len(self._notes) >= self._most:
            del self._notes[next(iter(self._notes))]
        self._notes[note.id] = note

    async def get(self, note_id: UUID) -> Note | None:
        return self._notes.get(note_id)

    async def page(self, *, after: UUID | None, size: int) -> list[Note]:
        ids = list(self._notes)
        start = ids.index(after) + 1 if after else 0
        return [self._notes[note_id] for note_id in ids[start : start + size]]


@dataclass(frozen=True, kw_only=True)
class Resources:
    """
    As in the seeds.
    """

    page_size_max: int
    notes: NotesInMemory


async def _resources(request: Request) -> Resources:
    resources: Resources = request.app.state.resources
    return resources


Opened = Annotated[Resources, Depends(_resources)]


class NewNote(BaseModel):
    """
    What a client sends; not strict.
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
    A part of the list.
    """

    items: list[NoteOut]
    next: UUID | None


@router.post("", status_code=201)
async def add_note(new: NewNote, opened: Opened) -> NoteOut:
    """
    Write a note.
    """
    note = Note(id=uuid4(), text=new.text, written_at=datetime.now(UTC))
    await opened.notes.add(note)
    return _out(note)


@router.get("")
async def list_notes(
    opened: Opened, after: UUID | None = None, size: Annotated[int, Query(ge=1)] = 20
) -> NotePage:
    """
    List notes, a page at a time.
    """
    size = min(size, opened.page_size_max)
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


def create() -> FastAPI:
    """
    The application as a stock server or the chassis serves it.
    """
    made = FastAPI()
    made.include_router(router)
    made.state.resources = Resources(page_size_max=100, notes=NotesInMemory())
    return made


app = create()
