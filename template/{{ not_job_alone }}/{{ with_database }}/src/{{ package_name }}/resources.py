"""
What the service holds open: opened and closed by the composition root.
"""

from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from .announcer import HttpAnnouncer
from .chassis.database import Database, open_database
from .chassis.health import Check
from .chassis.migrations import database_check
from .chassis.outbound import Dependency
from .domain import Announcer, SilentAnnouncer
from .settings import Settings

__all__ = ["Resources", "open_resources"]


@dataclass(frozen=True, kw_only=True)
class Resources:
    """
    The opened handles, and the settings that requests need.
    """

    settings: Settings
    database: Database
    announcer: Announcer
    # Each gates readiness until it has passed once.
    checks: Sequence[Check]


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
        database = await stack.enter_async_context(open_database(settings))
        yield Resources(
            settings=settings,
            database=database,
            announcer=announcer,
            checks=[database_check(database)],
        )
