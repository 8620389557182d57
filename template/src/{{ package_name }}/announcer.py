"""
Tells another service of each new note.
"""

from .chassis.outbound import Dependency
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
        Raises `Unavailable`: a request goes on without, and a worker tries its message again.
        """
        await self._service.request("PUT", f"/notes/{note.id}", json={"text": note.text})
