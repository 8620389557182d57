"""
Jobs full of faults, laid over those of a generated service.
"""

import asyncio
import os
import re
import sys
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from .broken import broken
from .chassis.job import Failed, Jobs
from .chassis.problem import Unavailable
from .settings import Settings

__all__ = ["JOBS", "compose"]


def _begin() -> None:
    Path("begun").touch()


async def succeed() -> Mapping[str, object]:
    return {"rows": 3, "job": "not this one"}


async def wait() -> Mapping[str, object]:
    """
    Runs until it is cancelled, and cleans up.
    """
    _begin()
    try:
        await asyncio.sleep(60)
    finally:
        await asyncio.sleep(0.1)
        await asyncio.to_thread(Path("cleaned").touch)
    return {}


async def finish() -> Mapping[str, object]:
    """
    Told to stop, it gets done.
    """
    _begin()
    with suppress(asyncio.CancelledError):
        await asyncio.sleep(60)
    return {"rows": 4}


async def ignore() -> Mapping[str, object]:
    _begin()
    while True:
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(60)


async def block() -> Mapping[str, object]:
    _begin()
    time.sleep(60)  # noqa: ASYNC251  # the fault
    return {}


async def hold() -> Mapping[str, object]:
    """
    No Python runs any more, in any thread.
    """
    _begin()
    re.match("(a+)+$", "a" * 64 + "b")
    return {}


async def fail() -> Mapping[str, object]:
    raise Failed("nothing to do it with; get some")


async def once() -> Mapping[str, object]:
    """
    Succeeds the first time, and fails then.
    """
    if "order-desk_once.prom" in os.listdir(os.environ["APP_JOB_METRICS_DIR"]):  # noqa: PTH208
        raise Failed("it was done before")
    return {}


async def break_down() -> Mapping[str, object]:
    raise RuntimeError("a bug")


async def leave() -> Mapping[str, object]:
    sys.exit(3)


async def miss() -> Mapping[str, object]:
    raise Unavailable("the other side is away")


async def tell() -> Mapping[str, object]:
    return {"rows": "x" * 10_000_000, "names": list(range(100_000))}


async def shatter() -> Mapping[str, object]:
    raise broken("nested")


async def refuse() -> Mapping[str, object]:
    """
    Told to stop, it fails beyond measure.
    """
    _begin()
    try:
        await asyncio.sleep(60)
    finally:
        raise broken("nested")


JOBS = {
    "tell": tell,
    "shatter": shatter,
    "refuse": refuse,
    "succeed": succeed,
    "wait": wait,
    "finish": finish,
    "ignore": ignore,
    "block": block,
    "hold": hold,
    "once": once,
    "fail": fail,
    "break": break_down,
    "leave": leave,
    "miss": miss,
}


@asynccontextmanager
async def compose(_: Settings) -> AsyncIterator[Jobs]:
    yield Jobs(jobs=JOBS)
