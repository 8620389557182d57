"""
Calls to a peer that the test runs.
"""

import asyncio
import math
import time
from contextlib import suppress
from typing import Annotated, Any

import httpx2
from fastapi import Query

from .chassis.deadline import DEADLINE
from .chassis.environment import load
from .chassis.fastapi import Router
from .chassis.limits import Limits
from .chassis.outbound import Dependency
from .chassis.problem import Unavailable
from .settings import Settings

__all__ = ["router"]

router = Router(prefix="/outbound")
dependencies: dict[str, Dependency] = {}


@router.get("/call/{name}")
async def call(  # noqa: PLR0917
    name: str,
    port: int,
    scheme: str = "http",
    path: str = "/",
    method: str = "GET",
    is_idempotent: bool | None = None,  # noqa: FBT001  # a query parameter
    times: int = 1,
    deadline_seconds: float | None = None,
) -> list[dict[str, Any]]:
    """
    Call the peer at *port*, so many times at once; how each call ended and when.
    """
    if name not in dependencies:
        url = f"{scheme}://127.0.0.1:{port}/"
        dependencies[name] = Dependency(name, url, load(Settings).settings)
    if deadline_seconds is not None:
        DEADLINE.set(time.monotonic() + deadline_seconds)
    began = time.monotonic()

    async def one(number: int) -> dict[str, Any]:
        try:
            response = await dependencies[name].request(
                method, path.format(number=number), is_idempotent=is_idempotent
            )
            end: dict[str, Any] = {"status": response.status_code, "bytes": len(response.content)}
        except Unavailable as error:
            end = {"unavailable": error.status, "cause": str(error)}
        return {**end, "seconds": time.monotonic() - began}

    return await asyncio.gather(*map(one, range(times)))


@router.get("/both")
@Limits(deadline_seconds=2)
async def both(ports: Annotated[list[int], Query()]) -> None:
    """
    Ask two peers at once, each named like its port, and answer for neither; the deadline is nearer
    than the limit of a call that began before it was known.
    """
    DEADLINE.set(math.inf)

    async def ask(port: int) -> None:
        url = f"http://127.0.0.1:{port}/"
        await Dependency(str(port), url, load(Settings).settings).request("GET", "/")

    await asyncio.gather(*map(ask, ports))


@router.post("/stubborn")
async def stubborn(seconds: float) -> None:
    """
    From now on the library swallows every cancellation for so long.
    """

    async def handle(*_: object) -> httpx2.Response:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(0.05)
        raise RuntimeError("too late for anybody")

    httpx2.AsyncHTTPTransport.handle_async_request = handle  # type: ignore[method-assign]
