"""
What a route declares for itself where the settings do not suit it, and how a stream ends.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Generator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import NonNegativeInt

from .arguments import Checked
from .settings import Seconds

__all__ = ["CURRENT", "Current", "Limits", "until_draining", "using"]

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True, kw_only=True)
class Limits(Checked):
    """
    A decorator, directly above the handler; what is None is as the settings say.

    With *idle_seconds* the route streams: the deadline then counts to the first byte, *idle* from
    one part to the next, and *life* from the start to the end, whatever flows.
    """

    deadline_seconds: Seconds | None = None
    body_max_bytes: NonNegativeInt | None = None
    idle_seconds: Seconds | None = None
    life_seconds: Seconds = 3600

    def __post_init__(self) -> None:
        super().__post_init__()
        part, life = max(self.deadline_seconds or 0, self.idle_seconds or 0), self.life_seconds
        if self.idle_seconds and part > life:
            raise ValueError(f"Limits: life_seconds is {life}, but one part may take {part}")

    def __call__(self, handler: F) -> F:
        """
        Declare these limits for *handler*, which stays as it is.
        """
        handler.limits = self  # type: ignore[attr-defined]  # functions take attributes
        return handler

    def declared(self) -> dict[str, float]:
        """
        Those that count, by name.
        """
        names = ["deadline_seconds", "body_max_bytes", "idle_seconds"]
        names += [] if self.idle_seconds is None else ["life_seconds"]
        return {name: getattr(self, name) for name in names if getattr(self, name) is not None}


class Current:
    """
    What an application may tell of the request that it works on, and ask.

    This one is there where no envelope is, as in a test of the application alone.
    """

    # The template of its path, for the log and the metrics.
    route = ""
    # Why the answer is not the application's own, and which dependency did not answer, if known.
    reason: str | None = None
    dependency = ""
    # The exception and its place in short, if there was one.
    error: str | None = None
    # False while a thread does the work: its task keeps the thread's place until it is done.
    is_cancellable = True

    def __init__(self) -> None:
        # The dependencies in use, the latest first: a deadline most likely cut a wait for that one.
        self.uses: list[str] = []

    @property
    def closing(self) -> asyncio.Event:
        """
        Set after the drain.
        """
        return asyncio.Event()

    def limit(self, limits: Limits) -> None:
        """
        Put what the route declares in the place of the settings; call it before waiting.
        """


CURRENT: ContextVar[Current] = ContextVar("request", default=Current())  # noqa: B039  # never read


@contextmanager
def using(dependency: str) -> Generator[None]:
    """
    Note that the current request, message or job uses *dependency* until the end of the block.
    """
    uses = CURRENT.get().uses
    uses.insert(0, dependency)
    try:
        yield
    finally:
        uses.remove(dependency)


async def until_draining(items: AsyncIterator[T]) -> AsyncIterator[T]:
    """
    The items of a stream; ends after the drain, so that the stream can end whole.
    """
    closing = asyncio.ensure_future(CURRENT.get().closing.wait())
    following: asyncio.Future[Any] = closing
    try:
        while True:
            following = asyncio.ensure_future(anext(items))
            await asyncio.wait({following, closing}, return_when=asyncio.FIRST_COMPLETED)
            if not following.done():
                break
            try:
                item = following.result()
            except StopAsyncIteration:
                break
            yield item
    finally:
        # Also when the client has left in the middle.
        following.cancel()
        closing.cancel()
