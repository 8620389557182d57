"""
What this service reads from its environment: a field per variable, its docstring the meaning.

`page_size_max` is read from APP_PAGE_SIZE_MAX. A field without a default is required. Add a new
one to `.env.example`, below "Yours", and a required one to `tests/conftest.py` too.

`Settings()` alone reads nothing. A script or a notebook imports `load` from `chassis.environment`,
and calls `load(Settings).settings`.
"""

from pydantic import Field, HttpUrl

from .chassis import settings

__all__ = ["Settings"]


class Settings(settings.Settings):
    """
    Settings of this service; the chassis adds its own.
    """

    page_size_max: int = Field(default=100, ge=1, le=1000)
    """Most items that one page of a list holds."""
    announce_url: HttpUrl | None = None
    """Service that is told of each new note; none is told without it."""
