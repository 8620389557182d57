"""
A composition root with the handlers of the overload tests.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from .chassis.fastapi import create_api
from .chassis.web import Web
from .overload import router
from .settings import Settings

__all__ = ["api", "compose"]


def api(*, docs: bool = False) -> FastAPI:
    """
    What tests/faults uses too.
    """
    return create_api(router, docs=docs)


@asynccontextmanager
async def compose(settings: Settings) -> AsyncIterator[Web]:
    """
    Nothing is opened.
    """
    yield Web(app=api(docs=settings.api_docs))
