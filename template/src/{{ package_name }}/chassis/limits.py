"""
What a route declares for itself where the settings do not suit it, and how a stream ends.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

__all__ = ["CURRENT", "Limited", "Limits", "until_draining"]

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True, kw_only=True)
class Limits:
    """
    A decorator, directly above the handler; what is None is as the settings say.

    With *idle_seconds* the route streams: the deadline then counts to the first byte, *idle* from
    one part to the next, and *life* from the start to the end, whatever flows.
    """

    deadline_seconds: float | None = None
    body_max_bytes: int | None = None
    idle_seconds: float | None = None
    life_seconds: float = 3600

    def __call__(self, handler: F) -> F:
        """
        Declare these limits for *handler*, which stays as it is.
        """
        handler.limits = self  # type: ignore[attr-defined]  # functions take attributes
        return handler


class Limited(Protocol):
    """
    A request, as far as its limits go; any application may call *limit* before it waits.
    """

    closing: asyncio.Event
    reason: str | None
    # False while a thread does the work: its task keeps the thread's place until it is done.
    is_cancellable: bool

    def limit(self, limits: Limits) -> None: ...


CURRENT: ContextVar[Limited] = ContextVar("request")


async def until_draining(items: AsyncIterator[T]) -> AsyncIterator[T]:
    """
    The items of a stream; ends after the drain, so that the stream can end whole.
    """
    closing = asyncio.ensure_future(CURRENT.get().closing.wait())
    try:
        while True:
            following = asyncio.ensure_future(anext(items))
            await asyncio.wait({following, closing}, return_when=asyncio.FIRST_COMPLETED)
            if not following.done():
                following.cancel()
                break
            try:
                item = following.result()
            except StopAsyncIteration:
                break
            yield item
    finally:
        closing.cancel()
