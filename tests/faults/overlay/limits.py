"""
Handlers that outlast their deadlines, stream, and wait.
"""

import asyncio
import threading
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Annotated

from fastapi import BackgroundTasks, Depends, Request
from starlette.responses import StreamingResponse

from .chassis.asgi import Receive, Scope, Send
from .chassis.deadline import remaining
from .chassis.fastapi import Router
from .chassis.limits import CURRENT, Limits, until_draining
from .chassis.problem import Unavailable

__all__ = ["raw", "router"]

router = Router(prefix="/limits")
release = threading.Event()


@router.get("/remaining")
async def get_remaining() -> float:
    return remaining()


@router.get("/swallow")
async def swallow() -> None:
    """
    Goes on whatever is cancelled.
    """
    while not release.is_set():
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(0.05)


@router.get("/answer-late")
async def answer_late() -> str:
    """
    Answers although it was cancelled.
    """
    with suppress(asyncio.CancelledError):
        await asyncio.sleep(60)
    return "late"


@router.get("/thread")
def in_thread() -> None:
    release.wait(60)


def _in_thread() -> None:
    release.wait(60)


@router.get("/thread-of-a-dependency")
async def in_thread_of_a_dependency(_: Annotated[None, Depends(_in_thread)]) -> None:
    """
    Waits for a thread although it is an `async def`.
    """


@router.post("/release")
async def let_go() -> None:
    release.set()


@router.post("/body")
async def read_body(request: Request) -> int:
    return len(await request.body())


@router.get("/raise-late")
async def raise_late() -> None:
    try:
        await asyncio.sleep(60)
    finally:
        raise RuntimeError("after its deadline")


@router.get("/background")
async def background(tasks: BackgroundTasks) -> None:
    tasks.add_task(_work)


async def _work() -> None:
    while not release.is_set():  # noqa: ASYNC110  # threads wait for it too
        await asyncio.sleep(0.05)
    raise RuntimeError(f"behind its answer, with {remaining()} s left")


@router.get("/unavailable")
async def unavailable(status: int = 503) -> None:
    raise Unavailable("the backing service is away", status=status)


@router.get("/patient")
@Limits(deadline_seconds=2)
async def patient(seconds: float) -> float:
    await asyncio.sleep(seconds)
    return remaining()


@router.get("/hasty")
@Limits(deadline_seconds=0.3)
async def hasty() -> None:
    await asyncio.sleep(60)


@router.post("/large")
@Limits(body_max_bytes=5000)
async def large(request: Request) -> int:
    return len(await request.body())


@router.post("/small")
@Limits(body_max_bytes=10)
async def small(request: Request) -> int:
    return len(await request.body())


async def _ticks(seconds: float, *, stall_after: int) -> AsyncIterator[bytes]:
    for number in range(1000):
        yield f"data: {number}\n\n".encode()
        await asyncio.sleep(60 if number == stall_after else seconds)


@router.get("/events")
@Limits(deadline_seconds=0.5, idle_seconds=0.6, life_seconds=30)
async def events(seconds: float = 0.1, stall_after: int = -1, before: float = 0) -> object:
    await asyncio.sleep(before)
    ticks = until_draining(_ticks(seconds, stall_after=stall_after))
    return StreamingResponse(ticks, media_type="text/event-stream")


@router.get("/short-life")
@Limits(idle_seconds=1, life_seconds=1)
async def short_life() -> object:
    return StreamingResponse(_ticks(0.1, stall_after=-1))


@router.get("/download")
@Limits(idle_seconds=1)
async def download(size: int) -> object:
    async def parts() -> AsyncIterator[bytes]:
        for _ in range(size // 65536):
            yield b"x" * 65536

    return StreamingResponse(parts(), media_type="application/octet-stream")


@router.get("/half")
async def half() -> object:
    async def parts() -> AsyncIterator[bytes]:
        yield b"half"
        await swallow()

    return StreamingResponse(parts())


@router.get("/parts")
async def several_parts() -> object:
    async def parts() -> AsyncIterator[bytes]:
        for _ in range(3):
            yield b"part"
            await asyncio.sleep(0)

    return StreamingResponse(parts())


@router.get("/client")
async def client(request: Request) -> list[str]:
    assert request.client is not None
    return [request.client.host, request.url.scheme]


@router.get("/slashed/")
async def slashed() -> None:
    """
    Found by a redirect.
    """


async def raw(scope: Scope, _: Receive, send: Send) -> None:
    """
    An ASGI application that declares its limits without any framework.
    """
    if scope["path"] == "/patient":
        CURRENT.get().limit(Limits(deadline_seconds=30))
        await asyncio.sleep(1)
    if scope["path"] == "/unavailable":
        raise Unavailable("raw")
    if scope["path"] == "/cpu":
        time.sleep(0.02)  # noqa: ASYNC251  # the load
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"raw"})
