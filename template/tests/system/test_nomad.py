"""
What the Nomad job says of times and ports, with each file of variables, is what the settings say.
"""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
FOLDER = PROJECT / "deploy" / "nomad"
JOBS = sorted(FOLDER.glob("*.nomad.hcl"))
VARIABLES = ["", *sorted(path.name for path in FOLDER.glob("*.vars.hcl"))]
each_job = pytest.mark.parametrize("path", JOBS, ids=lambda path: path.name.partition(".")[0])
each_file = pytest.mark.parametrize("name", VARIABLES)


@pytest.mark.promise("C4")
@each_job
@each_file
def test_one_truth(compare: Callable[..., None], path: Path, name: str) -> None:
    """
    Pause, grace period, checks and ports carry the numbers of the settings.
    """
    job = path.read_text(encoding="utf-8")
    given = (FOLDER / name).read_text(encoding="utf-8") if name else ""

    assert after(job, f'task "{kind(job)}"', "kill_signal") == "SIGTERM", (
        f"{path.relative_to(PROJECT)}: only SIGTERM drains"
    )
    compare(FOLDER / name if name else path, variables(given), numbers(job, given))


@pytest.mark.promise("C4")
@each_job
@each_file
def test_runs_end_before_the_next(
    values: Callable[..., dict[str, str]], interval: Callable[[str], float], path: Path, name: str
) -> None:
    """
    What runs by a schedule does so as often as declared, by UTC, and not beside itself.
    """
    job = path.read_text(encoding="utf-8")
    given = (FOLDER / name).read_text(encoding="utf-8") if name else ""
    if kind(job) == "job":
        settings = values(FOLDER / name if name else path, variables(given))
        between = interval(after(job, "periodic", "cron") or "")
        declared = float(settings["APP_JOB_INTERVAL_SECONDS"])

        assert between == declared, (
            f"{path.relative_to(PROJECT)}: cron starts it every {between:g} s at the shortest, "
            f"but APP_JOB_INTERVAL_SECONDS is {declared:g}"
        )
        assert after(job, "periodic", "time_zone") == "UTC"
        assert after(job, "periodic", "prohibit_overlap") == "true"


def kind(job: str) -> str:
    """
    The process type that a job runs.
    """
    found: list[str] = re.findall(r'^    task "(web|worker|job)"', job, re.MULTILINE)
    return found[0]


def numbers(job: str, given: str) -> dict[str, tuple[str | None, str]]:
    """
    Where a number stands, what it is, and its setting.
    """
    grace = after(given, "", "kill_timeout") or after(job, 'variable "kill_timeout"', "default")
    if kind(job) == "job":
        return {"kill_timeout": (grace, "APP_PLATFORM_GRACE_SECONDS")}
    pause = after(job, "", "shutdown_delay")
    said = {
        "shutdown_delay": (pause, "APP_PRE_STOP_SECONDS"),
        "shutdown_delay and kill_timeout": (f"{pause} {grace}", "APP_PLATFORM_GRACE_SECONDS"),
        "to of port admin": (after(job, 'port "admin"', "to"), "APP_ADMIN_PORT"),
    }
    if kind(job) == "web":
        said["to of port public"] = (after(job, 'port "public"', "to"), "APP_PORT")
    for check, key, setting in (
        ("readiness", "interval", "APP_READINESS_PERIOD_SECONDS"),
        ("readiness", "timeout", "APP_PROBE_TIMEOUT_SECONDS"),
        ("liveness", "interval", "APP_LIVENESS_PERIOD_SECONDS"),
        ("liveness", "timeout", "APP_LIVENESS_TIMEOUT_SECONDS"),
        ("liveness", "limit", "APP_LIVENESS_FAILURES"),
    ):
        said[f"{key} of the {check} check"] = (after(job, f'name += "{check}"', key), setting)
    return said


def after(text: str, start: str, key: str) -> str | None:
    """
    The first value of *key* after what *start* matches, or nothing.
    """
    line = rf'^[ \t]*{key}[ \t]*=[ \t]*"?([^"\n]*?)"?[ \t]*(?:(?:#|//).*)?$'
    found = re.search(rf"(?s:{start}.*?){line}", text, re.MULTILINE)
    return found[1] if found else None


def variables(given: str) -> dict[str, str]:
    """
    The settings that a file of variables names.
    """
    block = re.search(r"^environment\s*=\s*\{(.*?)\}", given, re.MULTILINE | re.DOTALL)
    pair = r'(?:^|,)\s*"?(APP_\w+)"?[ \t]*[=:][ \t]*(?:"((?:[^"\\\n]|\\.)*)"|([^\s,]+))'
    found = re.findall(pair, block[1], re.MULTILINE) if block else []
    return {name: text.replace('\\"', '"') + bare for name, text, bare in found}
