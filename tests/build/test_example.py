"""
A service without its example: what is pasted is docs/how-to/example.md.
"""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from pages import blocks, paste
from selection import others_nightly

Copy = Callable[..., Path]
COMBINATIONS = [
    (["web"], "none"),
    (["job"], "none"),
    (["web", "job"], "none"),
    (["web"], "postgresql"),
    (["worker"], "postgresql"),
    (["job"], "postgresql"),
    (["web", "worker", "job"], "postgresql"),
]
# These have every file that the others have.
WHOLE = [COMBINATIONS[2], COMBINATIONS[-1]]
# The team's files; a test of backups makes its own use of a table that stays.
FILES = ["src/order_desk/*.py", "src/order_desk/migrations/**/*.py", "tests/*.py", "README.md"]


def without_example(copy: Copy, processes: list[str], database: str) -> Path:
    """
    A service in which the block was pasted.
    """
    project = copy(processes=processes, database=database)
    (block,) = blocks("example", "Remove the example")
    paste(block, project, {})
    return project


@pytest.mark.parametrize(("processes", "database"), others_nightly(COMBINATIONS[::-1], arguments=2))
def test_is_gone(copy: Copy, processes: list[str], database: str) -> None:
    """
    One block removes it in every combination, and the checks of the service pass.
    """
    project = without_example(copy, processes, database)

    for path in (path for pattern in FILES for path in project.glob(pattern)):
        text = path.read_text().lower().replace("0001_notes", "")
        assert not re.search(r"note(?!book)", text), path
        assert "announce" not in text, path
    assert "APP_ANNOUNCE_URL" not in (project / ".env.example").read_text()
    paste(".ci/run check", project, {})


@pytest.mark.covers("docs/how-to/example.md")
@pytest.mark.parametrize(("processes", "database"), WHOLE)
def test_leaves_a_green_service(copy: Copy, processes: list[str], database: str) -> None:
    """
    All tests of the service pass without it.
    """
    project = without_example(copy, processes, database)

    ended = paste("uv run --quiet pytest -q", project, {})

    assert " passed" in ended.stdout
