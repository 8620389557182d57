"""
Start and stop of a process that serves: explained and bounded.
"""

import signal
from typing import Any

import pytest


@pytest.mark.promise("C3", "M1")
def test_stops_with_zero(start: Any) -> None:
    """
    Ctrl-C ends it with 0; the tests of each process type send SIGTERM. From start to stop, each
    line is one JSON object that names when, what and who. What a newer release reads is a warning.
    """
    service = start(from_the_next_release="1")
    metrics = service.get("/metrics", admin=True).body

    service.send_signal(signal.SIGINT)

    assert service.wait(seconds=20) == 0
    lines = service.lines()
    (unknown,) = service.events("setting_unknown")
    assert unknown["variable"] == "APP_FROM_THE_NEXT_RELEASE"
    assert b"app_settings_unknown 1.0" in metrics
    assert {"started", "stopping", "stopped"} <= {line["event"] for line in lines}
    assert lines[-1]["event"] == "stopped"
    for line in lines:
        assert list(line)[:3] == ["timestamp", "level", "event"]
        assert {"service", "version", "revision"} <= line.keys()


@pytest.mark.promise("C9")
def test_admin_port_in_use(start: Any, service: Any) -> None:
    """
    A taken port is one event with cause and action, exit 69, no traceback.
    """
    second = start(ready=False, admin_port=service.admin_port)

    assert second.wait(seconds=20) == 69
    (event,) = second.events("port_in_use")
    assert "APP_ADMIN_PORT" in event["action"]
    assert "exception" not in event


@pytest.mark.promise("L9")
def test_stacks_on_request(service: Any) -> None:
    """
    SIGUSR1 logs every thread and task as one event, and the service goes on.
    """
    service.send_signal(signal.SIGUSR1)
    event = service.wait_for("stacks")

    assert service.is_ready()
    assert any(name.startswith("MainThread") for name in event["threads"])
    assert event["tasks"]
