"""
One request on its way through the application: its limits, its answer, its line in the log.
"""

import asyncio
import math
import os
import re
import time
from typing import TYPE_CHECKING, Any

from structlog.contextvars import bind_contextvars

from . import problem
from .asgi import App, Message, Receive, Scope, Send, respond
from .deadline import DEADLINE
from .limits import CURRENT, Current, Limits
from .traceparent import TRACEPARENT

if TYPE_CHECKING:
    from .envelope import Envelope

__all__ = ["Request", "TooLarge"]

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{8,64}")
# W3C Trace Context: version, trace id, parent id, flags; ids of zeros only are invalid.
_TRACEPARENT = re.compile(rb"(?!ff)\w\w-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-\w\w")

# A route that declares nothing; made once, because its arguments are checked.
NO_LIMITS = Limits()
_GRANTS = b"access-control-allow-"
# Why the envelope answers in place of the application, and with what.
STATUSES = {"body_too_large": 413, "bug": 500, "client_slow": 408, "deadline": 504}
STATUSES |= {"grace": 503, "shed": 503}


class TooLarge(BaseException):
    """
    Derived so that no framework's `except Exception` makes another answer of it.
    """


class Request(Current):
    """
    Stands between server and application; whoever ends it first, ends it once.
    """

    def __init__(self, envelope: "Envelope", scope: Scope, receive: Receive, send: Send) -> None:
        super().__init__()
        headers = dict(scope["headers"])
        given = headers.get(b"x-request-id", b"")
        self._id = given if _REQUEST_ID.fullmatch(given) else os.urandom(16).hex().encode()
        self._context = {"request_id": self._id.decode()}
        if parent := headers.get(b"traceparent"):
            trace = _TRACEPARENT.match(parent)
            self._context |= {"trace_id": trace[1].decode()} if trace else {}
            TRACEPARENT.set(trace[0].decode() if trace else "")
        bind_contextvars(**self._context)
        CURRENT.set(self)
        self._envelope, self._process = envelope, envelope.process
        self._process.requests.add(self)
        self._scope, self._receive, self._send = scope, receive, send
        self._started = time.monotonic()
        self._announced = int(headers.get(b"content-length", 0))
        self._body_max, self._limits = envelope.settings.body_max_bytes, NO_LIMITS
        self._status = self._bytes_in = self._bytes_out = 0
        # In the seconds of `time.monotonic`; a timer for each would cost more than a look at all.
        self.expires = math.inf
        self._is_reading = self.is_over = self.is_too_large = False
        self._task: asyncio.Task[Any] | None = None

    async def run(self, app: App) -> None:
        """
        Pass the request on to *app* until its deadline.
        """
        task = self._task = asyncio.current_task()
        self._expire_at(self._started + self._envelope.settings.request_deadline_seconds)
        try:
            await app(self._scope, self.receive, self.send)
        finally:
            self._process.abandoned.discard(task)
            self._task = None

    def limit(self, limits: Limits) -> None:
        """
        Put what the route declares in the place of the settings.
        """
        self._limits = limits
        if limits.body_max_bytes is not None:
            self._body_max = limits.body_max_bytes
        self._check_length(self._announced)
        if limits.deadline_seconds is not None:
            self._expire_at(self._started + limits.deadline_seconds)

    async def receive(self) -> Message:
        self._check_length(self._announced)
        self._is_reading = True
        message = await self._receive()
        self._is_reading = False
        self._bytes_in += len(message.get("body", b""))
        self._check_length(self._bytes_in)
        return message

    async def send(self, message: Message) -> None:
        # What comes after the deadline has been answered already.
        if not self.is_over:
            if not self._status:
                self._check_length(self._announced)
            await self._pass_on(message)

    async def answer(self, reason: str, status: int | None = None) -> None:
        """
        Answer in place of the application; if it has begun, cut the connection.
        """
        if self not in self._process.requests:
            # It failed behind its answer, as background work does.
            self._process.errors[reason] += self._told != reason
            return
        self.reason = reason
        connection = self._scope["extensions"]["connection"]
        if self._status or connection.flow.write_paused:
            # There is nothing to add, or nobody who reads it.
            connection.abort()
            return
        status = status or STATUSES[reason]
        # Whoever is only told to come again may use the connection for that.
        named = {"retry-after": "1"} if status == 503 else {}
        named |= {} if reason in {"shed", "unavailable"} else {"connection": "close"}
        told = {"reason": reason, "dependency": self.dependency}
        body = problem.body(status, instance=self._context["request_id"], **told)
        await respond(self._pass_on, status, body, problem.MEDIA_TYPE, **named)

    @property
    def closing(self) -> asyncio.Event:
        return self._process.closing

    def end(self) -> None:
        """
        Write the canonical line and count, once.
        """
        if self not in self._process.requests:
            return
        self._process.requests.discard(self)
        # The task refers to its context, and that to this request.
        self._task, self._told = None, self.reason
        seconds = time.monotonic() - self._started
        method, status = self._scope["method"], self._status
        # Starlette leaves its route there; the path itself is no label.
        route = self.route or getattr(self._scope.get("route"), "path", "")
        self._envelope.observe(method, route, status, seconds)
        fields = {
            "method": method,
            "path": self._scope["path"][:512],
            "route": route or None,
            "status": status,
            "duration_ms": round(seconds * 1000, 3),
            "bytes_in": self._bytes_in,
            "bytes_out": self._bytes_out,
            "client": (self._scope.get("client") or ("",))[0],
        }
        if self.reason:
            fields["reason"] = self.reason
            fields["error"] = self.error
            self._process.errors[self.reason] += 1
        fields |= {"dependency": self.dependency} if self.dependency else {}
        level = "warning" if status >= 500 or self.reason else "info"
        self._process.logs.line("request", level, self._context | fields)

    def _check_length(self, length: int) -> None:
        self.is_too_large = length > self._body_max
        if self.is_too_large:
            raise TooLarge

    async def _pass_on(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._status = message["status"]
            close = [(b"connection", b"close")] if self._process.stopping else []
            own = message.get("headers", ())
            if self._envelope.settings.cors_origins:
                # The connection adds those of the setting, and browsers refuse an answer with both.
                own = [one for one in own if not one[0].lower().startswith(_GRANTS)]
            message["headers"] = [*own, (b"x-request-id", self._id), *close]
        self._bytes_out += len(message.get("body", b""))
        await self._send(message)
        if message["type"] == "http.response.body" and not message.get("more_body"):
            # What the application still does is not the request's any more, nor is its deadline.
            if self._task:
                self._process.abandoned.add(self._task)
            DEADLINE.set(math.inf)
            self.end()
        elif (idle := self._limits.idle_seconds) is not None:
            # It streams: the next part is due, but the whole has its end.
            end = self._started + self._limits.life_seconds
            self._expire_at(min(time.monotonic() + idle, end))

    def _expire_at(self, instant: float) -> None:
        if not self._process.is_dev:
            # There, a breakpoint holds its request for as long as a person thinks.
            DEADLINE.set(instant)
            self.expires = instant

    def expire(self) -> None:
        """
        Answer at the deadline whatever the application waits for, and leave its task behind.
        """
        self.expires = math.inf
        self._end_of_time = asyncio.create_task(self._give_up())

    async def _give_up(self) -> None:
        if (task := self._task) is None:
            return
        self.is_over = True
        connection = self._scope["extensions"]["connection"]
        is_slow = self._is_reading and connection.is_receiving
        reason = "client_slow" if is_slow else "deadline"
        self.dependency = "" if is_slow else "".join(self.uses[:1])
        self._process.abandoned.add(task)
        # Nor does the end of the process wait for it.
        connection.tasks.discard(task)
        await self.answer(reason)
        self.end()
        if self.is_cancellable:
            task.cancel()
