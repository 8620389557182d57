"""
Probes while something behind the service is broken.
"""

import signal
import time
from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest
from harness import slack, wait_until

FAST = {"check_interval_seconds": 0.1, "check_timeout_seconds": 0.05}
Start = Callable[..., Any]
Ask = Callable[..., Callable[[], Any]]


def answers_in_time(service: Any) -> bool:
    """
    Whether the event loop answers within a tenth of a second.
    """
    try:
        return bool(service.get("/faults/ok", timeout=0.1).status)
    except TimeoutError:
        return False


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


@pytest.mark.promise("H6")
def test_blocked_loop_fails_no_liveness_probe(start: Start, ask: Ask) -> None:
    """
    Handlers that block the event loop, one after the other, fail no liveness probe: the watchdog
    would keep the process. It is not ready meanwhile, and then it is again.
    """
    service = start()
    lives, readies = [], []
    for _ in range(3):
        answer = ask(service, "/faults/block?seconds=1.5")
        wait_until(lambda: not answers_in_time(service))
        while not answers_in_time(service):
            lives.append(service.get("/livez", admin=True, timeout=1).status)
            readies.append(service.get("/readyz", admin=True, timeout=1).status)
        assert answer().status == 200

    assert len(lives) >= 6
    assert {*lives} == {200}
    assert 503 in readies
    wait_until(lambda: ready(service) == (200, "pass"))


@pytest.mark.promise("H6")
def test_liveness_is_the_last_resort(start: Start, ask: Ask) -> None:
    """
    Where the watchdog does not end a process whose loop is stuck, liveness fails after twice its
    time.
    """
    service = start(watchdog_seconds=slack(1), request_deadline_seconds=0.9)
    began = time.monotonic()
    ask(service, "/faults/debugged?seconds=30")

    wait_until(lambda: service.get("/livez", admin=True).status == 503)

    assert time.monotonic() - began > 2
    assert service.process.poll() is None


@pytest.mark.promise("H6", "C4")
def test_platform_may_not_be_first(start: Start) -> None:
    """
    A liveness probe that would fail before the watchdog acts is a wrong configuration.
    """
    service = start(ready=False, liveness_timeout_seconds=20)

    assert service.wait(seconds=20) == 78
    (event,) = service.events("configuration_invalid")
    assert event["problem"] == (
        "APP_WATCHDOG_SECONDS=15 + 5 must be less than APP_LIVENESS_TIMEOUT_SECONDS=20: the "
        "watchdog must end a stuck process, and log its stacks, before the platform does; "
        "try APP_WATCHDOG_SECONDS=12"
    )


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


@pytest.mark.promise("H2")
def test_hanging_probes_do_not_pile_up(start: Start) -> None:
    """
    A probe that ignores its cancellation is left behind once, not at every run.
    """
    service = start(
        ready=False, backing="hanging", check_interval_seconds=0.01, check_timeout_seconds=0.01
    )
    service.wait_for("check_changed", is_up=False)
    began = time.monotonic()
    while time.monotonic() < began + 1:
        assert service.get("/livez", admin=True).status == 200

    service.send_signal(signal.SIGUSR1)

    assert service.wait_for("stacks")["task_count"] < 20


@pytest.mark.promise("H3")
def test_hysteresis(start: Start) -> None:
    """
    Three failures down, two successes up: read from the events' times.
    """
    interval = 0.5
    service = start(critical="true", check_interval_seconds=interval, check_timeout_seconds=0.2)

    service.get("/faults/backing/down", method="POST")
    wait_until(lambda: ready(service) == (503, "fail"))
    service.get("/faults/backing/up", method="POST")
    wait_until(lambda: ready(service) == (200, "pass"))
    service.stop()

    first, down, up = (at(event) for event in service.events("check_changed"))
    broken, mended = (at(event) for event in service.events("request", method="POST"))
    assert first < broken
    # Two more runs after the first failure, one more after the first success.
    assert down - broken >= 2 * interval
    assert up - mended >= 1 * interval


def at(event: dict[str, Any]) -> float:
    """
    When an event was, in seconds.
    """
    return datetime.fromisoformat(event["timestamp"]).timestamp()


@pytest.mark.parametrize("backing", ["down", "hanging"])
def test_preflight_names_what_fails(start: Start, backing: str) -> None:
    """
    `preflight` exits 69 and names the check that fails, also one that hangs.
    """
    service = start("preflight", ready=False, backing=backing)

    assert service.wait(seconds=20) == 69
    assert "fail  check backing: " in service.stdout.read_text()


def test_preflight_explains_what_can_not_be_opened(start: Start) -> None:
    """
    Resources that can't be opened are a failure without a traceback.
    """
    service = start("preflight", ready=False, app="broken")

    assert service.wait(seconds=20) == 69
    *_, last = service.stdout.read_text().splitlines()
    assert last == "fail  start: RuntimeError: it can't be opened"
    assert service.stderr.read_text() == ""
