"""
Applications and middleware at the edge: cross-origin requests, WebSockets, what stands around.
"""

import asyncio
from collections.abc import Callable
from typing import Any

from fastapi import APIRouter, FastAPI, Request, Response, WebSocket
from starlette.middleware.cors import CORSMiddleware

from .chassis.asgi import App, Message, Receive, Scope, Send
from .chassis.fastapi import Router
from .chassis.limits import Limits

__all__ = ["apps", "around", "router"]

router = Router(prefix="/edge")
sockets = APIRouter()


@router.get("/url")
async def url(request: Request) -> str:
    return str(request.url)


@router.get("/exposing")
async def exposing() -> Response:
    return Response(headers={"Access-Control-Expose-Headers": "ETag", "Vary": "Accept"})


@router.get("/patient")
@Limits(deadline_seconds=60)
async def patient() -> None:
    await asyncio.sleep(60)


@sockets.websocket("/talk")
async def talk(socket: WebSocket) -> None:
    await socket.accept()


def apps(make: Callable[..., FastAPI]) -> dict[str, Any]:
    """
    Applications that `create_api` makes, and what is wrong with them.
    """
    own_cors, included, nested, mounted, late, limits = (make() for _ in range(6))
    own_cors.add_middleware(
        CORSMiddleware, allow_origins=["https://other.example"], allow_credentials=True
    )
    included.include_router(sockets, prefix="/included")
    outer = APIRouter(prefix="/outer")
    outer.include_router(sockets, prefix="/inner")
    nested.include_router(outer)
    inner = FastAPI()
    inner.include_router(sockets)
    mounted.mount("/mounted", inner)
    late.websocket("/late")(talk)
    stock = APIRouter(prefix="/stock")
    stock.get("/limited")(Limits(deadline_seconds=1)(exposing))
    limits.include_router(stock)
    limits.include_router(sockets)
    return {
        "own CORS": own_cors,
        "included": included,
        "nested": nested,
        "mounted": mounted,
        "added at last": late,
        "stock limits": limits,
    }


def around(app: App) -> App:
    """
    Adds a header field to every answer that it sees; fails where it is told to.
    """

    async def marked(scope: Scope, receive: Receive, send: Send) -> None:
        async def mark(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"x-around", b"seen")]
            await send(message)

        if scope.get("path") == "/around/fails":
            raise RuntimeError("around")
        await app(scope, receive, mark)

    return marked
