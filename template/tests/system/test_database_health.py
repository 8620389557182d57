"""
The readiness of a process that serves, and the database.
"""

import subprocess
from collections.abc import Callable
from typing import Any

import pytest

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.mark.promise("L1")
def test_lacking_migrations(run: Run, start: Any, empty_url: str) -> None:
    """
    Without its migrations a service lives, but is not ready; it becomes so when they come.
    """
    service = start(ready=False, database_url=empty_url)
    service.wait_for("check_changed", check="database", is_up=False)
    before = [service.get(path, admin=True).status for path in ("/livez", "/readyz")]

    refused = run("preflight", database_url=empty_url)
    run("migrate", "up", database_url=empty_url)
    service.wait_until_ready()

    assert before == [200, 503]
    assert refused.returncode == 69
    assert "run `migrate up`" in refused.stdout
