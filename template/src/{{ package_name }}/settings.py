"""
What this service reads from its environment: a field per variable, APP_ before its name.

A field without a default is required. Add it to `.env.example` and to `tests/conftest.py` too.
"""

from pydantic import Field

from .chassis import settings

__all__ = ["Settings"]


class Settings(settings.Settings):
    """
    Settings of this service; the chassis adds its own.
    """

    page_size_max: int = Field(
        default=100,
        ge=1,
        le=1000,
        description="Most items that one page of a list holds.",
    )
