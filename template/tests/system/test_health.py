"""
Probes: on the admin port, and only there unless told otherwise.
"""

from typing import Any

import pytest

PROBES = ["/livez", "/readyz", "/startupz"]


@pytest.mark.promise("H5")
@pytest.mark.parametrize("path", PROBES)
def test_probe_shape(service: Any, path: str) -> None:
    """
    A probe answers 200, `application/health+json`, its status and nothing else.
    """
    answer = service.get(path, admin=True)

    assert answer.status == 200
    assert answer.headers["content-type"] == "application/health+json"
    assert answer.json == {"status": "pass"}


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


def test_metrics(service: Any) -> None:
    """
    The process and its build are measured.
    """
    text = service.get("/metrics", admin=True).body.decode()

    assert "app_build_info{" in text
    assert "app_ready 1.0" in text
    assert "process_resident_memory_bytes" in text


def test_status(start: Any, run: Any) -> None:
    """
    `status` shows the running process, and exits 69 when nobody answers.
    """
    service = start()
    ports = {"port": service.port, "admin_port": service.admin_port}

    shown = run("status", **ports)
    service.stop()

    assert shown.returncode == 0
    assert "uptime_seconds" in shown.stdout
    assert "requests_in_flight" in shown.stdout
    assert run("status", **ports).returncode == 69
