"""
What the systemd unit and its drop-ins say is what the settings say.
"""

import re
import shlex
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
FOLDER = PROJECT / "deploy" / "systemd"
# But for what applies migrations, which has all the time it takes.
UNITS = sorted(path for path in FOLDER.glob("*.service") if not path.stem.endswith("-migrate"))
JOBS = [path for path in UNITS if path.stem.endswith("-job@")]


@pytest.mark.promise("C4")
@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.stem)
def test_one_truth(compare: Callable[..., None], path: Path) -> None:
    """
    The time to stop is that of the settings, and the signal one that drains.
    """
    unit = read(path)

    assert unit["KillSignal"][-1:] == ["SIGTERM"], (
        f"{path.relative_to(PROJECT)}: only SIGTERM drains"
    )
    compare(
        path,
        variables(unit["Environment"]),
        {"TimeoutStopSec": (unit["TimeoutStopSec"][-1], "APP_PLATFORM_GRACE_SECONDS")},
    )


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.stem)
def test_descriptors(values: Callable[..., dict[str, str]], path: Path) -> None:
    """
    Where there are connections from outside, each may take two file descriptors.
    """
    unit = read(path)

    most = float(unit["LimitNOFILE"][-1].rpartition(":")[2]) if unit["LimitNOFILE"] else 0
    wanted = values(path, variables(unit["Environment"]))["APP_CONNECTIONS_MAX"]

    assert most > 2 * int(wanted) or "web" not in unit["ExecStart"][-1].split(), (
        f"{path.relative_to(PROJECT)}: LimitNOFILE is {most:g}, "
        f"which must be more than twice APP_CONNECTIONS_MAX={wanted}"
    )


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.stem)
def test_wrong_configuration_is_not_tried_again(path: Path) -> None:
    """
    64 and 78 end it: another start would say the same.
    """
    codes = " ".join(read(path)["RestartPreventExitStatus"]).split()

    assert {"64", "78"} <= {*codes}, (
        f"{path.relative_to(PROJECT)}: RestartPreventExitStatus is {codes}"
    )


@pytest.mark.promise("C4")
def test_runs_end_before_the_next(
    values: Callable[..., dict[str, str]],
    interval: Callable[[str], float],
    span: Callable[[str], float],
) -> None:
    """
    A job's own limit comes before that of systemd, and that before the next start, as often as
    declared.
    """
    for path in JOBS:
        unit = read(path)
        settings = values(path, variables(unit["Environment"]))
        where = path.relative_to(PROJECT)
        names = ("APP_JOB_JITTER", "APP_JOB_MAX_RUNTIME", "APP_GRACE")
        longest = sum(float(settings[f"{name}_SECONDS"]) for name in names)
        most = span((unit["RuntimeMaxSec"] or ["none"])[-1])
        timer = read(path.with_suffix(".timer"))
        late = span((timer["RandomizedDelaySec"] or ["0"])[-1])
        declared = float(settings["APP_JOB_INTERVAL_SECONDS"])

        assert longest < most, (
            f"{where}: RuntimeMaxSec is {most:g}, but a run takes up to {longest:g} s "
            "(APP_JOB_JITTER_SECONDS, APP_JOB_MAX_RUNTIME_SECONDS, APP_GRACE_SECONDS)"
        )
        for calendar in timer["OnCalendar"]:
            between = interval(schedule(calendar))
            assert between == declared, (
                f"{where.with_suffix('.timer')}: OnCalendar={calendar} starts it every "
                f"{between:g} s, but APP_JOB_INTERVAL_SECONDS is {declared:g}"
            )
            assert late + most < between, (
                f"{where}: RuntimeMaxSec {most:g} and RandomizedDelaySec {late:g} are more than "
                f"the {between:g} s until the next start"
            )


def schedule(calendar: str) -> str:
    """
    As cron writes it; raises AssertionError for what is neither daily nor hourly, nor in UTC.
    """
    if calendar in {"daily", "hourly"}:
        return f"@{calendar}"
    found = re.fullmatch(r"\*-\*-\* (\*|\d+):(\d+)(?::\d+)? (?:Etc/)?UTC", calendar)
    assert found, f"OnCalendar={calendar} can't be read: write *-*-* 03:17:00 UTC"
    return f"{found[2]} {found[1]} * * *"


def read(path: Path) -> defaultdict[str, list[str]]:
    """
    The values of each key of a unit with its drop-ins; an empty one takes back those before it.
    """
    found: defaultdict[str, list[str]] = defaultdict(list)
    for part in [path, *sorted(path.with_name(f"{path.name}.d").glob("*.conf"))]:
        for line in part.read_text(encoding="utf-8").replace("\\\n", " ").splitlines():
            key, equals, value = (part.strip() for part in line.partition("="))
            # It is both, that to start and that to stop.
            key = "TimeoutStopSec" if key == "TimeoutSec" else key
            if not equals or line.startswith(("#", ";")):
                continue
            if not value:
                found[key].clear()
            else:
                found[key].append(value)
    return found


def variables(environment: list[str]) -> dict[str, str]:
    """
    The settings among the variables.
    """
    pairs = [pair.partition("=") for pair in shlex.split(" ".join(environment))]
    return {name: text.replace("%%", "%") for name, _, text in pairs if name.startswith("APP_")}
