"""
Projects for every answer, and of their files those that no linter has seen yet.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from selection import others_nightly

from questions import pairwise

ANSWERS: list[Any] = [{}, *others_nightly(pairwise(), 2)]


@pytest.fixture(name="project", params=ANSWERS, ids=lambda answers: answers.get("service_name"))
def _project(request: pytest.FixtureRequest, render: Callable[..., Path]) -> Path:
    return render(**request.param)


@pytest.fixture(name="unseen", scope="session")
def _unseen() -> Callable[..., list[Path]]:
    """
    The files of a project that match, but for texts that this linter has seen: most answers change
    nothing of a file.
    """
    seen: set[tuple[str, str]] = set()

    def unseen(linter: str, project: Path, *patterns: str) -> list[Path]:
        found: dict[tuple[str, str], Path] = {}
        for path in (path for pattern in patterns for path in project.glob(pattern)):
            found[linter, path.read_text()] = path
        new = [path for key, path in found.items() if key not in seen]
        seen.update(found)
        return new

    return unseen
