"""
The image of a fresh service: what is in it, and how a container of it behaves.
"""

import gzip
import io
import json
import re
import shutil
import statistics
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from harness import slack, wait_until

BASE = "docker.io/library/python:3.13-slim-trixie"
STANDINS = Path(__file__).parent / "standins"
SIZE_MAX = 60_000_000
CHANGE_MAX = 100_000
PAGE = 24

Run = Callable[..., subprocess.CompletedProcess[str]]
Contain = Callable[..., Any]


@pytest.fixture(name="container", scope="module")
def _container(contain: Contain) -> Any:
    """
    A ready container with its defaults, for tests that leave it as it is.
    """
    return contain()


@pytest.fixture(name="files", scope="module")
def _files(podman: Run) -> Callable[[str], dict[str, tarfile.TarInfo]]:
    """
    What is in an image, by path.
    """

    def files(reference: str) -> dict[str, tarfile.TarInfo]:
        identity = podman("create", "--pull=never", reference, "none").stdout.strip()
        with (
            subprocess.Popen(["podman", "export", identity], stdout=subprocess.PIPE) as export,
            tarfile.open(fileobj=export.stdout, mode="r|") as archive,
        ):
            found = {member.name: member for member in archive}
        podman("rm", identity)
        return found

    return files


def can_be_changed(file: tarfile.TarInfo) -> bool:
    """
    By others than root.
    """
    return bool(file.uid or (not file.issym() and file.mode & 0o022))


def layers(podman: Run, image: str) -> list[str]:
    """
    The digests of an image's layers, the base image's first.
    """
    said = podman("image", "inspect", "--format", "{{json .RootFS.Layers}}", image).stdout
    found: list[str] = json.loads(said)
    return found


def test_serves(container: Any) -> None:
    """
    Read-only, without capabilities, in 200 MB and 100 processes, it serves and answers probes.
    """
    written = container.post_json("/v1/notes", {"text": "Five weeks."})

    assert written.status == 201
    assert container.get(f"/v1/notes/{written.json['id']}").json == written.json
    for path in ("/livez", "/readyz", "/startupz", "/metrics"):
        assert container.get(path, admin=True).status == 200
        assert container.get(path).status == 404


def test_has_no_rights(container: Any, podman: Run) -> None:
    """
    The process is nobody in particular, may nothing, and can write nowhere.
    """
    text = Path(f"/proc/{container.inspect('State.Pid')}/status").read_text()
    status = dict(re.findall(r"^(\w+):\t(.*)", text, re.MULTILINE))
    write = "import os; [open(f'{folder}/x', 'w') for folder in ('/app', '/tmp', '/var/tmp')]"

    ended = podman("exec", container.id, "python", "-c", write, check=False)

    assert {*status["Uid"].split()} == {*status["Gid"].split()} == {"10001"}
    assert status["CapEff"] == status["CapBnd"] == "0" * 16
    assert status["NoNewPrivs"] == "1"
    assert "Read-only file system" in ended.stderr


def test_any_user(contain: Contain) -> None:
    """
    Platforms that give each container a user of its own may do so.
    """
    container = contain("--user=4711:0", drain_seconds=0, readiness_period_seconds=0)

    assert container.get("/v1/notes").status == 200
    container.podman("kill", "--signal=TERM", container.id)
    assert container.wait() == 0


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])  # noqa: S104  # in a container
def test_health_check(contain: Contain, host: str) -> None:
    """
    The image's health check passes while the process lives, and fails while it does not.
    """
    # The probe waits for longer than the watchdog, which waits for longer than a request.
    short = {"header_receive_seconds": 0.5, "request_deadline_seconds": 1}
    short |= {"watchdog_seconds": slack(1.5), "liveness_timeout_seconds": slack(1.5) + 5.5}
    container = contain(ready=False, host=host, **short)
    wait_until(container.is_healthy)

    container.podman("kill", "--signal=STOP", container.id)
    assert not container.is_healthy()
    container.podman("kill", "--signal=CONT", container.id)
    wait_until(container.is_healthy)


@pytest.mark.promise("L2", "L8")
def test_drains_as_pid_1(contain: Contain) -> None:
    """
    SIGTERM to PID 1: unready, still serving for the drain, then the end, with 0.
    """
    container = contain(drain_seconds=2, readiness_period_seconds=1)

    container.podman("kill", "--signal=TERM", container.id)
    wait_until(lambda: not container.is_ready())
    answer = container.get("/v1/notes")

    assert (answer.status, answer.headers["connection"]) == (200, "close")
    assert container.wait() == 0
    events = [json.loads(line)["event"] for line in container.logs().splitlines()]
    assert events.index("stopping") < events.index("stopped")


@pytest.mark.promise("C1")
def test_wrong_configuration(contain: Contain) -> None:
    """
    Each wrong variable is named in a JSON line; they fit a page; exit 78 restarts nothing.
    """
    wrong = {"port": 0, "log_level": "loud", "drain_seconds": "soon", "prot": 1, "secrets_dir": "/"}
    container = contain(ready=False, **wrong)

    assert container.wait() == 78
    lines = [json.loads(line) for line in container.logs().splitlines()]
    assert len(lines) <= PAGE
    assert {line["event"] for line in lines} == {"configuration_invalid"}
    assert {line["variable"] for line in lines} >= {
        *("APP_PORT", "APP_LOG_LEVEL", "APP_DRAIN_SECONDS", "APP_PROT")
    }


def test_holds_nothing_else(image: str, files: Callable[[str], dict[str, tarfile.TarInfo]]) -> None:
    """
    Besides the base there is the virtual environment, and the byte code of Python: no uv, no
    compiler, no tests, no source checkout. The service can change none of it.
    """
    base, ours = files(BASE), files(image)
    stdlib = re.compile(r"usr/local/lib/python3\.\d+/(.+/)?__pycache__(/.*\.pyc)?")
    added = {name for name in ours if name not in base and not stdlib.fullmatch(name)}
    changed = [name for name in base if name not in ours or ours[name].size != base[name].size]

    assert {name for name in added if name.split("/")[0] != "app"} == set()
    assert [name for name in changed if name.split("/")[0] not in {"etc", "run"}] == []
    programs = {name.removeprefix("app/bin/") for name in added if name.startswith("app/bin/")}
    assert {"order-desk", "python"} <= programs
    assert not programs & {"cc", "gcc", "hatch", "mypy", "pip", "pytest", "ruff", "uv"}
    packages = {
        name.split("/")[4] for name in added if name.startswith("app/lib/") and name.count("/") > 4
    }
    assert "order_desk" in packages
    assert not packages & {"mypy", "pip", "pytest", "ruff", "setuptools", "tests", "uv"}
    source = {
        ".env",
        ".git",
        ".lock",
        "Dockerfile",
        "pyproject.toml",
        "src",
        "uv.lock",
        "uv_cache.json",
    }
    assert not [name for name in added if source & {*name.split("/")}]
    assert [name for name in added if can_be_changed(ours[name])] == []


def test_is_small(podman: Run, image: str) -> None:
    """
    At most 60 MB come on top of the base image.
    """
    sizes = [
        int(podman("image", "inspect", "--format", "{{.Size}}", name).stdout)
        for name in (image, BASE)
    ]

    assert sizes[0] - sizes[1] <= SIZE_MAX, sizes


def test_same_source_same_layers(podman: Run, image: str, build: Any, locked: Any) -> None:
    """
    Whoever builds a source, wherever and whenever, makes the same layers: they are pushed once.
    What lies about among the sources, and who may read them, makes no difference.
    """
    again = "localhost/fiveweeks/order-desk:again"
    checkout: Path = locked()
    for name in (".env", ".DS_Store", ".git/config", "__pycache__/domain.cpython-313.pyc"):
        for folder in (checkout / "src", checkout / "src" / "order_desk"):
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_text("canary\n")
    for path in checkout.rglob("*"):
        path.chmod(0o700 if path.is_dir() else 0o600)

    build(checkout, again, "--no-cache", "--build-arg=REVISION=another")

    assert layers(podman, again) == layers(podman, image)


def test_change_is_a_small_layer(
    podman: Run, image: str, build: Any, project: Path, tmp_path: Path
) -> None:
    """
    A changed line of code is one small layer to push and to pull, and no other.
    """
    changed = tmp_path / "order-desk"
    shutil.copytree(project, changed)
    with (changed / "src" / "order_desk" / "domain.py").open("a") as file:
        file.write("CHANGED = True\n")
    tag = "localhost/fiveweeks/order-desk:changed"

    build(changed, tag)

    before, after = layers(podman, image), layers(podman, tag)
    assert [new == old for new, old in zip(after, before, strict=True)].count(False) == 1
    (layer,) = {*after} - {*before}
    archive = tmp_path / "image.tar"
    podman("save", "--quiet", "--output", archive, tag)
    with tarfile.open(archive) as saved:
        pushed = saved.extractfile(layer.removeprefix("sha256:") + ".tar")
        assert pushed
        content = pushed.read()
    with tarfile.open(fileobj=io.BytesIO(content)) as pushed_files:
        names = pushed_files.getnames()
    assert "app/lib/python3.13/site-packages/order_desk/domain.py" in names
    assert not [name for name in names if "chassis" in name]
    assert len(gzip.compress(content)) < CHANGE_MAX


LOADED = """
import json, os, sys
import order_desk.__main__, order_desk.chassis.web, order_desk.web
wrong = []
for name, module in sys.modules.items():
    spec = module.__spec__
    if spec and spec.has_location and spec.origin.endswith(".py"):
        cached = spec.cached
        head = open(cached, "rb").read(8) if cached and os.path.exists(cached) else b""
        # Flags 1: by the hash of the source, which is not looked at again.
        if head[4:] != b"\\1\\0\\0\\0":
            wrong.append((name, cached))
print(json.dumps([len(sys.modules), wrong]))
"""


def test_byte_code_is_there(container: Any, podman: Run) -> None:
    """
    Nothing is compiled at a start: each module has its byte code, valid whatever its file's time.
    """
    said = podman("exec", container.id, "python", "-c", LOADED).stdout

    loaded, wrong = json.loads(said)
    assert loaded > 300
    assert wrong == []


TIMED = """
import json, subprocess, sys, time
begin = time.perf_counter()
subprocess.run([sys.executable, "-c", "import order_desk.chassis.web, order_desk.web"], check=True)
print(time.perf_counter() - begin)
"""


def test_starts_as_fast_as_outside(container: Any, podman: Run, copy: Callable[..., Path]) -> None:
    """
    In the read-only container the imports take no longer than on a laptop that has cached them.
    """
    python = copy() / ".venv" / "bin" / "python"

    def inside() -> float:
        return float(podman("exec", container.id, "python", "-c", TIMED).stdout)

    def outside() -> float:
        command = [str(python), "-c", TIMED]
        return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)

    outside()
    ratios = [inside() / outside() for _ in range(5)]

    # Others run beside it; without byte code it is several times as slow.
    assert statistics.median(ratios) < 1.5, ratios


@pytest.mark.nightly
def test_newer_python(podman: Run, build: Any, locked: Callable[..., Path]) -> None:
    """
    The next Python will do as well: the image is built and prints its version.
    """
    subprocess.run([STANDINS / "python.sh", "3.14", "forky", "trixie"], check=True)
    tag = "localhost/fiveweeks/order-desk:newer"

    build(locked(python_version="3.14"), tag)

    command = ["--entrypoint=/app/bin/python", tag, "--version"]
    assert podman("run", "--rm", "--no-healthcheck", *command).stdout.startswith("Python 3.14")
    assert (
        podman("run", "--rm", "--no-healthcheck", tag, "--version").stdout == "order-desk 0.1.0\n"
    )
