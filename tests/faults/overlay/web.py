"""
A composition root full of faults, laid over that of a generated service.
"""

import asyncio
import base64
import gc
import json
import logging
import re
import sys
import threading
import time
import warnings
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from datetime import datetime
from enum import Enum
from typing import Annotated, Any, Literal
from urllib.parse import quote, quote_plus
from uuid import UUID

from fastapi import Body, FastAPI, Request, Response
from pydantic import Field
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from . import connections, edge, flood, limits, long, outbound, overload, telemetry, wire
from .chassis import flood as chassis_flood
from .chassis import process
from .chassis.asgi import Receive, Scope, Send
from .chassis.fastapi import RequestModel, Router, create_api
from .chassis.health import Check
from .chassis.limits import Limits
from .chassis.logs import get_logger
from .chassis.web import Web
from .resources import open_resources
from .routes import router as notes
from .settings import Settings

__all__ = ["api", "compose"]

router = Router(prefix="/faults")
log = get_logger()


class Colour(Enum):
    RED = "red"


class Everything(RequestModel):
    when: datetime
    who: UUID
    colour: Colour
    size: float = 0


class World:
    """
    What the faults act on.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.backing = settings.backing
        self.is_closed = False
        self.task = asyncio.Event()
        self.cancelled = asyncio.Event()
        self.thread = threading.Event()

    async def probe(self) -> None:
        if self.backing == "down":
            raise ConnectionRefusedError(self.settings.token.get_secret_value())
        while self.backing == "hanging":
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(0.05)

    async def run_task(self) -> None:
        await self.task.wait()
        raise RuntimeError("the task ends")

    async def run_on_resource(self) -> None:
        """
        Works with what the composition root closes.
        """
        while True:
            await asyncio.sleep(0.01)
            if self.is_closed:
                raise RuntimeError("the resource is closed")

    async def run_cancelled(self) -> None:
        await self.cancelled.wait()
        raise asyncio.CancelledError

    @staticmethod
    async def run_parked() -> None:
        """
        The usual way to run for ever; nothing but its task refers to it.
        """
        await asyncio.Future()

    def run_thread(self) -> None:
        self.thread.wait()
        raise RuntimeError("the thread ends")


world: World


@router.get("/ok")
async def ok() -> dict[str, bool]:
    return {"ok": True}


@router.post("/everything")
async def everything(body: Everything) -> Everything:
    return body


@router.get("/slow")
async def slow(seconds: float) -> dict[str, float]:
    await asyncio.sleep(seconds)
    return {"seconds": seconds}


@router.get("/swallow")
@Limits(deadline_seconds=60)
async def swallow(seconds: float) -> dict[str, float]:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(0.1)
    return {"seconds": seconds}


@router.get("/thread")
@Limits(deadline_seconds=60)
def in_thread(seconds: float) -> dict[str, float]:
    time.sleep(seconds)
    return {"seconds": seconds}


@router.get("/block")
async def block(seconds: float) -> dict[str, float]:
    time.sleep(seconds)  # noqa: ASYNC251  # the fault
    return {"seconds": seconds}


@router.get("/debugged")
async def debugged(seconds: float) -> dict[str, float]:
    """
    Block the loop in a frame that belongs to a debugger, which the watchdog leaves alone.
    """
    exec("sleep(seconds)", {"__name__": "pdb", "sleep": time.sleep, "seconds": seconds})  # noqa: S102
    return {"seconds": seconds}


@router.get("/hold-gil")
async def hold_gil() -> dict[str, bool]:
    re.match("(a+)+$", "a" * 64 + "b")
    return {}


class Cat(RequestModel):
    kind: Literal["cat"]
    born: datetime


class Dog(RequestModel):
    kind: Literal["dog"]


@router.post("/two")
async def two(one: Everything, other: Everything) -> list[Everything]:
    return [one, other]


@router.post("/embedded")
async def embedded(body: Annotated[Everything, Body(embed=True)]) -> Everything:
    return body


@router.post("/animal")
async def animal(body: Annotated[Cat | Dog, Field(discriminator="kind")]) -> Cat | Dog:
    return body


@router.post("/text")
async def text(body: Annotated[str, Body(media_type="text/plain")]) -> str:
    return body


@router.get("/exit")
async def exit_it() -> None:
    sys.exit(5)


@router.get("/progress")
async def progress() -> dict[str, bool]:
    for _ in range(20_000):
        print("." * 100, end="")
    return {"ok": True}


@router.get("/raise")
async def raise_it() -> None:
    password = "canary-in-a-local"  # noqa: F841, S105  # the bait
    raise RuntimeError(f"it broke with {world.settings.token.get_secret_value()}")


@router.get("/raise-when-cancelled")
async def raise_when_cancelled() -> None:
    try:
        await asyncio.sleep(60)
    finally:
        raise RuntimeError("while being cancelled")


@router.get("/speak")
async def speak() -> dict[str, bool]:
    secret = world.settings.token.get_secret_value()
    print("printed", secret)
    print(base64.b64encode(secret.encode()).decode(), quote(secret), quote_plus(secret))
    print(repr(secret), json.dumps(secret))
    print("printed to stderr", file=sys.stderr)
    warnings.warn("warned", stacklevel=1)
    logging.getLogger("third.party").error("third party %s", secret)
    logging.getLogger("third.party").error("bad format %d", "text")
    log.debug("spoke", secret=secret, settings=world.settings, lone="\ud800", big=2**80)
    try:
        raise ValueError(secret)  # noqa: TRY301  # the fault
    except ValueError:
        log.exception("caught")
    return {"ok": True}


@router.post("/backing/{state}")
async def set_backing(state: str) -> None:
    world.backing = state


@router.post("/trip/{what}")
async def trip(what: str) -> None:
    loop = asyncio.get_running_loop()
    if what == "task":
        world.task.set()
    elif what == "cancelled":
        world.cancelled.set()
    elif what == "garbage":
        gc.collect()
    elif what == "thread":
        world.thread.set()
    elif what == "callback":
        loop.call_soon(_boom)
    elif what == "endless":
        loop.call_soon(_endless)
    elif what == "stray task":
        stray = loop.create_task(_stray())
        await asyncio.wait({stray})
        del stray
    elif what == "stray thread":
        threading.Thread(target=_boom).start()
    elif what == "finaliser":
        _Finaliser()


def _boom() -> None:
    raise RuntimeError("boom")


class _Endless(Exception):  # noqa: N818  # a fault
    def __str__(self) -> str:
        time.sleep(60)
        return ""


def _endless() -> None:
    raise _Endless


async def _stray() -> None:
    raise RuntimeError("stray")


class _Finaliser:
    def __del__(self) -> None:
        raise RuntimeError("in __del__")


async def raw(scope: Scope, receive: Receive, send: Send) -> None:
    """
    An ASGI application without any framework.
    """
    assert scope["type"] == "http"
    if scope["path"] == "/raise":
        raise RuntimeError("raw")
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"raw"})


async def _text(request: Any) -> PlainTextResponse:
    if request.url.path == "/raise":
        raise RuntimeError("starlette")
    await request.body()
    return PlainTextResponse("starlette")


def api(*more: Any, docs: bool = False) -> FastAPI:
    parts = [connections, edge, flood, limits, long, outbound, overload, telemetry, wire]
    routers = [*(part.router for part in parts), *more]
    app = create_api(router, *routers, wire.lenient, docs=docs)
    app.add_exception_handler(wire.Sold, wire.sold)
    return app


async def _middleware(request: Request, go_on: Any) -> Response:
    response: Response = await go_on(request)
    return response


@asynccontextmanager
async def compose(settings: Settings) -> AsyncIterator[Web]:
    global world  # noqa: PLW0603
    world = World(settings)
    process.DEBUG_SECONDS = settings.debug_seconds  # type: ignore[assignment]
    chassis_flood.WINDOW_SECONDS = settings.flood_seconds  # type: ignore[assignment]
    if settings.app == "broken":
        asyncio.get_running_loop().run_in_executor(None, time.sleep, 60)
        raise RuntimeError("it can't be opened")
    if settings.app == "late":
        await asyncio.sleep(2)
        settings = settings.model_copy(update={"app": "faults"})
    routes = [Route(path, _text, methods=["GET", "POST"]) for path in ("/faults/ok", "/raise")]
    with_middleware = api()
    with_middleware.middleware("http")(_middleware)
    checks = [Check(name="backing", probe=world.probe, critical=settings.critical)]
    stack, more, opened = AsyncExitStack(), [], None
    if settings.database_url:
        from . import database  # noqa: PLC0415  # not every service has one

        opened = await stack.enter_async_context(open_resources(settings))
        more, checks = [database.router, notes], [*checks, *opened.checks]
    faults = api(*more, docs=settings.api_docs)
    faults.state.resources = opened
    apps: dict[str, Any] = {
        "faults": faults,
        "middleware": with_middleware,
        "raw": raw,
        "raw with limits": limits.raw,
        "starlette": Starlette(routes=routes),
        "around": faults,
        **edge.apps(api),
    }
    outside: dict[str, Any] = {"around": edge.around} if settings.app == "around" else {}
    yield Web(
        app=apps[settings.app],
        **outside,
        checks=checks,
        tasks={
            "faulty task": world.run_task,
            "cancelled task": world.run_cancelled,
            "parked task": world.run_parked,
            "task on a resource": world.run_on_resource,
        },
        threads={"faulty thread": world.run_thread},
    )
    world.is_closed = True
    await asyncio.sleep(0.1)
    await stack.aclose()
