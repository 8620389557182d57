"""
A generated service whose composition root is full of faults.
"""

import itertools
import json
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import warm
from faulty_postgresql import PostgreSQL, Tables
from harness import slack, system
from queues import Queue


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
        return start_in(project, *arguments, **_limits(settings))

    return start


class _Shared(system.Service):  # type: ignore[misc, name-defined]  # loaded from a file
    """
    A service for tests that leave it as it was. Each sees only the lines written since it began.
    """

    begin = staticmethod(warm.begin)

    def look(self) -> None:
        self._seen = {path: len(_lines(path)) for path in (self.stdout, self.stderr)}

    def lines(self) -> list[dict[str, Any]]:
        found = [_lines(path)[seen:] for path, seen in self._seen.items()]
        return [json.loads(line) for line in itertools.chain(*found)]


def _lines(path: Path) -> list[str]:
    # A line without its end is still being written.
    return path.read_text().split("\n")[:-1]


@pytest.fixture(name="running", scope="module")
def _running() -> Iterator[dict[str, _Shared]]:
    """
    The services that tests of a module share, by their settings.
    """
    running: dict[str, _Shared] = {}
    yield running
    for service in running.values():
        service.process.kill()
        service.process.wait()


@pytest.fixture(name="share")
def _share(
    running: dict[str, _Shared], project: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Any]:
    """
    As `start`, for tests that leave the service as it was: the same settings, the same process.
    """

    def share(**settings: Any) -> Any:
        key = repr(sorted(settings.items()))
        if key not in running or running[key].process.poll() is not None:
            named = {f"APP_{name.upper()}": str(value) for name, value in _limits(settings).items()}
            command = [str(project / ".venv" / "bin" / "order-desk"), "web"]
            running[key] = _Shared(command, named, tmp_path_factory.mktemp("shared"))
        service = running[key]
        service.look()
        service.wait_until_ready()
        return service

    return share


def _limits(settings: dict[str, Any]) -> dict[str, Any]:
    """
    The settings, with limits that fit the deadline: calls to other services have less time than
    the request.
    """
    shares = {"out_total_seconds": 0.8, "out_attempt_seconds": 0.4, "out_connect_seconds": 0.2}
    deadline = settings.get("request_deadline_seconds", 10)
    shares["header_receive_seconds"] = 0.5
    fitting = {name: share * deadline for name, share in shares.items() if deadline < 10}
    return fitting | settings


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
            thread.join(slack(30))
            return box[0]

        return answer

    return ask


@pytest.fixture(name="tables", scope="module")
def _tables(project: Path) -> Tables:
    """
    Makes the tables of the service once for all its databases, with the code that tests/mutations
    has not changed.
    """
    return Tables(Path(os.environ.get("FIVEWEEKS_UNCHANGED", project)))


@pytest.fixture(name="migrated_postgresql")
def _migrated_postgresql(tables: Tables) -> Iterator[PostgreSQL]:
    """
    As `postgresql`, with the tables of the service.
    """
    with PostgreSQL(prepare=tables) as server:
        yield server


@pytest.fixture(name="postgresql")
def _postgresql() -> Iterator[PostgreSQL]:
    """
    A PostgreSQL of the test's own, which it may freeze, kill and start again.
    """
    with PostgreSQL() as server:
        yield server


@pytest.fixture(name="queue")
def _queue(migrated_postgresql: PostgreSQL, start: Callable[..., Any]) -> Queue:
    """
    The queue of a service with workers.
    """
    return Queue(migrated_postgresql, start)
