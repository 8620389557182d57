"""
What the service holds open: opened and closed by the composition root.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from .domain import Notes, NotesInMemory
from .settings import Settings

__all__ = ["Resources", "open_resources"]


@dataclass(frozen=True, kw_only=True)
class Resources:
    """
    The opened handles, and the settings that requests need.
    """

    settings: Settings
    notes: Notes


@asynccontextmanager
async def open_resources(settings: Settings) -> AsyncIterator[Resources]:
    """
    Open everything; close it when the process stops.
    """
    yield Resources(settings=settings, notes=NotesInMemory())
