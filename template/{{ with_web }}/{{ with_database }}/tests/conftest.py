"""
What the tests share. `tests/system` takes its environment and its smoke request from here.
"""

import os
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from postgresql import migrated, server

PROJECT = Path(__file__).parents[1]


@pytest.fixture(name="database_url", scope="session")
def _database_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """
    A database for the tests alone, with all migrations.
    """
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    command = Path(sys.executable).parent / next(iter(project["scripts"]))

    def migrate(url: str) -> None:
        environment = {**os.environ, "APP_DATABASE_URL": url}
        subprocess.run([command, "migrate", "up"], env=environment, check=True)

    with server(tmp_path_factory.mktemp("postgresql")) as admin, migrated(admin, migrate) as url:
        yield url


@pytest.fixture(name="environment", scope="session")
def _environment(database_url: str) -> dict[str, str]:
    """
    The required settings of this service, for every process that a test starts.
    """
    return {"APP_DATABASE_URL": database_url}


@pytest.fixture(name="smoke", scope="session")
def _smoke() -> tuple[str, str, int]:
    """
    A request that answers when the service is up: method, path, status. The status may be 404.
    """
    return ("GET", "/v1/notes", 200)
