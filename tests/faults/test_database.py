"""
A database that fails in every way, and the service that needs it.
"""

import contextlib
import http.client
import os
import random
import re
import signal
import statistics
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import certifi
import pytest
from faulty_postgresql import PostgreSQL, Tables
from harness import slack, wait_until
from receivers import receiver

Start = Callable[..., Any]
Ask = Callable[..., Callable[[], Any]]

# Shorter than the defaults and in the same order, so that the tests are; all rules hold.
LIMITS = {
    "request_deadline_seconds": 2,
    "pool_checkout_seconds": 0.5,
    "database_statement_seconds": 1.2,
    "database_lock_seconds": 0.4,
    "database_client_check_seconds": 0.5,
    "pool_size_max": 5,
    # A machine that is busy with other tests is not what they are about.
    "shed_lag_seconds": 1,
}


@pytest.fixture(name="answers", scope="module")
def _answers() -> dict[str, Any]:
    return {"database": "postgresql", "telemetry": ["sentry"]}


@pytest.fixture(name="shared", scope="module")
def _shared(tables: Tables) -> Iterator[PostgreSQL]:
    """
    For tests that leave it as it was.
    """
    with PostgreSQL(prepare=tables) as server:
        yield server


@pytest.fixture(name="postgresql")
def _postgresql(migrated_postgresql: PostgreSQL) -> PostgreSQL:
    """
    With the tables of the service.
    """
    return migrated_postgresql


@pytest.fixture(name="serve")
def _serve(start: Start) -> Start:
    """
    Start the service on a database with its tables.
    """

    def serve(database: PostgreSQL, **settings: Any) -> Any:
        return start(**LIMITS | {"database_url": database.url} | settings)

    return serve


@pytest.fixture(name="one_connection")
def _one_connection(share: Start, shared: PostgreSQL) -> Any:
    """
    A service with one connection, for tests that leave it and the database as they were.
    """
    return share(**LIMITS | {"database_url": shared.url, "pool_size_max": 1})


def timed(ask: Callable[[], Any]) -> tuple[int, float]:
    """
    The status of an answer and the seconds it took.
    """
    begun = time.monotonic()
    return ask().status, time.monotonic() - begun


def at_once(service: Any, path: str, count: int) -> list[tuple[int, float]]:
    """
    Status and seconds of so many requests at the same time; raises what one of them raises.
    """
    answers: list[tuple[int, float]] = []
    threads = [
        threading.Thread(target=lambda: answers.append(timed(lambda: service.get(path))))
        for _ in range(count)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(slack(30))
    return answers


def metric(service: Any, name: str) -> float:
    text = service.get("/metrics", admin=True).body.decode()
    return sum(map(float, re.findall(rf"^{name}(?:{{.*}})? (\S+)$", text, re.MULTILINE)))


def check_log(service: Any) -> None:
    """
    An outage is told in few warnings, and nothing of it is a bug.
    """
    told = service.events("database_unavailable")
    assert len(told) <= 2, told
    assert [line for line in service.lines() if line["level"] in {"error", "critical"}] == []
    assert "Traceback" not in service.stdout.read_text() + service.stderr.read_text()


@pytest.mark.promise("C2", "M10")
def test_outage_names_the_database(serve: Start, postgresql: PostgreSQL) -> None:
    """
    The answer and its line name the database, the log says where it is, and nobody says the
    password; other answers name nothing, and the metric has no more labels than before.
    """
    service = serve(postgresql)
    path = "/faults/database/brief?seconds"
    late, idle = service.get(f"{path}=3"), service.get(f"{path}=0&idle=3")
    other = service.get("/faults/database/wrong/unavailable")
    postgresql.freeze()

    away = service.get("/v1/notes")
    told = service.wait_for("database_unavailable")
    changed = service.wait_for("check_changed", check="database", is_up=False)

    reasons = [answer.json["reason"] for answer in (late, idle, other, away)]
    assert reasons == ["deadline: database", "deadline", "unavailable", "unavailable: database"]
    lines = service.events("request")
    assert [line["reason"].partition(":")[0] for line in lines] == [
        line["reason"] for line in lines
    ]
    assert [line.get("dependency") for line in lines] == ["database", None, None, "database"]
    where = {"host": "127.0.0.1", "port": postgresql.port, "database": "app"}
    assert where.items() <= told.items()
    assert where.items() <= changed.items()
    metrics = service.get("/metrics", admin=True).body.decode()
    kinds = {*re.findall(r'app_errors_total{kind="([^"]+)"}', metrics)}
    assert kinds == {"deadline", "unavailable"}
    password = urlsplit(postgresql.url).password or ""
    assert password not in service.stdout.read_text() + metrics


@pytest.mark.promise("C2", "C6", "M10")
def test_config_show_names_the_database(start: Start) -> None:
    """
    Host, port and name are shown; user, password, query and every other secret are not.
    """
    secrets = {
        "database_url": "postgresql://someone:p%40ssword-4711@db.internal:6432/app?user=else-4711",
        "backup_scratch_url": "postgresql://someone:4711-db@db.internal/scratch?password=word-4711",
        "sentry_dsn": "https://key4711@sentry.example.com/4711",
        "token": "token-4711",
    }
    command = start("config", "show", ready=False, **secrets)

    assert command.wait() == 0
    shown = command.stdout.read_text()
    assert "APP_DATABASE_URL=postgresql://**********@db.internal:6432/app  # env" in shown
    assert "APP_BACKUP_SCRATCH_URL=postgresql://**********@db.internal:5432/scratch  # env" in shown
    assert "APP_SENTRY_DSN=**********  # env" in shown
    assert not re.search("4711|someone", shown + command.stderr.read_text())


@pytest.mark.alone
@pytest.mark.promise("T1", "H1", "H2", "D2", "M4")
def test_frozen(serve: Start, postgresql: PostgreSQL) -> None:
    """
    Every request is answered by its deadline, those without a database as ever; probes answer;
    nothing is left behind; the thawed database is used again at once; the tracker hears nothing.
    """
    with receiver() as tracker:
        service = serve(postgresql, sentry_dsn=tracker.dsn)
        assert {status for status, _ in at_once(service, "/v1/notes", 20)} == {200}
        open_before = metric(service, "process_open_fds")
        postgresql.freeze()
        rounds = [at_once(service, "/v1/notes", 60)]
        free, seconds = timed(lambda: service.get("/faults/ok"))
        rounds.append(at_once(service, "/faults/database/transaction?seconds=0", 60))
        rounds.append(at_once(service, "/v1/notes", 60))
        live = [service.get("/livez", admin=True).status for _ in range(100)]
        wait_until(lambda: service.get("/readyz", admin=True).json["status"] == "warn")
        ready = service.get("/readyz", admin=True).status

        for answers in rounds:
            assert len(answers) == 60
            assert {status for status, _ in answers} == {503}
            assert max(seconds for _, seconds in answers) < 1.2 + 0.2 + slack(0.35)
        assert (free, seconds < slack(0.5)) == (200, True)
        assert set(live) == {200}
        assert ready == 200
        wait_until(lambda: metric(service, "app_database_waiting") == 0)
        wait_until(lambda: metric(service, "process_open_fds") <= open_before + 1)
        postgresql.thaw()
        wait_until(lambda: service.get("/v1/notes").status == 200, seconds=5)
        wait_until(lambda: service.get("/readyz", admin=True).json["status"] == "pass", seconds=5)
        assert {status for status, _ in at_once(service, "/v1/notes", 20)} == {200}
        assert postgresql.fetch("SELECT * FROM notes") == []
        check_log(service)
        assert metric(service, "app_database_failures_total") >= 180
        assert service.stop() == 0
        assert tracker.events == []


@pytest.mark.promise("T1")
def test_frozen_in_a_transaction(serve: Start, postgresql: PostgreSQL) -> None:
    """
    Frozen in the middle of a transaction: its requests are answered by the limit of the statement,
    not of its undoing too, and nothing of it is kept.
    """
    service = serve(postgresql)
    path = "/faults/database/transaction?seconds=1"
    assert service.get(path).status == 200
    answers: list[tuple[int, float]] = []
    threads = [
        threading.Thread(target=lambda: answers.append(timed(lambda: service.get(path))))
        for _ in range(5)
    ]
    for thread in threads:
        thread.start()
    asleep = "SELECT 1 FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep($1)%'"
    wait_until(lambda: len(postgresql.fetch(asleep)) == 5)
    postgresql.freeze()
    for thread in threads:
        thread.join(slack(30))

    assert {status for status, _ in answers} == {503}
    assert max(seconds for _, seconds in answers) < 1.2 + 0.2 + slack(0.35)
    wait_until(lambda: metric(service, "app_database_connections_in_use") == 0, seconds=1)
    postgresql.thaw()
    assert len(postgresql.fetch("SELECT FROM notes")) == 1


@pytest.mark.promise("T1")
def test_frozen_while_held(serve: Start, ask: Ask, postgresql: PostgreSQL) -> None:
    """
    Frozen after all was done, when the connection is to be given back: what was done is answered.
    """
    service = serve(postgresql)
    pending = ask(service, "/faults/database/hold?seconds=1")
    wait_until(lambda: metric(service, "app_database_connections_in_use") >= 1)
    postgresql.freeze()

    assert pending().status == 200


@pytest.mark.promise("L4")
def test_stop_while_frozen(serve: Start, ask: Ask, postgresql: PostgreSQL) -> None:
    """
    SIGTERM with requests that hang on a frozen database: the process ends in time.
    """
    service = serve(postgresql, drain_seconds=0.5, grace_seconds=2, telemetry_flush_seconds=0.2)
    assert service.get("/v1/notes").status == 200
    postgresql.freeze()
    pending = [ask(service, "/v1/notes") for _ in range(20)]
    wait_until(lambda: metric(service, "app_requests_in_flight") >= 20)
    begun = time.monotonic()

    assert service.stop() == 0
    assert time.monotonic() - begun < 0.5 + 2 + 0.2 + slack(1)
    assert {answer().status for answer in pending} == {503}


@pytest.mark.alone
@pytest.mark.promise("D2", "M4")
def test_restart(serve: Start, postgresql: PostgreSQL) -> None:
    """
    Restarted under load, it serves again within 5 s; failures come only from the outage, are told
    by one warning and not to the error tracker.
    """
    answers: list[tuple[float, int]] = []
    stop = threading.Event()

    with receiver() as tracker:
        service = serve(postgresql, sentry_dsn=tracker.dsn)

        def load() -> None:
            while not stop.is_set():
                status = service.get("/v1/notes").status
                answers.append((time.monotonic(), status))

        threads = [threading.Thread(target=load) for _ in range(8)]
        for thread in threads:
            thread.start()
        wait_until(lambda: len(answers) > 200)
        begun = time.monotonic()
        postgresql.restart()
        back = time.monotonic()
        wait_until(lambda: answers[-1][0] > back + 2 and answers[-1][1] == 200, seconds=10)
        stop.set()
        for thread in threads:
            thread.join()

        failed = [at for at, status in answers if status != 200]
        assert {status for _, status in answers} <= {200, 503}
        assert all(begun <= at <= back + slack(1.5) for at in failed), (begun, back, failed[-1:])
        assert len(service.events("database_unavailable")) == 1
        check_log(service)
        assert service.stop() == 0
        assert tracker.events == []


def test_killed(serve: Start, postgresql: PostgreSQL) -> None:
    """
    Killed for a while: 503 at once, a warning with the cause, and again 200 when it is back.
    """
    service = serve(postgresql)
    assert service.get("/v1/notes").status == 200
    postgresql.kill()

    assert [answer[0] for answer in at_once(service, "/v1/notes", 20)] == [503] * 20
    status, seconds = timed(lambda: service.get("/v1/notes"))
    assert (status, seconds < slack(0.5)) == (503, True)
    wait_until(lambda: service.get("/readyz", admin=True).json["status"] == "warn")
    assert service.is_ready()
    postgresql.start()
    wait_until(lambda: service.get("/v1/notes").status == 200, seconds=5)
    check_log(service)


@pytest.mark.promise("L1", "C9")
@pytest.mark.parametrize("fault", ["absent", "frozen", "password", "database"])
def test_not_there_at_start(
    start: Start, tables: Tables, postgresql: PostgreSQL, fault: str
) -> None:
    """
    Live but not ready, with one warning that says why; ready soon after it can be had, without a
    restart.
    """
    url, named = postgresql.url, "Connect call failed"
    if fault == "absent":
        postgresql.kill()
    elif fault == "frozen":
        postgresql.freeze()
        named = "TimeoutError"
    elif fault == "password":
        postgresql.execute("ALTER ROLE service PASSWORD 'another'")
        named = "password authentication failed"
    elif fault == "database":
        url, named = postgresql.url_of_missing_database, 'database "missing" does not exist'
    # A check that ends by the pool's limit, not by its own, is counted.
    limits = LIMITS | {"check_timeout_seconds": 0.9}
    service = start(ready=False, **limits | {"database_url": url})
    changed = service.wait_for("check_changed", check="database")

    assert named in changed["error"]
    assert not changed["is_up"]
    assert "secret" not in str(service.lines())
    wait_until(lambda: service.get("/livez", admin=True).status == 200)
    # Several runs of the check tell it once.
    wait_until(lambda: metric(service, "app_database_failures_total") >= 3)
    assert service.get("/readyz", admin=True).status == 503
    assert service.get("/v1/notes").status == 503
    warnings = [line for line in service.lines() if line["level"] == "warning"]
    told = [line["event"] for line in warnings if line.get("check") != "backing"]
    # The second is of the request, not of the start.
    assert [name for name in told if name != "request"] == ["check_changed", "database_unavailable"]
    postgresql.start()
    postgresql.thaw()
    password = postgresql.url.split(":")[2].split("@")[0]
    postgresql.execute(f"ALTER ROLE service PASSWORD '{password}'")
    if fault == "database":
        postgresql.execute("CREATE DATABASE missing OWNER service")
        tables(url)
    wait_until(service.is_ready, seconds=5)


@pytest.mark.promise("D1")
def test_session(serve: Start, shared: PostgreSQL) -> None:
    """
    The limits of the settings are in force on the service's own connections; what a request
    changes in its session is undone.
    """
    service = serve(shared, pool_size_max=1, database_idle_in_transaction_seconds=7)
    assert service.get("/faults/database/forget").status == 200
    shown = service.get("/faults/database/show").json

    assert shown["statement_timeout"] == "1200"
    assert shown["lock_timeout"] == "400"
    assert shown["idle_in_transaction_session_timeout"] == "7000"
    assert shown["client_connection_check_interval"] == "500"
    assert shared.fetch("SELECT 1 FROM pg_locks WHERE locktype = 'advisory'") == []
    assert shared.fetch("SELECT rolsuper FROM pg_roles WHERE rolname = 'service'") == [(False,)]


@pytest.mark.promise("D4")
def test_held_lock(serve: Start, ask: Ask, shared: PostgreSQL) -> None:
    """
    Requests that wait for a lock fail in time, keep their connections, and leave some to others.
    """
    # Long enough for a busy machine to see that requests wait.
    limits = {"database_lock_seconds": 0.9, "pool_checkout_seconds": 2.1}
    service = serve(shared, **limits, request_deadline_seconds=6, pool_size_max=10)
    holder = ask(service, "/faults/database/lock?seconds=5.4")
    locked = "SELECT 1 FROM pg_locks WHERE mode = 'AccessExclusiveLock' AND granted"
    wait_until(lambda: shared.fetch(locked))
    status, seconds = timed(lambda: service.get("/v1/notes"))
    assert (status, seconds < 0.9 + slack(0.2)) == (503, True)
    backends = "SELECT pid FROM pg_stat_activity WHERE usename = 'service' ORDER BY 1"
    before = shared.fetch(backends)
    pending = [ask(service, "/v1/notes") for _ in range(20)]
    wait_until(lambda: metric(service, "app_database_waiting") >= 10)
    status, seconds = timed(lambda: service.get("/faults/database/show"))

    assert (status, seconds < slack(2.1)) == (200, True)
    assert {answer().status for answer in pending} == {503}
    assert {*before} <= {*shared.fetch(backends)}
    assert holder().status == 200
    assert service.get("/v1/notes").status == 200
    check_log(service)
    (told,) = service.events("database_unavailable")
    assert "lock timeout" in told["cause"]


def test_slow_statement(one_connection: Any) -> None:
    """
    The database itself ends what takes too long, and its connection goes on.
    """
    pid = one_connection.get("/faults/database/backend").json["pid"]
    status, seconds = timed(lambda: one_connection.get("/faults/database/sleep?seconds=5"))

    assert (status, 1.1 < seconds < 1.2 + slack(0.3)) == (503, True)
    assert one_connection.get("/faults/database/backend").json["pid"] == pid
    assert "statement timeout" in one_connection.wait_for("database_unavailable")["cause"]


@pytest.mark.promise("D3")
def test_no_orphans(serve: Start, ask: Ask, shared: PostgreSQL) -> None:
    """
    Killed in the middle of a query, the service leaves no backend behind.
    """
    service = serve(shared, database_statement_seconds=4, request_deadline_seconds=10)
    ask(service, "/faults/database/sleep?seconds=3.9")
    asleep = "SELECT 1 FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep($1)%'"
    wait_until(lambda: shared.fetch(asleep))
    service.send_signal(signal.SIGKILL)

    wait_until(lambda: not shared.fetch(asleep), seconds=1.5)


@pytest.mark.promise("C9")
def test_out_of_connections(serve: Start, start: Start, tables: Tables) -> None:
    """
    A database that takes no more connections is unavailable, with its own words.
    """
    with PostgreSQL(prepare=tables, max_connections=8, superuser_reserved_connections=3) as server:
        first = serve(server)
        told_so = threading.Event()

        def keep() -> None:
            while not told_so.is_set():
                first.get("/faults/database/hold?seconds=1.9")

        hold = [threading.Thread(target=keep) for _ in range(5)]
        for thread in hold:
            thread.start()
        wait_until(lambda: metric(first, "app_database_connections_in_use") == 5)
        second = start(ready=False, **LIMITS | {"database_url": server.url})
        told = second.wait_for("check_changed", check="database")
        told_so.set()
        for thread in hold:
            thread.join()

        assert "too many clients" in told["error"] or "remaining connection slots" in told["error"]
        assert first.get("/v1/notes").status == 200
        assert first.stop() == 0
        wait_until(second.is_ready, seconds=5)


@pytest.mark.promise("T9")
def test_too_many_wait(serve: Start, ask: Ask, shared: PostgreSQL) -> None:
    """
    Beyond a number of waiting requests the next one fails at once.
    """
    service = serve(shared, pool_size_max=1, pool_waiting_max=3)
    pending = [ask(service, "/faults/database/hold?seconds=1") for _ in range(4)]
    wait_until(lambda: metric(service, "app_database_waiting") == 3)
    status, seconds = timed(lambda: service.get("/faults/database/show"))

    assert (status, seconds < slack(0.3)) == (503, True)
    assert sorted(answer().status for answer in pending) == [200, 503, 503, 503]


@pytest.mark.parametrize(
    "kind", ["sql", "type", "count", "twice", "bug", "file", "timeout", "line"]
)
def test_bug_is_no_outage(one_connection: Any, kind: str) -> None:
    """
    What the database refused, or never saw, is an error of ours, and costs no connection.
    """
    pid = one_connection.get("/faults/database/backend").json["pid"]
    status = one_connection.get(f"/faults/database/wrong/{kind}").status

    assert status == 500
    assert one_connection.get("/faults/database/backend").json["pid"] == pid
    assert not one_connection.events("database_unavailable")


def reasons(service: Any) -> set[str]:
    """
    The reasons of the uses of the database that failed.
    """
    text = service.get("/metrics", admin=True).body.decode()
    return {*re.findall(r'^app_database_failures_total{reason="(\w+)"} [1-9]', text, re.MULTILINE)}


@pytest.mark.promise("J8")
def test_pool_that_is_used_up_is_no_outage(serve: Start, postgresql: PostgreSQL) -> None:
    """
    Whether the pool is used up or the database is away can be told by the reason of the failures.
    """
    service = serve(postgresql, pool_size_max=1)
    service.get("/faults/database/backend")
    at_once(service, "/faults/database/sleep?seconds=1", 8)
    used_up = reasons(service)
    postgresql.freeze()
    at_once(service, "/faults/database/sleep?seconds=1", 8)

    assert used_up == {"PoolTimeout"}
    assert "TimeoutError" in reasons(service)


def test_other_outage_is_not_the_databases(one_connection: Any) -> None:
    """
    Another service that fails while a connection is held says nothing of the database.
    """
    failures = metric(one_connection, "app_database_failures_total")
    pid = one_connection.get("/faults/database/backend").json["pid"]

    assert one_connection.get("/faults/database/wrong/unavailable").status == 503
    assert one_connection.get("/faults/database/backend").json["pid"] == pid
    assert not one_connection.events("database_unavailable")
    assert metric(one_connection, "app_database_failures_total") == failures


def test_limit_of_ones_own(one_connection: Any) -> None:
    """
    Who sets a limit of their own around a statement gets 503, and the statement's connection goes.
    """
    pid = one_connection.get("/faults/database/backend").json["pid"]
    status = one_connection.get("/faults/database/impatient").status

    assert (status, one_connection.events("request_failed")) == (503, [])
    assert one_connection.get("/faults/database/backend").json["pid"] != pid


def test_standby(serve: Start, postgresql: PostgreSQL) -> None:
    """
    A database that turned read-only, as in a failover, is an outage for what writes, and for
    nothing else; its connection goes, so that the next one may find the new primary.
    """
    service = serve(postgresql, pool_size_max=1)
    assert service.post_json("/v1/notes", {"text": "before"}).status == 201
    pid = service.get("/faults/database/backend").json["pid"]
    postgresql.execute("ALTER SYSTEM SET default_transaction_read_only = on")
    postgresql.execute("SELECT pg_reload_conf()")
    wait_until(lambda: service.post_json("/v1/notes", {"text": "lost"}).status == 503)
    refused = service.post_json("/v1/notes", {"text": "lost"})

    assert (refused.status, refused.headers["retry-after"] != "") == (503, True)
    assert service.get("/v1/notes").status == 200
    assert service.get("/faults/database/backend").json["pid"] != pid
    (told,) = service.events("database_unavailable")
    assert told["reason"] == "ReadOnlySQLTransactionError"
    postgresql.execute("ALTER SYSTEM RESET default_transaction_read_only")
    postgresql.execute("SELECT pg_reload_conf()")
    wait_until(lambda: service.post_json("/v1/notes", {"text": "after"}).status == 201, seconds=5)
    texts = [row["text"] for row in postgresql.fetch("SELECT text FROM notes ORDER BY number")]
    assert texts == ["before", "after"]
    check_log(service)


def test_password_is_rotated(serve: Start, postgresql: PostgreSQL, tmp_path: Path) -> None:
    """
    A new password in the file is used for new connections, without a restart of the service.
    """
    file = tmp_path / "password"
    file.write_text(postgresql.url.split(":")[2].split("@")[0] + "\n")
    without = re.sub(r":[^:@]*@", "@", postgresql.url)
    service = serve(postgresql, database_url=without, database_password_file=file)
    assert service.get("/v1/notes").status == 200

    postgresql.execute("ALTER ROLE service PASSWORD 'rotated'")
    assert service.get("/v1/notes").status == 200
    file.write_text("rotated\n")
    postgresql.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'service'"
    )
    wait_until(lambda: service.get("/v1/notes").status == 200, seconds=5)
    pid = service.get("/faults/database/backend").json["pid"]
    assert postgresql.fetch("SELECT 1 FROM pg_stat_activity WHERE pid = $1", pid)
    assert "rotated" not in service.stdout.read_text()


@pytest.mark.promise("C9")
@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("mysql://service:canary4711@127.0.0.1/app", "should match pattern"),
        ("postgresql://service:canary4711@127.0.0.1", "should match pattern"),
        ("postgresql://service:canary4711@127.0.0.1/app?sslmode=full", "sslmode must be one of"),
        ("postgresql://service:canary4711@127.0.0.1:99999/app", "Port out of range 0-65535"),
        ("postgresql://u:canary4711@127.0.0.1/app?sslmode=verify-full", "needs sslrootcert=FILE"),
        (
            "postgresql://service:canary4711@127.0.0.1/app?sslmode=verify-full&sslrootcert=/no.crt",
            "sslrootcert names '/no.crt', a file that can't be read",
        ),
    ],
)
def test_wrong_url(start: Start, url: str, told: str) -> None:
    """
    A URL that can't work ends the start with 78 and one line that says why, without its password.
    """
    service = start(ready=False, database_url=url)

    assert service.wait(seconds=10) == 78
    (line,) = (service.stdout.read_text() + service.stderr.read_text()).splitlines()
    assert told in line
    assert "APP_DATABASE_URL" in line
    assert "canary" not in line


def test_certificate(serve: Start, start: Start, tables: Tables, tmp_path: Path) -> None:
    """
    With `verify-full` it connects to whom the named certificate vouches for, and to nobody else.
    """
    with PostgreSQL(tls=True, prepare=tables) as server:
        url = f"{server.url}?sslmode=verify-full&sslrootcert="
        assert (
            serve(server, database_url=f"{url}{server.certificate}").get("/v1/notes").status == 200
        )
        other = tmp_path / "other.crt"
        other.write_bytes(Path(certifi.where()).read_bytes())
        stranger = start(ready=False, **LIMITS | {"database_url": f"{url}{other}"})
        changed = stranger.wait_for("check_changed", check="database")

        assert not changed["is_up"]
        assert "CERTIFICATE_VERIFY_FAILED" in changed["error"]


@pytest.mark.promise("D2", "T9")
def test_late_connect(serve: Start, postgresql: PostgreSQL) -> None:
    """
    A connect that takes longer than its request waits keeps its slot in the pool until it ends,
    and then serves others.
    """
    service = serve(postgresql, database_connect_seconds=30)
    size = int(LIMITS["pool_size_max"])
    postgresql.freeze()
    frozen = at_once(service, "/v1/notes", size)
    postgresql.thaw()

    def statuses() -> list[int]:
        return [
            status for status, _ in at_once(service, "/faults/database/sleep?seconds=0.6", size)
        ]

    assert {status for status, _ in frozen} == {503}
    wait_until(lambda: statuses() == [200] * size)


@pytest.mark.promise("M4", "D2")
def test_cut_connect(serve: Start, tables: Tables) -> None:
    """
    A connect over TLS whose time is over, at whichever moment, is an outage like others: it is
    counted, and neither the log nor the error tracker hears of an error.
    """
    with receiver() as tracker, PostgreSQL(tls=True, prepare=tables) as server:
        url = f"{server.url}?sslmode=require"
        service = serve(server, database_url=url, sentry_dsn=tracker.dsn)
        answer = service.get("/faults/database/cut-connects", timeout=60)

        assert answer.json["failed"] > 20
        assert metric(service, "app_database_failures_total") == answer.json["failed"]
        assert service.events("stray_error") == []
        assert service.stop() == 0
        assert tracker.bodies == b""


@pytest.mark.promise("L5")
@pytest.mark.alone
# Two hundred seconds for 50 kills and as many clean starts; thrice that on a busy machine.
@pytest.mark.timeout(900)
def test_crash_only(serve: Start, postgresql: PostgreSQL) -> None:
    """
    Killed at random moments while notes are written, it loses and doubles none that it confirmed,
    and starts as fast as ever.
    """
    kills = 50 if os.environ.get("FIVEWEEKS_NIGHTLY") else 12
    written: list[str] = []
    starts: dict[str, list[float]] = {"clean": [], "killed": []}
    chance = random.Random(5)  # noqa: S311  # no secret
    for number in range(kills):
        for kind in ("clean", "killed"):
            begun = time.monotonic()
            service = serve(postgresql)
            starts[kind].append(time.monotonic() - begun)
            stop = threading.Event()

            def write(service: Any = service, stop: Any = stop, number: int = number) -> None:
                while not stop.is_set():
                    text = f"{number} {uuid.uuid4()}"
                    with contextlib.suppress(OSError, http.client.HTTPException):
                        if service.post_json("/v1/notes", {"text": text}).status == 201:
                            written.append(text)

            threads = [threading.Thread(target=write) for _ in range(4)]
            for thread in threads:
                thread.start()
            stop.wait(chance.uniform(0.05, 0.3))
            if kind == "killed":
                # The next start is a clean one, as this process ends in order.
                stop.set()
                for thread in threads:
                    thread.join()
                assert service.stop() == 0
                continue
            service.send_signal(signal.SIGKILL)
            service.process.wait()
            stop.set()
            for thread in threads:
                thread.join()
    kept = [row["text"] for row in postgresql.fetch("SELECT text FROM notes")]

    assert len(written) > kills
    assert {*written} <= {*kept}
    assert len({*kept}) == len(kept)
    # The first ever is the slowest.
    medians = {kind: statistics.median(times[1:]) for kind, times in starts.items()}
    assert medians["killed"] / medians["clean"] <= 1.2, medians
