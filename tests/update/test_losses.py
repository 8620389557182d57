"""
What looks for losses finds them: else a green update would mean nothing.
"""

from collections.abc import Callable
from pathlib import Path

import pytest
from update.losses import commit, conflicts, losses

PRISTINE = {
    "pyproject.toml": "ours = 1\n#\n# Yours below.\nend = 1\n",
    "Dockerfile": "FROM a\n",
    "README.md": "ours\n",
}
EDITED = "#\n# Yours below.\none = 1\ntwo = 2\nend = 1\n"


@pytest.fixture(name="project")
def _project(tmp_path: Path) -> Path:
    for name, text in PRISTINE.items():
        (tmp_path / name).write_text(text)
    commit(tmp_path, "pristine")
    (tmp_path / "pyproject.toml").write_text(EDITED)
    (tmp_path / "Dockerfile").unlink()
    (tmp_path / "mine.txt").write_text("mine\n")
    commit(tmp_path, "edited")
    return tmp_path


WRONG: list[tuple[str, Callable[[Path], object], str]] = [
    ("lost", lambda path: edit(path, "two = 2\n", ""), "lost 'two = 2'"),
    ("turned round", lambda path: edit(path, "one = 1\ntwo = 2", "two = 2\none = 1"), "lost"),
    ("back", lambda path: edit(path, "end = 1", "ours = 1\nend = 1"), "has 'ours = 1' again"),
    ("gone", lambda path: (path / "mine.txt").unlink(), "mine.txt: is gone"),
    ("returned", lambda path: (path / "Dockerfile").write_text("FROM a\n"), "came back"),
    ("seed", lambda path: (path / "README.md").write_text("next\n"), "a seed was touched"),
    ("new seed", lambda path: (path / ".editorconfig").write_text("\n"), "a seed came"),
]


@pytest.mark.parametrize(
    ("change", "told"), [case[1:] for case in WRONG], ids=[case[0] for case in WRONG]
)
def test_loss_is_found(project: Path, change: Callable[[Path], object], told: str) -> None:
    """
    A line that is lost, moved or back, a file that is gone or back, a seed that changed or came.
    """
    assert losses(project) == []

    change(project)

    assert told in losses(project)[0]
    assert conflicts(project) == []


@pytest.mark.parametrize("name", ["pyproject.toml", "pyproject.toml.rej"])
def test_conflict_is_found(project: Path, name: str) -> None:
    """
    Markers, and what could not be applied.
    """
    (project / name).write_text("<<<<<<< before updating\n=======\n>>>>>>> after updating\n")

    assert conflicts(project) == [name]


def edit(project: Path, old: str, new: str) -> None:
    """
    Replace what is there in the shared file.
    """
    path = project / "pyproject.toml"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
