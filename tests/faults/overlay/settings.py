"""
Settings with secrets, laid over those of a generated service.
"""

from pydantic import Field, HttpUrl, SecretBytes, SecretStr

from .chassis import flood, settings

__all__ = ["Settings"]


class Settings(settings.Settings):
    """
    Every kind of secret, beside something public.
    """

    page_size_max: int = Field(default=100, ge=1)
    """Most items that one page of a list holds."""
    announce_url: HttpUrl | None = None
    """Another service that is told of every new note."""
    app: str = "faults"
    """Which application to serve: faults, middleware, raw, starlette, broken or late."""
    backing: str = "up"
    """How the backing service is at the start: up, down or hanging."""
    debug_seconds: float = 600
    """How long SIGUSR2 lasts."""
    flood_seconds: float = flood.WINDOW_SECONDS
    """How long what was told is not told again."""
    critical: bool = False
    """Whether its check is critical."""
    token: SecretStr = SecretStr("")
    """A secret text."""
    key: SecretBytes | None = None
    """A secret of bytes."""
