"""
The runbooks in services that really have the fault: whatever a section has one look at is there.
"""

import re
import signal
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from books import NOT_RUN, Person
from faulty_postgresql import PostgreSQL, Tables
from harness import slack, wait_until
from runs import ended
from warm import COLD

Start = Callable[..., Any]
Ask = Callable[..., Any]
# Quick, and consistent with one another.
QUICK: dict[str, object] = {
    "pool_checkout_seconds": 0.3,
    "database_connect_seconds": 0.5,
    "database_statement_seconds": 0.6,
    "database_lock_seconds": 0.3,
    "database_client_check_seconds": 0.3,
    "message_poll_seconds": 0.2,
    "message_backoff_seconds": 0.1,
    "message_attempts": 2,
}


@pytest.fixture(name="answers", scope="module")
def _answers() -> dict[str, Any]:
    return {"processes": ["web", "worker", "job"], "database": "postgresql", "deploy": []}


@pytest.fixture(name="database", scope="module")
def _database(tables: Tables) -> Iterator[PostgreSQL]:
    """
    A server for all tests of this module, which leave it as it was.
    """
    with PostgreSQL(prepare=tables) as server:
        yield server


@pytest.fixture(name="serve")
def _serve(start: Start, project: Path, database: PostgreSQL) -> Callable[..., Person]:
    """
    Start a process type with a migrated database, and call somebody.
    """

    def serve(*arguments: str, **settings: Any) -> Person:
        usual = {"database_url": database.url, "prefix": COLD, **QUICK}
        service = start(*arguments, **usual | settings)
        return Person(
            project=project,
            service=service,
            role=(arguments or ("web",))[0],
            settings={"APP_DATABASE_URL": database.url},
        )

    return serve


@pytest.mark.promise("P2")
def test_frozen_database(serve: Callable[..., Person], database: PostgreSQL) -> None:
    """
    A database that is frozen: the page leads to `unavailable`, to the check and to the cause. When
    it is back, the step "Check" shows that.
    """
    person = serve()
    service = person.service
    database.freeze()
    try:
        with ThreadPoolExecutor(8) as pool:
            statuses = {
                one.status for one in pool.map(lambda _: service.get("/v1/notes"), "12345678")
            }
        service.wait_for("check_changed", check="database", is_up=False)

        first, found = person.look(
            "process.md", "First look", request=service.events("request")[0]["request_id"]
        )
        counts, lines = person.look("web.md", "AvailabilityBurnsFast")
        check, since = person.look("process.md", "check_changed")
        causes, preflight = person.look("database.md", "DatabaseFailing")
        (pool_of,) = person.look("database.md", "PoolExhausted")
    finally:
        database.thaw()
    wait_until(
        lambda: (
            "check_up 1 check=database"
            in re.sub(" +", " ", "".join(person.check("database.md", "DatabaseFailing")))
        )
    )

    assert statuses <= {503, 504}
    assert re.search(r"process_type +web", first)
    assert '"reason":"unavailable"' in found.replace(" ", "")
    assert "kind=unavailable" in counts
    assert re.search(r"check_up +0 check=database", counts)
    assert '"unavailable"' in lines
    assert re.search(r"check_up +0 check=database", check)
    assert "database" in since
    assert "cause" in causes
    assert re.search(r"fail +database", preflight)
    assert "database_waiting" in pool_of
    assert "kind=unavailable" in "".join(person.check("web.md", "AvailabilityBurnsFast"))


@pytest.mark.promise("P2")
def test_bad_deploy(serve: Callable[..., Person]) -> None:
    """
    A release whose requests raise: the kind, the traceback and the ids of the failed requests; and
    the revision, by which one sees that the roll back has helped.
    """
    person = serve(revision="bad1234", flood_seconds=0.5)
    for _ in range(3):
        assert person.service.get("/faults/raise").status == 500
    person.service.wait_for("request", reason="bug")
    person.service.wait_for("events_suppressed", of="request_failed")

    counts, _ = person.look("web.md", "AvailabilityBurnsFast")
    tracebacks, failed, suppressed = person.look("process.md", "UnexpectedErrors")
    (revision,) = person.look("process.md", "Roll back")
    (after,) = person.check("process.md", "Roll back")

    assert "kind=bug" in counts
    assert "raise_it" in tracebacks
    assert "request_id" in failed
    assert "request_id" in suppressed
    assert re.search(r"revision +bad1234", revision)
    assert re.search(r"revision +bad1234", after)
    assert "kind=bug" in after
    (connections,) = person.look("process.md", "Scale")
    assert "connections" in connections
    (scaled,) = person.check("process.md", "Scale")
    assert re.search(r"ready +1", scaled)


@pytest.mark.promise("P2")
def test_overload(serve: Callable[..., Person], ask: Ask) -> None:
    """
    More requests than it takes: refused by their number, and while they wait, the stacks and what
    is scarce.
    """
    person = serve(in_flight_max=2)
    service = person.service
    answers = [ask(service, "/overload/wait?seconds=4") for _ in range(2)]
    wait_until(lambda: service.get("/faults/ok").status == 503)

    (refused,) = person.look("web.md", "Saturated")
    (scarce,) = person.look("web.md", "LatencyBurnsFast")
    service.wait_for("stacks")
    (instance,) = person.look("process.md", "InstanceDown")

    assert "requests_shed_total" in refused
    assert "by=in_flight" in refused
    assert re.search(r"requests_in_flight +[1-9]", scarce)
    assert re.search(r"ready +1", instance)
    assert {answer().status for answer in answers} == {200}


@pytest.mark.promise("P2")
def test_not_ready(serve: Callable[..., Person]) -> None:
    """
    A critical check that fails makes web unready, and the look names it.
    """
    person = serve(critical=True)
    person.service.get("/faults/backing/down", method="POST")
    wait_until(lambda: not person.service.is_ready())

    (told,) = person.look("web.md", "WebDown")
    this, since = person.look("process.md", "InstanceNotReady")

    assert re.search(r"ready +0", told)
    assert re.search(r"check_up +0 check=backing", told)
    assert re.search(r"check_up +0 check=backing", this)
    assert '"backing"' in since
    assert re.search(r"process_type +web", told)


@pytest.mark.promise("P2")
def test_dependency_that_fails(serve: Callable[..., Person]) -> None:
    """
    Another service that does not answer: which one, where it is, and how its calls end.
    """
    person = serve()
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    assert person.service.get(f"/outbound/call/payments?port={port}").status == 200
    person.service.wait_for("outbound_failed")

    lines, counts = person.look("process.md", "DependencyFailing")

    assert '"payments"' in lines
    assert str(port) in lines
    assert re.search(r"dependency=payments outcome=error", counts)


@pytest.mark.promise("P2")
def test_refused_clients(serve: Callable[..., Person]) -> None:
    """
    A client that sends no HTTP: its reason, and its peer.
    """
    person = serve()
    with person.service.connect() as client:
        client.sendall(b"no HTTP at all\r\n\r\n")
        assert b" 400 " in client.recv(1000)
    person.service.wait_for("connection_refused")

    counts, lines = person.look("web.md", "Refused clients")

    assert "reason=malformed" in counts
    assert '"malformed"' in lines
    assert '"client"' in lines


@pytest.mark.promise("P2")
def test_full_disk(serve: Callable[..., Person]) -> None:
    """
    A log that can't be written: how many lines are lost, and how full the disks are.
    """
    person = serve(prefix=("sh", "-c", 'exec "$0" "$@" >/dev/full'), log_level="info")
    # About a mebibyte of lines waits for room before the first one is lost.
    for _ in range(450):
        person.service.get("/flood/warn", method="POST")
    lost = r"log_lines_dropped_total +[1-9]"
    wait_until(lambda: re.search(lost, person.run("svc status")))

    (told,) = person.look("process.md", "LogLinesLost")

    assert re.search(lost, told)
    assert len(told.partition("Filesystem")[2].splitlines()) > 2


@pytest.mark.promise("P2")
def test_crash(serve: Callable[..., Person]) -> None:
    """
    A process that ended: its last words, the revision, and that nothing answers any more.
    """
    person = serve()
    person.service.get("/faults/trip/task", method="POST")
    assert person.service.wait() == 70

    (told,) = person.look("process.md", "CrashLoop")

    assert '"crash"' in told
    assert '"started"' in told
    assert "No such file" in person.run("svc status")


@pytest.mark.promise("P2")
def test_loop_is_stuck(serve: Callable[..., Person], ask: Ask) -> None:
    """
    A process whose event loop stood still: where it did.
    """
    person = serve(watchdog_seconds=slack(1.5), request_deadline_seconds=1)
    ask(person.service, "/faults/block?seconds=60")
    assert person.service.wait() == 70

    (told,) = person.look("process.md", "loop_stuck")

    assert re.search(r"web\.py.{0,40}block", told)


@pytest.mark.promise("P2")
def test_grace_is_exceeded(serve: Callable[..., Person], ask: Ask) -> None:
    """
    What outlasts the grace period is in the event.
    """
    person = serve(grace_seconds=1.2, request_deadline_seconds=1)
    ask(person.service, "/faults/swallow?seconds=60")
    wait_until(lambda: re.search(r"requests_in_flight +1", person.run("svc status")))
    person.service.stop()

    (told,) = person.look("process.md", "grace_exceeded")

    assert "run_asgi" in told


@pytest.mark.promise("P2")
def test_wrong_settings(serve: Callable[..., Person]) -> None:
    """
    A wrong value, a port that is taken, and a variable that nothing reads: each is named.
    """
    person = serve(nothing_reads_this="1")
    wrong = serve(port="many", ready=False)
    taken = serve(admin_port=person.service.admin_port, ready=False)
    assert (wrong.service.wait(), taken.service.wait()) == (78, 69)

    (invalid,) = wrong.look("process.md", "exit-78")
    (port,) = taken.look("process.md", "exit-69")
    (unknown,) = person.look("process.md", "SettingUnknown")

    assert '"APP_PORT"' in invalid
    assert "port_in_use" in port
    assert "APP_NOTHING_READS_THIS" in unknown
    assert re.search(r"settings_unknown +1", person.run("svc status | grep settings_unknown"))


@pytest.mark.promise("P2")
def test_stuck_worker(serve: Callable[..., Person]) -> None:
    """
    A worker that is there and does not answer is told from one that runs, and from web.
    """
    person = serve("worker")
    (healthy, _) = person.look("worker.md", "WorkerDown")
    person.service.send_signal(signal.SIGSTOP)
    try:
        stuck, steps = person.look("worker.md", "WorkerDown")
    finally:
        person.service.send_signal(signal.SIGCONT)

    assert re.search(r"process_type +worker", healthy)
    assert re.search(r"check_up +1 check=queue", healthy)
    assert "no_answer" in stuck
    assert "timed out" in stuck
    assert "0002" in steps
    wait_until(lambda: "ready" in person.run("svc status"))


@pytest.mark.promise("P2")
def test_role_chooses_the_process(serve: Callable[..., Person]) -> None:
    """
    Where web and worker run on one machine, `role` alone says which of them the functions ask, and
    whose log and stacks they are about.
    """
    web, worker = serve(), serve("worker").service
    both = replace(web, beside={"worker": worker})

    asked = both.run("svc status | grep process_type; role=worker; svc status worker")
    both.run("role=worker; stacks")
    worker.wait_for("stacks")
    log = both.run("role=worker; logs")

    assert re.match(r"process_type +web\n(.*\n)*process_type +worker\n", asked)
    assert '"process_type":"worker"' in log
    assert '"process_type":"web"' not in log
    assert web.service.events("stacks") == []


@pytest.mark.promise("P2")
def test_messages(serve: Callable[..., Person], database: PostgreSQL) -> None:
    """
    Messages that fail, that are dead and that no handler knows: which, why and how many. Trying
    them again needs their number, and shows in the step "Check".
    """
    sql = "INSERT INTO messages (name, payload) VALUES ('{}', '{}')"
    for name, payload in (
        ("fault", '{"fail": 99}'),
        ("fault", '{"unavailable": 99}'),
        ("of-tomorrow", "{}"),
    ):
        database.execute(sql.format(name, payload))
    person = serve("worker")
    person.service.wait_for("message_dead")
    person.service.wait_for("messages_unknown")
    person.service.wait_for("message", reason="unavailable")

    metrics, lines = person.look("worker.md", "QueueTooOld")
    tries, ages = person.look("worker.md", "MessagesRetried")
    listed, deaths = person.look("worker.md", "MessagesDying")
    (dead,) = person.look("worker.md", "MessagesDead")
    (unknown,) = person.look("worker.md", "messages_unknown")
    dry = person.run("svc dead retry --all")
    wait_until(
        lambda: re.search(r"messages_dead +1", "".join(person.check("worker.md", "MessagesDead")))
    )
    person.run("svc dead retry --all --count 1")
    again = database.fetch("SELECT dead_at FROM messages WHERE payload ? 'fail'")
    database.execute("DELETE FROM messages")

    assert "messages_waiting" in metrics
    assert '"message_failed"' in lines
    assert '"unavailable"' in tries
    assert "messages_oldest_seconds" in ages
    assert "ValueError" in listed
    assert '"message_dead"' in deaths
    assert "ValueError" in dead
    assert "of-tomorrow" in unknown
    assert "1" in dry
    assert len(again) == 1


@pytest.mark.promise("P2")
def test_jobs(serve: Callable[..., Person], tmp_path: Path) -> None:
    """
    A job that failed, and one that took too long: outcome, cause and stacks.
    """
    failed = serve("job", "fail", ready=False)
    assert ended(failed.service)["exit_code"] == 70
    slow = serve(
        "job",
        "wait",
        ready=False,
        job_max_runtime_seconds=1.5,
        request_deadline_seconds=1,
        grace_seconds=1.2,
    )
    assert ended(slow.service)["exit_code"] == 70
    bare = Person(
        project=failed.project,
        service=failed.service,
        role="job",
        settings=failed.settings | {"APP_JOB_METRICS_DIR": str(tmp_path)},
    )

    runs, names = bare.look("job.md", "JobMissed")
    (told,) = bare.look("job.md", "JobNeverSucceeded")
    (too_long,) = slow.look("job.md", "run_too_long")
    (outcome,) = failed.look("job.md", "Ends of a run")
    (last,) = failed.look("job.md", "JobFailed")
    (end,) = slow.look("job.md", "JobUnfinished")

    assert '"failed"' in runs
    assert "succeed" in names
    assert f"APP_JOB_METRICS_DIR={tmp_path}" in told
    assert "tasks" in too_long
    assert "nothing to do it with" in outcome
    assert '"exit_code":70' in last
    assert "too_long" in end


def test_every_look_is_tried(project: Path) -> None:
    """
    Each section that has one search for something is tried above, in a service that has it.
    """
    source = Path(__file__).read_text()
    for path in sorted((project / "ops" / "runbooks").glob("*.md")):
        for text in path.read_text().split("\n## ")[1:]:
            title = text.partition("\n")[0]
            step = text.partition("**1. Look.**")[2].partition("**2. Do.**")[0]
            if "grep" in step and not NOT_RUN.search(step):
                assert f'.look("{path.name}", "{title}"' in source.replace("\n            ", ""), (
                    title
                )
