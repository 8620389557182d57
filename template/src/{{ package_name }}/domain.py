"""
What the service is about, without HTTP or storage: values and pure functions.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol
from uuid import UUID, uuid4

__all__ = ["Announcer", "Note", "Notes", "SilentAnnouncer", "write_note"]


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
