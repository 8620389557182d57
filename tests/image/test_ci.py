"""
`.ci/run image` of a generated project, with podman in the place of docker.
"""

import os
import shutil
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from selection import others_nightly

pytestmark = pytest.mark.covers(
    "template/.ci/*",
    "template/Dockerfile.jinja",
)

SHORT = "APP_DRAIN_SECONDS=0\nAPP_READINESS_PERIOD_SECONDS=0\n"
# Podman builds without a daemon and has no timer for health checks without systemd: so each look
# at the containers is preceded by a check.
DOCKER = r"""#!/usr/bin/env bash
case "$1" in
    build)
        shift
        exec podman build --isolation chroot --network host --pull-never --force-rm --layers \
            --timestamp 1 --format docker "$@"
        ;;
    ps)
        for argument; do
            case "$argument" in
                id=*) podman healthcheck run "${argument#id=}" >/dev/null 2>&1 || true ;;
            esac
        done
        ;;
esac
exec podman "$@"
"""


@pytest.fixture(name="environment")
def _environment(tmp_path: Path) -> dict[str, str]:
    """
    The environment in which `docker` is podman.
    """
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "docker").write_text(DOCKER)
    (tmp_path / "bin" / "docker").chmod(0o755)
    return os.environ | {"PATH": f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}"}


def run_image(
    folder: Path, environment: dict[str, str], *arguments: str | Path
) -> subprocess.CompletedProcess[str]:
    """
    `.ci/run image`, to its end.
    """
    return subprocess.run(
        [".ci/run", "image", *arguments],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    "answers",
    others_nightly([{"processes": ["job"]}, {"processes": ["worker"], "database": "postgresql"}]),
    ids=lambda answers: answers["processes"][0],
)
def test_image_without_web(
    answers: dict[str, Any],
    locked: Callable[..., Path],
    build: Any,
    podman: Callable[..., subprocess.CompletedProcess[str]],
    environment: dict[str, str],
) -> None:
    """
    A job alone is asked for its jobs, a worker alone for its health; both pass without a database.
    """
    assert build
    folder = locked(**answers)
    (folder / ".ci" / "image.env").write_text(SHORT)

    ended = run_image(folder, environment)
    podman("rmi", "localhost/order-desk:ci", check=False)

    assert ended.returncode == 0, ended.stdout[-3000:]
    is_asked = ended.stdout.splitlines()[-1] == "sweep"
    assert is_asked == (answers["processes"] == ["job"])


@pytest.mark.usefixtures("full_image")
def test_image_with_everything_needs_no_database(
    full_project: Path,
    podman: Callable[..., subprocess.CompletedProcess[str]],
    tmp_path: Path,
    environment: dict[str, str],
) -> None:
    """
    With database, worker and job, `.ci/run image` has nobody to ask for a database: what serves is
    healthy without one, and stops with 0.
    """
    folder = tmp_path / "order-desk"
    shutil.copytree(full_project, folder)
    (folder / ".ci" / "image.env").write_text(SHORT)

    ended = run_image(folder, environment)
    podman("rmi", "localhost/order-desk:ci", check=False)

    assert ended.returncode == 0, ended.stdout[-3000:]


@pytest.mark.usefixtures("image")
def test_image_is_built_started_and_stopped(
    project: Path,
    podman: Callable[..., subprocess.CompletedProcess[str]],
    tmp_path: Path,
    environment: dict[str, str],
) -> None:
    """
    `.ci/run image` builds, waits until the image's own health check is content, stops it with 0
    and keeps what it tested; a container that ends instead is told with its last words.
    """
    folder = tmp_path / "order-desk"
    shutil.copytree(project, folder)
    for command in (["init", "--quiet"], ["add", "--all"], ["commit", "--quiet", "-m", "all"]):
        subprocess.run(["git", *command], cwd=folder, check=True)

    run = partial(run_image, folder, environment)
    told = folder / ".ci" / "image.env"
    told.write_text(SHORT)
    passed = run(tmp_path / "image.tar")
    told.write_text("APP_PORT=none\n")
    refused = run()
    left = podman("ps", "--all", "--quiet", "--filter=ancestor=localhost/order-desk:ci").stdout
    podman("rmi", "localhost/order-desk:ci", check=False)

    assert passed.returncode == 0, passed.stdout[-3000:]
    assert (tmp_path / "image.tar").stat().st_size > 50_000_000
    assert refused.returncode == 1
    assert '"variable":"APP_PORT"' in refused.stdout.replace(" ", "")
    assert "ended with 78" in refused.stdout
    assert left == ""
