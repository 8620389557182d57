"""
Where notes are kept without a database: nowhere for long.
"""

from uuid import UUID

from .domain import Note

__all__ = ["NotesInMemory"]


class NotesInMemory:
    """
    Keeps the newest notes and forgets them when the process ends.
    """

    def __init__(self, *, most: int = 10_000) -> None:
        self._notes: dict[UUID, Note] = {}
        self._most = most

    async def add(self, note: Note) -> None:
        """
        Keep *note*; the oldest one makes room.
        """
        while len(self._notes) >= self._most:
            del self._notes[next(iter(self._notes))]
        self._notes[note.id] = note

    async def get(self, note_id: UUID) -> Note | None:
        """
        The note with this id, if there is one.
        """
        return self._notes.get(note_id)

    async def page(self, *, after: UUID | None, size: int) -> list[Note]:
        """
        Up to *size* notes in the order they came, those behind *after*.
        """
        ids = list(self._notes)
        start = ids.index(after) + 1 if after else 0
        return [self._notes[note_id] for note_id in ids[start : start + size]]
