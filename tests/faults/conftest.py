"""
A generated service whose composition root is full of faults.
"""

import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from faulty_postgresql import PostgreSQL


@pytest.fixture(name="answers", scope="module")
def _answers() -> dict[str, Any]:
    """
    A module whose tests need more than the default service overrides this.
    """
    return {}


@pytest.fixture(name="copy", scope="session")
def _copy(linked: Callable[..., Path]) -> Callable[..., Path]:
    """
    No test of this folder installs anything.
    """
    return linked


@pytest.fixture(name="project", scope="module")
def _project(request: pytest.FixtureRequest, answers: dict[str, Any]) -> Path:
    """
    A service with the faults laid over its seeds; tests/mutations hands in its own.
    """
    if given := os.environ.get("FIVEWEEKS_PROJECT"):
        return Path(given)
    project: Path = request.getfixturevalue("faulty_with")(**answers)
    return project


@pytest.fixture(name="start")
def _start(start_in: Callable[..., Any], project: Path) -> Callable[..., Any]:
    """
    Start the faulty service with settings.
    """

    def start(*arguments: str, **settings: Any) -> Any:
        # Calls to other services have less time than a request: a rule.
        shares = {"out_total_seconds": 0.8, "out_attempt_seconds": 0.4, "out_connect_seconds": 0.2}
        deadline = settings.get("request_deadline_seconds", 10)
        shares["header_receive_seconds"] = 0.5
        limits = {name: share * deadline for name, share in shares.items() if deadline < 10}
        return start_in(project, *arguments, **limits | settings)

    return start


@pytest.fixture(name="ask")
def _ask() -> Callable[..., Any]:
    """
    Send a request in the background; call the result for its answer or its exception.
    """

    def ask(service: Any, path: str, **options: Any) -> Callable[[], Any]:
        box: list[Any] = []

        def run() -> None:
            try:
                box.append(service.get(path, **options))
            except OSError as error:
                box.append(error)

        thread = threading.Thread(target=run, daemon=True)
        thread.start()

        def answer() -> Any:
            thread.join(30)
            return box[0]

        return answer

    return ask


@pytest.fixture(name="postgresql")
def _postgresql() -> Iterator[PostgreSQL]:
    """
    A PostgreSQL of the test's own, which it may freeze, kill and start again.
    """
    with PostgreSQL() as server:
        yield server
