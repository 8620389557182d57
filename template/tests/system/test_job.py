"""
Jobs: named by the one who starts them, one at a time, stopped with 75.
"""

import fcntl
import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

PROJECT = Path(__file__).parents[2]
# A record of ops/alerts/ that has an entry for each job: the alerts look at those alone.
LIST = "exported_job:app_job_age_max:seconds"
ENTRY = """\
      - record: exported_job:app_job_age_max:seconds
        expr: vector(26 * 3600)
        labels: {job: %s, exported_job: %s}
"""
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(name="names", scope="session")
def _names(command: list[str], environment: dict[str, str]) -> list[str]:
    """
    The jobs of this service.
    """
    listed = subprocess.run(  # noqa: S603  # the service under test
        [*command, "job", "--list"],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    return listed.stdout.split()


@pytest.fixture(name="waiting")
def _waiting(
    command: list[str], environment: dict[str, str], names: list[str], tmp_path: Path
) -> Iterator[subprocess.Popen[str]]:
    """
    A run that waits its random time, so that the job itself does nothing here.
    """
    day = {"APP_JOB_JITTER_SECONDS": "80000", "APP_JOB_INTERVAL_SECONDS": "604800"}
    with subprocess.Popen(  # noqa: S603  # the service under test
        [*command, "job", names[0]],
        env=os.environ | environment | day | {"APP_LOG_LEVEL": "debug", "APP_LOG_FORMAT": "json"},
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout
        # asyncio tells at this level that its event loop runs.
        assert any("selector" in line for line in process.stdout)
        yield process
        process.kill()


def test_list(run: Run, names: list[str]) -> None:
    """
    `job --list` prints a name per line, without any setting.
    """
    assert names
    assert names == sorted(names)
    assert run("job", "--list", database_url="wrong").stdout.split() == names


@pytest.mark.promise("J8")
def test_every_job_has_its_alerts(command: list[str], names: list[str]) -> None:
    """
    A job that never runs is noticed only if ops/alerts/ knows it by name; where there is no list
    of jobs, as in older rules, nothing is compared.
    """
    rules = [
        rule
        for path in PROJECT.glob("ops/alerts/*.y*ml")
        for group in (yaml.safe_load(path.read_text(encoding="utf-8")) or {}).get("groups", [])
        for rule in group["rules"]
    ]
    listed = [rule["labels"]["exported_job"] for rule in rules if rule.get("record") == LIST]
    service = Path(command[0]).name
    missing = [ENTRY % (service, name) for name in names if name not in listed]

    assert not listed or not missing, "add to ops/alerts/job.yaml:\n" + "".join(missing)
    assert {*listed} <= {*names}, f"ops/alerts/ lists jobs that are gone: {listed}, not {names}"


@pytest.mark.parametrize("arguments", [["job"], ["job", "no-such-job"]])
def test_wrong_name(run: Run, names: list[str], arguments: list[str]) -> None:
    """
    No name, or one that is not there, is wrong usage; the names are told, and nothing runs.
    """
    ended = run(*arguments)

    assert ended.returncode == 64
    assert ended.stdout == ""
    assert all(name in ended.stderr for name in names)


def test_configuration_is_checked_first(run: Run, names: list[str]) -> None:
    """
    A wrong setting ends a run before it begins, as it does every process.
    """
    ended = run("job", names[0], job_jitter_seconds="often")

    assert ended.returncode == 78
    assert "APP_JOB_JITTER_SECONDS" in ended.stdout + ended.stderr


def test_stopped(waiting: subprocess.Popen[str]) -> None:
    """
    Told to stop, a run that has not begun ends at once with 75: start it again later.
    """
    waiting.terminate()

    assert waiting.wait(20) == 75


def test_no_overlap(
    run: Run, command: list[str], environment: dict[str, Any], names: list[str], tmp_path: Path
) -> None:
    """
    While another run has the lock, a start ends with 75 and says why.
    """
    if "APP_DATABASE_URL" in environment:
        # There the lock is in the database; the template's own tests take it.
        return
    path = tmp_path / f"{Path(command[0]).name}-{names[0]}.lock"
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        ended = run("job", names[0], job_lock_dir=tmp_path)

    assert ended.returncode == 75
    (line,) = [json.loads(line) for line in ended.stdout.splitlines()]
    assert (line["event"], line["outcome"]) == ("run", "overlap")
