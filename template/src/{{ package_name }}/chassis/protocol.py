"""
One connection: uvicorn's HTTP protocol with a limit on all that a stranger sends, does not send or
does not read.

`docs/decisions/protocol.md` of the template says what of uvicorn this relies on, and why.
"""

import math
import re
import uuid
from asyncio import Transport
from contextlib import suppress
from typing import Any
from urllib.parse import unquote_to_bytes, urlsplit

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from . import cors, problem
from .process import Process

__all__ = ["Connection"]

FIELDS_MAX = 100
# Parsed at a time: bounds the pipelined requests that wait, of which each costs some 3 kB.
PART_BYTES = 4096
# What each piece of a body may bring along: the length and the ends of a chunk.
CHUNK_BYTES = 16
# After a refusal: what is still read, so that the client sees the answer instead of a reset.
LINGER_BYTES, LINGER_SECONDS = 512 * 1024, 1
# The most that asyncio reads at once.
READ_BYTES = 256 * 1024
# Path and query in visible ASCII, each percent sign with its two digits; no NUL, which no text in
# PostgreSQL can hold.
TARGET = re.compile(rb'/[!"$&-~]*(?:%(?!00)[0-9A-Fa-f]{2}[!"$&-~]*)*')
# A name or an address, with a port or without one (RFC 9110, 7.2; RFC 3986, 3.2.2). Names hold what
# those of hosts and containers do, which is less than RFC 3986 allows.
HOST = re.compile(rb"([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]+)?")


class _Refusal(Exception):  # noqa: N818  # raised through the parser, caught behind it
    """
    Status, reason and a sentence for the client.
    """


TOO_LARGE = 431, "headers", "the head of the request is too large"


class Connection(HttpToolsProtocol):
    """
    A connection of either listener; `look` is called now and then and enforces its limits.

    To the response it is the transport, so that head and body leave as one.
    """

    def __init__(self, *, process: Process, connections_max: int, **given: Any) -> None:
        super().__init__(**given)
        # uvicorn's own goes on after `Connection: close`, where nothing is a request any more.
        self.parser = HttpRequestParser(self)
        self._settings, self._process, self._max = process.settings, process, connections_max
        self._due = math.inf
        self._is_idle, self._in_head, self._is_ended = True, False, False
        self._unparsed: bytes | memoryview = b""
        # Bytes of the message that is being parsed, beside its content and of its fields; bytes
        # thrown away at the end.
        self._framing = self._size = self._discarded = 0
        # The head that waits for its body; None until there is one.
        self._held: bytes | None = None
        self._pending: tuple[int, str, str] | None = None

    @property
    def is_receiving(self) -> bool:
        """
        Whether the body of the running request has not come in whole.
        """
        # What waits in the pipeline came after a whole request.
        return self.cycle is not None and self.cycle.more_body and not self.pipeline

    def is_closing(self) -> bool:
        return self._is_ended or self.transport.is_closing()

    def abort(self) -> None:
        """
        Cut the connection at once.
        """
        if self.cycle:
            self.cycle.disconnected = True
        self.transport.abort()

    def look(self, now: float) -> None:
        """
        End what is over its limit at *now*, a time of the loop.
        """
        if now < self._due:
            return
        if self._is_idle or self._is_ended:
            self._process.refused["silent"] += self.cycle is None and not self._is_ended
            self._is_ended, self._due = True, math.inf
            self.transport.close()
        else:
            self._refuse(408, "slow", "the head of the request took too long")

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]  # as uvicorn
        super().connection_made(transport)
        self._due = self.loop.time() + self._settings.header_receive_seconds
        if len(self.connections) > 2 * self._max:
            self.abort()  # Those that linger are bounded, too.
        elif len(self.connections) > self._max:
            self._refuse(503, "connections", "too many connections")

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if isinstance(exc, TimeoutError):
            self._tell("stalled", None)
        # They refer back to this object.
        self.cycle = self.scope = None  # type: ignore[assignment]  # as before the first request

    def data_received(self, data: bytes) -> None:
        if self._is_ended:
            self._discarded += len(data)
            if self._discarded > LINGER_BYTES - READ_BYTES:
                self.flow.pause_reading()
            return
        self._unparsed = bytes(self._unparsed) + data if self._unparsed else data
        self._parse()
        if self._is_idle:
            self._is_idle = False
            self._due = self.loop.time() + self._settings.header_receive_seconds

    def _parse(self) -> None:
        """
        Parse what came in, as long as no request has to wait for another.
        """
        while self._unparsed and not (self.pipeline or self._pending or self._is_ended):
            rest = memoryview(self._unparsed)
            # An empty view would keep all that was read.
            part, self._unparsed = rest[:PART_BYTES], rest[PART_BYTES:] or b""
            self._framing += len(part)
            try:
                self.parser.feed_data(part)
            except HttpParserUpgrade as upgrade:
                self._ignore_upgrade(part[upgrade.args[0] :])
            except HttpParserError as error:
                if isinstance(error.__context__, _Refusal):
                    self._refuse(*error.__context__.args)
                else:
                    self._refuse(400, "malformed", "this is no valid HTTP")
            else:
                if self._framing > self._settings.header_max_bytes:
                    self._refuse(*TOO_LARGE)
        if self._unparsed:
            self.flow.pause_reading()

    def _ignore_upgrade(self, rest: memoryview) -> None:
        """
        Parse the request again as if it asked for nothing; WebSockets can't be ignored.
        """
        offers = [value.lower() for name, value in self.headers if name == b"upgrade"]
        if any(b"websocket" in offer for offer in offers):
            self._refuse(400, "websocket", "this service accepts no WebSockets, on any path")
            return
        version = self.parser.get_http_version().encode()
        lines = [b"%b %b HTTP/%b" % (self.parser.get_method(), self.url, version)]
        lines += [b"%b: %b" % field for field in self.headers if field[0] != b"upgrade"]
        self.parser = HttpRequestParser(self)
        self._unparsed = b"\r\n".join([*lines, b"", b""]) + bytes(rest) + bytes(self._unparsed)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["extensions"] = {"connection": self}  # type: ignore[dict-item]  # ours
        self._in_head = True
        self._size = 0

    def on_url(self, url: bytes) -> None:
        super().on_url(url)
        self._size += len(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        self._size += len(name) + len(value) + 4
        if self._size > self._settings.header_max_bytes or len(self.headers) == FIELDS_MAX:
            raise _Refusal(*TOO_LARGE)
        if not self._in_head:
            return  # A trailer; the application has the headers already.
        self.headers.append((name, value))
        if name == b"transfer-encoding":
            # In HTTP/1.0 it hides where the request ends (RFC 9112, 6.1).
            if value.lower() != b"chunked" or self.parser.get_http_version() == "1.0":
                raise _Refusal(400, "malformed", "the only transfer encoding here is chunked")
        elif name == b"expect":
            self.expect_100_continue = self.parser.get_http_version() != "1.0"
            if value.lower() != b"100-continue":
                raise _Refusal(417, "expectation", "the only expectation here is 100-continue")

    def on_headers_complete(self) -> None:
        is_connect, version = self.parser.get_method() == b"CONNECT", self.parser.get_http_version()
        if self.parser.should_upgrade() and not is_connect:
            return
        if version not in {"1.0", "1.1"} or is_connect or not TARGET.fullmatch(self.url):
            raise _Refusal(400, "malformed", "neither method, target and version of HTTP/1.1")
        hosts = [value for name, value in self.headers if name == b"host"]
        if (hosts or version == "1.1") and not _is_host(hosts):
            raise _Refusal(400, "host", "send exactly one Host header: a host, and a port if any")
        if b"%" in self.url:
            unquote_to_bytes(self.url).decode()
        super().on_headers_complete()
        self.cycle.transport = self  # type: ignore[assignment]  # what it uses of one
        self.cycle.default_headers = self._usual()
        self._due, self._is_idle, self._in_head = math.inf, False, False

    def on_body(self, body: bytes) -> None:
        self._framing = max(self._framing - len(body) - CHUNK_BYTES, 0)
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._framing = 0
        if not self._in_head:
            super().on_message_complete()

    def write(self, data: bytes) -> None:
        """
        Hold the head until the first event of the body, as ASGI asks; what follows goes through.
        """
        if self._held is None and not data.startswith(b"HTTP/1.1 100 "):
            self._held = data
        else:
            self._flush(data)

    def _flush(self, data: bytes = b"") -> None:
        if self._held:
            data, self._held = self._held + data, b""
            if self.is_receiving and self.cycle.keep_alive:
                # What is left of the body will not be parsed.
                self.cycle.keep_alive = False
                data = data.replace(b"\r\n", b"\r\nconnection: close\r\n", 1)
        if data:
            self.transport.write(data)

    def close(self) -> None:
        """
        End after the running response; the client may still be sending its body.
        """
        self._flush()
        if self.is_receiving:
            self._linger()
        else:
            self._is_ended = True
            self.transport.close()

    def on_response_complete(self) -> None:
        """
        Go on with the next request, or wait for it.
        """
        self.server_state.total_requests += 1
        self._flush()
        self._held = None
        if self.is_closing():
            return
        self.flow.resume_reading()
        if self.is_receiving:
            self.close()
        elif self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        elif self._pending:
            self._answer(*self._pending)
        else:
            self._is_idle = not self._in_head
            head, idle = self._settings.header_receive_seconds, self._settings.keep_alive_seconds
            self._due = self.loop.time() + (idle if self._is_idle else head)
            self._parse()

    def _refuse(self, status: int, reason: str, detail: str) -> None:
        """
        Answer in the application's place, after the requests before this one.
        """
        self._unparsed = b""
        if self.cycle is None or self.cycle.response_complete:
            self._answer(status, reason, detail)
        elif not self.cycle.more_body:
            self._pending = status, reason, detail
        elif self.pipeline or self.cycle.response_started:
            self._tell(reason, None)
            self.abort()
        else:
            # The application learns that nobody waits any more.
            self.cycle.disconnected = True
            self.cycle.message_event.set()
            self._answer(status, reason, detail)

    def _answer(self, status: int, reason: str, detail: str) -> None:
        request_id = self._tell(reason, status)
        body = problem.body(status, instance=request_id, detail=detail, reason=reason)
        fields = f"content-type: {problem.MEDIA_TYPE}\r\ncontent-length: {len(body)}\r\n"
        fields += f"x-request-id: {request_id}\r\nconnection: close\r\n"
        fields += "retry-after: 1\r\n\r\n" if reason == "connections" else "\r\n"
        usual = b"".join(b"%b: %b\r\n" % field for field in self._usual())
        self.transport.write(STATUS_LINE[status] + usual + fields.encode() + body)
        self._linger()

    def _usual(self) -> cors.Fields:
        """
        The header fields of every answer.
        """
        usual, settings = self.server_state.default_headers, self._settings
        # Not on the admin port.
        if settings.cors_origins and self.server and self.server[1] == settings.port:
            usual = usual + cors.fields(self.headers or [], settings.cors_origins)
        return usual

    def _linger(self) -> None:
        """
        Say that this is all, and read on for a while: closed at once, the client might be reset
        before it has seen the answer (RFC 9112, 9.6).
        """
        self._is_ended, self._unparsed = True, b""
        self._due = self.loop.time() + LINGER_SECONDS
        with suppress(OSError):
            # Who is gone already needs to be told nothing.
            self.transport.write_eof()
        self.flow.resume_reading()

    def _tell(self, reason: str, status: int | None) -> str:
        """
        Count and log a refusal; its request id.
        """
        request_id, client = uuid.uuid4().hex, (self.client or ("",))[0]
        self._process.refused[reason] += 1
        line = {"request_id": request_id, "reason": reason, "status": status, "client": client}
        self._process.logs.line("connection_refused", "warning", line)
        return request_id


def _is_host(hosts: list[bytes]) -> bool:
    """
    Whether there is exactly one, and it is valid.
    """
    try:
        (host,) = hosts
        # Raises ValueError for a port over 65535, and for brackets around what is not IPv6.
        _ = urlsplit(b"//" + host).port
    except ValueError:
        return False
    return HOST.fullmatch(host) is not None
