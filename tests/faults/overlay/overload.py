"""
Handlers that use up a processor or wait; laid over by the benchmarks too.
"""

import asyncio
import time

from .chassis.fastapi import Router

__all__ = ["router"]

router = Router(prefix="/overload")


@router.get("/work")
async def work(seconds: float = 0.02) -> dict[str, float]:
    """
    Computes for this long, however much of the processor it gets.
    """
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass
    return {"seconds": seconds}


@router.post("/work")
async def post_work(seconds: float = 0.02) -> dict[str, float]:
    return await work(seconds)


@router.get("/wait")
async def wait(seconds: float) -> dict[str, float]:
    await asyncio.sleep(seconds)
    return {"seconds": seconds}


@router.get("/fan-out")
async def fan_out(parts: int, seconds: float) -> dict[str, int]:
    """
    Waits for several things at once.
    """
    await asyncio.gather(*(asyncio.sleep(seconds) for _ in range(parts)))
    return {"parts": parts}


@router.get("/stubborn")
async def stubborn(seconds: float) -> dict[str, float]:
    """
    A slow dependency behind a client that swallows its cancellation.
    """
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            await asyncio.sleep(end - time.monotonic())
        except asyncio.CancelledError:
            continue
    return {"seconds": seconds}
