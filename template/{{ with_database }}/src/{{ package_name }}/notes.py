"""
Where notes are kept: a table, and one function per question to it.

Each takes a connection, so that what belongs together is one transaction.
"""

from collections.abc import Iterable
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from pydantic import TypeAdapter

from .chassis.database import Connection
from .domain import Note

__all__ = ["add", "get", "page"]


class _Row(NamedTuple):
    """
    A row, column by column; another type is an error at once.
    """

    id: UUID
    text: str
    written_at: datetime


_ROW = TypeAdapter(_Row)


async def add(connection: Connection, note: Note) -> None:
    """
    Keep *note*.
    """
    insert = "INSERT INTO notes (id, text, written_at) VALUES ($1, $2, $3)"
    await connection.execute(insert, note.id, note.text, note.written_at)


async def get(connection: Connection, note_id: UUID) -> Note | None:
    """
    The note with this id, if there is one.
    """
    query = "SELECT id, text, written_at FROM notes WHERE id = $1"
    row = await connection.fetchrow(query, note_id)
    return _note(row) if row else None


async def page(connection: Connection, *, after: UUID | None, size: int) -> list[Note]:
    """
    Up to *size* notes in the order they came, those behind *after*.
    """
    query = """
        SELECT id, text, written_at FROM notes
        WHERE $1::uuid IS NULL OR number > (SELECT number FROM notes WHERE id = $1)
        ORDER BY number LIMIT $2
    """
    return [_note(row) for row in await connection.fetch(query, after, size)]


def _note(row: Iterable[object]) -> Note:
    found = _ROW.validate_python(tuple(row), strict=True)
    return Note(id=found.id, text=found.text, written_at=found.written_at)
