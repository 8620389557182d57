"""
A composition root that puts the bare application into the chassis.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from .bare import create
from .chassis.web import Web
from .settings import Settings

__all__ = ["api", "compose"]


def api(*, docs: bool = False) -> FastAPI:  # noqa: ARG001  # the shape that commands call
    """
    The bare application, as it is.
    """
    return create()


@asynccontextmanager
async def compose(_: Settings) -> AsyncIterator[Web]:
    """
    Nothing is opened: the application holds what it needs.
    """
    yield Web(app=create())
