"""
What repeats ten thousand times is told once, and counted.
"""

import signal
from collections.abc import Callable
from typing import Any

import pytest
from harness import wait_until

pytestmark = pytest.mark.covers(
    "template/src/{{ package_name }}/chassis/excerpt.py",
    "template/src/{{ package_name }}/chassis/fastapi.py",
    "template/src/{{ package_name }}/chassis/flood.py",
    "template/src/{{ package_name }}/chassis/logs.py",
    "template/src/{{ package_name }}/chassis/process.py",
)

Start = Callable[..., Any]


def suppressed(service: Any) -> int:
    """
    How many events the metric says were suppressed.
    """
    lines = service.get("/metrics", admin=True).body.decode().splitlines()
    name = "app_log_events_suppressed_total "
    return next(int(float(line.removeprefix(name))) for line in lines if line.startswith(name))


@pytest.mark.promise("M5")
def test_identical_errors(start: Start) -> None:
    """
    Of ten thousand identical errors in a burst one is told in full, the others as a number, in the
    metric at once and in the log before the end; nothing else is lost with them.
    """
    service = start()

    cost = service.get("/flood/errors?times=10000", method="POST", timeout=60).json
    counted = suppressed(service)
    for kind in ("arithmetic", "json", "json[1"):
        service.get(f"/flood/errors?times=5&kind={kind}", method="POST")
    service.get("/flood/elsewhere", method="POST")
    service.stop()

    # With its traceback; others differ in type, in where it was raised, or in who called that.
    told = [event["exception"][0]["exc_type"] for event in service.events("failed")]
    assert told == ["LookupError", "ArithmeticError", *["JSONDecodeError"] * 3]
    assert counted == 9_999
    sums = [event["suppressed"] for event in service.events("events_suppressed", of="failed")]
    assert sums == [9_999, 4, 4, 4]
    assert len(service.events("request")) == 5
    # Rendering a traceback takes some 500; suppressing must not.
    assert cost < 150


@pytest.mark.promise("M5")
def test_bugs_in_requests(start: Start) -> None:
    """
    A handler that fails every time: each request has its line, its id, the exception and its place.
    One has the traceback, and the number of the others leads there.
    """
    service = start(flood_seconds=600)

    ids = {service.get("/flood/raise", method="POST").headers["x-request-id"] for _ in range(248)}
    service.stop()

    lines = service.events("request", status=500)
    (failed,) = service.events("request_failed")
    (told,) = service.events("events_suppressed", of="request_failed", suppressed=247)
    assert {event["request_id"] for event in lines} == ids
    assert len(ids) == 248
    place = f"{failed['exception'][0]['frames'][-1]['lineno']}"
    assert {event["error"] for event in lines} == {f"LookupError at flood.py:{place}"}
    assert failed["error"] == told["error"] == lines[0]["error"]
    assert failed["request_id"] == told["request_id"]
    assert failed["exception"][0]["frames"]


@pytest.mark.promise("M5")
def test_told_again_after_a_while(start: Start) -> None:
    """
    When the time has passed, the number is told, whether it goes on or not; then the next in full.
    """
    service = start(flood_seconds=0.5)

    def is_told_thrice() -> bool:
        service.get("/flood/errors?times=20", method="POST")
        return len(service.events("failed")) > 2

    def told() -> list[int]:
        return [line["suppressed"] for line in service.events("events_suppressed", of="failed")]

    wait_until(is_told_thrice)
    wait_until(lambda: sum(told()) == suppressed(service))

    assert len(told()) == len(service.events("failed")) >= 3
    assert {line["level"] for line in service.events("events_suppressed")} == {"error"}


def test_third_party_errors(start: Start) -> None:
    """
    Of a third party the place of the exception counts, not the text, which names what failed.
    """
    service = start()

    service.get("/flood/third-party-errors?times=100", method="POST")
    service.stop()

    told = [line["event"] for line in service.lines() if line.get("logger") == "third.party"]
    assert told == ["order 0 failed"]
    assert service.events("events_suppressed", of="order 0 failed", suppressed=99)


def test_warnings_without_an_exception(start: Start) -> None:
    """
    Ten are told of those that are the same in every field; what differs in one is all told.
    """
    service = start()

    service.get("/flood/records?times=100", method="POST")
    service.get("/flood/records?times=1&kinds=2000", method="POST")
    service.stop()

    lines = [line["event"] for line in service.lines() if line.get("logger") == "third.party"]
    assert lines.count("gone 0") == 10
    assert len(lines) == 10 + 1999
    assert service.events("events_suppressed", of="gone 0", level="warning", suppressed=91)


def test_keys_are_bounded(start: Start) -> None:
    """
    Of many that differ a thousand are remembered; then they are told and forgotten.
    """
    service = start(flood_seconds=600)

    service.get("/flood/records?times=11&kinds=1500", method="POST", timeout=30)

    assert suppressed(service) == 1500
    wait_until(lambda: 900 < len(service.events("events_suppressed", suppressed=1)) <= 1000)


@pytest.mark.promise("L9")
def test_stacks_are_never_suppressed(start: Start) -> None:
    """
    Who asks for the stacks again and again gets them each time.
    """
    service = start()

    for number in range(15):
        service.send_signal(signal.SIGUSR1)
        wait_until(lambda: len(service.events("stacks")) > number)  # noqa: B023  # called at once

    assert len(service.events("stacks")) == 15


def test_console_shows_all(start: Start) -> None:
    """
    A person who tries again wants to see the traceback again.
    """
    service = start(log_format="console")

    service.get("/flood/errors?times=3", method="POST")
    service.stop()

    assert service.stdout.read_text().count("LookupError: lookup") == 3


@pytest.mark.promise("M1")
def test_what_can_not_be_shown(start: Start) -> None:
    """
    A value whose repr raises, however deep it sits, costs neither the line nor the request.
    """
    service = start()

    answer = service.get("/flood/unspeakable", method="POST")
    service.stop()

    assert answer.status == 200
    assert len(service.events("unspeakable")) == 2
