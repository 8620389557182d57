"""
Handlers that say much, and some ends of a process.
"""

import asyncio
import json
import logging
import os
import sys
import threading
import time
from itertools import count
from pathlib import Path

from fastapi import Response

from .chassis.fastapi import Router
from .chassis.logs import get_logger

__all__ = ["router"]

router = Router(prefix="/flood")
log = get_logger()
_kept: list[object] = []
_numbers = count()


def _fail(kind: str) -> None:
    if kind.startswith("json"):
        json.loads(kind.removeprefix("json"))
    raise (LookupError if kind == "lookup" else ArithmeticError)(kind)


class Unspeakable:
    """
    Something of a third party that can't be shown.
    """

    def __repr__(self) -> str:
        raise RuntimeError("no words for it")

    __str__ = __repr__


@router.post("/errors")
async def errors(times: int, kind: str = "lookup") -> float:
    """
    Microseconds of CPU that each of them took.
    """
    began = time.process_time()
    for number in range(times):
        try:
            _fail(kind)
        except Exception:
            log.exception("failed", number=number)
    return (time.process_time() - began) / times * 1e6


@router.post("/warn")
async def warn() -> None:
    for _ in range(5):
        log.warning("warned", number=next(_numbers), text="x" * 500)


@router.post("/elsewhere")
async def elsewhere() -> None:
    try:
        json.loads("")
    except ValueError:
        log.exception("failed")


@router.post("/records")
async def records(times: int, kinds: int = 1) -> None:
    for kind in range(kinds):
        for _ in range(times):
            logging.getLogger("third.party").warning("gone %d", kind)


@router.post("/third-party-errors")
async def third_party_errors(times: int) -> None:
    for number in range(times):
        try:
            _fail("lookup")
        except LookupError:
            logging.getLogger("third.party").exception("order %d failed", number)


@router.post("/raise")
async def raise_it() -> None:
    _fail("lookup")


@router.get("/status")
async def status() -> Response:
    return Response(status_code=500)


@router.post("/unspeakable")
async def unspeakable() -> None:
    log.error("unspeakable", nested={"list": [Unspeakable()], 1: {Unspeakable()}})
    try:
        raise ValueError(Unspeakable())  # noqa: TRY301  # the fault
    except ValueError:
        log.exception("unspeakable", number=2**80)


@router.post("/fork")
async def fork() -> int:
    """
    A child that logs lines of its own once the reader is back; its exit code.
    """
    child = os.fork()
    if not child:
        while not Path("go").exists():  # noqa: ASYNC240  # it has no event loop
            time.sleep(0.01)  # noqa: ASYNC251  # as above
        for number in range(100):
            log.info("child", number=number)
            time.sleep(0.01)  # noqa: ASYNC251  # as above
        os._exit(7)
    _, status = await asyncio.to_thread(os.waitpid, child, 0)
    return os.waitstatus_to_exitcode(status)


@router.post("/exit/{how}")
async def end(how: str) -> None:
    """
    Ends in ways of which the chassis learns late, or not at all.
    """
    if how == "thread":
        threading.Thread(target=sys.exit, args=(5,)).start()
    elif how == "stray":
        _kept.append(asyncio.get_running_loop().create_task(_exit()))


async def _exit() -> None:
    sys.exit(5)
