"""
A generated service whose composition root is full of faults.
"""

import json
import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

OVERLAY = Path(__file__).parent / "overlay"


@pytest.fixture(name="project", scope="session")
def _project(copy: Callable[..., Path]) -> Path:
    """
    The default service with the faults laid over its seeds.
    """
    project = copy()
    (package,) = (project / "src").iterdir()
    for path in OVERLAY.glob("*.py"):
        shutil.copy(path, package)
    if mutation := os.environ.get("FIVEWEEKS_MUTATION"):
        # tests/mutations takes a safeguard out and expects a test to notice.
        name, old, new = json.loads(mutation)
        text = (package / name).read_text()
        assert text.count(old) == 1, f"{name}: {old!r}"
        (package / name).write_text(text.replace(old, new))
    return project


@pytest.fixture(name="start")
def _start(start_in: Callable[..., Any], project: Path) -> Callable[..., Any]:
    """
    Start the faulty service with settings.
    """

    def start(*arguments: str, **settings: Any) -> Any:
        return start_in(project, *arguments, **settings)

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
