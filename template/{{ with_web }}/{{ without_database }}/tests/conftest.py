"""
What the tests share. `tests/system` takes its environment and its smoke request from here.
"""

import pytest


@pytest.fixture(name="environment", scope="session")
def _environment() -> dict[str, str]:
    """
    The required settings of this service, for every process that a test starts.
    """
    return {}


@pytest.fixture(name="smoke", scope="session")
def _smoke() -> tuple[str, str, int]:
    """
    A request that answers when the service is up: method, path, status. The status may be 404.
    """
    return ("GET", "/v1/notes", 200)
