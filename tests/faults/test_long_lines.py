"""
A line of the log has a limit, whatever is in it, and says how much was left out.
"""

import json
import signal
from collections.abc import Callable
from typing import Any

import pytest

pytestmark = pytest.mark.covers(
    "template/src/{{ package_name }}/chassis/excerpt.py",
    "template/src/{{ package_name }}/chassis/logs.py",
    "template/src/{{ package_name }}/chassis/opentelemetry.py",
    "template/src/{{ package_name }}/chassis/process.py",
    "template/src/{{ package_name }}/chassis/sentry.py",
    "template/src/{{ package_name }}/chassis/sink.py",
)

LINE_BYTES = 65_536
Start = Callable[..., Any]


def longest(service: Any) -> int:
    """
    The bytes of the longest line that was written, its end included.
    """
    return max(map(len, service.stdout.read_bytes().splitlines(keepends=True)))


@pytest.mark.promise("M9")
@pytest.mark.parametrize(
    ("what", "left_out", "first", "last"),
    [
        ("group", {"exceptions": 19_991}, "many (20000 sub-exceptions)", "19999"),
        ("nested", {"exceptions": 591}, "level 599 (1 sub-exception)", "the innermost"),
        ("causes", {"exceptions": 991}, "cause 999", "the first cause"),
        ("notes", {"notes": 995}, "noted", "noted"),
        ("message", {"characters": 9_992_000}, "mmm", "mmm"),
        ("unicode", {}, "", ""),
        ("recursion", {"frames": 900}, "maximum recursion", "maximum recursion"),
        ("type", {"characters": 99_800}, "of a long name", "of a long name"),
    ],
)
def test_exception_without_measure(
    start: Start, what: str, left_out: dict[str, int], first: str, last: str
) -> None:
    """
    Of an exception of any size there is one line with its ends and the number of what was left
    out, in the name of its request. It costs no other request much time.
    """
    service = start()

    answer = service.get(f"/long/raise/{what}", method="POST")
    service.stop()

    (failed,) = service.events("request_failed")
    (line,) = service.events("request", path=f"/long/raise/{what}")
    assert longest(service) <= LINE_BYTES
    assert failed["request_id"] == line["request_id"] == answer.json["instance"]
    assert not service.events("stray_error", kind="loop")
    assert isinstance(failed["exception"], list)
    assert failed["exception"][0]["exc_value"].startswith(first)
    assert failed["exception"][-1]["exc_value"].startswith(last)
    assert failed["exception"][0]["frames"][-1]["name"] in {"raise_it", "_recursive"}
    assert all(failed["left_out"][name] >= number for name, number in left_out.items())
    # Making such an exception takes some time, too; the rest took seconds.
    assert line["duration_ms"] < 1_000


@pytest.mark.promise("M9")
@pytest.mark.parametrize(
    ("what", "left_out"),
    [
        ("text", "characters"),
        ("bytes", "characters"),
        ("many", "fields"),
        ("list", "items"),
        ("dict", "items"),
        ("name", "characters"),
        ("controls", "characters"),
        ("unicode", "characters"),
    ],
)
def test_fields_without_measure(start: Start, what: str, left_out: str) -> None:
    """
    Of fields of any size or number as much is logged as fits, with the id of the request.
    """
    service = start()

    answer = service.get(f"/long/fields/{what}", method="POST")
    service.stop()

    (line,) = service.events("long")
    assert answer.status == 200
    assert longest(service) <= LINE_BYTES
    assert line["request_id"] == answer.headers["x-request-id"]
    assert line["left_out"][left_out] > 0


@pytest.mark.promise("M9")
def test_texts_without_measure(start: Start) -> None:
    """
    A message of a third party, a printed line and what is bound to the context are shortened, too.
    """
    service = start()

    for path in ("event", "print", "context"):
        assert service.get(f"/long/{path}", method="POST").status == 200
    service.stop()

    lines = [line for line in service.lines() if "left_out" in line]
    assert longest(service) <= LINE_BYTES
    assert [line["left_out"]["characters"] > 9_000_000 for line in lines] == [True] * 3


@pytest.mark.promise("M9")
@pytest.mark.promise("L9")
def test_stacks_of_many_tasks(start: Start) -> None:
    """
    The answer to SIGUSR1 fits a line, however many tasks and threads there are.
    """
    service = start()
    service.get("/long/tasks", method="POST")

    service.send_signal(signal.SIGUSR1)
    stacks = service.wait_for("stacks")

    assert longest(service) <= LINE_BYTES
    assert stacks["task_count"] > 2_000
    assert stacks["thread_count"] >= len(stacks["threads"])
    assert next(iter(stacks["threads"])).startswith("MainThread")
    assert len(stacks["tasks"]) == 40


@pytest.mark.promise("C2")
def test_no_part_of_a_secret(start: Start) -> None:
    """
    Where a text is shortened, no part of a secret remains at its end.
    """
    token = "plain-canary-4711"  # noqa: S105  # the bait
    service = start(token=token)

    service.get(f"/long/secret?text={token}", method="POST")
    service.stop()

    said = service.stdout.read_text()
    assert service.events("long")[0]["left_out"]
    assert not any(token[:size] in said for size in range(3, len(token)))
    assert json.dumps("canary")[1:-1] not in said


@pytest.mark.promise("M1")
def test_field_that_json_can_not_have(start: Start) -> None:
    """
    A value that JSON can't have becomes text, and no other field with it.
    """
    service = start()

    service.get("/flood/unspeakable", method="POST")
    service.stop()

    (line,) = [line for line in service.events("unspeakable") if "exception" in line]
    assert line["number"] == str(2**80)
    assert line["exception"][0]["exc_type"] == "ValueError"
