"""
Messages that fail, take too long, are not as declared, or die, and how each is told.
"""

import json
import signal
from typing import Any

import pytest
from harness import wait_until
from queues import Queue, metrics
from receivers import receiver

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


@pytest.mark.promise("M9")
@pytest.mark.parametrize("what", ["group", "nested", "causes", "notes", "message"])
def test_poison_without_measure(queue: Queue, what: str) -> None:
    """
    A message that fails beyond measure is dead with the ends of its traceback, and each line about
    it has a limit and names the exception.
    """
    poison = queue.put(broken=what)
    worker = queue.worker(message_attempts=2)

    queue.wait_until_empty()
    assert worker.stop() == 0

    (row,) = queue.rows()
    lines = worker.events("message", message_id=poison)
    assert max(map(len, worker.stdout.read_bytes().splitlines())) < 65_536
    assert "Traceback" in row["error"]
    assert 'worker.py", line ' in row["error"]
    assert len(row["error"]) <= 10_000
    assert len(lines) == 2
    assert all(" at worker.py:" in line["error"] for line in lines)


@pytest.mark.promise("J5")
def test_poison(queue: Queue) -> None:
    """
    What fails again and again is dead with its traceback after so many attempts; the queue goes
    on; a secret in the exception is masked. The tracker hears of its first failure and its end.
    """
    with receiver() as tracker:
        poison = queue.put(fail=99)
        healthy = [queue.put(effect=str(one), fail=1) for one in range(3)]
        worker = queue.worker(sentry_dsn=tracker.dsn, token="canary-4711")  # noqa: S106  # a canary

        queue.wait_until_empty()
        assert worker.stop() == 0

    (row,) = queue.rows()
    assert (row["id"], row["attempts"], row["failures"]) == (poison, 3, 3)
    assert "Traceback" in row["error"]
    assert "ValueError" in row["error"]
    assert "canary-4711" not in row["error"]
    assert queue.effects() == ["0", "1", "2"]
    outcomes = [line["outcome"] for line in worker.events("message", message_id=poison)]
    assert outcomes == ["retried", "retried", "dead"]
    assert [line["attempt"] for line in worker.events("message", message_id=healthy[0])] == [1, 2]
    told = [event["tags"]["message_id"] for event in tracker.events]
    assert sorted(told) == sorted([poison, poison, *healthy])


@pytest.mark.promise("J5")
def test_message_that_kills_its_worker(queue: Queue) -> None:
    """
    A message that kills the process that handles it is dead after so many attempts, and those that
    are handled at the same time are not.
    """
    poison = queue.put(die=99, sleep=0)
    neighbours = [queue.put(sleep=0.3, effect=str(one)) for one in range(6)]

    kills = 0
    while True:
        assert kills < 8
        worker = queue.worker(message_attempts=4, ready=False)
        wait_until(
            lambda worker=worker: (
                worker.process.poll() is not None or queue.rows("dead_at IS NOT NULL")
            ),
            seconds=15,
        )
        kills += worker.process.poll() == -signal.SIGKILL
        if queue.rows("dead_at IS NOT NULL"):
            break
    queue.wait_until_empty()

    assert kills == 4
    assert [row["id"] for row in queue.rows()] == [poison]
    assert "4 workers ended" in queue.rows()[0]["error"]
    assert queue.effects() == sorted(str(one) for one in range(len(neighbours)))
    assert worker.events("message", message_id=poison, outcome="dead", reason="killed")


@pytest.mark.promise("M10")
def test_message_names_what_it_waited_for(queue: Queue) -> None:
    """
    The line of a message says which dependency did not answer, also after a deadline; what waits
    for nothing, and a message after it, name none.
    """
    limits = {"database_statement_seconds": 2, "message_stall_seconds": 9}
    numbers = [queue.put(unavailable=9), queue.put(hold=1.5), queue.put(sleep=9), queue.put()]
    worker = queue.worker(message_deadline_seconds=0.5, **limits)

    lines = [worker.wait_for("message", message_id=number) for number in numbers]

    assert [line.get("reason") for line in lines] == ["unavailable", "deadline", "deadline", None]
    assert [line.get("dependency") for line in lines] == ["peer", "database", None, None]


def test_unavailable_is_no_failure(queue: Queue) -> None:
    """
    What fails because something does not answer is tried again, more often than a bug would be,
    and no tracker hears of it.
    """
    with receiver() as tracker:
        number = queue.put(unavailable=5, effect="done")
        worker = queue.worker(sentry_dsn=tracker.dsn)
        queue.wait_until_empty()
        assert worker.stop() == 0

    assert queue.effects() == ["done"]
    reasons = [line.get("reason") for line in worker.events("message", message_id=number)]
    assert reasons == ["unavailable"] * 5 + [None]
    assert tracker.events == []


def test_deadline(queue: Queue) -> None:
    """
    A handler that takes too long has failed, even if it swallows its cancellation; it is counted,
    and as many as may run end the process.
    """
    number = queue.put(swallow=60)
    settings = {"message_deadline_seconds": 1, "message_concurrency": 2, "message_attempts": 2}
    worker = queue.worker(**settings)

    wait_until(lambda: queue.rows("dead_at IS NOT NULL"))

    assert worker.wait(seconds=5) == 70
    lines = worker.events("message", message_id=number, reason="deadline")
    assert [line["outcome"] for line in lines] == ["retried", "dead"]
    assert 0.9 < worker.events("began")[0]["left"] <= 1
    (crash,) = worker.events("crash")
    assert "go on after their deadline" in json.dumps(crash)


def test_unknown_message(queue: Queue) -> None:
    """
    A message that only a newer release knows waits for that, and is told and counted.
    """
    number = queue.put("of-tomorrow")
    done = queue.put(effect="known")
    worker = queue.worker()

    wait_until(lambda: not queue.rows(f"id = {done}"))
    worker.wait_for("messages_unknown", names=["of-tomorrow"])

    (row,) = queue.rows()
    assert (row["id"], row["attempts"], row["dead_at"]) == (number, 0, None)
    wait_until(lambda: 'app_messages_waiting{name="unknown"} 1.0' in metrics(worker))


@pytest.mark.promise("M2")
def test_context_goes_along(queue: Queue) -> None:
    """
    A message is handled in the name of the request that enqueued it.
    """
    trace = "00-" + "ab" * 16 + "-" + "cd" * 8 + "-01"
    sql = "INSERT INTO messages (name, payload, context) VALUES ('fault', '{}', $1::text::jsonb)"
    queue.postgresql.execute(sql, json.dumps({"request_id": "request-id-1", "traceparent": trace}))
    worker = queue.worker()

    line = worker.wait_for("message")

    assert (line["request_id"], line["trace_id"]) == ("request-id-1", "ab" * 16)
    (began_line,) = worker.events("began")
    assert (began_line["request_id"], began_line["trace"]) == ("request-id-1", trace)
    wait_until(
        lambda: 'app_messages_handled_total{name="fault",outcome="done"} 1.0' in metrics(worker)
    )


@pytest.mark.promise("P4")
def test_dead_are_listed_retried_and_dropped(queue: Queue) -> None:
    """
    The dead are listed; they are tried again or dropped by id, or if their number was said.
    """
    dead = [queue.put(fail=1, effect=str(one)) for one in range(4)]
    worker = queue.worker(message_attempts=1)
    wait_until(lambda: len(queue.rows("dead_at IS NOT NULL")) == 4)

    code, listed = queue.run("dead", "list")
    assert code == 0
    assert all(f"{number}  fault" in listed for number in dead)
    assert "4 dead" in listed
    assert "Traceback" in queue.run("dead", "list", str(dead[0]))[1]
    code, told = queue.run("dead", "drop", str(dead[0]), "--count", "5")
    assert (code, len(queue.rows())) == (64, 4)
    assert "not 5" in told

    assert queue.run("dead", "retry", str(dead[0]))[0] == 0
    wait_until(lambda: queue.effects() == ["0"])
    code, told = queue.run("dead", "drop", "--all")
    assert (code, len(queue.rows())) == (0, 3)
    assert "--count 3" in told
    assert queue.run("dead", "drop", "--all", "--count", "4")[0] == 64
    assert len(queue.rows()) == 3
    assert queue.run("dead", "drop", "--name", "fault", "--count", "3")[0] == 0
    assert queue.rows() == []
    assert worker.stop() == 0

    queue.postgresql.kill()
    code, told = queue.run("dead", "list")
    assert code == 69
    assert len(told.splitlines()) == 1


def test_wrong_payload(queue: Queue) -> None:
    """
    A message that is not as its handler declares it is dead with what is wrong, and no advice.
    """
    wrong, broken = queue.put(sleep="long", other=1), queue.put()
    queue.postgresql.execute("UPDATE messages SET payload = '5' WHERE id = $1", broken)
    queue.worker(message_attempts=1)
    wait_until(lambda: len(queue.rows("dead_at IS NOT NULL")) == 2)

    code, listed = queue.run("dead", "list")
    whole = queue.run("dead", "list", str(wrong))[1]

    assert code == 0
    # By id: they may die in either order.
    first, second = sorted(listed.splitlines()[:2])
    told = (
        "not a Fault: sleep: Input should be a valid number, other: Extra inputs are not permitted"
    )
    assert first.endswith(told)
    assert "not a Fault: Input should be an object" in second
    assert "pydantic.dev" not in listed + whole


def test_dead_are_forgotten(queue: Queue) -> None:
    """
    After a season, nobody will come back to a dead message.
    """
    old, young = queue.put("gone"), queue.put("gone")
    sql = "UPDATE messages SET dead_at = now() - make_interval(days => $2) WHERE id = $1"
    queue.postgresql.execute(sql, old, 91)
    queue.postgresql.execute(sql, young, 89)
    queue.worker()

    wait_until(lambda: len(queue.rows()) == 1)

    assert queue.rows()[0]["id"] == young
