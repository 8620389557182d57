"""
What is said, and what is never said.
"""

import base64
import json
import os
import pty
import re
import select
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

import pytest
from harness import clean, free_ports

CANARY = 'canary/"4711" ünïcode'
LINES = "-----BEGIN KEY-----\ncanary-line-4711\n-----END KEY-----"
Start = Callable[..., Any]


@pytest.mark.promise("M1")
def test_whoever_speaks_speaks_json(start: Start) -> None:
    """
    print, warnings, standard-library loggers, tracebacks: each is one JSON line.
    """
    service = start(log_level="debug")

    service.get("/faults/speak")
    service.get("/faults/raise")
    service.stop()

    lines = service.lines()
    events = [line["event"] for line in lines]
    assert events.count("printed") == 3
    assert any("warned" in event for event in events)
    assert "bad format %d" in events
    assert [line["logger"] for line in lines if line["event"].startswith("third")] == [
        "third.party"
    ]
    assert {"spoke", "caught", "request_failed", "stopped"} <= set(events)
    assert all(
        {"timestamp", "level", "service", "version", "revision"} <= line.keys() for line in lines
    )


@pytest.mark.promise("C2")
@pytest.mark.parametrize("canary", [CANARY, LINES, "plain-canary-4711"])
def test_no_secret_leaves(start: Start, canary: str) -> None:
    """
    The value of a secret setting is in no log, error body, metric, crash or `config show`.
    """
    settings = {"token": canary, "key": canary, "log_level": "debug", "backing": "down"}
    service = start(ready=False, **settings)
    service.wait_for("started")

    said = [service.get(path).body for path in ("/faults/speak", "/faults/raise", "/faults/ok")]
    said.append(service.get("/metrics", admin=True).body)
    service.get("/faults/trip/task", method="POST")
    assert service.wait(seconds=10) == 70
    shown = start("config", "show", ready=False, **settings)
    shown.wait()
    files = [service.stdout, service.stderr, shown.stdout, shown.stderr]
    everything = b"".join([*said, *(path.read_bytes() for path in files)])

    assert b"**********" in everything
    assert b"canary-in-a-local" not in everything
    raw = canary.encode()
    assert b"canary-line" not in everything
    for form in (
        json.dumps(canary)[1:-1].encode(),
        base64.urlsafe_b64encode(raw).rstrip(b"="),
        quote_plus(canary).encode(),
        repr(canary)[1:-1].encode(),
    ):
        assert form not in everything
    for form in (
        raw,
        base64.b64encode(raw),
        quote(canary).encode(),
        canary.encode("unicode-escape"),
    ):
        assert form not in everything


@pytest.mark.promise("C2")
def test_no_secret_in_configuration_errors(start: Start) -> None:
    """
    A secret that is not valid is named, not quoted, whatever else is wrong.
    """
    service = start(ready=False, key="\udcff", token="", port="postgresql://me:canary-4711@db/x")

    assert service.wait(seconds=20) == 78
    assert "canary" not in service.stdout.read_text() + service.stderr.read_text()
    assert {line["variable"] for line in service.lines()} >= {"APP_TOKEN", "APP_PORT"}


@pytest.mark.promise("M2")
def test_request_id_is_in_every_line(start: Start) -> None:
    """
    All that is logged while a request is answered carries its id.
    """
    service = start(log_level="debug")

    service.get("/faults/speak", headers={"X-Request-ID": "request-id-1"})
    error = service.get("/faults/raise", headers={"X-Request-ID": "request-id-2"})
    service.stop()

    assert {"request-id-1"} == {
        line["request_id"]
        for line in service.lines()
        if line["event"] in {"printed", "spoke", "caught"} or "third" in line["event"]
    }
    (failed,) = service.events("request_failed")
    assert failed["request_id"] == error.json["instance"] == "request-id-2"


@pytest.mark.promise("E2")
@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("GET", "/canary", None, 404),
        ("DELETE", "/faults/ok", None, 405),
        ("POST", "/faults/everything", b'{"canary": NaN, "colour": "canary"}', 422),
        ("POST", "/faults/everything", b"canary", 422),
        ("GET", "/faults/slow?seconds=canary", None, 422),
        ("GET", "/faults/raise", None, 500),
    ],
)
def test_errors_are_problems(
    share: Start, method: str, path: str, body: bytes | None, status: int
) -> None:
    """
    An error is problem details with the request's id, and no word of the input.
    """
    service = share(token="canary")  # noqa: S106  # the bait
    headers = {"content-type": "application/json"}

    answer = service.get(path, method=method, body=body, headers=headers)

    assert answer.status == status == answer.json["status"]
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json["instance"] == answer.headers["x-request-id"]
    assert b"canary" not in answer.body


VALID = {"when": "2026-01-01T00:00:00Z", "who": "0" * 32, "colour": "red", "size": 1}


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("everything", VALID),
        ("two", {"one": VALID, "other": VALID}),
        ("embedded", {"body": VALID}),
        ("animal", {"kind": "cat", "born": "2026-01-01T00:00:00Z"}),
    ],
)
def test_valid_json_is_accepted(share: Start, path: str, body: dict[str, Any]) -> None:
    """
    Strict models take what JSON can say of times, ids and enumerations, in every way to ask.
    """
    service = share()

    answer = service.post_json(f"/faults/{path}", body)
    refused = service.post_json(f"/faults/{path}", body | {"canary": "x"})

    assert answer.status == 200
    assert refused.status == (422 if path in {"everything", "animal"} else 200)
    assert b"canary" not in refused.body


def test_what_is_no_json(share: Start) -> None:
    """
    A body of text is FastAPI's own business.
    """
    service = share()
    plain = {"content-type": "text/plain"}

    text = service.get("/faults/text", method="POST", body=b"plain", headers=plain)

    assert (text.status, text.json) == (200, "plain")


@pytest.mark.promise("M1")
@pytest.mark.parametrize(
    ("level", "said_first"), [("info", " [info"), ("loud", "APP_LOG_LEVEL Input should be")]
)
def test_console_on_a_terminal(project: Path, level: str, said_first: str) -> None:
    """
    A person at a terminal reads text, not JSON; so are wrong settings told.
    """
    port, admin_port = free_ports()
    ports = {"APP_PORT": str(port), "APP_ADMIN_PORT": str(admin_port)}
    ports |= {"APP_DRAIN_SECONDS": "0", "APP_READINESS_PERIOD_SECONDS": "0"}
    ours, theirs = pty.openpty()
    command = [str(project / ".venv" / "bin" / "order-desk"), "web"]
    with subprocess.Popen(
        command, env=clean(ports | {"APP_LOG_LEVEL": level}), stdout=theirs, stderr=theirs
    ) as process:
        os.close(theirs)
        said = b""
        try:
            while said_first.encode() not in re.sub(rb"\x1b\[\d+m", b"", said):
                assert select.select([ours], [], [], 10)[0], said
                said += os.read(ours, 4096)
            if level == "info":
                process.terminate()
            assert process.wait(20) == (0 if level == "info" else 78)
        finally:
            process.kill()

    os.close(ours)
    assert b'{"timestamp"' not in said


@pytest.mark.promise("C7")
def test_secret_from_a_file(start: Start, tmp_path: Path) -> None:
    """
    A secret can be a file, and is masked all the same; a file that is no text is explained.
    """
    (tmp_path / "APP_TOKEN").write_text("canary-from-a-file\n")
    service = start(secrets_dir=tmp_path)
    service.get("/faults/speak")
    shown = start("config", "show", ready=False, secrets_dir=tmp_path)
    shown.wait(seconds=20)
    (tmp_path / "APP_KEY").write_bytes(b"\xff\xfe\x00")
    refused = start(ready=False, secrets_dir=tmp_path)

    assert f"APP_TOKEN=**********  # file in {tmp_path}" in shown.stdout.read_text()
    assert "canary" not in service.stdout.read_text()
    assert refused.wait(seconds=20) == 78
    assert [line["variable"] for line in refused.lines()] == ["APP_SECRETS_DIR"]


def test_progress_without_a_newline(start: Start) -> None:
    """
    What is printed without an end of line is not kept without bound.
    """
    service = start()

    assert service.get("/faults/progress").status == 200
    service.stop()

    printed = [line["text"] for line in service.events("printed")]
    assert sum(map(len, printed)) > 0.99 * 20_000 * 100
    assert max(map(len, printed)) < 10_000
