"""
The composition root of the web process: its parts, wired. The chassis runs it.
"""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from .chassis.fastapi import create_api
from .chassis.web import Web
from .resources import open_resources
from .routes import router
from .settings import Settings

__all__ = ["api", "compose"]


def api(*, docs: bool = False) -> FastAPI:
    """
    The HTTP interface; a router per resource.
    """
    return create_api(router, docs=docs)


@asynccontextmanager
async def compose(settings: Settings) -> AsyncGenerator[Web]:
    """
    Settings in, parts out; what is opened here is closed when the process stops.
    """
    async with open_resources(settings) as resources:
        app = api(docs=settings.api_docs)
        app.state.resources = resources
        yield Web(app=app, checks=resources.checks)
