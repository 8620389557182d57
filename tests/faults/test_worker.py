"""
A worker that is killed, wedged or stopped, and one whose log nobody reads.
"""

import os
import random
import signal
import time
from typing import Any

import pytest
from harness import slack, wait_until
from queues import Queue, began
from readers import stalled

pytestmark = pytest.mark.covers(
    "template/*/worker.py",
    "template/src/{{ package_name }}/chassis/arguments.py",
    "template/src/{{ package_name }}/chassis/backlog.py",
    "template/src/{{ package_name }}/chassis/database.py",
    "template/src/{{ package_name }}/chassis/dead.py",
    "template/src/{{ package_name }}/chassis/queue.py",
    "template/src/{{ package_name }}/chassis/worker.py",
)


@pytest.fixture(name="answers", scope="module")
def _answers() -> dict[str, Any]:
    return {"processes": ["worker"], "database": "postgresql", "telemetry": ["sentry"]}


@pytest.mark.alone
@pytest.mark.promise("J4")
def test_killed_worker(queue: Queue) -> None:
    """
    What a worker that is killed had in hand is handled by another within twice the stall limit,
    and all of it at once.
    """
    numbers = [queue.put(sleep=8 if one else 0.5, effect=str(one)) for one in (1, 2, 0)]
    first = queue.worker()
    wait_until(lambda: all(began([first], number) for number in numbers))
    second = queue.worker()

    wait_until(lambda: not queue.rows(f"id = {numbers[-1]}"))
    first.process.kill()
    killed = time.monotonic()
    wait_until(lambda: all(began([second], number) for number in numbers[:2]), seconds=6)

    assert time.monotonic() - killed < slack(6)
    assert queue.effects() == ["0"]


@pytest.mark.promise("J4")
def test_live_message_is_not_handled_twice(queue: Queue) -> None:
    """
    A handler that takes longer than the stall limit keeps its message, and so does its neighbour,
    also while the event loop is blocked.
    """
    number, neighbour = queue.put(block=6), queue.put(sleep=7)
    first = queue.worker(ready=False)
    wait_until(lambda: began([first], number) and began([first], neighbour))
    second = queue.worker()

    queue.wait_until_empty(seconds=20)

    assert began([first, second], number) == 1
    assert began([first, second], neighbour) == 1


@pytest.mark.promise("J4")
def test_wedged_worker(queue: Queue) -> None:
    """
    A worker whose event loop does not come back dies, and its message is handled by another.
    """
    number = queue.put(block=60)
    settings = {"watchdog_seconds": slack(2), "message_deadline_seconds": 1.5}
    first = queue.worker(**settings, request_deadline_seconds=1, ready=False)
    wait_until(lambda: began([first], number))
    second = queue.worker(message_deadline_seconds=1)

    assert first.wait(seconds=20) == 70
    wait_until(lambda: began([second], number), seconds=8)


@pytest.mark.promise("M8")
def test_reader_that_stalls(queue: Queue) -> None:
    """
    A worker whose log nobody reads handles messages, and stops in time.
    """
    worker = queue.worker(prefix=stalled(full=True))
    for number in range(20):
        queue.put(effect=str(number))

    queue.wait_until_empty()
    assert worker.get("/livez", admin=True).status == 200
    assert worker.stop() == 0

    assert len(queue.effects()) == 20


@pytest.mark.promise("L5")
def test_crash_only(queue: Queue) -> None:
    """
    Workers are killed at random moments under load: what was enqueued has its effect, and once.
    """
    kills = 50 if os.environ.get("FIVEWEEKS_NIGHTLY") else 12
    settings = {"message_attempts": 100, "message_concurrency": 4}
    workers = [queue.worker(**settings) for _ in range(2)]
    put = 0
    for kill in range(kills):
        for _ in range(20):
            seconds = random.uniform(0, 0.2)  # noqa: S311
            queue.put(sleep=seconds, effect=f"{put:06}", is_once=True)
            put += 1
        moment = time.monotonic() + random.uniform(0, 0.3)  # noqa: S311
        wait_until(lambda moment=moment: time.monotonic() > moment)
        workers[kill % 2].process.kill()
        workers[kill % 2] = queue.worker(**settings)
    queue.wait_until_empty(seconds=60)

    assert queue.effects() == [f"{number:06}" for number in range(put)]
    assert all(worker.stop() == 0 for worker in workers)


def test_once(queue: Queue) -> None:
    """
    Who has lost its message to another worker can't have its effect.
    """
    number = queue.put(sleep=2, effect="done", is_once=True)
    worker = queue.worker()
    wait_until(lambda: began([worker], number))

    queue.postgresql.execute("UPDATE messages SET lease = gen_random_uuid()")
    wait_until(lambda: worker.events("message", message_id=number))

    assert queue.effects() == []
    assert len(queue.rows("lease IS NOT NULL")) == 1


@pytest.mark.promise("J6")
def test_drain(queue: Queue) -> None:
    """
    After SIGTERM nothing is begun; what runs ends, or is put back at once; the process ends with 0.
    """
    short, long = queue.put(sleep=1, effect="short"), queue.put(sleep=60)
    worker = queue.worker(grace_seconds=3, request_deadline_seconds=3)
    wait_until(lambda: began([worker], long) and began([worker], short))

    worker.send_signal(signal.SIGTERM)
    worker.wait_for("stopping")
    late = queue.put()
    assert worker.wait(seconds=6) == 0

    assert queue.effects() == ["short"]
    assert not began([worker], late)
    put_back, waiting = queue.rows()
    assert (put_back["id"], waiting["id"]) == (long, late)
    assert (put_back["lease"], put_back["failures"]) == (None, 0)
    assert worker.events("message", message_id=long, outcome="requeued", reason="grace")


@pytest.mark.promise("J6")
def test_what_outlasts_the_grace_is_put_back(queue: Queue) -> None:
    """
    A handler that swallows its cancellation, too, holds neither the process nor its message.
    """
    number = queue.put(swallow=60)
    worker = queue.worker(grace_seconds=1.5, request_deadline_seconds=1)
    wait_until(lambda: began([worker], number))

    worker.send_signal(signal.SIGTERM)
    assert worker.wait(seconds=6) == 0

    (row,) = queue.rows()
    assert (row["lease"], row["failures"]) == (None, 0)
    assert not worker.events("crash")
