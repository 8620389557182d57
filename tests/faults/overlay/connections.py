"""
Handlers for the faults of connections.
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from fastapi import Request, Response
from starlette.responses import StreamingResponse

from .chassis.fastapi import Router

__all__ = ["router"]

router = Router(prefix="/connections")


@router.get("/large")
async def large(size: int) -> Response:
    return Response(b"x" * size)


@router.get("/streamed")
async def streamed(pieces: int) -> Response:
    async def stream() -> AsyncIterator[bytes]:
        for _ in range(pieces):
            yield b"x" * 65536

    return StreamingResponse(stream())


@router.post("/unread")
async def unread() -> dict[str, bool]:
    return {"ok": True}


@router.post("/length")
async def length(request: Request) -> dict[str, Any]:
    body = await request.body()
    return {"length": len(body), "headers": sorted(request.headers)}


waiting = asyncio.Event()


@router.get("/hesitant")
async def hesitant() -> Response:
    """
    Begins its answer long before the body.
    """

    async def stream() -> AsyncIterator[bytes]:
        print("hesitating")
        await waiting.wait()
        yield b"at last"

    return StreamingResponse(stream())


@router.post("/hesitant")
async def go_on() -> None:
    waiting.set()


@router.get("/broken")
async def broken() -> Response:
    """
    Begins its answer and breaks before the body.
    """

    async def stream() -> AsyncIterator[bytes]:
        raise RuntimeError("before the body")
        yield b""

    return StreamingResponse(stream())


@router.head("/head")
async def head() -> None:
    return None
