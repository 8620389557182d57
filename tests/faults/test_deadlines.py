"""
Every request ends in time, whatever its handler waits for, and a route may declare its own limits.
"""

import contextlib
import http.client
import json
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from harness import slack, wait_until

Start = Callable[..., Any]
Ask = Callable[..., Callable[[], Any]]

# The answer comes at the deadline, at most 0.3 s later. A busy machine takes longer.
MARGIN = 0.3 + slack(0.3)


def talk(service: Any) -> Any:
    """
    A connection to talk HTTP on, for a `with` statement.
    """
    connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=slack(10))
    return contextlib.closing(connection)


def metrics(service: Any) -> str:
    """
    All metrics as text.
    """
    return str(service.get("/metrics", admin=True).body.decode())


def metric(service: Any, name: str) -> float:
    """
    The value of a metric without labels.
    """
    for line in metrics(service).splitlines():
        if line.startswith(f"{name} "):
            return float(line.split()[1])
    raise AssertionError(name)


@pytest.mark.alone
@pytest.mark.promise("T1")
@pytest.mark.parametrize("path", ["slow", "swallow", "thread", "answer-late", "raise-late"])
def test_answer_at_the_deadline(start: Start, path: str) -> None:
    """
    A handler that sleeps, swallows its cancellation, blocks a thread, answers or raises afterwards:
    504 at the deadline, one line in the log, and the process goes on.
    """
    service = start(request_deadline_seconds=0.5)
    url = f"/limits/{path}" if path != "slow" else "/faults/slow?seconds=60"

    started = time.monotonic()
    answer = service.get(url)
    seconds = time.monotonic() - started

    assert answer.status == 504
    assert answer.json["title"] == "Gateway Timeout"
    assert answer.json["reason"] == "deadline"
    assert answer.headers["x-request-id"] == answer.json["instance"]
    assert 0.5 <= seconds < 0.5 + MARGIN
    line = service.wait_for("request", status=504)
    assert line["reason"] == "deadline"
    assert line["duration_ms"] < 1000 * (0.5 + MARGIN)
    assert service.get("/faults/ok").status == 200
    service.get("/limits/release", method="POST")
    wait_until(lambda: metric(service, "app_requests_abandoned") == 0)
    assert metric(service, "app_requests_in_flight") == 0
    # What is answered too late is dropped, what is raised too late is counted.
    assert ('kind="after_deadline"' in metrics(service)) == (path == "raise-late")
    assert len(service.events("request", path=url.partition("?")[0])) == 1
    assert not service.events("crash")
    assert not service.events("request_failed")
    assert service.stop() == 0


@pytest.mark.promise("T1")
def test_stalled_body(share: Start) -> None:
    """
    A body that does not come is answered with 408 at the deadline.
    """
    service = share(request_deadline_seconds=0.5)
    head = b"POST /limits/body HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nhalf"

    started = time.monotonic()
    with service.connect() as connection:
        connection.sendall(head)
        answer = connection.recv(65536)
        seconds = time.monotonic() - started

    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"application/problem+json" in answer
    assert 0.5 <= seconds < 0.5 + MARGIN
    assert service.wait_for("request", status=408)["reason"] == "client_slow"


def test_abandoned_is_bounded(start: Start) -> None:
    """
    What was left behind at its deadline counts as in flight: it can't pile up.
    """
    service = start(request_deadline_seconds=0.3, in_flight_max=2)

    statuses = [service.get("/limits/swallow").status for _ in range(4)]

    assert statuses == [504, 504, 503, 503]
    assert metric(service, "app_requests_abandoned") == 2
    assert service.get("/livez", admin=True).status == 200


@pytest.mark.parametrize("path", ["thread", "thread-of-a-dependency"])
def test_threads_are_bounded(start: Start, path: str) -> None:
    """
    Functions that block their thread past the deadline take no new one each time.
    """
    service = start(request_deadline_seconds=0.5)
    before = _threads(service)

    with ThreadPoolExecutor(60) as clients:
        paths = [f"/limits/{path}"] * 60
        statuses = {answer.status for answer in clients.map(service.get, paths)}
        statuses |= {answer.status for answer in clients.map(service.get, paths)}

    assert statuses == {504}
    assert _threads(service) - before <= 40
    assert service.get("/faults/ok").status == 200


def _threads(service: Any) -> int:
    return len(list(Path(f"/proc/{service.process.pid}/task").iterdir()))


def test_abandoned_does_not_hold_the_end(start: Start) -> None:
    """
    A task left behind at its deadline is no request in flight: the process ends at once, with 0.
    """
    service = start(request_deadline_seconds=0.3, grace_seconds=20)
    assert service.get("/limits/swallow").status == 504

    started = time.monotonic()
    code = service.stop()

    assert code == 0
    assert time.monotonic() - started < slack(10)
    assert not service.events("grace_exceeded")


def test_cut_in_the_middle(share: Start) -> None:
    """
    An answer that has begun and does not end is cut at the deadline, so that it can't look whole.
    """
    service = share(request_deadline_seconds=0.5)

    with talk(service) as connection:
        connection.request("GET", "/limits/half")
        answer = connection.getresponse()
        assert answer.read(4) == b"half"
        with pytest.raises((http.client.IncompleteRead, ConnectionResetError)):
            answer.read()

    assert service.wait_for("request", path="/limits/half")["reason"] == "deadline"


@pytest.mark.promise("T4")
def test_remaining_time_is_passed_down(start: Start) -> None:
    """
    What a request calls can ask how much time is left.
    """
    service = start(request_deadline_seconds=2)

    assert 1 < service.get("/limits/remaining").json <= 2


def test_background_work(start: Start) -> None:
    """
    What a handler does behind its answer has no deadline, disturbs no later request on the same
    connection, is counted, and is a bug if it fails.
    """
    service = start(request_deadline_seconds=0.5)

    with talk(service) as connection:
        connection.request("GET", "/limits/background")
        answer = connection.getresponse()
        answer.read()
        connection.request("GET", "/limits/hasty")
        hasty = connection.getresponse()
        hasty.read()
    told = service.wait_for("request", path="/limits/background")
    abandoned = metric(service, "app_requests_abandoned")
    service.get("/limits/release", method="POST")
    failed = service.wait_for("request_failed")

    assert (answer.status, hasty.status) == (200, 504)
    assert told["duration_ms"] < 500
    assert abandoned == 1
    assert "with inf s left" in failed["exception"][0]["exc_value"]
    assert 'app_errors_total{kind="bug"} 1.0' in metrics(service)
    wait_until(lambda: metric(service, "app_requests_abandoned") == 0)


def test_bug_keeps_the_connection(start: Start) -> None:
    """
    A bug that was answered with 500 is told once, and its connection goes on.
    """
    service = start()

    with talk(service) as connection:
        statuses = []
        for path in ("/faults/raise", "/faults/ok"):
            connection.request("GET", path)
            answer = connection.getresponse()
            answer.read()
            statuses.append(answer.status)
            assert not answer.will_close

    assert statuses == [500, 200]
    assert service.wait_for("request", status=500)["reason"] == "bug"
    assert 'app_errors_total{kind="bug"} 1.0' in metrics(service)


def test_unavailable_is_expected(share: Start) -> None:
    """
    What a backing service does not answer is 503 or 504, told as such and not as a bug.
    """
    service = share()

    away = service.get("/limits/unavailable")
    late = service.get("/limits/unavailable?status=504")

    assert (away.status, late.status) == (503, 504)
    assert away.headers["retry-after"] == "1"
    assert away.json["instance"] == away.headers["x-request-id"]
    assert service.wait_for("request", status=503)["reason"] == "unavailable"
    assert not service.events("request_failed")


@pytest.mark.promise("T1")
def test_route_declares_its_deadline(start: Start) -> None:
    """
    A route's own deadline counts, a longer one and a shorter one, and outbound calls know it.
    """
    service = start(request_deadline_seconds=0.6)

    started = time.monotonic()
    hasty = service.get("/limits/hasty")
    seconds = time.monotonic() - started
    patient = service.get("/limits/patient?seconds=1")

    assert (hasty.status, patient.status) == (504, 200)
    assert 0.3 <= seconds < 0.3 + MARGIN
    assert 0 < patient.json < 1.1
    assert service.get("/limits/patient?seconds=60").status == 504


@pytest.mark.promise("T3")
@pytest.mark.parametrize("chunked", [False, True])
def test_route_declares_its_body_limit(share: Start, *, chunked: bool) -> None:
    """
    A route's own limit of the body counts, a larger one and a smaller one.
    """
    service = share(body_max_bytes=1000)

    def statuses(path: str, *sizes: int) -> list[int]:
        def body(size: int) -> bytes | Iterator[bytes]:
            return iter([b"x" * size]) if chunked else b"x" * size

        return [service.get(path, method="POST", body=body(size)).status for size in sizes]

    assert statuses("/limits/body", 1000, 1001) == [200, 413]
    assert statuses("/limits/large", 5000, 5001) == [200, 413]
    assert statuses("/limits/small", 10, 11) == [200, 413]


def test_declared_limits_are_shown(start: Start) -> None:
    """
    `config show` and the API document say what routes declare.
    """
    commands = start("config", "show", ready=False), start("openapi", ready=False)
    codes = [command.wait() for command in commands]
    shown, document = commands[0].stdout.read_text(), json.loads(commands[1].stdout.read_text())

    assert codes == [0, 0]
    assert "# GET /limits/patient: deadline_seconds=2\n" in shown
    assert "# POST /limits/large: body_max_bytes=5000\n" in shown
    assert document["paths"]["/limits/events"]["get"]["x-limits"] == {
        "deadline_seconds": 0.5,
        "idle_seconds": 0.6,
        "life_seconds": 30,
    }


def test_raw_application_declares_limits(start: Start) -> None:
    """
    Limits and expected failures need no framework.
    """
    service = start(app="raw with limits", request_deadline_seconds=0.5)

    assert service.get("/patient").status == 200
    assert service.get("/unavailable").status == 503


def test_stream_outlives_the_deadline(start: Start) -> None:
    """
    A route that streams has a deadline for its first byte, then one from part to part.
    """
    service = start(request_deadline_seconds=0.4)

    late = service.get("/limits/events?before=30")
    with talk(service) as connection:
        connection.request("GET", "/limits/events?stall_after=12")
        stream = connection.getresponse()
        parts = [stream.readline() for _ in range(26)]
        stalled = time.monotonic()
        with pytest.raises((http.client.IncompleteRead, ConnectionResetError)):
            stream.read()

    assert late.status == 504
    assert parts[24] == b"data: 12\n"
    assert time.monotonic() - stalled < 0.6 + MARGIN


def test_stream_has_a_longest_life(start: Start) -> None:
    """
    However well it flows, a stream is cut at the end of its life.
    """
    service = start(request_deadline_seconds=0.4)

    started = time.monotonic()
    with pytest.raises((http.client.IncompleteRead, ConnectionResetError)):
        service.get("/limits/short-life")

    assert 1 <= time.monotonic() - started < 1 + MARGIN


def test_stream_ends_after_the_drain(start: Start) -> None:
    """
    A stream is told to end when the drain is over: whole, within the time of grace, exit 0.
    """
    service = start(drain_seconds=0.3, grace_seconds=20, platform_grace_seconds=45)
    with talk(service) as connection:
        connection.request("GET", "/limits/events?stall_after=3")
        stream = connection.getresponse()
        wait_until(lambda: stream.readline() == b"data: 3\n")
        code = service.stop()
        rest = stream.read()

    assert rest == b"\n"
    assert code == 0
    assert not service.events("grace_exceeded")


def test_slow_download(start: Start) -> None:
    """
    A large download goes on past the deadline as long as the client reads; one that stops is cut.
    """
    service = start(request_deadline_seconds=0.4)
    size = 64 * 65536
    with socket.create_connection(("127.0.0.1", service.port), timeout=slack(10)) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        connection.sendall(f"GET /limits/download?size={size} HTTP/1.0\r\n\r\n".encode())
        got, started = 0, time.monotonic()
        while part := connection.recv(16384):
            got += len(part)
            wait_until(lambda: time.monotonic() > started + got / size)  # noqa: B023  # at once
    with socket.create_connection(("127.0.0.1", service.port), timeout=slack(10)) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        connection.sendall(f"GET /limits/download?size={64 * size} HTTP/1.0\r\n\r\n".encode())
        cut = service.wait_for("request", reason="deadline")

    assert got > size
    assert cut["bytes_out"] < 64 * size


def test_parts_are_sent_at_once(share: Start) -> None:
    """
    No part of an answer waits until the client has acknowledged the one before.
    """
    service = share()

    took = []
    with talk(service) as connection:
        for _ in range(50):
            began = time.monotonic()
            connection.request("GET", "/limits/parts")
            connection.getresponse().read()
            took.append(time.monotonic() - began)

    # The kernel acknowledges after 40 ms, and at once only at the beginning of a connection.
    assert min(took[25:]) < 0.03


@pytest.mark.promise("M3")
def test_metrics_stay_bounded(start: Start) -> None:
    """
    Ten thousand unknown paths add nothing to the metrics.
    """
    service = start(app="faults")
    service.get("/unknown/path")
    service.get("/faults/ok")
    before = metrics(service)
    with talk(service) as connection:
        for number in range(10_000):
            connection.request("GET", f"/unknown/{number}")
            connection.getresponse().read()
    after = metrics(service)

    assert len(after.splitlines()) == len(before.splitlines())
    labels = 'method="GET",route="/faults/ok",status="200"'
    assert f"app_request_duration_seconds_count{{{labels}}} 1.0" in after


@pytest.mark.promise("E5")
def test_forwarded_by_a_declared_proxy(start: Start) -> None:
    """
    Behind a declared proxy, address and scheme are the client's, also in redirects and the log.
    """
    service = start(trusted_proxies=json.dumps(["127.0.0.0/8", "10.0.0.0/8"]))
    headers = {
        "X-Forwarded-For": "1.1.1.1, 192.0.2.7, 10.1.2.3",
        "X-Forwarded-Proto": "https",
        "Forwarded": "for=9.9.9.9",
    }

    asked = service.get("/limits/client", headers=headers)
    redirected = service.get("/limits/slashed", headers=headers | {"Host": "example.org"})

    assert asked.json == ["192.0.2.7", "https"]
    assert redirected.headers["location"] == "https://example.org/limits/slashed/"
    assert service.wait_for("request", path="/limits/client")["client"] == "192.0.2.7"


@pytest.mark.promise("E5")
@pytest.mark.parametrize("proxies", ["[]", '["10.0.0.0/8"]'])
def test_forwarded_by_a_stranger(start: Start, proxies: str) -> None:
    """
    Forwarded headers from anybody else count for nothing.
    """
    service = start(trusted_proxies=proxies)
    forged = {
        "X-Forwarded-For": "9.9.9.9",
        "X-Forwarded-Proto": "https",
        "Forwarded": "for=1.1.1.1",
    }

    asked = service.get("/limits/client", headers=forged)

    assert asked.json == ["127.0.0.1", "http"]
