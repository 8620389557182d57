"""
Start and stop of a process that serves: explained and bounded.
"""

import signal
from typing import Any

import pytest


@pytest.mark.promise("M1")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stops_with_zero(start: Any, number: signal.Signals) -> None:
    """
    SIGTERM and Ctrl-C end it with 0. From start to stop, each line is one JSON object that names
    when, what and who.
    """
    service = start()

    service.send_signal(number)

    assert service.wait(seconds=20) == 0
    lines = service.lines()
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


@pytest.mark.promise("C3")
def test_unknown_variable_is_a_warning(start: Any) -> None:
    """
    What a newer release reads does not keep this one from starting.
    """
    service = start(from_the_next_release="1")

    assert [event["variable"] for event in service.events("setting_unknown")] == [
        "APP_FROM_THE_NEXT_RELEASE"
    ]
    assert b"app_settings_unknown 1.0" in service.get("/metrics", admin=True).body


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
