"""
Pages of other origins (CORS), and middleware that stands around everything.
"""

import contextlib
import json
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from http.client import HTTPResponse
from pathlib import Path
from typing import Any

import pytest
from harness import wait_until
from pages import blocks, paste

pytestmark = pytest.mark.covers(
    "template/src/{{ package_name }}/chassis/cors.py",
    "template/src/{{ package_name }}/chassis/envelope.py",
    "template/src/{{ package_name }}/chassis/protocol.py",
    "template/src/{{ package_name }}/chassis/request.py",
    "template/src/{{ package_name }}/chassis/web.py",
)

Start = Callable[..., Any]

ORIGIN, OTHER, FOREIGN = "https://app.example.com", "http://localhost:5173", "https://evil.example"
BOTH, ONE = json.dumps([ORIGIN, OTHER]), json.dumps([ORIGIN])
EXPOSED = "X-Request-ID, Retry-After"
LIMITS = {
    "body_max_bytes": 1000,
    "header_receive_seconds": 0.5,
    "probes_on_public_port": "true",
    "request_deadline_seconds": 1,
    "shed_lag_seconds": 60,
}
END = b"\r\n\r\n"
GET = b"GET /faults/ok HTTP/1.1\r\nHost: a\r\nOrigin: ORIGIN"
POST = (
    GET.replace(b"GET /faults/ok", b"POST /faults/everything")
    + b"\r\nContent-Type: application/json"
)
# What a client sends, and the status of the answer to it.
REQUESTS = {
    "success": (GET + END, 200),
    "probe": (GET.replace(b"/faults/ok", b"/livez") + END, 200),
    "unknown path": (GET.replace(b"/faults/ok", b"/nowhere") + END, 404),
    "unknown method": (GET.replace(b"GET", b"DELETE") + END, 405),
    "OPTIONS, no preflight": (GET.replace(b"GET", b"OPTIONS") + END, 405),
    "large body": (POST + b"\r\nContent-Length: 1001" + END, 413),
    "other type": (POST.replace(b"/json", b"/xml") + b"\r\nContent-Length: 1" + END + b"1", 415),
    "invalid body": (POST + b"\r\nContent-Length: 2" + END + b"{}", 422),
    "bug": (GET.replace(b"/ok", b"/raise") + END, 500),
    "exit": (GET.replace(b"/ok", b"/exit") + END, 500),
    "unavailable": (GET.replace(b"/faults/ok", b"/limits/unavailable?status=503") + END, 503),
    "deadline": (GET.replace(b"/ok", b"/slow?seconds=9") + END, 504),
    "slow head": (GET + b"\r\nA: a\r\nX: a", 408),
    "slow body": (POST + b"\r\nContent-Length: 9" + END + b"{", 408),
    "malformed": (GET + b"\r\nA: a\r\nX : a" + END, 400),
    "malformed body": (POST + b"\r\nTransfer-Encoding: chunked" + END + b"zz" + END, 400),
    "malformed target": (GET.replace(b"/faults/ok", b"/%zz") + END, 400),
    "no host": (GET.replace(b"a\r\n", b"a/b\r\n") + END, 400),
    "WebSocket": (GET + b"\r\nConnection: Upgrade\r\nUpgrade: websocket" + END, 400),
    "expectation": (POST + b"\r\nExpect: tea\r\nContent-Length: 1" + END, 417),
    "large head": (GET + b"\r\nX: " + b"a" * 17_000 + END, 431),
}
PREFLIGHT = {
    "Origin": OTHER,
    "Access-Control-Request-Method": "PUT",
    "Access-Control-Request-Headers": "authorization,content-type",
}


def by(origin: str, data: bytes) -> bytes:
    """
    *data* as a page of *origin* sends it.
    """
    return data.replace(b"ORIGIN", origin.encode())


def ask(service: Any, data: bytes) -> tuple[int, dict[str, list[str]]]:
    """
    Status and header fields of the answer to *data*.
    """
    with service.connect() as connection:
        with contextlib.suppress(ConnectionError):
            connection.sendall(data)
        return read(connection)


def read(connection: socket.socket) -> tuple[int, dict[str, list[str]]]:
    """
    The next answer on a connection.
    """
    found: dict[str, list[str]] = {}
    with contextlib.closing(HTTPResponse(connection)) as response:
        response.begin()
        for name, value in response.getheaders():
            found.setdefault(name.lower(), []).append(value)
        return response.status, found


@pytest.fixture(name="shedding")
def _shedding(start: Start) -> Iterator[Callable[..., Any]]:
    """
    Start a service that has as many requests in flight as it takes.
    """

    def shedding(**settings: Any) -> Any:
        service = start(in_flight_max=1, **settings)
        for _ in range(2):
            client = service.connect()
            client.sendall(b"GET /faults/slow?seconds=8 HTTP/1.1\r\nHost: a" + END)
            clients.append(client)
        wait_until(lambda: service.get("/faults/ok").status == 503)
        return service

    clients: list[socket.socket] = []
    yield shedding
    for client in clients:
        client.close()


@pytest.mark.promise("E6")
def test_every_answer_can_be_read(start: Start) -> None:
    """
    Pages of an allowed origin can read every answer, whoever gives it: the application, the
    envelope, the server or the protocol; pages of any other origin can read none.
    """
    service = start(cors_origins=BOTH, **LIMITS)

    wrong = {}
    for name, (data, status) in REQUESTS.items():
        got, fields = ask(service, by(OTHER, data))
        allowed = fields.get("access-control-allow-origin")
        exposed = fields.get("access-control-expose-headers")
        if (got, allowed, exposed) != (status, [OTHER], [EXPOSED]) or "Origin" not in fields[
            "vary"
        ]:
            wrong[name] = got, fields
        got, fields = ask(service, by(FOREIGN, data))
        if (got, "access-control-allow-origin" in fields) != (status, False):
            wrong[f"{name}, foreign"] = got, fields
        if "Origin" not in fields["vary"]:
            wrong[f"{name}, foreign"] = got, fields

    assert wrong == {}


@pytest.mark.promise("E6")
def test_refused_before_the_origin_is_read(start: Start) -> None:
    """
    Where only one origin is allowed, its pages can also read what was refused before its name
    came; where several are, an answer names none of them.
    """
    early = {"garbage": b"\x16\x03\x01", "large head": b"GET / HTTP/1.1\r\nX: " + b"a" * 17_000}

    for origins, allowed in ((ONE, [ORIGIN]), (BOTH, None)):
        service = start(cors_origins=origins, connections_max=1)
        answers = {name: ask(service, data) for name, data in early.items()}
        with service.connect():
            answers["connections"] = ask(service, by(ORIGIN, GET + END))

        assert [status for status, _ in answers.values()] == [400, 431, 503]
        for _, fields in answers.values():
            assert fields.get("access-control-allow-origin") == allowed
            assert fields["vary"] == ["Origin"]


@pytest.mark.promise("E6")
def test_off_by_default(start: Start) -> None:
    """
    Without the setting no answer has a field of CORS, and a preflight request is one like others;
    on the admin port it is so with the setting, too.
    """
    service = start(**LIMITS)
    named = start(cors_origins=ONE)

    for data, status in REQUESTS.values():
        got, fields = ask(service, by(ORIGIN, data))
        assert got == status
        assert not {"vary", "access-control-allow-origin"} & fields.keys()
    assert service.get("/faults/ok", method="OPTIONS", headers=PREFLIGHT).status == 405
    private = named.get("/metrics", admin=True, headers={"Origin": ORIGIN})
    assert not {"vary", "access-control-allow-origin"} & private.headers.keys()


@pytest.mark.promise("E6")
def test_preflight(start: Start) -> None:
    """
    A preflight request of an allowed origin may be followed by any method with any header; one of
    another origin learns nothing. Both have a line in the log.
    """
    service = start(cors_origins=BOTH)

    allowed = service.get("/faults/ok", method="OPTIONS", headers=PREFLIGHT)
    foreign = PREFLIGHT | {"Origin": FOREIGN}
    refused = service.get("/faults/ok", method="OPTIONS", headers=foreign)

    assert (allowed.status, allowed.body) == (200, b"")
    assert allowed.headers["access-control-allow-origin"] == OTHER
    assert allowed.headers["access-control-allow-methods"] == "PUT"
    assert allowed.headers["access-control-allow-headers"] == "authorization,content-type"
    assert allowed.headers["access-control-max-age"] == "600"
    assert "access-control-allow-credentials" not in allowed.headers
    assert not [name for name in refused.headers if name.startswith("access-control")]
    for answer in (allowed, refused):
        service.wait_for("request", request_id=answer.headers["x-request-id"], method="OPTIONS")


@pytest.mark.promise("E6")
def test_while_it_sheds(shedding: Callable[..., Any]) -> None:
    """
    Under overload a preflight request is answered all the same, so that the request that follows
    gets the refusal, which the page can read.
    """
    service = shedding(cors_origins=BOTH)

    preflight = service.get("/faults/ok", method="OPTIONS", headers=PREFLIGHT)
    refused = service.get("/faults/ok", headers={"Origin": OTHER})

    assert preflight.status == 200
    assert preflight.headers["access-control-allow-origin"] == OTHER
    assert (refused.status, refused.json["reason"]) == (503, "shed")
    assert refused.headers["retry-after"] == "1"
    assert refused.headers["access-control-allow-origin"] == OTHER
    assert refused.headers["access-control-expose-headers"] == EXPOSED


@pytest.mark.promise("E6")
def test_while_it_drains(start: Start) -> None:
    """
    The same after SIGTERM, for a preflight request and for what the end of the process cuts off.
    """
    service = start(cors_origins=BOTH, drain_seconds=2, grace_seconds=1, request_deadline_seconds=1)

    with service.connect() as client:
        service.send_signal(signal.SIGTERM)
        service.wait_for("stopping")
        preflight = service.get("/faults/ok", method="OPTIONS", headers=PREFLIGHT)
        slow = GET.replace(b"/faults/ok", b"/edge/patient")
        client.sendall(by(OTHER, slow + END))
        status, fields = read(client)

    assert preflight.status == 200
    assert preflight.headers["access-control-allow-origin"] == OTHER
    assert preflight.headers["connection"] == "close"
    assert (status, fields["access-control-allow-origin"]) == (503, [OTHER])


@pytest.mark.promise("E6")
def test_middleware_of_the_application_gives_way(start: Start) -> None:
    """
    A CORS middleware in the application changes nothing of what the setting says; what the
    application exposes is exposed, too.
    """
    service = start(app="own CORS", cors_origins=BOTH)

    for path in ("/faults/ok", "/edge/exposing", "/faults/raise"):
        for origin, allowed in ((OTHER, [OTHER]), ("https://other.example", None)):
            data = GET.replace(b"/faults/ok", path.encode()) + END
            _, fields = ask(service, by(origin, data))
            assert fields.get("access-control-allow-origin") == allowed
            assert "access-control-allow-credentials" not in fields
    data = GET.replace(b"/faults/ok", b"/edge/exposing") + END
    _, fields = ask(service, by(OTHER, data))
    assert fields["access-control-expose-headers"] == [EXPOSED, "ETag"]
    assert fields["vary"][0] == "Origin"


def test_middleware_around_everything(shedding: Callable[..., Any]) -> None:
    """
    What `Web.around` adds is in the answers of the application and of the envelope; where it fails
    itself, the answer is a bare 500, with the fields of CORS, and the process goes on.
    """
    service = shedding(app="around", cors_origins=ONE, **LIMITS)

    shed = service.get("/faults/ok")
    failed = service.get("/around/fails", headers={"Origin": ORIGIN})
    wait_until(lambda: service.get("/faults/ok").status == 200)
    found = {}
    for path in ("/faults/ok", "/nowhere", "/faults/raise", "/faults/slow?seconds=9", "/livez"):
        answer = service.get(path)
        found[path] = answer.status, answer.headers.get("x-around")

    assert (shed.status, shed.headers["x-around"]) == (503, "seen")
    assert (failed.status, failed.body) == (500, b"Internal Server Error")
    assert failed.headers["access-control-allow-origin"] == ORIGIN
    assert [*found.values()] == [(status, "seen") for status in (200, 404, 500, 504, 200)]


def test_page(copy: Callable[..., Path], start_in: Start) -> None:
    """
    What docs/how-to/cors.md says works as it is pasted: the setting, the question and its answer,
    and the middleware, which passes the formatter, the linter and the type checker.
    """
    setting, question, answer = blocks("cors", "Allow origins")
    code, line = blocks("cors", "Put middleware around everything")
    project = copy()
    package = project / "src" / "order_desk"
    (package / "headers.py").write_text(code)
    web = package / "web.py"
    old = "        yield Web(app=app, checks=resources.checks)\n"
    assert web.read_text().count(old) == 1
    named = "from .chassis.web import Web\n"
    text = web.read_text().replace(old, line)
    web.write_text(text.replace(named, f"{named}from .headers import SecurityHeaders\n"))

    service = start_in(project, cors_origins=setting.partition("=")[2])
    question = question.replace(":8000", f":{service.port}")
    said = paste(question, project, {}).stdout.splitlines()
    named_fields = {name: service.get(name).headers for name in ("/v1/notes", "/nowhere")}

    assert set(answer.splitlines()) <= set(said)
    for fields in named_fields.values():
        assert fields["x-content-type-options"] == "nosniff"
    commands = (["ruff", "format", "--check"], ["ruff", "check"], ["mypy"])
    for name, *arguments in commands:
        subprocess.run([project / ".venv" / "bin" / name, *arguments], cwd=project, check=True)
