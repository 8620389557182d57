"""
A healthy life: who reads the log for warnings finds none.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from faulty_postgresql import PostgreSQL
from harness import wait_until

Start = Callable[..., Any]
WITH_DATABASE: dict[str, Any] = {"processes": ["web", "worker", "job"], "database": "postgresql"}
NOTES = "INSERT INTO notes (id, text, written_at) VALUES (gen_random_uuid(), 'x', now())"
MESSAGES = """
    INSERT INTO messages (name, payload)
    SELECT 'note_written', jsonb_build_object('id', id) FROM notes
"""


@pytest.fixture(name="project", scope="module")
def _project(copy: Callable[..., Path]) -> Path:
    """
    A service as it comes, with everything; tests/mutations hands in its own.
    """
    given = os.environ.get("FIVEWEEKS_PROJECT")
    return Path(given) if given else copy(**WITH_DATABASE)


@pytest.fixture(name="plain", scope="module")
def _plain(copy: Callable[..., Path]) -> Path:
    """
    A service as it comes, without a database.
    """
    return copy(processes=["web", "job"])


def loud(service: Any) -> list[dict[str, Any]]:
    """
    What it logged at warning or above.
    """
    return [line for line in service.lines() if line["level"] not in {"debug", "info"}]


def live(service: Any, method: str, path: str, body: object = None) -> None:
    """
    Serve a request, be probed for some checks, and stop.
    """
    answer = service.post_json(path, body) if method == "POST" else service.get(path)
    assert answer.status < 300
    wait_until(lambda: service.get("/readyz", admin=True).json["status"] == "pass")
    assert service.stop() == 0


@pytest.mark.promise("M4")
def test_healthy_web(start_in: Start, project: Path, plain: Path, postgresql: PostgreSQL) -> None:
    """
    From start to SIGTERM, with a database and without.
    """
    settings = {"database_url": postgresql.url, "check_interval_seconds": 0.2}
    migrated = start_in(project, "migrate", "up", ready=False, database_url=postgresql.url)
    assert migrated.wait() == 0
    services = [start_in(project, "web", **settings), start_in(plain, "web")]
    for service in services:
        live(service, "POST", "/v1/notes", {"text": "Five weeks."})

    assert [loud(service) for service in services] == [[], []]
    assert loud(migrated) == []
    assert services[0].events("check_changed", level="info", check="database", is_up=True)
    assert [service.events("started")[0]["port"] for service in services] == [
        service.port for service in services
    ]


@pytest.mark.promise("M4")
def test_healthy_worker(start_in: Start, project: Path, postgresql: PostgreSQL) -> None:
    """
    A worker that handles a message and is stopped; it claims no port that it does not serve.
    """
    settings = {"database_url": postgresql.url, "check_interval_seconds": 0.2}
    assert start_in(project, "migrate", "up", ready=False, **settings).wait() == 0
    postgresql.execute(NOTES)
    postgresql.execute(MESSAGES)
    worker = start_in(project, "worker", **settings)
    worker.wait_for("message", outcome="done")
    assert worker.stop() == 0

    assert loud(worker) == []
    (started,) = worker.events("started")
    assert started["admin_port"] == worker.admin_port
    assert "port" not in started
    assert not worker.is_listening()


@pytest.mark.promise("M4")
def test_healthy_job(
    start_in: Start, project: Path, plain: Path, postgresql: PostgreSQL, tmp_path: Path
) -> None:
    """
    A run that succeeds.
    """
    backups, metrics = tmp_path / "backups", tmp_path / "metrics"
    backups.mkdir()
    metrics.mkdir()
    settings = {"database_url": postgresql.url, "backup_scratch_url": postgresql.superuser_url}
    assert start_in(project, "migrate", "up", ready=False, **settings).wait() == 0
    folders = {"backup_dir": backups, "job_metrics_dir": metrics, "job_lock_dir": tmp_path}

    backup = start_in(project, "job", "backup", ready=False, **settings, **folders)
    assert backup.wait(seconds=60) == 0
    sweep = start_in(plain, "job", "sweep", ready=False, **folders)
    assert sweep.wait() == 0

    assert loud(backup) == loud(sweep) == []
