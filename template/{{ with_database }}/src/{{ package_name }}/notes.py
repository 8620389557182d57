"""
Where notes are kept: a table, and one function per question to it.
"""

from uuid import UUID

from .chassis.database import Database
from .domain import Note

__all__ = ["NotesInPostgreSQL"]


class NotesInPostgreSQL:
    """
    Keeps notes in the table of migrations/versions/0001_notes.py.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, note: Note) -> None:
        """
        Keep *note*.
        """
        async with self._database.connection() as connection:
            await connection.execute(
                "INSERT INTO notes (id, text, written_at) VALUES ($1, $2, $3)",
                note.id,
                note.text,
                note.written_at,
            )

    async def get(self, note_id: UUID) -> Note | None:
        """
        The note with this id, if there is one.
        """
        async with self._database.connection() as connection:
            row = await connection.fetchrow(
                "SELECT id, text, written_at FROM notes WHERE id = $1", note_id
            )
        return Note(**row) if row else None

    async def page(self, *, after: UUID | None, size: int) -> list[Note]:
        """
        Up to *size* notes in the order they came, those behind *after*.
        """
        async with self._database.connection() as connection:
            rows = await connection.fetch(
                """
                SELECT id, text, written_at FROM notes
                WHERE $1::uuid IS NULL
                    OR number > (SELECT number FROM notes WHERE id = $1)
                ORDER BY number LIMIT $2
                """,
                after,
                size,
            )
        return [Note(**row) for row in rows]
