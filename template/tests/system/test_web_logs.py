"""
Logs and errors of requests: machine-readable, traceable, discreet.
"""

from typing import Any

import pytest

ID = "a-request-id_0.1"


@pytest.mark.promise("M1")
def test_every_line_is_json(start: Any, smoke: tuple[str, str, int]) -> None:
    """
    From start to stop each line is one JSON object that names when, what and who.
    """
    service = start()
    method, path, _ = smoke
    service.get(path, method=method)
    service.get("/nowhere", method="POST", body=b"{", headers={"content-type": "application/json"})
    service.stop()

    lines = service.lines()

    # A service may have chosen telemetry, and not say where that is; or hold something open.
    beside = {"check_changed", "telemetry_off"}
    events = [line["event"] for line in lines if line["event"] not in beside]
    # The line of a request comes behind its answer: who is fast has sent SIGTERM before it.
    assert sorted(events) == ["request", "request", "started", "stopped", "stopping"]
    assert (events[0], events[-1]) == ("started", "stopped")
    for line in lines:
        assert list(line)[:3] == ["timestamp", "level", "event"]
        assert {"service", "version", "revision"} <= line.keys()


@pytest.mark.promise("M2")
def test_request_id_in_and_out(service: Any, smoke: tuple[str, str, int]) -> None:
    """
    A well-formed request id is kept: in the answer, in the log line and in an error body.
    """
    method, path, _ = smoke

    answer = service.get(path, method=method, headers={"X-Request-ID": ID})
    error = service.get("/nowhere", headers={"X-Request-ID": ID})

    assert answer.headers["x-request-id"] == ID
    assert error.json["instance"] == ID
    assert service.wait_for("request", request_id=ID, path=path)
    assert service.wait_for("request", request_id=ID, path="/nowhere")


@pytest.mark.promise("M2")
@pytest.mark.parametrize("given", ["short", "x" * 65, "a b c d e f", "<script>alert"])
def test_malformed_request_id_is_replaced(service: Any, given: str) -> None:
    """
    What is not eight to 64 harmless characters never reaches the log.
    """
    answer = service.get("/nowhere", headers={"X-Request-ID": given})

    assert answer.headers["x-request-id"] != given
    assert given not in service.stdout.read_text(encoding="utf-8")


@pytest.mark.promise("M2")
def test_trace_is_kept(service: Any) -> None:
    """
    The trace id of a W3C traceparent is in the log line.
    """
    trace = "0af7651916cd43dd8448eb211c80319c"
    service.get("/in", headers={"traceparent": f"00-{trace}-b7ad6b7169203331-01"})
    service.get("/out", headers={"traceparent": f"00-{'0' * 32}-b7ad6b7169203331-01"})

    assert service.wait_for("request", path="/in")["trace_id"] == trace
    assert "trace_id" not in service.wait_for("request", path="/out")


@pytest.mark.promise("E2")
def test_not_found_is_a_problem(service: Any) -> None:
    """
    An unknown path is 404 as problem details, without an echo of what was asked.
    """
    answer = service.get("/nowhere/canary-4711?canary-4712")

    assert answer.status == 404
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json["instance"] == answer.headers["x-request-id"]
    assert b"canary" not in answer.body
