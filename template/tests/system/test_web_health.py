"""
Probes are not on the public port unless told otherwise.
"""

from typing import Any

import pytest

PROBES = ["/livez", "/readyz", "/startupz"]


@pytest.mark.parametrize("path", [*PROBES, "/metrics"])
def test_public_port_knows_no_probes(service: Any, path: str) -> None:
    """
    What is for operators is not on the public port.
    """
    assert service.get(path).status == 404


def test_probes_on_public_port(start: Any) -> None:
    """
    A setting serves the probes there too, for platforms that know one port; never the metrics.
    """
    service = start(probes_on_public_port="true")

    assert [service.get(path).status for path in PROBES] == [200, 200, 200]
    assert service.get("/metrics").status == 404
