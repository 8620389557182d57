"""
What the tests share. `tests/system` takes its environment from here.
"""

import pytest


@pytest.fixture(name="environment", scope="session")
def _environment() -> dict[str, str]:
    """
    The required settings of this service, for every process that a test starts.
    """
    return {}
