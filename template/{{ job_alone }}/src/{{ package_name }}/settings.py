"""
What this service reads from its environment: a field per variable, its docstring the meaning.

`backup_dir` is read from APP_BACKUP_DIR. A field without a default is required. Add a new one to
`.env.example`, below "Yours", and a required one to `tests/conftest.py` too.

`Settings()` alone reads nothing. A script or a notebook imports `load` from `chassis.environment`,
and calls `load(Settings).settings`.
"""

from .chassis import settings

__all__ = ["Settings"]


class Settings(settings.Settings):
    """
    Settings of this service; the chassis adds its own.
    """
