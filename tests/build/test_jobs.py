"""
A project whose schedule, limits and settings of a job disagree is told so by its own tests.
"""

import re
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml
from pages import blocks, paste

pytestmark = pytest.mark.covers(
    "docs/how-to/jobs.md",
    "template/deploy/*",
    "template/ops/alerts/*",
    "template/tests/system/*",
)

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


@pytest.fixture(name="second", scope="module")
def _second(copy: Callable[..., Path]) -> Path:
    """
    A service with a second job, `expire`, in its code and nowhere else.
    """
    deploy = ["compose", "kubernetes", "systemd", "nomad"]
    project = copy(processes=["job"], database="postgresql", deploy=deploy)
    path = project / "src" / "order_desk" / "tasks.py"
    text = path.read_text()
    assert '"restore": restore}' in text
    path.write_text(text.replace('"restore": restore}', '"restore": restore, "expire": back_up}'))
    return project


def told_by(project: Path, *arguments: str) -> tuple[int, str]:
    """
    The exit code of the project's own tests, and what they print.
    """
    command = [".venv/bin/pytest", "--tb=short", "-q", *arguments]
    ended = subprocess.run(command, cwd=project, capture_output=True, text=True, check=False)
    return ended.returncode, ended.stdout


@pytest.mark.promise("J8")
def test_second_job_has_its_alerts(second: Path) -> None:
    """
    Its own tests are red until the alerts know a job, and print the entry, which the page has too.
    """
    arguments = ["tests/system/test_job.py", "-k", "has_its_alerts"]
    path = second / "ops" / "alerts" / "job.yaml"
    text = path.read_text()
    (entry,) = (one for one in blocks("jobs", "A second job") if "record" in one)

    code, told = told_by(second, *arguments)
    path.write_text(text.replace("      # A CronJob", f"{entry}      # A CronJob"))
    added = told_by(second, *arguments)[0]
    path.write_text(
        re.sub(r"(?s)      - record: \S+age_max:seconds\n.*?(?=      # A Cron)", "", text)
    )
    older = told_by(second, *arguments)[0]
    path.write_text(text)

    assert (code, added, older) == (1, 0, 0)
    assert all(line.strip() in told for line in entry.splitlines())


@pytest.mark.promise("J8")
def test_second_job_has_a_schedule(second: Path) -> None:
    """
    What the page has one paste for Kubernetes, systemd and Nomad schedules it, and the project's
    own tests hold it against the settings.
    """
    drop_in = second / "deploy/systemd/order-desk-job@expire.timer.d/schedule.conf"
    drop_in.parent.mkdir()
    drop_in.write_text(blocks("jobs", "Schedule it with systemd")[0])
    paste(blocks("jobs", "Schedule it on Nomad")[0], second, {})
    shown = paste(blocks("jobs", "Schedule it on Kubernetes")[0], second, {}).stdout
    overlay = second / "deploy/kubernetes/overlays/production"
    rendered = paste(f"kubectl kustomize {overlay}", second, {}).stdout
    jobs = [one for one in yaml.safe_load_all(rendered) if one["kind"] == "CronJob"]
    first, other = sorted(jobs, key=lambda one: str(one["metadata"]["name"]))
    nomad = (second / "deploy/nomad/order-desk-expire.nomad.hcl").read_text()
    code, told = told_by(second, "tests/system", "-k", "kubernetes or nomad or systemd")

    assert code == 0, told
    assert shown.count("kind: CronJob") == 2
    assert (first["metadata"]["name"], other["metadata"]["name"]) == (
        "order-desk-backup",
        "order-desk-expire",
    )
    assert (first["spec"]["schedule"], other["spec"]["schedule"]) == ("17 3 * * *", "47 4 * * *")
    pods = [one["spec"]["jobTemplate"]["spec"]["template"] for one in (first, other)]
    (container,) = pods[1]["spec"]["containers"]
    assert container["args"] == ["job", "expire"]
    # But for that, one is the other: also its labels, account, volumes and settings.
    container["args"] = ["job", "backup"]
    assert pods[0] == pods[1]
    assert 'job "order-desk-expire"' in nomad
    assert '["job", "expire"]' in nomad
    assert "order-desk-job" not in nomad


@pytest.mark.promise("J8")
def test_second_job_with_compose(second: Path) -> None:
    """
    The lines for cron run the two jobs by the service of compose.yaml, by its entry point.
    """
    lines = blocks("jobs", "Schedule it with compose")[0].splitlines()
    service = yaml.safe_load((second / "compose.yaml").read_text())["services"]["job"]
    commands = [shlex.split(line.partition("--rm job")[2]) or service["command"] for line in lines]

    assert commands == [["job", "backup"], ["job", "expire"]]
    assert service["profiles"] == ["job"]
    assert all("docker compose --profile job run --rm job" in line for line in lines)
    assert 'ENTRYPOINT ["/app/bin/order-desk"]' in (second / "Dockerfile").read_text()


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
