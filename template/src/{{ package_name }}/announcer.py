"""
Tells another service of each new note.
"""

from contextlib import suppress

from .chassis.outbound import Dependency
from .chassis.problem import Unavailable
from .domain import Note

__all__ = ["HttpAnnouncer"]


class HttpAnnouncer:
    """
    Tells another service; PUT is idempotent, so it is tried again.
    """

    def __init__(self, service: Dependency) -> None:
        self._service = service

    async def announce(self, note: Note) -> None:
        """
        The note is kept, whoever hears of it; the failure is logged and counted already.
        """
        with suppress(Unavailable):
            await self._service.request("PUT", f"/notes/{note.id}", json={"text": note.text})
