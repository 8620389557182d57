"""
Probes: on the admin port, for whoever looks after the process.
"""

import re
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


def test_metrics(service: Any) -> None:
    """
    The process and its build are measured.
    """
    text = service.get("/metrics", admin=True).body.decode()

    assert "app_build_info{" in text
    assert "app_ready 1.0" in text
    assert "process_resident_memory_bytes" in text


@pytest.mark.promise("L9")
def test_status(service: Any, run: Any) -> None:
    """
    `status` shows the running process, and exits with 69 if nobody answers.
    """
    shown = run("status", admin_port=service.admin_port)
    unanswered = run("status", admin_port=1)

    assert shown.returncode == 0
    assert "uptime_seconds" in shown.stdout
    assert re.search(r"^ready +1 *$", shown.stdout, re.MULTILINE)
    assert unanswered.returncode == 69
