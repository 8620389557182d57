"""
What the service holds open: opened and closed by the composition root.
"""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass

from .chassis.outbound import Dependency
from .chassis.problem import Unavailable
from .domain import Announcer, Note, Notes, NotesInMemory, SilentAnnouncer
from .settings import Settings

__all__ = ["HttpAnnouncer", "Resources", "open_resources"]


@dataclass(frozen=True, kw_only=True)
class Resources:
    """
    The opened handles, and the settings that requests need.
    """

    settings: Settings
    notes: Notes
    announcer: Announcer


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


@asynccontextmanager
async def open_resources(settings: Settings) -> AsyncIterator[Resources]:
    """
    Open everything; close it when the process stops.
    """
    announcer: Announcer = SilentAnnouncer()
    async with AsyncExitStack() as stack:
        if url := settings.announce_url:
            service = Dependency("announcer", str(url), settings)
            stack.push_async_callback(service.aclose)
            announcer = HttpAnnouncer(service)
        yield Resources(settings=settings, notes=NotesInMemory(), announcer=announcer)
