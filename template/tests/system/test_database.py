"""
The database and its migrations.
"""

import json
import subprocess
from collections.abc import Callable
from urllib.parse import urlsplit

import pytest

Run = Callable[..., subprocess.CompletedProcess[str]]


def events(ended: subprocess.CompletedProcess[str], name: str) -> list[dict[str, object]]:
    """
    The events of this name that a command wrote.
    """
    lines = [json.loads(line) for line in (ended.stdout + ended.stderr).splitlines()]
    return [line for line in lines if line["event"] == name]


@pytest.mark.promise("D5")
def test_migrations_are_applied(run: Run) -> None:
    """
    All that this release has are applied, and to apply them again changes nothing.
    """
    states = {line["state"] for line in events(run("migrate", "status"), "migration")}
    again = run("migrate", "up")

    assert states <= {"applied"}
    assert again.returncode == 0, again.stderr
    assert events(again, "migrated")[0]["steps"] == 0


@pytest.mark.promise("D5")
def test_forward_and_back(run: Run, empty_url: str) -> None:
    """
    Every step goes forward, back as far as it can, and forward again.
    """
    forward = run("migrate", "up", database_url=empty_url)
    steps = len(events(forward, "migration_applied"))
    back = run("migrate", "down", str(steps), "--yes-remove", "0", database_url=empty_url)
    again = run("migrate", "up", database_url=empty_url)

    assert forward.returncode == again.returncode == 0, forward.stderr + again.stderr
    # A step without downgrade() is a floor.
    assert back.returncode == 0 or "has no downgrade()" in back.stderr, back.stderr


@pytest.mark.promise("C9")
def test_wrong_password_is_explained(run: Run, environment: dict[str, str]) -> None:
    """
    A database that refuses is one event with cause and action, and 69.
    """
    parts = urlsplit(environment["APP_DATABASE_URL"])
    place = parts.netloc.rpartition("@")[2]
    wrong = parts._replace(netloc=f"{parts.username}:wrong@{place}").geturl()

    ended = run("migrate", "up", database_url=wrong)

    assert ended.returncode == 69
    (event,) = events(ended, "database_unavailable")
    assert event["action"]
