"""
What the service is about, without HTTP or storage: values and pure functions.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol
from uuid import UUID, uuid4

__all__ = ["Announcer", "Note", "Notes", "NotesInMemory", "SilentAnnouncer", "write_note"]


@dataclass(frozen=True, kw_only=True)
class Note:
    """
    The example: a text that somebody wrote down.
    """

    id: UUID
    text: str
    written_at: datetime


def write_note(text: str, *, now: datetime | None = None) -> Note:
    """
    Make a new note.
    """
    return Note(id=uuid4(), text=text, written_at=now or datetime.now(UTC))


class Notes(Protocol):
    """
    Where notes are kept.
    """

    async def add(self, note: Note) -> None: ...

    async def get(self, note_id: UUID) -> Note | None: ...

    async def page(self, *, after: UUID | None, size: int) -> list[Note]: ...


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


class Announcer(Protocol):
    """
    Who is told of each new note.
    """

    async def announce(self, note: Note) -> None: ...


class SilentAnnouncer:
    """
    Tells nobody.
    """

    async def announce(self, note: Note) -> None:
        """
        Nothing to do.
        """
