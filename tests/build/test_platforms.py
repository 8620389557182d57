"""
A project whose manifest and settings disagree is told so by its own tests.
"""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from harness import ROOT, system

pytestmark = pytest.mark.covers(
    "template/deploy/*",
    "template/tests/system/*",
)

DOCKERFILE, COMPOSE = "Dockerfile", "compose.yaml"
UNIT = "deploy/systemd/order-desk.service"
JOB, VARS = "deploy/nomad/order-desk.nomad.hcl", "deploy/nomad/production.vars.hcl"


class Edit(NamedTuple):
    """
    In which file what is replaced by what (in a new one, nothing), and what is told of which file.
    """

    path: str
    old: str
    new: str
    told: str
    of: str = ""


EDITS = [
    Edit(
        DOCKERFILE,
        "EXPOSE 8000 8001",
        "EXPOSE 8000 8002",
        "EXPOSE, the second is 8002, but APP_ADMIN_PORT is 8001",
    ),
    Edit(
        DOCKERFILE,
        "--interval=10s",
        "--interval=20s",
        "HEALTHCHECK --interval is 20s, but APP_LIVENESS_PERIOD_SECONDS is 10",
    ),
    Edit(
        DOCKERFILE,
        "--retries=3",
        "--retries=2",
        "HEALTHCHECK --retries is 2, but APP_LIVENESS_FAILURES is 3",
    ),
    Edit(
        DOCKERFILE,
        "--timeout=27s",
        "--timeout=3s",
        "HEALTHCHECK --timeout=3s, but APP_LIVENESS_TIMEOUT_SECONDS is 25",
    ),
    Edit(
        COMPOSE,
        "stop_grace_period: 45s",
        "stop_grace_period: 30s",
        "services.web.stop_grace_period is 30s, but APP_PLATFORM_GRACE_SECONDS is 50",
    ),
    Edit(
        COMPOSE,
        "127.0.0.1:8000:8000",
        "127.0.0.1:8000:7000",
        "services.web.ports lead to 7000, 8001, but APP_PORT is set from elsewhere",
    ),
    Edit(
        COMPOSE,
        "APP_ENVIRONMENT: production",
        "APP_PORT: ${PORT}\n      APP_ADMIN_PORT: ${ADMIN:-9001}",
        "but APP_PORT is set from elsewhere and APP_ADMIN_PORT is 9001",
    ),
    Edit(COMPOSE, "cap_drop: [ALL]", "env_file: more.env", ""),
    Edit(
        "more.env",
        "",
        "# Slow.\nAPP_PLATFORM_GRACE_SECONDS=50\nAPP_ADMIN_PORT=9002\n",
        "",
        of=COMPOSE,
    ),
    Edit(
        UNIT,
        "LimitNOFILE=1024:16384",
        "LimitNOFILE=1024:8192",
        "LimitNOFILE is 8192, which must be more than twice APP_CONNECTIONS_MAX=4096",
    ),
    Edit(
        UNIT,
        "RestartPreventExitStatus=64 78",
        "RestartPreventExitStatus=64",
        "RestartPreventExitStatus is ['64']",
    ),
    Edit(
        f"{UNIT}.d/ours.conf",
        "",
        "[Service]\nTimeoutSec=20\nEnvironment=APP_PLATFORM_GRACE_SECONDS=60\n",
        "TimeoutStopSec is 20, but APP_PLATFORM_GRACE_SECONDS is 60",
        of=UNIT,
    ),
    Edit(
        JOB,
        'interval = "2s"',
        'interval = "1s"',
        "interval of the readiness check is 1s, but APP_READINESS_PERIOD_SECONDS is 2",
    ),
    Edit(
        JOB,
        "limit = 3",
        "limit = 2",
        "limit of the liveness check is 2, but APP_LIVENESS_FAILURES is 3",
    ),
    Edit(
        JOB,
        'timeout  = "25s"',
        'timeout  = "1s"',
        "timeout of the liveness check is 1s, but APP_LIVENESS_TIMEOUT_SECONDS is 25",
    ),
    Edit(JOB, "to = 8001", "to = 8002", "to of port admin is 8002, but APP_ADMIN_PORT is 8001"),
    Edit(
        VARS,
        "",
        'kill_timeout = "1m" # Slow.\nenvironment = { APP_PLATFORM_GRACE_SECONDS = "50" }\n',
        "shutdown_delay and kill_timeout is 0s 1m, but APP_PLATFORM_GRACE_SECONDS is 50",
    ),
]

# File, what is replaced by what; these are right on both sides.
FINE = [
    (COMPOSE, "stop_grace_period: 45s", "stop_grace_period: ${GRACE:-0.75m}"),
    (COMPOSE, "127.0.0.1:8000:8000", "127.0.0.1:8000:9000"),
    (COMPOSE, "APP_ENVIRONMENT: production", "APP_PORT: 9000"),
    (UNIT, "LimitNOFILE=1024:16384", "LimitNOFILE=infinity"),
    (
        f"{UNIT}.d/ours.conf",
        "",
        "[Service]\nTimeoutSec=1min 30 seconds\nEnvironment=APP_PLATFORM_GRACE_SECONDS=90\n",
    ),
    (JOB, 'interval = "2s"', 'interval = "2s" # Often.'),
    (
        VARS,
        "",
        'kill_timeout = "50000ms"\nenvironment = {\n  APP_PLATFORM_GRACE_SECONDS = "50"\n}\n',
    ),
]


@pytest.mark.promise("C4")
def test_one_side_is_edited(copy: Callable[..., Path]) -> None:
    """
    Each number that was changed on one side only is named, all at once: the file, the key and both
    values; so is a signal that does not drain. What was changed on both sides is not.
    """
    project = copy(deploy=["compose", "systemd", "nomad"])
    tests = [f"test_{name}.py" for name in ("compose", "dockerfile", "nomad", "systemd")]
    paths = [f"tests/system/{name}" for name in tests]

    def own_tests(selected: str) -> subprocess.CompletedProcess[str]:
        command = [".venv/bin/pytest", "-k", selected, *paths]
        return subprocess.run(command, cwd=project, capture_output=True, text=True, check=False)

    def edit(path: Path, old: str, new: str) -> None:
        path.parent.mkdir(exist_ok=True)
        text = path.read_text() if path.exists() else ""
        assert text.count(old) == 1, path
        path.write_text(text.replace(old, new))

    kept = project.parent / "kept"
    shutil.copytree(project, kept, symlinks=True, ignore=shutil.ignore_patterns(".venv"))
    for name, old, new in FINE:
        edit(project / name, old, new)
    fine = own_tests("not works")
    shutil.rmtree(project / "deploy")
    shutil.copytree(kept, project, dirs_exist_ok=True)
    for each in EDITS:
        edit(project / each.path, each.old, each.new)
    edited = own_tests("not works")
    for name, old, new in (
        (DOCKERFILE, "STOPSIGNAL SIGTERM", "STOPSIGNAL SIGQUIT"),
        (COMPOSE, "read_only: true", "stop_signal: SIGQUIT"),
        (JOB, 'kill_signal  = "SIGTERM"', 'kill_signal  = "SIGQUIT"'),
        (UNIT, "KillSignal=SIGTERM", "KillSignal=SIGQUIT"),
    ):
        edit(project / name, old, new)
    stopped = own_tests("truth")

    assert fine.returncode == 0, fine.stdout
    assert edited.returncode == 1
    for each in EDITS:
        lines = [line for line in edited.stdout.splitlines() if each.told in line]
        assert any(f"{each.of or each.path}: " in line for line in lines), (each, edited.stdout)
    assert stopped.stdout.count("only SIGTERM drains") >= 4, stopped.stdout


def test_commands_of_the_systemd_how_to(copy: Callable[..., Path], tmp_path: Path) -> None:
    """
    What it tells to paste makes a release that is whole: it runs without the checkout.
    """
    how_to = (ROOT / "docs" / "how-to" / "systemd.md").read_text()
    pasted = how_to.partition("on the host:\n\n")[2].partition("\n\n")[0]
    lines = [line.strip() for line in pasted.splitlines() if "systemctl" not in line]
    script = "\n".join(["set -eu", *lines]).replace("/opt/", f"{tmp_path}/opt/")
    checkout = copy(deploy=["systemd"])
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
