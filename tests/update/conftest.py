"""
Projects of every release, pristine and edited, made once a run.
"""

import contextlib
import hashlib
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import copier
import pytest
from releases import NEXT, add_release, make_repository
from update.checks import prepare, red
from update.edits import EDITS
from update.future import FUTURE, make_future
from update.losses import commit, crosses_a_migration

Project = Callable[..., Path]


@pytest.fixture(name="at", scope="session")
def _at(run_folder: Path, repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """
    What a release renders for these answers. Not for tests that change it.
    """

    def at(version: str, **answers: Any) -> Path:
        def make(folder: Path) -> None:
            told: dict[str, Any] = {"defaults": True, "quiet": True, "vcs_ref": f"v{version}"}
            copier.run_copy(repository.as_uri(), folder, data=answers, **told)
            commit(folder, "pristine")

        return _once(run_folder, tmp_path_factory, make, version, answers)

    return at


@pytest.fixture(name="project", scope="session")
def _project(run_folder: Path, at: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """
    A project of a release with the edits of a team, in a repository of its own, which has the tags
    `pristine` and `edited`; the test may change it.
    """

    def project(version: str, edits: Iterable[str] = (), **answers: Any) -> Path:
        names = [name for name in EDITS if name in {*edits}]

        def make(folder: Path) -> None:
            shutil.copytree(at(version, **answers), folder, symlinks=True)
            for name in names:
                EDITS[name](folder)
            commit(folder, "edited")

        made = _once(run_folder, tmp_path_factory, make, version, answers, names)
        folder = tmp_path_factory.mktemp("project") / made.name
        return Path(shutil.copytree(made, folder, symlinks=True))

    return project


@pytest.fixture(name="future", scope="session")
def _future(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """
    A repository of the template that has a nasty next release, too.
    """
    folder = tmp_path_factory.mktemp("future")
    repository = make_repository(folder / "fiveweeks.git")
    add_release(repository, make_future(folder / "tree"), FUTURE)
    return repository


@pytest.fixture(name="update", scope="session")
def _update() -> Callable[..., None]:
    """
    Update a project, to what is in the working tree if not told, as `copier update --defaults`
    does: without trust, but where it crosses a migration.
    """

    def update(project: Path, version: str = NEXT, **answers: Any) -> None:
        told: dict[str, Any] = {"defaults": True, "quiet": True, "overwrite": True}
        unsafe = crosses_a_migration(project)
        copier.run_update(project, data=answers, vcs_ref=f"v{version}", unsafe=unsafe, **told)

    return update


@pytest.fixture(name="findings", scope="session")
def _findings(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    """
    What the own check of an updated project finds: nothing, if the update is right. The formatter
    runs before, as the how-to says, unless nothing gave lines another length.
    """
    environment = prepare(tmp_path_factory.mktemp("checks"))

    def findings(project: Path, *, formatted: bool = True) -> str:
        return red(project, environment, formatted=formatted)

    return findings


def _once(
    run_folder: Path,
    tmp_path_factory: pytest.TempPathFactory,
    make: Callable[[Path], None],
    *key: object,
) -> Path:
    """
    The folder that *make* makes for this key, for all processes of this run.
    """
    name = hashlib.sha256(repr(key).encode()).hexdigest()[:16]
    kept = run_folder / f"project-{name}"
    if not kept.exists():
        made = tmp_path_factory.mktemp("made")
        make(made / "order-desk")
        # Another process may have been first.
        with contextlib.suppress(OSError):
            made.rename(kept)
    return kept / "order-desk"
