"""
An alert on slow answers can only ask for a bound that the service measures.
"""

import re
from pathlib import Path
from typing import Any

import pytest

PROJECT = Path(__file__).parents[2]


@pytest.mark.promise("M7")
def test_bounds(service: Any, smoke: tuple[str, str, int]) -> None:
    """
    Each bound in a rule or dashboard is one of the histogram: with any other, it would be silent.
    """
    files = [*PROJECT.glob("ops/alerts/*.yaml"), *PROJECT.glob("ops/dashboards/*.json")]
    asked = {bound for file in files for bound in bounds(file.read_text(encoding="utf-8"))}
    method, path, _ = smoke
    service.get(path, method=method)

    measured = service.get("/metrics", admin=True).body.decode()

    assert asked <= bounds(measured)


def bounds(text: str) -> set[str]:
    """
    The upper ends of buckets that *text* names.
    """
    return set(re.findall(r'\ble=\\?"([^"\\]+)\\?"', text))
