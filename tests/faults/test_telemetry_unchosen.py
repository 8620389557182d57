"""
A service that chose no telemetry has none, and says so to whoever configures it.
"""

from collections.abc import Callable
from typing import Any

import pytest

pytestmark = pytest.mark.covers(
    "template/src/{{ package_name }}/chassis/environment.py",
    "template/src/{{ package_name }}/chassis/rules.py",
)

Start = Callable[..., Any]


def test_not_chosen_is_not_there(start: Start) -> None:
    """
    Nothing of it is imported, and no line of the log mentions it.
    """
    service = start()

    assert service.get("/faults/modules").json == []
    assert service.events("telemetry_off") == []


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("sentry_dsn", "https://canary4711key@example.com/7", "telemetry=[sentry]"),
        ("otlp_endpoint", "http://localhost:4318", "telemetry=[opentelemetry]"),
    ],
)
def test_address_without_module(start: Start, name: str, value: str, told: str) -> None:
    """
    An address that nothing sends to is an error of the configuration, which names the mend.
    """
    service = start(ready=False, **{name: value})

    assert service.wait(seconds=20) == 78
    (line,) = service.lines()
    assert line["variable"] == f"APP_{name.upper()}"
    assert f"--data '{told}'" in line["problem"]
    assert "canary" not in line["problem"]
