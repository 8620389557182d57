"""
`.ci/run image` of a generated project, with podman in the place of docker.
"""

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

Copy = Callable[..., Path]

# Podman builds without a daemon and has no timer for health checks without systemd: so each look
# at the containers is preceded by a check.
DOCKER = """\
#!/usr/bin/env bash
case "$1" in
    build)
        shift
        exec podman build --isolation chroot --network host --pull-never --format docker "$@"
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

CONTAINERS = """\
[containers]
default_ulimits = ["nofile=1024:4096", "nproc=1000:1000"]
log_driver = "k8s-file"
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
[network]
network_backend = "netavark"
"""


@pytest.fixture(name="environment")
def _environment(tmp_path: Path) -> dict[str, str]:
    """
    The environment in which `docker` is podman.
    """
    assert shutil.which("podman"), "apt-get install buildah podman runc conmon netavark"
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "docker").write_text(DOCKER)
    (tmp_path / "bin" / "docker").chmod(0o755)
    (tmp_path / "containers.conf").write_text(CONTAINERS)
    return os.environ | {
        "PATH": f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "CONTAINERS_CONF": str(tmp_path / "containers.conf"),
    }


@pytest.mark.usefixtures("image")
def test_image_is_built_started_and_stopped(
    copy: Copy, tmp_path: Path, environment: dict[str, str]
) -> None:
    """
    `.ci/run image` builds, waits until the image's own health check is content, stops it with 0
    and keeps what it tested; a container that ends instead is told with its last words.
    """
    project = copy(service_name="ci-door")
    for command in (["init", "--quiet"], ["add", "--all"], ["commit", "--quiet", "-m", "all"]):
        subprocess.run(["git", *command], cwd=project, check=True)

    def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [".ci/run", "image", *arguments],
            cwd=project,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )

    passed = run(tmp_path / "image.tar")
    (project / ".ci" / "image.env").write_text("APP_PORT=none\n")
    refused = run()
    left = subprocess.run(
        ["podman", "ps", "--all", "--quiet", "--filter", "ancestor=localhost/ci-door:ci"],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    subprocess.run(["podman", "rmi", "localhost/ci-door:ci"], env=environment, check=False)

    assert passed.returncode == 0, passed.stdout[-3000:]
    assert (tmp_path / "image.tar").stat().st_size > 50_000_000
    assert refused.returncode == 1
    assert '"variable":"APP_PORT"' in refused.stdout.replace(" ", "")
    assert "ended with 78" in refused.stdout
    assert left == ""
