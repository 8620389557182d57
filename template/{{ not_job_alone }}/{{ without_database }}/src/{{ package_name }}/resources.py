"""
What the service holds open: opened and closed by the composition root.
"""

from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from .announcer import HttpAnnouncer
from .chassis.health import Check
from .chassis.outbound import Dependency
from .domain import Announcer, Notes, SilentAnnouncer
from .memory import NotesInMemory
from .settings import Settings

__all__ = ["Resources", "open_resources"]


@dataclass(frozen=True, kw_only=True)
class Resources:
    """
    The opened handles, and the settings that requests need.
    """

    settings: Settings
    notes: Notes
    announcer: Announcer
    # Check(name="search", probe=search.ping) gates readiness.
    checks: Sequence[Check] = ()


@asynccontextmanager
async def open_resources(settings: Settings) -> AsyncGenerator[Resources]:
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
