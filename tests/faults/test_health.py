"""
Probes while something behind the service is broken.
"""

from collections.abc import Callable
from typing import Any

import pytest
from harness import wait_until

FAST = {"check_interval_seconds": 0.1, "check_timeout_seconds": 0.05}
Start = Callable[..., Any]


def ready(service: Any) -> tuple[int, str]:
    answer = service.get("/readyz", admin=True)
    return answer.status, answer.json["status"]


@pytest.mark.promise("H1")
@pytest.mark.parametrize("backing", ["down", "hanging"])
def test_liveness_is_local(start: Start, backing: str) -> None:
    """
    Whatever is behind the service, /livez answers 200, a hundred times out of a hundred.
    """
    service = start(ready=False, backing=backing, **FAST)
    service.wait_for("started")

    assert [service.get("/livez", admin=True).status for _ in range(100)] == [200] * 100


@pytest.mark.promise("H2")
@pytest.mark.parametrize("backing", ["down", "hanging"])
def test_waits_for_the_first_success(start: Start, backing: str) -> None:
    """
    Down at start: live, not ready, one warning; it comes up: ready, without a restart.
    """
    service = start(ready=False, backing=backing, **FAST)
    service.wait_for("started")
    service.wait_for("check_changed", is_up=False)

    assert ready(service) == (503, "fail")
    service.get("/faults/backing/up", method="POST")
    wait_until(lambda: ready(service) == (200, "pass"), seconds=5)
    assert len(service.events("check_changed", is_up=False)) == 1


@pytest.mark.promise("H2")
@pytest.mark.parametrize(
    ("critical", "expected"), [("false", (200, "warn")), ("true", (503, "fail"))]
)
def test_later_outage(start: Start, critical: str, expected: tuple[int, str]) -> None:
    """
    A later outage is a warning, unless the check is declared critical.
    """
    service = start(critical=critical, **FAST)

    service.get("/faults/backing/hanging", method="POST")

    wait_until(lambda: ready(service) == expected)
    assert service.get("/livez", admin=True).status == 200


@pytest.mark.promise("H3")
def test_hysteresis(start: Start) -> None:
    """
    Three failures down, two successes up: read from the events' times.
    """
    service = start(critical="true", check_interval_seconds=0.5, check_timeout_seconds=0.2)
    service.get("/faults/backing/down", method="POST")

    # The first two failures change nothing.
    seen = [ready(service)]
    while seen[-1][0] == 200:
        seen.append(ready(service))
    service.get("/faults/backing/up", method="POST")
    wait_until(lambda: ready(service) == (200, "pass"))

    assert set(seen[:-1]) == {(200, "pass")}
    assert [event["is_up"] for event in service.events("check_changed")] == [True, False, True]


def test_preflight_names_what_fails(start: Start) -> None:
    """
    `preflight` exits 69 and names the check that fails.
    """
    service = start("preflight", ready=False, backing="down")

    assert service.process.wait(30) == 69
    assert "backing: ConnectionRefusedError" in service.stdout.read_text()
