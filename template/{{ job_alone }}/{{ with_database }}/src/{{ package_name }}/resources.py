"""
What the jobs hold open: opened and closed by the composition root.
"""

from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from .chassis.database import Database, open_database
from .chassis.health import Check
from .chassis.migrations import database_check
from .settings import Settings

__all__ = ["Resources", "open_resources"]


@dataclass(frozen=True, kw_only=True)
class Resources:
    """
    The opened handles, and the settings that jobs need.
    """

    settings: Settings
    database: Database
    # `preflight` runs each.
    checks: Sequence[Check]


@asynccontextmanager
async def open_resources(settings: Settings) -> AsyncGenerator[Resources]:
    """
    Open everything; close it when the run ends.
    """
    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(open_database(settings))
        yield Resources(
            settings=settings,
            database=database,
            checks=[database_check(database)],
        )
