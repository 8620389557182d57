"""
Handlers for the faults of connections.
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import Body, Request, Response
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


@router.post("/late")
async def late(request: Request) -> dict[str, int]:
    """
    Reads its body only after a while.
    """
    await asyncio.sleep(0.2)
    return {"length": len(await request.body())}


@router.post("/length")
async def length(request: Request) -> dict[str, Any]:
    body = await request.body()
    return {"length": len(body), "headers": sorted(request.headers)}


@router.post("/json")
async def json(body: Annotated[dict[str, Any], Body()]) -> dict[str, Any]:
    return body
