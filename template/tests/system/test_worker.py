"""
The worker as a process: it starts, is probed, stops with 0, and what is dead can be listed.
"""

import signal
from typing import Any

import pytest


@pytest.mark.promise("J6")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_worker_stops_with_zero(worker: Any, number: signal.Signals) -> None:
    """
    SIGTERM and Ctrl-C are how it is meant to end, and with nothing to do at once.
    """
    worker.send_signal(number)

    assert worker.wait(seconds=10) == 0
    assert [event["event"] for event in worker.lines()][-1] == "stopped"


def test_worker_is_probed(worker: Any) -> None:
    """
    On the admin port it answers as every process, and tells of the queue.
    """
    assert worker.get("/livez", admin=True).status == 200
    assert worker.get("/startupz", admin=True).status == 200
    assert b"app_messages_in_flight" in worker.get("/metrics", admin=True).body


def test_worker_without_database(run: Any) -> None:
    """
    The dead can't be listed while the database is away: one line, exit 69.
    """
    ended = run("dead", "list", database_url="postgresql://nobody:secret@127.0.0.1:1/nothing")

    assert ended.returncode == 69
    assert len((ended.stdout + ended.stderr).splitlines()) == 1
    assert "secret" not in ended.stdout + ended.stderr


def test_dead_are_guarded(run: Any) -> None:
    """
    Nothing is dropped by a command that does not say how much.
    """
    ended = run("dead", "drop", "--all")

    assert ended.returncode == 0
    assert "nothing is done" in ended.stdout
    assert run("dead", "list").returncode == 0
