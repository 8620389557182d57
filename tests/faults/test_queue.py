"""
The queue: what is enqueued, keys, delays, ages, and a database that is away.
"""

import re
import time
from collections.abc import Callable
from typing import Any

import pytest
from faulty_postgresql import PostgreSQL, Tables
from harness import slack, wait_until
from queues import QUICK, Queue, began, metrics, oldest
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

Start = Callable[..., Any]


@pytest.fixture(name="answers", scope="module")
def _answers() -> dict[str, Any]:
    return {"processes": ["worker"], "database": "postgresql", "telemetry": ["sentry"]}


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
