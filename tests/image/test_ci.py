"""
`.ci/run image` of a generated project, with podman in the place of docker.
"""

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

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

    def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [".ci/run", "image", *arguments],
            cwd=folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )

    told = folder / ".ci" / "image.env"
    told.write_text("APP_DRAIN_SECONDS=0\nAPP_READINESS_PERIOD_SECONDS=0\n")
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
