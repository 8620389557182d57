"""
Exceptions and fields without measure.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from structlog.contextvars import bind_contextvars

from .broken import broken
from .chassis.fastapi import Router
from .chassis.logs import get_logger

__all__ = ["router"]

router = Router(prefix="/long")
log = get_logger()


FIELDS: dict[str, Callable[[], dict[str, Any]]] = {
    "text": lambda: {"field": "x" * 10_000_000},
    "bytes": lambda: {"field": b"x" * 10_000_000},
    "many": lambda: {f"field_{number}": number for number in range(5_000)},
    "list": lambda: {"field": list(range(1_000_000))},
    "dict": lambda: {"field": {"inner": {f"{n}": n for n in range(200_000)}}},
    "name": lambda: {"n" * 100_000: 1},
    "controls": lambda: {f"field_{n}": "\x00" * 1_000_000 for n in range(10)},
    "unicode": lambda: {f"field_{n}": "\x00\U0001f600\ud800" * 1_000_000 for n in range(10)},
}


@router.post("/raise/{what}")
async def raise_it(what: str) -> None:
    raise broken(what)


@router.post("/fields/{what}")
async def fields(what: str) -> None:
    log.warning("long", **FIELDS[what]())


@router.post("/event")
async def event() -> None:
    logging.getLogger("third.party").warning("x" * 10_000_000)


@router.post("/print")
async def print_it() -> None:
    print("x" * 10_000_000)


@router.post("/context")
async def context() -> None:
    bind_contextvars(field="x" * 10_000_000)
    log.warning("long")


@router.post("/tasks")
async def tasks() -> None:
    for number in range(2_000):
        asyncio.current_task().get_loop().create_task(  # type: ignore[union-attr]
            asyncio.sleep(60), name=f"{number} {'t' * 100}"
        )


@router.post("/secret")
async def secret(text: str) -> None:
    """
    Wherever it is shortened, the secret is in the way.
    """
    # So that a part of what is printed ends in the middle of one.
    print("x" * 5, end="")
    for _ in range(1_000):
        print(text[:7], end="")
        print(text[7:], end=" ")
    print()
    log.warning(
        "long", field=f"{text} " * 1_000, **{f"more_{n}": f"{text} " * 50 for n in range(50)}
    )
    raise ValueError(f"{text} " * 1_000)
