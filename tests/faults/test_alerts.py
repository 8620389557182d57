"""
Alerts over a real service and a real Prometheus: work that stands still does not stay unnoticed.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from faulty_postgresql import PostgreSQL
from harness import wait_until
from prometheus import prometheus
from receivers import receiver

# Minutes of the rules become seconds: what counts is the order, and that each alert comes at all.
SHORTEN = [
    (r"for: \d+m", "for: 2s"),
    (r"\[\d+m\]", "[20s]"),
    ("> 300", "> 20"),
    ("> 120", "> 8"),
]
QUICK = {
    "message_poll_seconds": 0.2,
    "message_backoff_seconds": 0.5,
    "message_deadline_seconds": 5,
    "out_total_seconds": 1,
    "out_attempt_seconds": 0.5,
    "out_connect_seconds": 0.3,
    "revision": "4" * 40,
}


@pytest.fixture(name="answers", scope="module")
def _answers() -> dict[str, Any]:
    return {"processes": ["worker"], "database": "postgresql"}


@pytest.fixture(name="worker_project", scope="module")
def _worker_project(copy: Callable[..., Path], answers: dict[str, Any]) -> Path:
    """
    A worker with its own seeds, whose handler calls another service.
    """
    return copy(**answers)


@pytest.mark.promise("J8")
@pytest.mark.parametrize("behaviour", ["hanging", "500"])
def test_dependency_of_a_worker(
    start_in: Callable[..., Any],
    worker_project: Path,
    postgresql: PostgreSQL,
    tmp_path: Path,
    behaviour: str,
) -> None:
    """
    A service that a handler calls hangs or answers 500: there is a ticket for the dependency and
    for the messages, and then a page by the objective. Each links its runbook at the commit that
    runs. The messages stay.
    """
    settings = {"database_url": postgresql.url, **QUICK}
    migrated = start_in(worker_project, "migrate", "up", ready=False, database_url=postgresql.url)
    assert migrated.wait() == 0
    postgresql.execute(
        "INSERT INTO notes (id, text, written_at) SELECT gen_random_uuid(), 'x', now()"
        " FROM generate_series(1, 5)"
    )
    postgresql.execute(
        "INSERT INTO messages (name, payload)"
        " SELECT 'note_written', jsonb_build_object('id', id) FROM notes"
    )
    alerts = worker_project / "ops" / "alerts"

    with receiver(behaviour) as other:
        worker = start_in(worker_project, "worker", announce_url=other.endpoint, **settings)
        with prometheus(
            tmp_path / "prometheus", alerts, [worker.admin_port], shorten=SHORTEN
        ) as server:
            wait_until(
                lambda: {"MessagesRetried", "DependencyFailing"} <= {*server.firing()}, seconds=60
            )
            is_paged_early = "QueueTooOld" in server.firing()
            wait_until(lambda: "QueueTooOld" in server.firing(), seconds=60)
            firing = server.firing()

    assert not is_paged_early
    assert {name: one["labels"]["severity"] for name, one in firing.items()} == {
        "Watchdog": "none",
        "DependencyFailing": "ticket",
        "MessagesRetried": "ticket",
        "QueueTooOld": "page",
    }
    assert firing["DependencyFailing"]["labels"]["dependency"] == "announcer"
    assert firing["QueueTooOld"]["labels"]["objective"] == "queue_age"
    assert firing["QueueTooOld"]["annotations"]["runbook_url"] == (
        f"https://git.example.com/your-team/order-desk/blob/{'4' * 40}"
        "/ops/runbooks/worker.md#queuetooold"
    )
    assert len(postgresql.fetch("SELECT id FROM messages WHERE dead_at IS NULL")) == 5
