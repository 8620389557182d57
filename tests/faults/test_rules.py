"""
Rules between settings count where something reads these settings, and a message mends them all.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Begin = Callable[..., Any]


@pytest.fixture(name="answers", scope="module")
def _answers() -> dict[str, Any]:
    return {"processes": ["web", "worker", "job"], "database": "postgresql"}


@pytest.fixture(name="begin")
def _begin(start_in: Callable[..., Any], project: Path) -> Begin:
    """
    Start a process whose database is away, with these settings and no others.
    """

    def begin(*arguments: str, **settings: object) -> Any:
        away = {"database_url": "postgresql://service@127.0.0.1:9/service"}
        return start_in(project, *arguments, ready=False, **away | settings)

    return begin


def problems(service: Any) -> list[str]:
    """
    What a process reports of its configuration before it exits with 78.
    """
    assert service.wait(seconds=20) == 78
    return [event["problem"] for event in service.events("configuration_invalid")]


def suggested(told: list[str]) -> dict[str, str]:
    """
    The settings that each of these messages suggests, which are the same in all of them.
    """
    (whole,) = {problem.partition("; try ")[2] for problem in told}
    return {name.lower(): value for name, value in re.findall(r"APP_(\w+)=(\S+)", whole)}


@pytest.mark.promise("C4")
def test_deadline_of_a_service_that_calls_no_other(begin: Begin) -> None:
    """
    A short deadline asks for no change of outbound limits if nothing is called, and what the
    message suggests is enough to start.
    """
    told = problems(begin("web", request_deadline_seconds=1))

    assert len(told) == 2
    assert "APP_OUT_" not in "".join(told)
    service = begin("web", request_deadline_seconds=1, **suggested(told))
    service.wait_for("started")


@pytest.mark.promise("C4")
def test_limits_of_a_dependency(begin: Begin) -> None:
    """
    When a process opens a `Dependency`, the rules of outbound calls count: exit 78 with a message
    for each that is broken, and a set of values with which it starts.
    """
    settings = {"announce_url": "http://127.0.0.1:9/", "out_connect_seconds": 3}
    settings |= {"request_deadline_seconds": 5, "database_statement_seconds": 2.5}
    told = problems(begin("web", header_receive_seconds=1, **settings))

    assert [problem.partition(" must be ")[0] for problem in told] == [
        "APP_OUT_CONNECT_SECONDS=3",
        "APP_OUT_TOTAL_SECONDS=5",
    ]
    service = begin("web", header_receive_seconds=1, **settings, **suggested(told))
    service.wait_for("started")


@pytest.mark.promise("C1", "C4")
def test_preflight_opens_dependencies(begin: Begin) -> None:
    """
    `preflight` opens what the service opens, so it names a broken rule of outbound calls too.
    """
    service = begin("preflight", announce_url="http://127.0.0.1:9/", out_total_seconds=12)

    assert service.wait(seconds=20) == 78
    said = service.stdout.read_text()
    assert "fail  APP_OUT_TOTAL_SECONDS APP_OUT_TOTAL_SECONDS=12 must be less than" in said
    assert "; try APP_REQUEST_DEADLINE_SECONDS=13\n" in said


@pytest.mark.promise("C4")
@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("web", {"job_interval_seconds": 60, "message_stall_seconds": 2}),
        ("worker", {"job_interval_seconds": 60, "request_deadline_seconds": 20}),
    ],
)
def test_rules_of_others(begin: Begin, kind: str, settings: dict[str, object]) -> None:
    """
    A process starts whatever the rules of other process types say, also of the same environment.
    """
    service = begin(kind, **settings)

    service.wait_for("started")


@pytest.mark.promise("C4")
def test_rules_of_requests_in_a_job(begin: Begin) -> None:
    """
    A job has no drain, no deadline of requests and no probes; its own rule counts.
    """
    foreign = {"drain_seconds": 40, "request_deadline_seconds": 100, "watchdog_seconds": 60}
    line = begin("job", "succeed", **foreign)
    told = problems(begin("job", "succeed", job_interval_seconds=60))

    # The database is away: it went as far as that.
    assert line.wait(seconds=20) == 69
    assert [problem.partition("; try ")[2] for problem in told] == [
        "APP_JOB_MAX_RUNTIME_SECONDS=30"
    ]
