"""
Start and stop of the web process: without losing a request.
"""

import contextlib
import http.client
import signal
import time
from typing import Any

import pytest


@pytest.mark.promise("L2")
def test_drain(start: Any, smoke: tuple[str, str, int]) -> None:
    """
    After SIGTERM the service is unready at once and goes on serving, asking clients to leave. Then
    it exits with 0, and cuts off a client that keeps its connection without using it.
    """
    # A busy machine may not get to ask anything within a short drain. Then a longer one is tried.
    assert any(is_seen_draining(start, smoke, seconds) for seconds in (1, 4, 16))


def is_seen_draining(start: Any, smoke: tuple[str, str, int], seconds: int) -> bool:
    """
    Whether there was time to see it; raises AssertionError if the service drains otherwise.
    """
    method, path, status = smoke
    service, answers = start(drain_seconds=seconds), list[Any]()
    idle = http.client.HTTPConnection("127.0.0.1", service.port, timeout=10)
    idle.request(method, path)
    response = idle.getresponse()
    response.read()
    kept = idle.sock

    began = time.monotonic()
    service.send_signal(signal.SIGTERM)
    try:
        # The admin port has a thread of its own, which may answer before the signal is handled.
        while service.get("/readyz", admin=True).status == 200:
            assert time.monotonic() < began + seconds
        while not answers or time.monotonic() < began + 0.8 * seconds:
            answers.append(service.get(path, method=method))
    except OSError:
        assert time.monotonic() >= began + seconds
        answers.clear()
    code = service.wait(seconds=20)
    with contextlib.closing(idle):
        rest = kept.recv(1)

    assert {(one.status, one.headers["connection"]) for one in answers} <= {(status, "close")}
    assert code == 0
    assert time.monotonic() - began >= seconds
    assert response.getheader("connection") is None
    assert rest == b""
    return bool(answers)


@pytest.mark.promise("L4", "L9")
def test_signals(start: Any) -> None:
    """
    SIGUSR2 raises the log level of the running process. A second SIGTERM ends it at once.
    """
    service = start(log_level="error", drain_seconds=20, grace_seconds=20)

    service.send_signal(signal.SIGUSR2)

    assert service.wait_for("log_level_changed")["seconds"] == 600
    service.get("/nowhere")
    assert service.wait_for("request")
    service.send_signal(signal.SIGTERM)
    service.wait_for("stopping")
    service.send_signal(signal.SIGTERM)
    assert service.wait(seconds=5) == 128 + signal.SIGTERM


@pytest.mark.promise("C9")
def test_port_in_use(start: Any, service: Any) -> None:
    """
    A taken port is one event with cause and action, exit 69, no traceback.
    """
    second = start(ready=False, port=service.port)

    assert second.wait(seconds=20) == 69
    (event,) = second.events("port_in_use")
    assert "APP_PORT" in event["action"]
    assert "exception" not in event
