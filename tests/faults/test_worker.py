"""
A worker under faults: killed, frozen, stopped, fed with poison.
"""

import json
import os
import random
import re
import signal
import time
from collections.abc import Callable
from typing import Any

import pytest
from faulty_postgresql import PostgreSQL, Tables
from harness import slack, wait_until
from readers import stalled
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

# Quick, and consistent with one another.
QUICK: dict[str, object] = {
    "message_stall_seconds": 3,
    "heartbeat_seconds": 0.5,
    "pool_checkout_seconds": 0.3,
    "database_connect_seconds": 0.5,
    "database_statement_seconds": 0.6,
    "database_lock_seconds": 0.3,
    "database_client_check_seconds": 0.3,
    "message_poll_seconds": 0.2,
    "message_backoff_seconds": 0.1,
    "message_deadline_seconds": 10,
    "message_attempts": 3,
}
Start = Callable[..., Any]


class Queue:
    """
    The queue of a test, and its workers.
    """

    def __init__(self, postgresql: PostgreSQL, start: Start) -> None:
        self.postgresql = postgresql
        self._start = start
        postgresql.execute("CREATE TABLE effects (effect text)")
        postgresql.execute("GRANT ALL ON effects TO service")

    def worker(self, **settings: object) -> Any:
        url = self.postgresql.url
        return self._start("worker", **{"database_url": url, **QUICK, **settings})

    def command(self, *arguments: str) -> Any:
        return self._start(*arguments, ready=False, database_url=self.postgresql.url)

    def run(self, *arguments: str) -> tuple[int, str]:
        """
        The exit code of a command, and what it printed.
        """
        ended = self.command(*arguments)
        return ended.wait(), ended.stdout.read_text() + ended.stderr.read_text()

    def put(self, name: str = "fault", **fault: object) -> int:
        """
        Enqueue a message; its id.
        """
        sql = "INSERT INTO messages (name, payload) VALUES ($1, $2::text::jsonb) RETURNING id"
        (row,) = self.postgresql.fetch(sql, name, json.dumps(fault))
        return int(row["id"])

    def rows(self, condition: str = "true") -> list[Any]:
        return self.postgresql.fetch(f"SELECT * FROM messages WHERE {condition} ORDER BY id")  # noqa: S608  # of tests

    def effects(self) -> list[str]:
        found = self.postgresql.fetch("SELECT effect FROM effects ORDER BY effect")
        return [row["effect"] for row in found]

    def wait_until_empty(self, *, seconds: float = 10) -> None:
        wait_until(lambda: not self.rows("dead_at IS NULL"), seconds=seconds)


def began(services: list[Any], number: int) -> int:
    return sum(len(service.events("began", number=number)) for service in services)


@pytest.fixture(name="answers", scope="module")
def _answers() -> dict[str, Any]:
    return {"processes": ["worker"], "database": "postgresql", "telemetry": ["sentry"]}


@pytest.fixture(name="queue")
def _queue(migrated_postgresql: PostgreSQL, start: Start) -> Queue:
    return Queue(migrated_postgresql, start)


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


@pytest.mark.promise("J7")
def test_outbox(queue: Queue) -> None:
    """
    A message is there if its transaction was committed, also if the process was killed right
    after, and else it is not.
    """
    queue.put(enqueue="rollback")
    worker = queue.worker()
    queue.wait_until_empty()
    assert queue.effects() == []

    queue.put(enqueue="kill before")
    worker.wait(seconds=10)
    assert queue.effects() == []
    queue.postgresql.execute("DELETE FROM messages")

    worker = queue.worker()
    queue.put(enqueue="kill after")
    worker.wait(seconds=10)
    assert len(queue.rows("lease IS NULL")) == 1
    queue.postgresql.execute("DELETE FROM messages WHERE lease IS NOT NULL")
    queue.worker()
    queue.wait_until_empty()
    assert queue.effects() == ["kill after", "with kill after"]


@pytest.mark.promise("J7", "C10")
def test_wrong_arguments(queue: Queue) -> None:
    """
    A message that can't be right is refused by name before anything reaches the database, so the
    transaction goes on; and no message ends on a connection without a transaction.
    """
    queue.put(enqueue="wrong")
    worker = queue.worker()
    queue.wait_until_empty()

    texts = [line["text"] for line in worker.events("refused")]
    named = ["Message.once: connection", *["enqueue: name"] * 2, *["enqueue: payload"] * 2]
    named += [*["enqueue: key"] * 2, *["enqueue: delay_seconds"] * 5]
    assert [" ".join(text.split()[:2]) for text in texts] == named
    assert queue.effects() == ["in the same transaction"]
    assert worker.events("message_failed") == []


def test_key_is_unique_while_it_waits(queue: Queue) -> None:
    """
    A message with a key takes the place of one that waits, and none of one that has begun.
    """
    numbers = [queue.put(enqueue=f"{one}") for one in range(3)]
    queue.postgresql.execute("UPDATE messages SET ready_at = now() + interval '1 hour'")
    queue.postgresql.execute("UPDATE messages SET ready_at = now() WHERE id = $1", numbers[0])
    held = """
        INSERT INTO messages (name, payload, key, ready_at)
        VALUES ('fault', '{"effect": "first"}', 'one of a kind', now() + interval '1 hour')
    """
    queue.postgresql.execute(held)
    queue.worker()

    wait_until(lambda: "0" in queue.effects())

    assert queue.effects() == ["0", "with 0"]


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


def oldest(worker: Any, state: str, name: str = "fault") -> float:
    """
    The age in seconds of the oldest message in this state, as the worker's metrics have it, or -1.
    """
    line = rf'^app_messages_oldest_seconds{{name="{name}",state="{state}"}} (\S+)$'
    found = re.findall(line, metrics(worker), re.MULTILINE)
    return float(found[0]) if found else -1.0


@pytest.mark.promise("J8")
def test_age_counts_from_the_enqueue(queue: Queue) -> None:
    """
    A message that is tried again and again is as old as since it was enqueued.
    """
    queue.put(unavailable=99)
    worker = queue.worker()
    wait_until(lambda: queue.rows("attempts > 1"))

    queue.postgresql.execute("UPDATE messages SET enqueued_at = now() - interval '1 hour'")
    wait_until(lambda: oldest(worker, "retried") > 60)

    assert 3600 <= oldest(worker, "retried") < 3700
    assert oldest(worker, "ready") == 0


@pytest.mark.promise("J8")
def test_message_that_has_begun_is_not_old(queue: Queue) -> None:
    """
    A message in its first try does not wait: however long that takes, it has no age.
    """
    number = queue.put(sleep=60)
    worker = queue.worker()
    wait_until(lambda: began([worker], number))

    # The other name, which the worker handles too, shows that it has looked since.
    queue.postgresql.execute(
        "UPDATE messages SET name = 'other', enqueued_at = now() - interval '1 hour'"
    )
    wait_until(lambda: 'app_messages_waiting{name="other"} 1.0' in metrics(worker))

    assert oldest(worker, "retried", "other") == -1
    assert oldest(worker, "ready", "other") == 0


@pytest.mark.promise("J8")
def test_delay_is_not_age(queue: Queue) -> None:
    """
    A message with a delay has no age before it is due, and has the whole week for what it needs.
    """
    week = 7 * 86_400
    queue.put(enqueue="later", delay=week + 60)
    worker = queue.worker()
    wait_until(lambda: queue.effects() == ["with later"])
    wait_until(lambda: oldest(worker, "ready") == 0)

    # The week passes, and what the message needs is away.
    queue.postgresql.execute(
        "UPDATE messages SET payload = '{\"unavailable\": 99}',"
        " enqueued_at = enqueued_at - make_interval(secs => $1),"
        " ready_at = ready_at - make_interval(secs => $1)",
        float(week + 60),
    )

    assert worker.wait_for("message", reason="unavailable")["outcome"] == "retried"


@pytest.mark.promise("J8")
def test_dead_message_that_is_retried_is_new(queue: Queue) -> None:
    """
    What a person has tried again has the whole week for what it needs.
    """
    number = queue.put(unavailable=99)
    sql = "UPDATE messages SET enqueued_at = now() - interval '8 days', dead_at = now()"
    queue.postgresql.execute(sql)
    worker = queue.worker()

    assert queue.run("dead", "retry", str(number))[0] == 0

    assert worker.wait_for("message", message_id=number)["outcome"] == "retried"


@pytest.mark.promise("J8")
def test_read_only_database_makes_messages_old(queue: Queue) -> None:
    """
    After a failover to what is read-only, the queue is there and no message is begun: they age.
    """
    queue.postgresql.execute("ALTER ROLE service SET default_transaction_read_only = on")
    queue.put()
    worker = queue.worker()

    wait_until(lambda: oldest(worker, "ready") > 1)

    assert 'app_check_up{check="queue"} 1.0' in metrics(worker)
    assert 'app_database_failures_total{reason="ReadOnlySQLTransactionError"}' in metrics(worker)


@pytest.mark.promise("J8")
def test_empty_queue_has_numbers(queue: Queue) -> None:
    """
    An empty queue is told from one that can't be read: that one has no numbers, for WorkerDown.
    """
    worker = queue.worker()
    wait_until(lambda: 'app_messages_waiting{name="fault"} 0.0' in metrics(worker))

    queue.postgresql.execute("ALTER TABLE messages RENAME COLUMN enqueued_at TO gone")
    wait_until(lambda: "app_messages_waiting{" not in metrics(worker))

    assert 'app_check_up{check="queue"} 1.0' in metrics(worker)


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


def metrics(worker: Any) -> str:
    return str(worker.get("/metrics", admin=True).body.decode())


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


@pytest.mark.promise("L1")
@pytest.mark.parametrize("outage", ["absent", "freeze", "kill", "restart"])
def test_database_outage(queue: Queue, outage: str) -> None:
    """
    While the database is away the worker lives and warns now and then; then it goes on by itself
    within five seconds.
    """
    server = queue.postgresql
    with receiver() as tracker:
        if outage == "absent":
            server.kill()
        worker = queue.worker(sentry_dsn=tracker.dsn, ready=outage != "absent")
        running = None if outage == "absent" else queue.put(sleep=1.5, effect="running")
        if running:
            wait_until(lambda: began([worker], running))
        away = time.monotonic()
        if outage != "absent":
            getattr(server, outage)()
        wait_until(lambda: outage == "restart" or time.monotonic() > away + 4)
        wait_until(lambda: worker.get("/livez", admin=True).status == 200)
        server.thaw()
        server.start()
        back = time.monotonic()
        queue.put(effect="after")

        wait_until(lambda: "after" in queue.effects(), seconds=5)
        seconds = time.monotonic() - back
        wait_until(lambda: not queue.rows(), seconds=10)
        assert worker.stop() == 0

    assert seconds < slack(5)
    assert queue.effects() == ["after", *(["running"] if running else [])]
    told = [line for line in worker.lines() if line["level"] not in {"info", "debug"}]
    told = [line for line in told if line["event"] != "events_suppressed"]
    assert len(told) <= 3 * (back - away) + 10, [line["event"] for line in told]
    assert not any("exception" in line for line in told)
    assert tracker.events == []


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


def test_backlog_is_counted_up_to_a_number(queue: Queue) -> None:
    """
    A queue of very many is looked at as fast as a short one: 10,000 that are ready are counted,
    and as many that are not yet, and that are dead; the age of the oldest is right.
    """
    sql = """
        INSERT INTO messages (name, payload, ready_at, dead_at)
        SELECT 'of-tomorrow', '{}', now() + make_interval(secs => due), dead_at
        FROM generate_series(1, 10500),
            (VALUES (-100, NULL), (9999, NULL), (-100, now())) AS kinds (due, dead_at)
    """
    queue.postgresql.execute(sql)
    worker = queue.worker()

    wait_until(lambda: 'app_messages_waiting{name="unknown"}' in metrics(worker))

    shown = metrics(worker)
    assert 'app_messages_waiting{name="unknown"} 20000.0' in shown
    assert 'app_messages_dead{name="unknown"} 10000.0' in shown
    (oldest,) = re.findall(
        r'^app_messages_oldest_seconds{name="unknown",state="ready"} (\S+)$', shown, re.MULTILINE
    )
    assert 100 <= float(oldest) < 200


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


def test_queue_without_schema(postgresql: PostgreSQL, tables: Tables, start: Start) -> None:
    """
    Without migrations the worker lives, is not ready, and comes up by itself.
    """
    settings = {"database_url": postgresql.url, **QUICK}
    worker = start("worker", ready=False, **settings)
    told = worker.wait_for("queue_unavailable")
    where = {"host": "127.0.0.1", "port": postgresql.port, "database": "app"}
    assert where.items() <= told.items()
    assert worker.get("/livez", admin=True).status == 200
    assert worker.get("/readyz", admin=True).status == 503

    tables(postgresql.url)
    queue = Queue(postgresql, start)
    queue.put(effect="now")

    wait_until(lambda: queue.effects() == ["now"], seconds=5)
    wait_until(worker.is_ready, seconds=5)
