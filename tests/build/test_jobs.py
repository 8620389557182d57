"""
A project whose schedule, limits and settings of a job disagree is told so by its own tests.
"""

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

KUBERNETES = "deploy/kubernetes/base/job.yaml"
UNIT, TIMER = (f"deploy/systemd/order-desk-job@.{kind}" for kind in ("service", "timer"))
NOMAD = "deploy/nomad/order-desk-job.nomad.hcl"
WHERE = "deploy/kubernetes/base: job"


class Edit(NamedTuple):
    """
    In which file what is replaced by what, which tests are run, and what they tell.
    """

    path: str
    old: str
    new: str
    told: str


EDITS = [
    Edit(
        KUBERNETES,
        "activeDeadlineSeconds: 3600",
        "activeDeadlineSeconds: 3000",
        f"{WHERE}: activeDeadlineSeconds is 3000, but a run takes up to 3045 s",
    ),
    Edit(
        KUBERNETES,
        'schedule: "17 3 * * *"',
        'schedule: "17 */6 * * *"',
        f"{WHERE}: schedule '17 */6 * * *' starts it every 21600 s at the shortest, but "
        "APP_JOB_INTERVAL_SECONDS is 86400",
    ),
    Edit(
        KUBERNETES,
        "startingDeadlineSeconds: 3600",
        "startingDeadlineSeconds: 86000",
        f"{WHERE}: startingDeadlineSeconds 86000 and activeDeadlineSeconds 3600 are more than",
    ),
    Edit(
        KUBERNETES,
        "terminationGracePeriodSeconds: 45",
        "terminationGracePeriodSeconds: 30",
        "job: terminationGracePeriodSeconds is 30, but APP_PLATFORM_GRACE_SECONDS is 45",
    ),
    Edit(KUBERNETES, "values: [64, 78]", "values: [64]", f"{WHERE}: FailJob has the exit codes"),
    Edit(KUBERNETES, "Forbid", "Replace", f"{WHERE}: concurrencyPolicy is Replace"),
    Edit(
        UNIT,
        "RuntimeMaxSec=3600",
        "RuntimeMaxSec=50min",
        f"{UNIT}: RuntimeMaxSec is 3000, but a run takes up to 3025 s",
    ),
    Edit(
        UNIT,
        "TimeoutStopSec=45",
        "TimeoutStopSec=30",
        f"{UNIT}: TimeoutStopSec is 30, but APP_PLATFORM_GRACE_SECONDS is 45",
    ),
    Edit(
        TIMER,
        "*-*-* 03:17:00 UTC",
        "hourly",
        f"{TIMER}: OnCalendar=hourly starts it every 3600 s, but APP_JOB_INTERVAL_SECONDS is",
    ),
    Edit(
        NOMAD,
        '"17 3 * * *"',
        '"17 3 * * 0"',
        f"{NOMAD}: cron starts it every 604800 s at the shortest, but APP_JOB_INTERVAL_SECONDS is",
    ),
    Edit(
        "compose.yaml",
        "stop_grace_period: 45s",
        "stop_grace_period: 30s",
        "services.job.stop_grace_period is 30s, but APP_PLATFORM_GRACE_SECONDS is 45",
    ),
]


@pytest.fixture(name="project", scope="module")
def _project(copy: Callable[..., Path]) -> Path:
    deploy = ["compose", "kubernetes", "systemd", "nomad"]
    return copy(processes=["job"], deploy=deploy)


@pytest.mark.promise("C4")
@pytest.mark.parametrize("edit", EDITS, ids=lambda edit: f"{edit.path}-{edit.new}")
def test_one_side_is_edited(project: Path, edit: Edit) -> None:
    """
    The project's tests are red, and name file, key and both values.
    """
    path = project / edit.path
    text = path.read_text()
    assert text.count(edit.old) == 1
    path.write_text(text.replace(edit.old, edit.new))

    command = [".venv/bin/pytest", "--tb=short", "-q", "-k", "truth or runs", "tests/system"]
    ended = subprocess.run(command, cwd=project, capture_output=True, text=True, check=False)
    path.write_text(text)

    assert ended.returncode == 1
    assert edit.told in ended.stdout
