"""
Around every request: an id, a deadline, a body limit, one log line, an answer to what escapes.
"""

import asyncio
import re
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass

from structlog.contextvars import bind_contextvars

from . import problem
from .asgi import App, Message, Receive, Scope, Send, respond
from .logs import LEVELS, get_logger
from .process import Process
from .settings import Settings

__all__ = ["Envelope"]

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{8,64}")
# W3C Trace Context: version, trace id, parent id, flags; ids of zeros only are invalid.
_TRACEPARENT = re.compile(rb"(?!ff)\w\w-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-\w\w")

STATUSES = {"body": 413, "bug": 500, "deadline": 504, "grace": 503}
log = get_logger()


@dataclass(frozen=True, kw_only=True)
class Envelope:
    """
    A pure ASGI wrapper around any ASGI application; the paths *beside* it go past it.
    """

    app: App
    beside: Mapping[str, App]
    process: Process
    settings: Settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """
        Run the application, and answer in its place where it does not.
        """
        app = self.beside.get(scope.get("path", ""), self.app)
        if scope["type"] != "http" or app is not self.app:
            await app(scope, receive, send)
            return
        request = _Request(self, scope, receive, send)
        # A breakpoint holds its request for as long as a person thinks.
        limit = None if self.process.is_dev else self.settings.request_deadline_seconds
        self.process.in_flight += 1
        try:
            async with asyncio.timeout(limit) as deadline:
                request.check_length(request.announced)
                await app(scope, request.receive, request.send)
        except BaseException as error:  # whatever it is, it is answered and told
            reason = "deadline" if deadline.expired() else "bug"
            if request.is_too_large:
                reason = "body"
            elif isinstance(error, asyncio.CancelledError) and self.process.stopping:
                reason = "grace"  # The time is over: uvicorn cancels what is still running.
            self.process.errors[reason] += 1
            level = LEVELS["error" if reason == "bug" else "warning"]
            log.log(level, "request_failed", reason=reason, exc_info=reason == "bug")
            if reason == "bug":
                route = getattr(scope.get("route"), "path", "")
                self.process.tell(error, event="request_failed", kind=reason, route=route)
            await request.answer(STATUSES[reason])
        finally:
            self.process.in_flight -= 1
            request.log_line()


class _BodyTooLarge(BaseException):
    """
    Derived so that no framework's `except Exception` makes another answer of it.
    """


class _Request:
    """
    One request on its way through the application.
    """

    def __init__(self, envelope: Envelope, scope: Scope, receive: Receive, send: Send) -> None:
        headers = dict(scope["headers"])
        given = headers.get(b"x-request-id", b"")
        trace = _TRACEPARENT.match(headers.get(b"traceparent", b""))
        self._id = given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex.encode()
        self._context = {"request_id": self._id.decode()}
        self._context |= {"trace_id": trace[1].decode()} if trace else {}
        bind_contextvars(**self._context)
        self.announced = int(headers.get(b"content-length", 0))
        self._envelope = envelope
        self._scope, self._receive, self._send = scope, receive, send
        self._started = time.perf_counter()
        self._status = self._bytes_in = self._bytes_out = 0

    def check_length(self, length: int) -> None:
        """
        Refuse a body by its announced length, or as soon as it has become too long.
        """
        self.is_too_large = length > self._envelope.settings.body_max_bytes
        if self.is_too_large:
            raise _BodyTooLarge

    async def receive(self) -> Message:
        message = await self._receive()
        self._bytes_in += len(message.get("body", b""))
        self.check_length(self._bytes_in)
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._status = message["status"]
            close = [(b"connection", b"close")] if self._envelope.process.stopping else []
            message["headers"] = [*message.get("headers", ()), (b"x-request-id", self._id), *close]
        self._bytes_out += len(message.get("body", b""))
        await self._send(message)

    async def answer(self, status: int) -> None:
        """
        Answer with a problem and close; if the application has begun, uvicorn disconnects.
        """
        if not self._status:
            body, kind = problem.body(status), problem.MEDIA_TYPE
            await respond(self.send, status, body, kind, connection="close")

    def log_line(self) -> None:
        """
        The canonical line.
        """
        fields = {
            "method": self._scope["method"],
            "path": self._scope["path"][:512],
            "route": getattr(self._scope.get("route"), "path", None),
            "status": self._status,
            "duration_ms": round((time.perf_counter() - self._started) * 1000, 3),
            "bytes_in": self._bytes_in,
            "bytes_out": self._bytes_out,
            "client": (self._scope.get("client") or ("",))[0],
        }
        level = "warning" if self._status >= 500 else "info"
        self._envelope.process.logs.line("request", level, self._context | fields)
