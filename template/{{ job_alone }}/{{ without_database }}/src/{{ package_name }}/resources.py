"""
What the jobs hold open: opened and closed by the composition root.
"""

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from .chassis.health import Check
from .settings import Settings

__all__ = ["Resources", "open_resources"]


@dataclass(frozen=True, kw_only=True)
class Resources:
    """
    The opened handles, and the settings that jobs need.
    """

    settings: Settings
    # `preflight` runs each, such as Check(name="search", probe=search.ping).
    checks: Sequence[Check] = ()


@asynccontextmanager
async def open_resources(settings: Settings) -> AsyncGenerator[Resources]:
    """
    Open everything; close it when the run ends.
    """
    yield Resources(settings=settings)
