"""
A project whose manifest and settings disagree is told so by its own tests.
"""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from harness import ROOT, system

# Of each platform: a file, what is replaced in it by what, and what is said then.
COMPOSE, UNIT = "compose.yaml", "deploy/systemd/order-desk.service"
JOB, VARS = "deploy/nomad/order-desk.nomad.hcl", "deploy/nomad/production.vars.hcl"
EDITS = {
    "compose": [
        (COMPOSE, "stop_grace_period: 45s", "stop_grace_period: 30s"),
        (COMPOSE, "127.0.0.1:8000:8000", "127.0.0.1:8000:7000"),
        (COMPOSE, "APP_ENVIRONMENT: production", "APP_ADMIN_PORT: ${ADMIN:-9001}"),
        (COMPOSE, "read_only: true", "env_file: more.env"),
        ("more.env", "", "# Slow.\nAPP_PLATFORM_GRACE_SECONDS=50\nAPP_ADMIN_PORT=9002\n"),
    ],
    "systemd": [
        (UNIT, "LimitNOFILE=1024:16384", "LimitNOFILE=1024:8192"),
        (UNIT, "RestartPreventExitStatus=64 78", "RestartPreventExitStatus=64"),
        (
            f"{UNIT}.d/ours.conf",
            "",
            "[Service]\nTimeoutSec=20\nEnvironment=APP_PLATFORM_GRACE_SECONDS=60\n",
        ),
    ],
    "nomad": [
        (JOB, 'interval = "2s"', 'interval = "1s"'),
        (JOB, "limit = 3", "limit = 2"),
        (JOB, "to = 8001", "to = 8002"),
        (
            VARS,
            "",
            'kill_timeout = "1m" # Slow.\nenvironment = { APP_PLATFORM_GRACE_SECONDS = "50" }\n',
        ),
    ],
}
# These are right on both sides.
FINE = {
    "compose": [
        (COMPOSE, "stop_grace_period: 45s", "stop_grace_period: ${GRACE:-0.75m}"),
        (COMPOSE, "127.0.0.1:8000:8000", "127.0.0.1:8000:9000"),
        (COMPOSE, "APP_ENVIRONMENT: production", "APP_PORT: 9000"),
    ],
    "systemd": [
        (UNIT, "LimitNOFILE=1024:16384", "LimitNOFILE=infinity"),
        (
            f"{UNIT}.d/ours.conf",
            "",
            "[Service]\nTimeoutSec=1min 30 seconds\nEnvironment=APP_PLATFORM_GRACE_SECONDS=90\n",
        ),
    ],
    "nomad": [
        (JOB, 'interval = "2s"', 'interval = "2s" # Often.'),
        (
            VARS,
            "",
            'kill_timeout = "50000ms"\nenvironment = {\n  APP_PLATFORM_GRACE_SECONDS = "50"\n}\n',
        ),
    ],
}
TOLD = {
    "compose": [
        "compose.yaml: services.web.stop_grace_period is 30s, but APP_PLATFORM_GRACE_SECONDS is 50",
        "services.web.ports lead to [7000, 8001], but APP_PORT is 8000 and APP_ADMIN_PORT is 9001",
    ],
    "systemd": [
        f"{UNIT}: TimeoutStopSec is 20, but APP_PLATFORM_GRACE_SECONDS is 60",
        f"{UNIT}: LimitNOFILE is 8192, which must be more than twice APP_CONNECTIONS_MAX=4096",
        f"{UNIT}: RestartPreventExitStatus is ['64']",
    ],
    "nomad": [
        f"{JOB}: interval of the readiness check is 1s, but APP_READINESS_PERIOD_SECONDS is 2",
        f"{JOB}: limit of the liveness check is 2, but APP_LIVENESS_FAILURES is 3",
        f"{JOB}: to of port admin is 8002, but APP_ADMIN_PORT is 8001",
        f"{VARS}: shutdown_delay and kill_timeout is 0s 1m, but APP_PLATFORM_GRACE_SECONDS is 50",
    ],
}


@pytest.fixture(name="project", scope="module")
def _project(copy: Callable[..., Path]) -> Path:
    return copy(deploy=[*EDITS])


def own_tests(
    project: Path, platform: str, kept: Path, edits: list[tuple[str, str, str]]
) -> subprocess.CompletedProcess[str]:
    """
    Those of one platform, with these edits, which are taken back.
    """
    for name, old, new in edits:
        path = project / name
        path.parent.mkdir(exist_ok=True)
        text = path.read_text() if path.exists() else ""
        assert old in text
        path.write_text(text.replace(old, new, 1))
    ended = subprocess.run(
        [".venv/bin/pytest", "-q", f"tests/system/test_{platform}.py"],
        cwd=project,
        capture_output=True,
        text=True,
        check=False,
    )
    shutil.rmtree(project / "deploy")
    shutil.copytree(kept, project, dirs_exist_ok=True)
    return ended


@pytest.mark.parametrize("platform", EDITS)
def test_one_side_is_edited(project: Path, tmp_path: Path, platform: str) -> None:
    """
    Each number that was changed on one side only is named, with its file and both values; what was
    changed on both is not.
    """
    kept = tmp_path / "kept"
    shutil.copytree(project / "deploy", kept / "deploy")
    shutil.copy(project / "compose.yaml", kept)

    one, both = (own_tests(project, platform, kept, edits[platform]) for edits in (EDITS, FINE))

    assert one.returncode == 1
    for line in TOLD[platform]:
        assert line in one.stdout, one.stdout
    assert both.returncode == 0, both.stdout


def test_commands_of_the_systemd_how_to(project: Path, tmp_path: Path) -> None:
    """
    What it tells to paste makes a release that is whole: it runs without the checkout.
    """
    how_to = (ROOT / "docs" / "how-to" / "systemd.md").read_text()
    pasted = how_to.partition("on the host:\n\n")[2].partition("\n\n")[0]
    lines = [line.strip() for line in pasted.splitlines() if "systemctl" not in line]
    script = "\n".join(["set -eu", *lines]).replace("/opt/", f"{tmp_path}/opt/")
    checkout = shutil.copytree(project, tmp_path / "checkout", ignore=shutil.ignore_patterns(".*"))
    (tmp_path / "units").mkdir()
    for command in (["init"], ["add", "--all"], ["commit", "--message=first"]):
        subprocess.run(["git", *command], cwd=checkout, check=True, capture_output=True)

    ended = subprocess.run(
        ["bash", "-c", script.replace("/etc/systemd/system/", f"{tmp_path}/units/")],
        cwd=checkout,
        capture_output=True,
        text=True,
        check=False,
    )
    shutil.rmtree(checkout)
    current = tmp_path / "opt" / "order-desk" / "current"
    name, _, revision = (current / "revision.env").read_text().strip().partition("=")
    service = system.Service(
        [str(current / "bin" / "order-desk"), "web"], {name: revision}, tmp_path
    )
    service.wait_until_ready()

    assert ended.returncode == 0, ended.stderr
    assert (tmp_path / "units" / "order-desk.service").exists()
    assert service.get("/v1/notes").status == 200
    assert service.lines()[0]["revision"] == revision == current.resolve().name
    assert not (current / "bin" / "pytest").exists()
    assert service.stop() == 0
