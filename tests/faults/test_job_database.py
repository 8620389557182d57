"""
Jobs whose lock is in PostgreSQL, which goes away.
"""

import time
from collections.abc import Callable
from typing import Any

import pytest
from faulty_postgresql import PostgreSQL
from harness import slack, wait_until
from runs import begun, ended

pytestmark = pytest.mark.covers(
    "template/src/{{ package_name }}/__main__.py",
    "template/src/{{ package_name }}/chassis/database.py",
    "template/src/{{ package_name }}/chassis/job.py",
    "template/src/{{ package_name }}/chassis/lock.py",
)

Run = Callable[..., Any]


@pytest.fixture(name="answers", scope="module")
def _answers() -> dict[str, Any]:
    return {"processes": ["job"], "database": "postgresql"}


@pytest.fixture(name="job")
def _job(start: Callable[..., Any], postgresql: PostgreSQL) -> Run:
    """
    Start a run.
    """

    def job(name: str, **settings: Any) -> Any:
        # Shorter than usual, so that the test is; rules say which must be shorter still.
        limits = {
            "database_statement_seconds": 1,
            "database_lock_seconds": 0.5,
            "database_client_check_seconds": 0.5,
        }
        common = {"database_url": postgresql.url, "job_ping_url": "http://127.0.0.1:9"}
        return start("job", name, ready=False, **common | limits | settings)

    return job


@pytest.mark.promise("J1")
def test_no_overlap(job: Run) -> None:
    """
    A second start ends with 75 and one line within a second, wherever the first one is.
    """
    first = begun(job("wait"))
    second = job("wait")
    line = ended(second)

    assert (line["outcome"], line["exit_code"]) == ("overlap", 75)
    assert line["duration_ms"] < 1000
    assert [event["event"] for event in second.lines()] == ["run"]
    assert ended(job("succeed"))["exit_code"] == 0
    assert first.process.poll() is None


@pytest.mark.promise("J1")
def test_killed_holder_frees_the_lock(job: Run, postgresql: PostgreSQL) -> None:
    """
    Two seconds after SIGKILL at most, the lock is free.
    """
    first = begun(job("wait"))
    locks = "SELECT FROM pg_locks WHERE locktype = 'advisory'"
    assert postgresql.fetch(locks)

    first.process.kill()
    wait_until(lambda: not postgresql.fetch(locks), seconds=2)

    assert begun(job("wait")).process.poll() is None


@pytest.mark.promise("J1")
def test_lost_lock_ends_the_run(job: Run, postgresql: PostgreSQL) -> None:
    """
    When the database forgets the lock, as in a restart, the run is cancelled, cleans up and ends
    with 69: another one may begin.
    """
    service = begun(job("wait"))
    postgresql.restart()
    began = time.monotonic()
    line = ended(service)

    assert (line["outcome"], line["exit_code"]) == ("lock_lost", 69)
    assert (service.stdout.parent / "cleaned").exists()
    assert time.monotonic() - began < slack(4)


@pytest.mark.promise("J1")
def test_frozen_database_ends_the_run(job: Run, postgresql: PostgreSQL) -> None:
    """
    Nobody knows what a database that does not answer does with the lock: the run ends in time.
    """
    service = begun(job("wait"))
    postgresql.freeze()
    began = time.monotonic()
    line = ended(service)

    assert (line["outcome"], line["exit_code"]) == ("lock_lost", 69)
    assert (service.stdout.parent / "cleaned").exists()
    assert time.monotonic() - began < slack(6)


@pytest.mark.promise("C9", "L1")
@pytest.mark.parametrize("fault", ["down", "frozen", "password", "missing"])
def test_no_database(job: Run, postgresql: PostgreSQL, fault: str) -> None:
    """
    Without its database a job ends with 69, the cause in one event and no traceback.
    """
    url = {
        "password": postgresql.url_with_wrong_password,
        "missing": postgresql.url_of_missing_database,
    }.get(fault, postgresql.url)
    if fault == "down":
        postgresql.kill()
    if fault == "frozen":
        postgresql.freeze()
    service = job("succeed", database_url=url)
    line = ended(service)

    assert (line["outcome"], line["exit_code"]) == ("unavailable", 69)
    assert line["dependency"] == "database"
    assert f"127.0.0.1:{postgresql.port}/" in line["cause"]
    assert line["action"]
    assert line["duration_ms"] < 5000
    told = {event["event"] for event in service.lines()}
    assert told == {"database_unavailable", "ping_failed", "run"}
    assert len(service.events("database_unavailable")) == 1
    assert "Traceback" not in service.stdout.read_text() + service.stderr.read_text()
    assert service.stderr.read_text() == ""
