"""
A peer that fails in every way, and the service that calls it.
"""

import contextlib
import itertools
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import Any
from urllib.parse import urlencode

import pytest
from harness import wait_until

pytestmark = pytest.mark.covers(
    "template/src/{{ package_name }}/chassis/limits.py",
    "template/src/{{ package_name }}/chassis/logs.py",
    "template/src/{{ package_name }}/chassis/outbound.py",
    "template/src/{{ package_name }}/chassis/request.py",
)

Start = Callable[..., Any]
Ask = Callable[..., Callable[[], Any]]

LIMITS = {"out_connect_seconds": 0.2, "out_attempt_seconds": 0.4, "out_total_seconds": 0.7}
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@dataclass(frozen=True, kw_only=True)
class Seen:
    """
    A request that the peer got.
    """

    at: float
    connection: int
    path: str
    headers: dict[str, str]


@dataclass
class Peer:
    """
    A server that does what *behave* says with each connection, on as many as come.
    """

    behave: Callable[["Peer", socket.socket, int], None]
    backlog: int = 128
    seen: list[Seen] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=self.backlog)
        self.port = self.listener.getsockname()[1]

    def serve(self) -> None:
        with contextlib.suppress(OSError):
            for number in itertools.count():
                accepted, _ = self.listener.accept()
                threading.Thread(target=self.handle, args=[accepted, number], daemon=True).start()

    def handle(self, connection: socket.socket, number: int) -> None:
        with contextlib.suppress(OSError), connection:
            self.behave(self, connection, number)

    def read(self, connection: socket.socket, number: int) -> Seen | None:
        """
        The next request on a connection; none if the other side closed it.
        """
        received = b""
        while not received.endswith(b"\r\n\r\n"):
            if not (byte := connection.recv(1)):
                return None
            received += byte
        first, *lines = received.decode().strip().split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines)
        path = first.split(" ")[1]
        request = Seen(at=time.monotonic(), connection=number, path=path, headers=headers)
        self.seen.append(request)
        return request


def answering(answer: Callable[["Peer", Seen], bytes]) -> Callable[..., None]:
    """
    Answers every request on every connection.
    """

    def behave(peer: Peer, connection: socket.socket, number: int) -> None:
        while request := peer.read(connection, number):
            connection.sendall(answer(peer, request))

    return behave


def saying(status: str, *headers: str) -> Callable[..., None]:
    lines = "\r\n".join([f"HTTP/1.1 {status}", "Content-Length: 0", *headers, "", ""])
    return answering(lambda *_: lines.encode())


def drip(text: bytes, *, first: bytes = b"") -> Callable[..., None]:
    """
    Sends *text* over and over, a byte now and then.
    """

    def behave(peer: Peer, connection: socket.socket, number: int) -> None:
        peer.read(connection, number)
        connection.sendall(first)
        for byte in itertools.cycle(text):
            connection.sendall(bytes([byte]))
            threading.Event().wait(0.05)

    return behave


def hang(peer: Peer, connection: socket.socket, number: int) -> None:
    """
    Takes requests and never answers.
    """
    while peer.read(connection, number):
        pass


def close(peer: Peer, connection: socket.socket, number: int) -> None:
    peer.read(connection, number)


def flood(peer: Peer, connection: socket.socket, number: int) -> None:
    peer.read(connection, number)
    connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while True:
        connection.sendall(b"10000\r\n" + b"x" * 0x10000 + b"\r\n")


def never(*_: object) -> None:
    """
    For a peer whose connections are not accepted.
    """


@pytest.fixture(name="peer")
def _peer() -> Iterator[Callable[..., Peer]]:
    """
    Start peers; they end with the test.
    """
    peers: list[Peer] = []

    def start(behave: Callable[..., None], **options: Any) -> Peer:
        peers.append(Peer(behave, **options))
        if behave is not never:
            threading.Thread(target=peers[-1].serve, daemon=True).start()
        return peers[-1]

    yield start
    for peer in peers:
        peer.listener.close()


def path_of(peer: Peer, name: str = "peer", **query: Any) -> str:
    return f"/outbound/call/{name}?" + urlencode({"port": peer.port, **query})


def call(service: Any, peer: Peer, name: str = "peer", **query: Any) -> list[dict[str, Any]]:
    """
    Let the service call; how each call ended.
    """
    answer = service.get(path_of(peer, name, **query), timeout=30)
    assert answer.status == 200, answer.body
    ends: list[dict[str, Any]] = answer.json
    return ends


def metric(service: Any, name: str, **labels: str) -> float:
    """
    The value of a metric, over all its series that have these labels.
    """
    text = service.get("/metrics", admin=True).body.decode()
    lines = [line for line in text.splitlines() if re.match(rf"{name}[ {{]", line)]
    wanted = [f'{label}="{value}"' for label, value in labels.items()]
    return sum(float(line.split()[-1]) for line in lines if all(part in line for part in wanted))


@contextlib.contextmanager
def full_backlog(peer: Peer) -> Iterator[None]:
    """
    Connect until the kernel takes no more: from then on it drops what arrives, like a black hole.
    """
    with contextlib.ExitStack() as stack:
        for _ in range(peer.backlog + 3):
            waiting = stack.enter_context(socket.socket())
            waiting.settimeout(0)
            waiting.connect_ex(("127.0.0.1", peer.port))
        yield


@pytest.mark.promise("T5")
def test_every_call_ends(start: Start, peer: Callable[..., Peer]) -> None:
    """
    Refused, black-holed by a full backlog, hanging, dripping header or body, endless body, closed,
    garbage: each call ends within the total limit, and nothing is left of it.
    """
    endless = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    behaviours: dict[str, tuple[Callable[..., None], set[str], int]] = {
        "hang": (hang, {"timeout"}, 504),
        "drip_header": (drip(b"HTTP/1.1 200 OK\r\nA: b\r\n" + b"x" * 999), {"timeout"}, 504),
        "drip_body": (drip(b"1\r\nx\r\n", first=endless), {"timeout"}, 504),
        "flood": (flood, {"body"}, 503),
        "close": (close, {"error"}, 503),
        "garbage": (drip(b"x", first=b"no HTTP at all\r\n\r\n"), {"error"}, 503),
    }
    peers = {name: peer(behave) for name, (behave, _, _) in behaviours.items()}
    refusing = peer(never)
    refusing.listener.close()
    silent = peer(never, backlog=0)
    peers |= {"refused": refusing, "backlog": silent}
    service = start(**LIMITS)

    with full_backlog(silent):
        ends = {name: call(service, peers[name], name)[0] for name in peers}

    assert {name: end for name, end in ends.items() if end["seconds"] > 0.9} == {}
    assert ends["refused"]["unavailable"] == 503
    assert ends["backlog"]["unavailable"] == 504
    for name, (_, outcomes, status) in behaviours.items():
        assert ends[name]["unavailable"] in {status, 504}, ends[name]
        counts = [
            metric(service, "app_outbound_requests_total", dependency=name, outcome=outcome)
            for outcome in outcomes
        ]
        assert sum(counts) == 1, name
    wait_until(lambda: metric(service, "app_outbound_in_flight") == 0)
    failed = service.events("outbound_failed")
    assert sorted(event["dependency"] for event in failed) == sorted(peers)
    assert {event["level"] for event in failed} == {"warning"}
    assert service.events("stray_error") == []
    assert service.events("request_failed") == []


@pytest.mark.promise("T5")
def test_attempt_ends(start: Start, peer: Callable[..., Peer]) -> None:
    """
    An attempt that drips has its own limit, and connecting a shorter one, also where it is the TLS
    handshake that hangs, so that there is time to try again.
    """
    dripping = peer(
        drip(b"1\r\nx\r\n", first=b"HTTP/1.1 200 -\r\nTransfer-Encoding: chunked\r\n\r\n")
    )
    silent = peer(never, backlog=0)
    limits = {**LIMITS, "out_attempt_seconds": 0.5, "out_total_seconds": 5}
    service = start(**limits, out_attempts=1)

    (dripped,) = call(service, dripping, "dripping")
    (no_handshake,) = call(service, peer(hang), "tls", scheme="https")
    with full_backlog(silent):
        (unconnected,) = call(service, silent, "silent")

    assert 0.5 <= dripped["seconds"] < 0.9
    assert dripped["unavailable"] == unconnected["unavailable"] == 504
    assert 0.2 <= unconnected["seconds"] < 0.45
    assert 0.2 <= no_handshake["seconds"] < 0.45


@pytest.mark.promise("T5")
def test_swallowed_cancellation(start: Start, peer: Callable[..., Peer]) -> None:
    """
    The limit holds even while the library swallows its cancellation; what it ends with later is
    heard by nobody, and its place is taken until then.
    """
    server = peer(hang)
    service = start(**LIMITS, out_in_flight_max=1)

    service.get("/outbound/stubborn?seconds=2", method="POST")
    (end,) = call(service, server)
    (full,) = call(service, server)

    assert end["unavailable"] == 504
    assert end["seconds"] < 0.9
    assert full["cause"] == "peer: too many calls wait for it"
    wait_until(lambda: metric(service, "app_outbound_in_flight") == 0)
    assert service.events("stray_error") == []


@pytest.mark.promise("T4")
def test_deadline_counts(start: Start, peer: Callable[..., Peer]) -> None:
    """
    A call ends with the deadline of its request, the other side is told how long it may take, and
    with too little time left it is not asked at all.
    """
    server = peer(hang)
    service = start()

    (end,) = call(service, server, deadline_seconds=0.3)
    (late,) = call(service, server, deadline_seconds=0.01)

    assert end["unavailable"] == late["unavailable"] == 504
    assert 0.2 < end["seconds"] < 0.5
    assert late["seconds"] < 0.05
    (asked,) = server.seen
    assert 200 <= int(asked.headers["x-request-timeout-ms"]) <= 300
    assert metric(service, "app_outbound_requests_total", outcome="late") == 1


def test_identity_is_passed_on(start: Start, peer: Callable[..., Peer]) -> None:
    """
    The other side gets the request's id and its trace; nothing of one request is left in the next.
    """
    server = peer(saying("200 OK"))
    service = start()
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    given = {"x-request-id": "a-request-id", "traceparent": trace}

    service.get(path_of(server), headers=given)
    service.get(path_of(server))

    first, second = (request.headers for request in server.seen)
    assert first | given == first
    assert "traceparent" not in second
    assert second["x-request-id"] != "a-request-id"
    assert server.seen[0].connection == server.seen[1].connection


def test_nothing_is_added(
    start: Start, peer: Callable[..., Peer], monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    No proxy of the environment is asked, no redirect followed, no cookie kept for the next call.
    """
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.setenv("all_proxy", "http://127.0.0.1:1")
    server = peer(saying("302 Found", "Location: /elsewhere", "Set-Cookie: whose=mine"))
    service = start()

    ends = [call(service, server)[0] for _ in range(2)]

    assert [end.get("status") for end in ends] == [302, 302]
    assert [request.path for request in server.seen] == ["/", "/"]
    assert "cookie" not in server.seen[1].headers
    assert metric(service, "app_outbound_requests_total", outcome="3xx") == 2


@pytest.mark.promise("T6")
def test_only_what_may_help_is_repeated(start: Start, peer: Callable[..., Peer]) -> None:
    """
    Only idempotent calls and transient failures are repeated, as often as allowed.
    """
    unavailable, busy = "503 Service Unavailable", "429 Too Many Requests"
    expected: list[tuple[str, dict[str, Any], int]] = [
        (unavailable, {}, 3),
        ("502 Bad Gateway", {}, 3),
        ("504 Gateway Timeout", {}, 3),
        (busy, {}, 3),
        (unavailable, {"method": "PUT"}, 3),
        (unavailable, {"method": "put"}, 3),
        (unavailable, {"method": "POST"}, 1),
        (unavailable, {"method": "POST", "is_idempotent": True}, 3),
        (unavailable, {"is_idempotent": False}, 1),
        ("500 Internal Server Error", {}, 1),
        ("404 Not Found", {}, 1),
    ]
    service = start()

    seen = []
    for number, (status, query, _) in enumerate(expected):
        server = peer(saying(status))
        call(service, server, f"peer-{number}", **query)
        seen.append((status, query, len(server.seen)))

    assert seen == expected


@pytest.mark.promise("T6")
def test_retry_budget(start: Start, peer: Callable[..., Peer]) -> None:
    """
    When every attempt fails, there are at most a tenth more attempts than calls, and ten.
    """
    server = peer(saying("503 Service Unavailable"))
    service = start(out_in_flight_max=20)

    for _ in range(10):
        ends = call(service, server, times=20)
        assert {end["unavailable"] for end in ends} == {503}

    assert 220 <= len(server.seen) <= 1.1 * 200 + 10
    assert metric(service, "app_outbound_attempts_total") == len(server.seen)
    assert metric(service, "app_outbound_requests_total", outcome="status") == 200
    assert metric(service, "app_outbound_retry_budget") < 1


@pytest.mark.promise("T6")
def test_retry_after(start: Start, peer: Callable[..., Peer]) -> None:
    """
    `Retry-After` is honoured as seconds and as a date; what is too late is not waited for.
    """

    def date(seconds: float) -> str:
        return formatdate(time.time() + seconds, usegmt=True)

    def come_back(after: Callable[[], str]) -> Callable[..., None]:
        def answer(server: Peer, _: Seen) -> bytes:
            if len(server.seen) > 1:
                return OK
            lines = ["HTTP/1.1 503 -", "Content-Length: 0", f"Retry-After: {after()}", "", ""]
            return "\r\n".join(lines).encode()

        return answering(answer)

    service = start()
    soon = {"1": lambda: "1", "date": lambda: date(2), "past": lambda: date(-9), "no": lambda: "?"}
    late = {"60": lambda: "60", "tomorrow": lambda: date(86400)}
    peers = {name: peer(come_back(after)) for name, after in {**soon, **late}.items()}

    ends = {name: call(service, server, name)[0] for name, server in peers.items()}

    gaps = {name: peers[name].seen[1].at - peers[name].seen[0].at for name in soon}
    assert {name: end.get("status") for name, end in ends.items() if name in soon} == dict.fromkeys(
        soon, 200
    )
    assert gaps["1"] >= 1
    assert 0.9 <= gaps["date"] <= 2.5
    assert gaps["past"] < 0.5
    assert gaps["no"] < 0.5
    for name in late:
        assert len(peers[name].seen) == 1
        assert ends[name]["unavailable"] == 503
        assert ends[name]["seconds"] < 0.5


@pytest.mark.promise("T6")
def test_full_jitter(start: Start, peer: Callable[..., Peer]) -> None:
    """
    Calls that fail at once come back spread over the whole back-off, not together.
    """
    server = peer(saying("503 Service Unavailable"))
    service = start(out_retry_ratio=1, out_attempts=2)

    for number in range(10):
        call(service, server, times=10, path=f"/{number}-{{number}}")

    seen: dict[str, list[float]] = {}
    for request in server.seen:
        seen.setdefault(request.path, []).append(request.at)
    gaps = sorted(second - first for first, second in seen.values())
    assert len(gaps) == 100
    # Uniform from 0 to 0.1 s, and what a busy machine adds.
    assert gaps[10] < 0.05
    assert gaps[-10] - gaps[10] > 0.05


@pytest.mark.promise("T6")
def test_stale_connection(start: Start, peer: Callable[..., Peer]) -> None:
    """
    A kept connection that the other side closes as the next request arrives: what is idempotent is
    sent again on another one, what is not is never sent twice.
    """

    def once(server: Peer, connection: socket.socket, number: int) -> None:
        if server.read(connection, number):
            connection.sendall(OK)
        server.read(connection, number)

    server, other = peer(once), peer(once)
    service = start()

    ends = [call(service, server)[0].get("status") for _ in range(3)]
    posted = [call(service, other, "other", method="POST")[0] for _ in range(2)]

    assert ends == [200, 200, 200]
    assert len(server.seen) == 5
    assert [end.get("status", end.get("unavailable")) for end in posted] == [200, 503]
    assert len(other.seen) == 2


@pytest.mark.alone
@pytest.mark.promise("T7")
def test_bulkhead(start: Start, ask: Ask, peer: Callable[..., Peer]) -> None:
    """
    With one dependency frozen, only so many calls wait for it, the others fail at once, and what
    needs another dependency is as fast as before.
    """
    frozen, healthy = peer(hang), peer(answering(lambda *_: OK))
    service = start(out_in_flight_max=8, out_attempt_seconds=4, out_attempts=1)

    def p99() -> float:
        took = []
        for _ in range(200):
            began = time.monotonic()
            (end,) = call(service, healthy, "healthy")
            took.append(time.monotonic() - began)
            assert end["status"] == 200
        return sorted(took)[-3]

    p99()
    before = p99()
    waiting = ask(service, path_of(frozen, "frozen", times=8))
    wait_until(lambda: metric(service, "app_outbound_in_flight", dependency="frozen") == 8)
    during = p99()
    refused = call(service, frozen, "frozen", times=20)

    assert metric(service, "app_outbound_in_flight", dependency="frozen") == 8
    assert {end["cause"] for end in refused} == {"frozen: too many calls wait for it"}
    assert max(end["seconds"] for end in refused) < 0.5
    # A pause of this machine of 50 ms is no fault of the service.
    assert during <= max(2 * before, 0.05)
    assert {end["unavailable"] for end in waiting().json} == {504}
    assert len(frozen.seen) == 8
    assert metric(service, "app_outbound_in_flight", dependency="frozen") == 0


def test_quiet(start: Start, peer: Callable[..., Peer]) -> None:
    """
    A call that goes well writes no line, also at DEBUG; one that fails writes one, however many
    attempts it made.
    """
    good, bad = peer(saying("200 OK")), peer(saying("503 Service Unavailable"))
    service = start(log_level="debug")

    call(service, good, "good")
    call(service, bad, "bad")

    said = [line for line in service.lines() if "request_id" in line and line["event"] != "request"]
    assert [line["event"] for line in said] == ["outbound_failed"]
    assert (said[0]["dependency"], said[0]["outcome"]) == ("bad", "status")
    assert (said[0]["host"], said[0]["port"]) == ("127.0.0.1", bad.port)


@pytest.mark.promise("M10")
def test_names(start: Start, peer: Callable[..., Peer]) -> None:
    """
    An answer that failed for a dependency names it, also when two are asked and one of them hangs.
    """
    good, bad = peer(answering(lambda *_: OK)), peer(saying("503 Service Unavailable"))
    frozen = peer(hang)
    # The deadline of the route, 2 s, comes before the end of a call.
    service = start(out_connect_seconds=1, out_attempt_seconds=4, out_total_seconds=5)

    def ask(*peers: Peer) -> Any:
        ports = "&".join(f"ports={peer.port}" for peer in peers)
        answer = service.get(f"/outbound/both?{ports}")
        line = service.wait_for("request", request_id=answer.headers["x-request-id"])
        return answer.status, answer.json["reason"], line["reason"], line["dependency"]

    assert ask(good, bad) == (503, f"unavailable: {bad.port}", "unavailable", str(bad.port))
    assert ask(frozen, good) == (504, f"deadline: {frozen.port}", "deadline", str(frozen.port))
