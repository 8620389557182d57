"""
What a team hands to the chassis: wrong arguments are named before anything is done with them.
"""

import asyncio
import logging
import math
import re
import subprocess
import sys
from collections.abc import Callable
from enum import StrEnum
from types import MappingProxyType
from typing import Any, cast

import pytest
from demo_service.chassis.exits import Exit
from demo_service.chassis.health import Check, Health
from demo_service.chassis.idempotency import once
from demo_service.chassis.job import Failed, Jobs
from demo_service.chassis.limits import Limits
from demo_service.chassis.lock import hold
from demo_service.chassis.outbound import Dependency
from demo_service.chassis.problem import Unavailable
from demo_service.chassis.process import Process
from demo_service.chassis.queue import Handler, Message, Payload, enqueue
from demo_service.chassis.settings import Settings
from demo_service.chassis.ticker import Ticker
from demo_service.chassis.web import Web
from demo_service.chassis.worker import Worker
from harness import ROOT

SETTINGS = Settings()


class Told(Payload):
    text: str = ""


class Kind(StrEnum):
    TOLD = "told"


async def work(*_: object) -> None:
    pass


async def app(*_: object) -> None:
    pass


class Connection:
    """
    Counts what reaches the database.
    """

    def __init__(self) -> None:
        self.statements = 0

    async def fetchval(self, *_: object) -> int:
        self.statements += 1
        return self.statements


def put(name: Any = "told", payload: Any = None, **given: Any) -> None:
    """
    Enqueue on a connection to which nothing may be sent.
    """
    unreachable = cast("Any", None)
    asyncio.run(enqueue(unreachable, name, Told() if payload is None else payload, **given))


def remember(**given: Any) -> None:
    usual: dict[str, Any] = {"kind": str, "operation": "add", "key": "12345678", "request": Told()}
    asyncio.run(once(cast("Any", None), work, **usual | given))


def call(name: Any = "peer", url: Any = "http://peer", **limits: Any) -> Dependency:
    return Dependency(name, url, SETTINGS.model_copy(update=limits))


def check(**given: Any) -> Check:
    usual: dict[str, Any] = {"name": "search", "probe": work}
    return Check(**usual | given)


def web(**given: Any) -> Web:
    return Web(**{"app": app} | given)


# What is wrong: how it is called, and what the error begins with.
WRONG: dict[str, tuple[Callable[[], object], str]] = {
    "no name": (lambda: put(""), "enqueue: name is ''"),
    "name of control characters": (lambda: put("a\nb"), r"enqueue: name is 'a\nb'"),
    "name with U+0000": (lambda: put("a\0"), r"enqueue: name is 'a\x00'"),
    "name that is no Unicode": (lambda: put("\ud800"), r"enqueue: name is '\ud800'"),
    "long name": (lambda: put("n" * 101), "enqueue: name is 'nnnn"),
    "None as name": (lambda: put(None), "enqueue: name is None"),
    "payload that is no Payload": (lambda: put(payload={"text": ""}), "enqueue: payload is <class"),
    "payload with U+0000": (lambda: put(payload=Told(text="a\0")), "enqueue: payload holds U+0000"),
    "no key": (lambda: put(key=""), "enqueue: key is ''"),
    "long key": (lambda: put(key="k" * 501), "enqueue: key is 'kkkk"),
    "key with U+0000": (lambda: put(key="k\0"), r"enqueue: key is 'k\x00'"),
    "number as key": (lambda: put(key=7), "enqueue: key is 7"),
    "negative delay": (lambda: put(delay_seconds=-1), "enqueue: delay_seconds is -1"),
    "delay of centuries": (lambda: put(delay_seconds=1e18), "enqueue: delay_seconds is 1e+18"),
    "delay that is no number": (
        lambda: put(delay_seconds=math.nan),
        "enqueue: delay_seconds is nan",
    ),
    "endless delay": (lambda: put(delay_seconds=math.inf), "enqueue: delay_seconds is inf"),
    "flag as delay": (lambda: put(delay_seconds=True), "enqueue: delay_seconds is True"),
    "text as delay": (lambda: put(delay_seconds="5"), "enqueue: delay_seconds is '5'"),
    "no operation": (lambda: remember(operation=""), "once: operation is ''"),
    "operation with U+0000": (lambda: remember(operation="a\0"), r"once: operation is 'a\x00'"),
    "long operation": (lambda: remember(operation="o" * 501), "once: operation is 'oooo"),
    "no idempotency key": (lambda: remember(key=""), "once: key is ''"),
    "short idempotency key": (lambda: remember(key="1234"), "once: key is '1234'"),
    "request that is no model": (lambda: remember(request={}), "once: request is <class 'dict'>"),
    "no dependency's name": (lambda: call(""), "Dependency: name is ''"),
    "no scheme": (lambda: call(url="peer:80"), "Dependency: url is 'peer:80'"),
    "other scheme": (lambda: call(url="ftp://peer"), "Dependency: url is <class 'str'>"),
    "query": (lambda: call(url="http://peer?k=canary"), "Dependency: url is <class 'str'>"),
    "credentials": (lambda: call(url="http://a:canary@peer"), "Dependency: url is <class 'str'>"),
    "limit that is no number": (
        lambda: call(out_attempt_seconds=math.nan),
        "Settings: out_attempt_seconds is nan",
    ),
    "no attempts": (lambda: call(out_attempts=0), "Settings: out_attempts is 0"),
    "text as limit": (lambda: call(out_total_seconds="5"), "Settings: out_total_seconds is '5'"),
    "limit that is not there": (
        lambda: call(out_atempt_seconds=1),
        "Settings: out_atempt_seconds is 1",
    ),
    "path that is no text": (
        lambda: asyncio.run(call().request("GET", cast("Any", 7))),
        "Dependency.request: path is 7",
    ),
    "flag that is no flag": (
        lambda: asyncio.run(call().request("POST", "/", is_idempotent=cast("Any", "no"))),
        "Dependency.request: is_idempotent is 'no'",
    ),
    "no time": (lambda: Limits(deadline_seconds=0), "Limits: deadline_seconds is 0"),
    "negative time": (lambda: Limits(deadline_seconds=-1), "Limits: deadline_seconds is -1"),
    "endless time": (lambda: Limits(deadline_seconds=math.inf), "Limits: deadline_seconds is inf"),
    "time that is no number": (
        lambda: Limits(idle_seconds=math.nan),
        "Limits: idle_seconds is nan",
    ),
    "negative body": (lambda: Limits(body_max_bytes=-1), "Limits: body_max_bytes is -1"),
    "half a byte": (
        lambda: Limits(body_max_bytes=cast("int", 0.5)),
        "Limits: body_max_bytes is 0.5",
    ),
    "endless life": (
        lambda: Limits(idle_seconds=1, life_seconds=math.inf),
        "Limits: life_seconds is inf",
    ),
    "idle longer than life": (
        lambda: Limits(idle_seconds=20, life_seconds=10),
        "Limits: life_seconds is 10",
    ),
    "first byte after the end": (
        lambda: Limits(deadline_seconds=20, idle_seconds=1, life_seconds=10),
        "Limits: life_seconds is 10",
    ),
    "check without a name": (lambda: check(name=""), "Check: name is ''"),
    "probe that was called": (lambda: check(probe=7), "Check: probe is 7"),
    "check without time": (lambda: check(timeout_seconds=0), "Check: timeout_seconds is 0"),
    "text as flag": (lambda: check(critical="no"), "Check: critical is 'no'"),
    "two checks of a name": (
        lambda: Health(cast("Process", None), cast("Ticker", None)).watch([check(), check()]),
        "Health: checks",
    ),
    "handler of no payload": (
        lambda: Handler(payload=cast("Any", int), handle=work),
        "Handler: payload is <class",
    ),
    "handler that can't be called": (
        lambda: Handler(payload=Told, handle=cast("Any", 7)),
        "Handler: handle is 7",
    ),
    "function as handler": (
        lambda: Worker(handlers=cast("Any", {"told": work})),
        "Worker: handlers.told is <class",
    ),
    "handler without a name": (
        lambda: Worker(handlers={"": Handler(payload=Told, handle=work)}),
        "Worker: handlers",
    ),
    "no application": (lambda: web(app="app"), "Web: app is 'app'"),
    "task without a name": (lambda: web(tasks={"": work}), "Web: tasks"),
    "task that was called": (lambda: web(tasks={"a": 7}), "Web: tasks.a is 7"),
    "thread that was started": (lambda: web(threads={"a": 7}), "Web: threads.a is 7"),
    "checks that are none": (lambda: web(checks=["search"]), "Web: checks.0 is 'search'"),
    "job in a folder": (lambda: Jobs(jobs=cast("Any", {"a/b": work})), "Jobs: jobs"),
    "job that was called": (lambda: Jobs(jobs=cast("Any", {"a": 7})), "Jobs: jobs.a is 7"),
    "lock in a folder": (lambda: hold(SETTINGS, "../a"), "hold: key is '../a'"),
    "failure that is none": (lambda: Failed("all is well", code=Exit.OK), "Failed: code is"),
    "unknown exit code": (lambda: Failed("ill", code=cast("Exit", 3)), "Failed: code is 3"),
    "status of something else": (lambda: Unavailable("gone", status=500), "Unavailable: status"),
}


@pytest.mark.promise("C10")
@pytest.mark.parametrize("what", WRONG)
def test_wrong_argument(what: str) -> None:
    """
    The error names the argument, its value and what is right, in one line without a secret.
    """
    hand_in, begins = WRONG[what]

    with pytest.raises(ValueError, match=f"^{re.escape(begins)}[^\n]{{10,}}$") as caught:
        hand_in()

    assert "canary" not in str(caught.value)


def test_what_is_right_is_taken() -> None:
    """
    Every kind of value that the types promise is taken, by each door.
    """
    long = {"name": "n" * 100, "key": "k" * 500}
    connection = cast("Any", Connection())
    handler = Handler(payload=Told, handle=work)

    async def put_all() -> None:
        await enqueue(connection, "note written: ä", Told(text=r"\u0000"))
        await enqueue(connection, Kind.TOLD, Told(), key=Kind.TOLD, delay_seconds=0)
        await enqueue(connection, long["name"], Told(), key=long["key"], delay_seconds=86_400.5)

    asyncio.run(put_all())

    assert connection.statements == 3
    assert call(url="https://[::1]:8443/v1/", out_attempt_seconds=4)
    assert Limits(deadline_seconds=60, body_max_bytes=0).declared() == {
        "deadline_seconds": 60,
        "body_max_bytes": 0,
    }
    assert Limits(deadline_seconds=2, idle_seconds=20, life_seconds=600)
    assert Worker(handlers=MappingProxyType({"told": handler}), checks=(check(),))
    assert Jobs(jobs=cast("Any", {"back-up_2.0": work}), checks=[check(timeout_seconds=0.5)])
    assert Failed("ill", code=Exit.CONFIGURATION).code == Exit.CONFIGURATION


def test_message_ends_in_a_transaction_only() -> None:
    """
    `Message.once` refuses a connection that commits each statement by itself: the message would be
    gone before its effect is there.
    """

    class Autocommit(Connection):
        def is_in_transaction(self) -> bool:
            return False

    message = Message(
        id=1,
        name="told",
        payload=Told(),
        attempt=1,
        enqueued_at=cast("Any", 0),
        lease=cast("Any", 0),
    )

    with pytest.raises(ValueError, match="transaction"):
        asyncio.run(message.once(cast("Any", Autocommit())))


def test_client_changes_nothing_global() -> None:
    """
    Making a `Dependency` changes no logger, no filter of warnings and no hook of the interpreter.
    """
    code = """
import logging, signal, sys, threading, warnings
import httpcore2, httpx2
httpx2.AsyncHTTPTransport()
from demo_service.chassis.outbound import Dependency
from demo_service.chassis.settings import Settings

def state():
    loggers = {name: logging.getLogger(name) for name in [None, *logging.root.manager.loggerDict]}
    return (
        {name: (one.level, one.disabled, list(one.handlers)) for name, one in loggers.items()},
        list(warnings.filters), sys.excepthook, sys.unraisablehook, threading.excepthook,
        [signal.getsignal(number) for number in signal.valid_signals()],
    )

settings, before = Settings(), state()
Dependency("peer", "http://peer", settings)
print(state() == before, "stamina" in sys.modules)
"""

    ended = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT / "tests" / "in_place",
        capture_output=True,
        text=True,
        check=False,
    )

    assert (ended.stdout, ended.stderr) == ("True False\n", "")


def test_level_of_the_client_is_the_processs() -> None:
    """
    What the client logs at DEBUG stays out of the log, as the process says once for all of it.
    """
    code = """
import logging
from demo_service.chassis.logs import Logs
Logs({}, console=True, level="debug", secrets=())
print(logging.getLogger("httpcore2.connection").isEnabledFor(logging.DEBUG))
"""

    ended = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT / "tests" / "in_place",
        capture_output=True,
        text=True,
        check=False,
    )

    assert (ended.stdout, logging.getLogger("httpcore2").level) == ("False\n", logging.NOTSET)
