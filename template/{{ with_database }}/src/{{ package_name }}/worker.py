"""
The composition root of the worker process: its parts, wired. The chassis runs it.
"""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from .chassis.worker import Worker
from .handlers import handlers
from .resources import open_resources
from .settings import Settings

__all__ = ["compose"]


@asynccontextmanager
async def compose(settings: Settings) -> AsyncGenerator[Worker]:
    """
    Settings in, parts out; what is opened here is closed when the process stops.
    """
    async with open_resources(settings) as resources:
        yield Worker(handlers=handlers(resources), checks=resources.checks)
