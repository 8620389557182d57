"""
What strangers do to a connection: slow, large, malformed, many.
"""

import contextlib
import fcntl
import http.client
import json
import re
import resource
import signal
import socket
import struct
import termios
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from harness import slack, wait_until

Start = Callable[..., Any]

HEAD = b"GET /faults/ok HTTP/1.1\r\nHost: a\r\n"
OK = HEAD + b"Connection: close\r\n\r\n"
POST = b"POST /connections/length HTTP/1.1\r\nHost: a\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
# What makes clients wait for a second at most; a request's deadline is longer than its head's.
LIMITS = {"header_receive_seconds": 1, "write_stall_seconds": 1, "request_deadline_seconds": 2}
MEGABYTE = 1_000_000


def read_all(connection: socket.socket) -> bytes:
    """
    Everything until the service closes; a reset is an end too.
    """
    connection.settimeout(slack(10))
    data = b""
    with contextlib.suppress(ConnectionError):
        while piece := connection.recv(65536):
            data += piece
    return data


def talk(service: Any, data: bytes) -> bytes:
    """
    Send *data* on a connection of its own and read what comes back.
    """
    with service.connect() as connection:
        with contextlib.suppress(ConnectionError):
            connection.sendall(data)
        return read_all(connection)


def parse(answer: bytes) -> tuple[int, dict[str, str], Any]:
    """
    Status, fields and body of one whole answer whose body is JSON.
    """
    head, _, body = answer.partition(b"\r\n\r\n")
    line, *fields = head.decode().split("\r\n")
    return int(line.split()[1]), dict(field.split(": ", 1) for field in fields), json.loads(body)


def status(answer: bytes) -> int:
    return int(answer[9:12])


def sockets(service: Any) -> int:
    """
    The sockets that the process holds.
    """
    count = 0
    for path in Path(f"/proc/{service.process.pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            count += str(path.readlink()).startswith("socket:")
    return count


def memory(service: Any, name: str) -> int:
    """
    VmRSS, or VmHWM for its peak, in bytes.
    """
    text = Path(f"/proc/{service.process.pid}/status").read_text()
    found = re.search(rf"^{name}:\s+(\d+) kB", text, re.MULTILINE)
    assert found
    return int(found[1]) * 1024


@contextlib.contextmanager
def healthy_client(service: Any) -> Iterator[list[float]]:
    """
    Sends requests, each on a new connection, as long as the block lasts; how long each took.
    """
    took: list[float] = []
    errors: list[object] = []
    done = threading.Event()

    def run() -> None:
        while not done.is_set():
            started = time.monotonic()
            try:
                if (answer := service.get("/faults/ok")).status != 200:
                    errors.append(answer)
            except (OSError, http.client.HTTPException) as error:
                errors.append(error)
            took.append(time.monotonic() - started)
            done.wait(0.01)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield took
    finally:
        done.set()
        thread.join()
    assert errors == []


SLOW = {
    "silent": (b"", b"", 1),
    "partial head": (b"GET / HTTP/1.1\r\nHo", b"", 1),
    "trickled head": (b"GET / HTTP/1.1\r\nX: ", b"a", 1),
    "trickled body": (POST + b"Content-Length: 1000\r\n\r\n", b"a", 2),
    "not reading": (b"GET /connections/streamed?pieces=30 HTTP/1.1\r\nHost: a\r\n\r\n", b"", 1),
}


@pytest.mark.promise("T2")
@pytest.mark.parametrize("kind", SLOW)
def test_slow_clients(start: Start, kind: str) -> None:
    """
    500 slow clients at once: none outlives its limit, and a healthy client loses no request.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < 1200:
        resource.setrlimit(resource.RLIMIT_NOFILE, (1200, hard))
    first, again, limit = SLOW[kind]
    # Five hundred requests at once may be too much for it: refused, they would be idle, not slow.
    service = start(**LIMITS, shed_lag_seconds=60)
    usual = sockets(service)

    with contextlib.ExitStack() as stack, healthy_client(service) as took:
        clients = []
        opened = time.monotonic()
        for _ in range(500):
            client = stack.enter_context(socket.socket())
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.settimeout(slack(10))
            client.connect(("127.0.0.1", service.port))
            client.sendall(first)
            client.settimeout(0)
            clients.append(client)
        opening = time.monotonic() - opened

        def all_gone() -> bool:
            for client in clients if again else ():
                with contextlib.suppress(OSError):
                    client.send(again)
            return sockets(service) <= usual + 1

        # What is refused may linger for a second, and 500 at once take the service a while.
        wait_until(all_gone, seconds=limit + 8)

    assert opening < limit + slack(8)
    assert len(took) > 10
    assert max(took) < slack(5)
    assert service.process.poll() is None


def test_slow_head_is_told(share: Start) -> None:
    """
    What was begun is answered with 408, what never was is closed; the limit counts from the first
    byte, also on a connection that has been used, and one stray byte does not hold it open.
    """
    service = share(**LIMITS)

    with service.connect() as used, service.connect() as silent:
        used.sendall(HEAD + b"\r\n")
        assert used.recv(65536).endswith(b'{"ok":true}')
        used.sendall(b"\r\n")
        began = time.monotonic()
        code, fields, problem = parse(read_all(used))

        assert code == problem["status"] == 408
        assert fields["content-type"] == "application/problem+json"
        assert fields["x-request-id"] == problem["instance"]
        assert problem["reason"] == "slow"
        assert 0.7 < time.monotonic() - began < 1 + slack(2)
        assert read_all(silent) == b""
    told = service.wait_for("connection_refused", request_id=problem["instance"])
    assert (told["reason"], told["status"], told["client"]) == ("slow", 408, "127.0.0.1")


def test_idle_connections(start: Start) -> None:
    """
    A connection without a request is closed at its limit, without an answer.
    """
    service = start(keep_alive_seconds=0.5, lb_idle_seconds=0.1)

    with service.connect() as client:
        client.sendall(HEAD + b"\r\n")
        assert client.recv(65536).endswith(b'{"ok":true}')
        began = time.monotonic()

        assert read_all(client) == b""
        assert 0.3 < time.monotonic() - began < 0.5 + slack(1.5)


@pytest.mark.parametrize(
    ("more", "half_closed"),
    [(b"", False), (b"Connection: close\r\n", False), (b"", True)],
    ids=["kept alive", "closing", "half closed"],
)
def test_answer_that_nobody_reads(start: Start, more: bytes, *, half_closed: bool) -> None:
    """
    A complete answer that is not read is thrown away at the limit, however it was to end, and one
    that is read slowly is not.
    """
    service = start(**LIMITS)
    usual = sockets(service)
    large = b"GET /connections/large?size=9000000 HTTP/1.1\r\nHost: a\r\n" + more + b"\r\n"

    with service.connect() as client, service.connect() as slow:
        client.sendall(large)
        slow.sendall(large)
        if half_closed:
            wait_until(lambda: service.events("request", path="/connections/large"))
            client.shutdown(socket.SHUT_WR)
        size, began = 0, time.monotonic()
        while time.monotonic() < began + 2 or sockets(service) > usual + 1:
            size += len(slow.recv(20_000))
            threading.Event().wait(0.02)
            assert time.monotonic() < began + slack(6)

        assert len(service.events("connection_refused", reason="stalled", status=None)) == 1
        while size < 9 * MEGABYTE:
            piece = slow.recv(1 << 20)
            assert piece
            size += len(piece)


def test_stop_with_open_connections(start: Start) -> None:
    """
    Who has sent half a head, or does not read, is not waited for when the service stops.
    """
    service = start(
        header_receive_seconds=20,
        request_deadline_seconds=24,
        watchdog_seconds=40,
        liveness_timeout_seconds=60,
        write_stall_seconds=1,
    )

    with service.connect() as half, service.connect() as unread, service.connect() as silent:
        half.sendall(b"GET / HTTP/1.1\r\nHo")
        unread.sendall(b"GET /connections/large?size=9000000 HTTP/1.1\r\nHost: a\r\n\r\n")
        service.wait_for("request", path="/connections/large")

        assert service.stop(seconds=6) == 0
        assert read_all(half) == read_all(silent) == b""
    assert not service.events("grace_exceeded")


X = b"X: " + b"a" * 100
LARGE = {
    "a field": HEAD + b"X: " + b"a" * 17_000,
    "many kilobytes": HEAD + b"X: " + b"a" * 400_000,
    "megabytes": HEAD + b"X: " + b"a" * 3_000_000,
    "target": b"GET /" + b"a" * 17_000 + b" HTTP/1.1\r\nHost: a",
    "fields": HEAD + b"\r\n".join([b"X: b"] * 100),
    "all fields": HEAD + b"\r\n".join([b"X: " + b"a" * 400] * 42),
    "pipelined": HEAD + b"\r\n" + HEAD + b"X: " + b"a" * 17_000,
    "trailer": CHUNKED + b"3\r\nabc\r\n0\r\nX: " + b"a" * 34_000,
    "trailers": CHUNKED + b"3\r\nabc\r\n0\r\n" + b"\r\n".join([X] * 200),
    "chunk extension": CHUNKED + b"3;" + b"a" * 34_000 + b"\r\nabc\r\n0",
    "chunk extensions": CHUNKED + b"".join([b"1;" + b"a" * 999 + b"\r\na\r\n"] * 40) + b"0",
}


@pytest.mark.promise("T3")
def test_large_heads(share: Start) -> None:
    """
    A head over 16 KiB or 100 fields is 431, which the client can read however large it was; so
    are trailers and chunk extensions. What is within the limits is served.
    """
    service = share()
    at_limit = HEAD + b"Connection: close\r\n" + b"\r\n".join([X] * 98) + b"\r\n\r\n"

    answers = {name: talk(service, data + b"\r\n\r\n") for name, data in LARGE.items()}

    pipelined = answers.pop("pipelined")
    assert status(pipelined) == 200
    assert b"HTTP/1.1 431 " in pipelined
    assert {name: parse(answer)[0] for name, answer in answers.items()} == dict.fromkeys(
        answers, 431
    )
    assert status(talk(service, at_limit)) == 200


def announced(path: bytes) -> bytes:
    return b"POST " + path + b" HTTP/1.1\r\nHost: a\r\nContent-Length: 200000000\r\n\r\n"


BODIES = {
    "announced": (announced(b"/connections/length"), b"a" * 65536, 413),
    "chunked": (CHUNKED, b"10000\r\n" + b"a" * 65536 + b"\r\n", 413),
    "unknown path": (announced(b"/nowhere"), b"a" * 65536, 413),
    "unknown path, chunked": (
        CHUNKED.replace(b"/connections/length", b"/nowhere"),
        b"10000\r\n" + b"a" * 65536 + b"\r\n",
        404,
    ),
    "unread, chunked": (
        CHUNKED.replace(b"/length", b"/unread"),
        b"10000\r\n" + b"a" * 65536 + b"\r\n",
        200,
    ),
}


@pytest.mark.promise("T3")
@pytest.mark.parametrize("kind", BODIES)
def test_large_bodies(start: Start, kind: str) -> None:
    """
    Of a body of 200 MB at most 2 MB are read, memory does not grow, and the client gets its answer
    if it looks for one before it has sent everything.
    """
    head, piece, expected = BODIES[kind]
    service = start()
    assert service.get("/connections/length", method="POST", body=b"a").status == 200
    before = memory(service, "VmRSS")
    sent = read = looks = 0
    answer = b""

    with service.connect() as client:
        client.sendall(head)
        client.settimeout(0)
        ends = time.monotonic() + slack(10)
        while sent < 200 * MEGABYTE and time.monotonic() < ends:
            is_full = False
            try:
                sent += client.send(piece[sent % len(piece) :])
            except BlockingIOError:
                is_full = True
                threading.Event().wait(0.01)
            except ConnectionError:
                break
            with contextlib.suppress(BlockingIOError):
                answer += client.recv(65536)
            # To look takes longer than to send, and a service that reads too much needs the time.
            looks += 1
            if is_full or looks % 16 == 0:
                with contextlib.suppress(OSError, StopIteration):
                    read = max(read, sent - _unread(client, service.port))

    assert time.monotonic() < ends
    assert status(answer) == expected
    assert b"\r\nconnection: close\r\n" in answer
    assert 0 < read < 2 * MEGABYTE
    assert memory(service, "VmHWM") - before < 20 * MEGABYTE


def _unread(client: socket.socket, port: int) -> int:
    """
    Bytes that were sent but lie in a buffer of either kernel; StopIteration when it is closed.
    """
    out = struct.unpack("i", fcntl.ioctl(client, termios.TIOCOUTQ, bytes(4)))[0]
    ends = f":{port:04X}", f":{client.getsockname()[1]:04X}"
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()]
    other = next(line for line in lines if line[1].endswith(ends[0]) and line[2].endswith(ends[1]))
    return int(out) + int(other[4].partition(":")[2], 16)


def bad(line: bytes = b"GET / HTTP/1.1", *fields: bytes, body: bytes = b"") -> bytes:
    return b"\r\n".join([line, b"Host: a", *fields, b"", body])


MALFORMED = {
    "garbage": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" * 9,
    "HTTP/0.9": b"GET /\r\n\r\n",
    "HTTP/1.2": bad(b"GET / HTTP/1.2"),
    "HTTP/2.0": bad(b"GET / HTTP/2.0"),
    "HTTP/2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "no version": bad(b"GET / HTTP"),
    "unknown method": bad(b"FOO / HTTP/1.1"),
    "lower-case method": bad(b"get / HTTP/1.1"),
    "no host": b"GET / HTTP/1.1\r\n\r\n",
    "two hosts": bad(b"GET / HTTP/1.1", b"Host: a"),
    "two hosts, HTTP/1.0": bad(b"GET / HTTP/1.0", b"Host: b"),
    "space in the target": bad(b"GET /a b HTTP/1.1"),
    "raw bytes in the target": bad(b"GET /\xc3\xa9 HTTP/1.1"),
    "NUL in the target": bad(b"GET /\x00 HTTP/1.1"),
    "fragment": bad(b"GET /a#b HTTP/1.1"),
    "percent": bad(b"GET /%zz HTTP/1.1"),
    "cut percent": bad(b"GET /%a HTTP/1.1"),
    "percent in the query": bad(b"GET /?a=% HTTP/1.1"),
    "no UTF-8": bad(b"GET /%ff HTTP/1.1"),
    "absolute form": bad(b"GET http://b/ HTTP/1.1"),
    "authority form": bad(b"GET a:80 HTTP/1.1"),
    "CONNECT": bad(b"CONNECT a:80 HTTP/1.1"),
    "CONNECT to a path": bad(b"CONNECT /a HTTP/1.1"),
    "OPTIONS *": bad(b"OPTIONS * HTTP/1.1"),
    "same length twice": bad(b"POST / HTTP/1.1", b"Content-Length: 1", b"Content-Length: 1"),
    "two lengths": bad(b"POST / HTTP/1.1", b"Content-Length: 1", b"Content-Length: 2"),
    "list of lengths": bad(b"POST / HTTP/1.1", b"Content-Length: 1, 1"),
    "signed length": bad(b"POST / HTTP/1.1", b"Content-Length: +1"),
    "negative length": bad(b"POST / HTTP/1.1", b"Content-Length: -1"),
    "large length": bad(b"POST / HTTP/1.1", b"Content-Length: " + b"9" * 30),
    "no length": bad(b"POST / HTTP/1.1", b"Content-Length: "),
    "CL.TE": bad(b"POST / HTTP/1.1", b"Content-Length: 1", b"Transfer-Encoding: chunked"),
    "TE.CL": bad(b"POST / HTTP/1.1", b"Transfer-Encoding: chunked", b"Content-Length: 1"),
    "coded twice": bad(b"POST / HTTP/1.1", b"Transfer-Encoding: gzip, chunked"),
    "unknown coding": bad(b"POST / HTTP/1.1", b"Transfer-Encoding: xchunked"),
    "hidden coding": bad(b"POST / HTTP/1.1", b"Transfer-Encoding : chunked"),
    "chunked twice": bad(b"POST / HTTP/1.1", *[b"Transfer-Encoding: chunked"] * 2),
    "chunked, HTTP/1.0": bad(b"POST / HTTP/1.0", b"Transfer-Encoding: chunked"),
    "chunk size": CHUNKED + b"zz\r\nabc\r\n0\r\n\r\n",
    "negative chunk": CHUNKED + b"-1\r\nabc\r\n0\r\n\r\n",
    "hexadecimal chunk": CHUNKED + b"0x3\r\nabc\r\n0\r\n\r\n",
    "large chunk": CHUNKED + b"f" * 17 + b"\r\nabc\r\n0\r\n\r\n",
    "long chunk": CHUNKED + b"3\r\nabcdef\r\n0\r\n\r\n",
    "chunk without CR": CHUNKED + b"3\nabc\n0\n\n",
    "folded field": bad(b"GET / HTTP/1.1", b"X: a", b" b"),
    "bare LF": b"GET / HTTP/1.1\nHost: a\n\n",
    "bare LF in a field": bad(b"GET / HTTP/1.1", b"X: a\nY: b"),
    "bare CR": bad(b"GET / HTTP/1.1", b"X: a\rb"),
    "NUL in a value": bad(b"GET / HTTP/1.1", b"X: a\x00b"),
    "NUL in a name": bad(b"GET / HTTP/1.1", b"X\x00: a"),
    "space before the colon": bad(b"GET / HTTP/1.1", b"X : a"),
    "no colon": bad(b"GET / HTTP/1.1", b"X"),
    "no name": bad(b"GET / HTTP/1.1", b": a"),
    "WebSocket": bad(HEAD[:23], b"Connection: Upgrade", b"Upgrade: websocket", body=OK),
    "WebSocket or h2c": bad(HEAD[:23], b"Connection: upgrade", b"Upgrade: h2c, WebSocket", body=OK),
}


@pytest.mark.promise("E4")
def test_malformed(share: Start) -> None:
    """
    Malformed HTTP is one 400 and a closed connection; nothing behind it is a request, nothing of
    it is a bug, the process lives.
    """
    service = share()

    answers = {name: talk(service, data) for name, data in MALFORMED.items()}

    wrong = {}
    for name, answer in answers.items():
        if status(answer) != 400 or answer.count(b"HTTP/1.1 400 ") != 1:
            wrong[name] = answer[:200]
            continue
        _, fields, problem = parse(answer)
        service.wait_for("connection_refused", request_id=fields["x-request-id"])
        refused = service.events("connection_refused", request_id=fields["x-request-id"])
        if problem["instance"] != fields["x-request-id"] or len(refused) != 1:
            wrong[name] = answer
    assert wrong == {}
    assert b"accepts no WebSockets" in answers["WebSocket"]
    assert service.get("/faults/ok").status == 200
    assert not service.events("stray_error")
    assert not [line for line in service.lines() if "logger" in line]


HOSTS = {
    b"a": "http://a",
    b"a:8000": "http://a:8000",
    b"A.Example": "http://A.Example",
    b"orders.example.": "http://orders.example.",
    b"order_desk-web.orders:8000": "http://order_desk-web.orders:8000",
    b"xn--bcher-kva.example": "http://xn--bcher-kva.example",
    b"127.0.0.1:65535": "http://127.0.0.1:65535",
    b"[::1]": "http://[::1]",
    b"[::1]:8000": "http://[::1]:8000",
    b"[::ffff:10.0.0.1]:80": "http://[::ffff:10.0.0.1]:80",
}
NO_HOSTS = [
    b"", b" ", b"a/b", b"/", b"evil.example/admin?x=", b"a?b", b"x#y", b"a b", b"a, b", b"a,b",
    b"user@host", b"user:password@host", b"http://a", b"a\\b", b"a%62", b"a;b", b"a'b", b"*",
    b"a:", b"a:b", b"a:-1", b"a:65536", b"a:99999999999", b"a:80:80", b"::1", b":80", b"[::1",
    b"::1]", b"[::1]x", b"[::1]:x", b"[:::]", b"[1:2]", b"[127.0.0.1]", b"[a]", b"[]",
    b"[fe80::1%eth0]", b"[v1.a]", b"b\xc3\xbccher.example", b"\xff", b"a\tb",
]  # fmt: skip


@pytest.mark.promise("E7")
def test_host(share: Start) -> None:
    """
    The host of a request is a name or an address, with a port or without one, and the application
    sees it as it is; nothing else in the field Host, or in its place, is answered with success.
    """
    service = share()
    seen, wrong = {}, {}

    for host in HOSTS:
        ask = b"GET /edge/url HTTP/1.1\r\nX-Forwarded-Host: evil.example\r\nHost: "
        answer = talk(service, ask + host + b"\r\nConnection: close\r\n\r\n")
        seen[host] = parse(answer)[2]
    for version in (b"1.0", b"1.1"):
        for host in NO_HOSTS:
            ask = b"GET /edge/url HTTP/" + version + b"\r\nHost: " + host + b"\r\n\r\n"
            code, _, problem = parse(talk(service, ask))
            if (code, problem["reason"]) != (400, "host"):
                wrong[version, host] = code, problem
    old = parse(talk(service, b"GET /edge/url HTTP/1.0\r\n\r\n"))
    absolute = parse(talk(service, b"GET http://evil.example/ HTTP/1.1\r\nHost: a\r\n\r\n"))

    assert seen == {host: f"{url}/edge/url" for host, url in HOSTS.items()}
    assert wrong == {}
    assert old[2] == f"http://127.0.0.1:{service.port}/edge/url"
    assert (absolute[0], absolute[2]["reason"]) == (400, "malformed")


@pytest.mark.promise("E7")
def test_host_behind_a_declared_proxy(start: Start) -> None:
    """
    A declared proxy tells address and scheme of the client, not another host.
    """
    service = start(trusted_proxies='["127.0.0.0/8"]')
    headers = {"Host": "a", "X-Forwarded-Host": "evil.example", "X-Forwarded-Proto": "https"}

    assert service.get("/edge/url", headers=headers).json == "https://a/edge/url"


def test_garbage_behind_a_request(share: Start) -> None:
    """
    What is malformed is refused in its turn: the request before it gets its own answer.
    """
    service = share()
    slow = b"GET /faults/slow?seconds=0.3 HTTP/1.1\r\nHost: a\r\n\r\n"

    first, _, second = talk(service, slow + b"\x00garbage").partition(b'{"seconds":0.3}')

    assert status(first) == 200
    assert status(second) == 400


@pytest.mark.parametrize("fields", [b"", b"Upgrade: h2c\r\n"], ids=["plain", "upgrade ignored"])
def test_garbage_behind_the_last_request(start: Start, fields: bytes) -> None:
    """
    Whatever comes after a request that closes its connection is no request, and costs the client
    nothing of its answer.
    """
    service = start()
    slow = b"GET /faults/slow?seconds=0.3 HTTP/1.1\r\nHost: a\r\nConnection: close, upgrade\r\n"
    behind = {"request": HEAD + b"\r\n", "garbage": b"\x00\x01", "chunk": CHUNKED + b"zz\r\n\r\n"}

    answers = {name: talk(service, slow + fields + b"\r\n" + data) for name, data in behind.items()}

    for answer in answers.values():
        assert status(answer) == 200
        assert answer.endswith(b'{"seconds":0.3}')
    assert service.stop() == 0
    assert len(service.events("request")) == len(behind)
    assert not service.events("connection_refused")


def test_pipelining(start: Start) -> None:
    """
    Pipelined requests are answered in their order, and only a few are held in memory.
    """
    service = start()
    before = memory(service, "VmRSS")
    slow = b"GET /faults/slow?seconds=0.5 HTTP/1.1\r\nHost: a\r\n\r\n"

    with service.connect() as client:
        # What is sent meanwhile is read at once.
        service.send_signal(signal.SIGSTOP)
        client.sendall(slow + (HEAD + b"\r\n") * 3000 + OK)
        service.send_signal(signal.SIGCONT)
        answers = read_all(client).split(b"HTTP/1.1 200 OK\r\n")

    assert len(answers) == 1 + 3002
    assert answers[1].endswith(b'{"seconds":0.5}')
    assert all(answer.endswith(b'{"ok":true}') for answer in answers[2:])
    assert memory(service, "VmHWM") - before < 4 * MEGABYTE


def test_expectations(share: Start) -> None:
    """
    100-continue is answered when the application reads, other expectations are 417.
    """
    service = share()

    with service.connect() as client:
        client.sendall(POST + b"Expect: 100-Continue\r\nContent-Length: 3\r\n\r\n")
        assert client.recv(65536) == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.sendall(b"abc")
        assert b'"length":3' in client.recv(65536)
    unread = POST.replace(b"/length", b"/unread") + b"Expect: 100-continue\r\n"
    answer = talk(service, unread + b"Content-Length: 3\r\n\r\n")
    assert status(answer) == 200
    assert b"\r\nconnection: close\r\n" in answer
    old = POST.replace(b"HTTP/1.1", b"HTTP/1.0") + b"Expect: 100-continue\r\n"
    assert status(talk(service, old + b"Content-Length: 3\r\n\r\nabc")) == 200
    assert status(talk(service, POST + b"Expect: tea\r\n\r\n")) == 417


def test_upgrades_are_ignored(share: Start) -> None:
    """
    Who offers another protocol, as some clients do with each first request, is served in this one,
    body included.
    """
    service = share()
    fields = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AA\r\n"
    body = b"a" * 30_000

    answers = talk(service, POST + fields + b"Content-Length: 30000\r\n\r\n" + body + OK)

    assert answers.count(b"HTTP/1.1 200 ") == 2
    assert b'"length":30000' in answers
    assert answers.endswith(b'{"ok":true}')


def test_trailers(share: Start) -> None:
    """
    Trailers are read over; the application does not find them among the headers.
    """
    service = share()

    answer = talk(service, CHUNKED + b"3;a=b\r\nabc\r\n0\r\nX-Trailer: 1\r\n\r\n" + OK)

    assert b'"length":3,"headers":["host","transfer-encoding"]' in answer
    assert answer.endswith(b'{"ok":true}')


def test_too_many_connections(start: Start) -> None:
    """
    A connection beyond the limit is told so with 503 and closed; probes have their own port.
    """
    service = start(connections_max=20)

    with contextlib.ExitStack() as stack:
        for _ in range(20):
            stack.enter_context(service.connect())
        code, fields, problem = parse(talk(service, OK))

        assert code == problem["status"] == 503
        assert fields["connection"] == "close"
        assert fields["retry-after"]
        assert service.get("/livez", admin=True).status == 200
    wait_until(lambda: status(talk(service, OK)) == 200)


def test_head_waits_for_the_body(share: Start) -> None:
    """
    The head of an answer leaves with the first piece of its body, in one write, or at the end if
    it has none; if the application fails before the body, no head pretends that all is well.
    """
    service = share()

    with service.connect() as client:
        client.sendall(b"GET /connections/hesitant HTTP/1.1\r\nHost: a\r\n\r\n")
        service.wait_for("printed", text="hesitating")
        client.settimeout(0.2)
        with pytest.raises(TimeoutError):
            client.recv(1)
        service.get("/connections/hesitant", method="POST")
        client.settimeout(slack(10))
        assert status(client.recv(65536)) == 200
    assert talk(service, b"GET /connections/broken HTTP/1.1\r\nHost: a\r\n\r\n") == b""
    head = b"HEAD /connections/head HTTP/1.1\r\nHost: a\r\n\r\n"
    assert talk(service, head + OK).count(b"HTTP/1.1 200 ") == 2


def test_who_leaves_at_once(start: Start) -> None:
    """
    A stranger that connects and disconnects while there are too many connections ends nothing.
    """
    service = start(connections_max=1)

    with service.connect():
        for _ in range(300):
            with contextlib.suppress(OSError):
                service.connect().close()

    def is_served() -> bool:
        # Until the event loop has seen that they left, they count.
        with contextlib.suppress(OSError):
            return bool(service.get("/faults/ok").status == 200)
        return False

    wait_until(is_served)
    assert service.process.poll() is None
    assert not service.events("crash")
    assert not service.events("stray_error")
