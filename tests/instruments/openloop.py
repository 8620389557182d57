"""
Load that the server can't slow down: requests leave when they are due, whatever became of others.
"""

import asyncio
import contextlib
import random
import re
import resource
import statistics
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

__all__ = ["Load", "Probe", "Reply", "ask", "capacity", "drive", "probe", "raise_file_limit"]

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_CLOSES = re.compile(rb"\r\nconnection: *close", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class Reply:
    """
    What became of one request: *seconds* since it was due, *at* its end since the load began.

    *status* is 0 where no answer came: refused, reset, cut or not in time.
    """

    at: float
    seconds: float
    status: int
    head: bytes = b""


@dataclass(frozen=True, kw_only=True)
class Probe:
    """
    A probe's path, and whether it was answered 200 in time.
    """

    path: str
    passed: bool


@dataclass(frozen=True, kw_only=True)
class Load:
    """
    All replies to a load that was sent for *seconds*.
    """

    replies: Sequence[Reply]
    probes: Sequence[Probe]
    seconds: float
    deadline: float
    # How late the latest request left: the load's own weakness, which must be small.
    lateness: float

    @property
    def statuses(self) -> Counter[int]:
        return Counter(reply.status for reply in self.replies)

    @property
    def good(self) -> list[Reply]:
        """
        Answered 200 within the deadline and before the load ended, so that what had piled up by
        then does not count.
        """
        return [
            reply
            for reply in self.replies
            if reply.status == 200 and reply.seconds <= self.deadline and reply.at <= self.seconds
        ]

    @property
    def late(self) -> list[Reply]:
        """
        Accepted and not answered 200 within the deadline: too late, 504, or no answer at all.
        """
        return [
            reply
            for reply in self.replies
            if reply.status != 503 and (reply.status != 200 or reply.seconds > self.deadline)
        ]

    @property
    def probe_success(self) -> float:
        return statistics.mean(probe.passed for probe in self.probes)

    def percentile(self, status: int, percent: int) -> float:
        """
        Seconds that this share of the replies with *status* took at most; 0 without any.
        """
        seconds = sorted(reply.seconds for reply in self.replies if reply.status == status)
        return seconds[(len(seconds) - 1) * percent // 100] if seconds else 0.0


class _Connection(asyncio.Protocol):
    """
    An HTTP/1.1 connection with at most one request on its way.
    """

    def __init__(self) -> None:
        self.is_usable = True
        self._data = b""
        self._answer: asyncio.Future[bytes] | None = None
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._data += data
        head, end, body = self._data.partition(b"\r\n\r\n")
        length = _LENGTH.search(head) if end else None
        if length and len(body) >= int(length[1]):
            self.is_usable = not _CLOSES.search(head)
            self._data = b""
            self._end(head)

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_usable = False
        # An answer without a length ends with the connection.
        head, end, _ = self._data.partition(b"\r\n\r\n")
        self._end(head if end and not exc else b"")

    def _end(self, head: bytes) -> None:
        if self._answer and not self._answer.done():
            self._answer.set_result(head)

    async def ask(self, request: bytes) -> bytes:
        """
        The head of the answer; empty when the connection ended without one.
        """
        if not self.is_usable:
            return b""
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return await self._answer

    def close(self) -> None:
        self.is_usable = False
        self._transport.abort()


class _Clients:
    """
    Connections to one port: one per request, or kept alive and used again.
    """

    def __init__(self, port: int, *, keep_alive: bool, timeout: float) -> None:
        self._port, self._keep_alive, self._timeout = port, keep_alive, timeout
        self._idle: list[_Connection] = []

    async def ask(self, request: bytes) -> bytes:
        """
        The head of the answer; empty when there is none in time.
        """
        connection, head = None, b""
        try:
            with contextlib.suppress(OSError, TimeoutError):
                async with asyncio.timeout(self._timeout):
                    connection = self._reuse() or await self._open()
                    head = await connection.ask(request)
        finally:
            if connection and head and self._keep_alive and connection.is_usable:
                self._idle.append(connection)
            elif connection:
                connection.close()
        return head

    def _reuse(self) -> _Connection | None:
        while self._idle:
            if (connection := self._idle.pop()).is_usable:
                return connection
        return None

    async def _open(self) -> _Connection:
        loop = asyncio.get_running_loop()
        return (await loop.create_connection(_Connection, "127.0.0.1", self._port))[1]

    def close(self) -> None:
        for connection in self._idle:
            connection.close()


def _request(path: str, method: str, *, keep_alive: bool) -> bytes:
    close = "" if keep_alive else "connection: close\r\n"
    body = "content-length: 0\r\n" if method == "POST" else ""
    return f"{method} {path} HTTP/1.1\r\nhost: localhost\r\n{close}{body}\r\n".encode()


def _status(head: bytes) -> int:
    return int(head[9:12]) if head else 0


async def drive(
    port: int,
    path: str,
    *,
    rate: float,
    seconds: float,
    deadline: float,
    keep_alive: bool,
    admin_port: int | None = None,
    methods: Sequence[str] = ("GET",),
    until: Callable[[], bool] = lambda: False,
) -> Load:
    """
    Send *rate* requests a second for *seconds*, or until *until* says so, at random moments
    (Poisson, the same each time); wait for each at most twice the deadline.
    """
    clients = _Clients(port, keep_alive=keep_alive, timeout=2 * deadline)
    replies: list[Reply] = []
    chance = random.Random(5)  # noqa: S311  # no secret
    began, due, lateness = time.monotonic(), 0.0, 0.0
    probing = asyncio.create_task(_probe_until(admin_port, end=began + seconds))

    async def send(due: float, request: bytes) -> None:
        head = await clients.ask(request)
        at = time.monotonic() - began
        replies.append(Reply(at=at, seconds=at - due, status=_status(head), head=head))

    async with asyncio.TaskGroup() as group:
        while (due := due + chance.expovariate(rate)) < seconds and not until():
            if (early := began + due - time.monotonic()) > 0:
                await asyncio.sleep(early)
            lateness = max(lateness, -early)
            request = _request(path, chance.choice(methods), keep_alive=keep_alive)
            group.create_task(send(due, request))
    clients.close()
    return Load(
        replies=replies,
        probes=await probing,
        seconds=min(seconds, due),
        deadline=deadline,
        lateness=lateness,
    )


async def capacity(port: int, path: str, *, seconds: float, connections: int = 3) -> float:
    """
    Requests a second that are answered 200 when each waits for the one before it.
    """
    clients = _Clients(port, keep_alive=True, timeout=10)
    request = _request(path, "GET", keep_alive=True)
    began, count = time.monotonic(), 0

    async def repeat() -> None:
        nonlocal count
        while time.monotonic() < began + seconds:
            # On a machine that does other things, even this may be refused now and then.
            status = _status(await clients.ask(request))
            count += status == 200

    await asyncio.gather(*(repeat() for _ in range(connections)))
    clients.close()
    return count / (time.monotonic() - began)


async def ask(port: int, path: str, *, seconds: float = 30) -> int:
    """
    One request on a connection of its own; the status, 0 without an answer.
    """
    clients = _Clients(port, keep_alive=False, timeout=seconds)
    return _status(await clients.ask(_request(path, "GET", keep_alive=False)))


async def probe(admin_port: int, path: str, *, seconds: float = 1) -> Probe:
    """
    Ask as a platform does: a connection of its own, one second.
    """
    return Probe(path=path, passed=await ask(admin_port, path, seconds=seconds) == 200)


async def _probe_until(admin_port: int | None, *, end: float) -> list[Probe]:
    """
    Both probes twice a second.
    """
    asked: list[asyncio.Task[Probe]] = []
    while admin_port and time.monotonic() < end:
        asked += [asyncio.create_task(probe(admin_port, path)) for path in ("/livez", "/readyz")]
        await asyncio.sleep(0.5)
    return await asyncio.gather(*asked)


def raise_file_limit() -> int:
    """
    As many files as this process may have; the number.
    """
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    return most
