"""
What the systemd unit and its drop-ins say is what the settings say.
"""

import shlex
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
FOLDER = PROJECT / "deploy" / "systemd"


@pytest.mark.promise("C4")
def test_one_truth(compare: Callable[..., None], command: list[str]) -> None:
    """
    The time to stop is that of the settings, the signal one that drains, and there are more file
    descriptors than connections.
    """
    path = FOLDER / f"{Path(command[0]).name}.service"
    unit = read(path)

    assert unit["KillSignal"][-1:] == ["SIGTERM"], (
        f"{path.relative_to(PROJECT)}: only SIGTERM drains"
    )
    compare(
        path,
        variables(unit["Environment"]),
        {"TimeoutStopSec": (unit["TimeoutStopSec"][-1], "APP_PLATFORM_GRACE_SECONDS")},
    )


def test_descriptors(values: Callable[..., dict[str, str]], command: list[str]) -> None:
    """
    Each connection may take two file descriptors.
    """
    path = FOLDER / f"{Path(command[0]).name}.service"
    unit = read(path)

    most = float(unit["LimitNOFILE"][-1].rpartition(":")[2])
    wanted = values(path, variables(unit["Environment"]))["APP_CONNECTIONS_MAX"]

    assert most > 2 * int(wanted), (
        f"{path.relative_to(PROJECT)}: LimitNOFILE is {most:g}, "
        f"which must be more than twice APP_CONNECTIONS_MAX={wanted}"
    )


def test_wrong_configuration_is_not_tried_again(command: list[str]) -> None:
    """
    64 and 78 end it: another start would say the same.
    """
    path = FOLDER / f"{Path(command[0]).name}.service"
    codes = " ".join(read(path)["RestartPreventExitStatus"]).split()

    assert {"64", "78"} <= {*codes}, (
        f"{path.relative_to(PROJECT)}: RestartPreventExitStatus is {codes}"
    )


def read(path: Path) -> defaultdict[str, list[str]]:
    """
    The values of each key of a unit with its drop-ins; an empty one takes back those before it.
    """
    found: defaultdict[str, list[str]] = defaultdict(list)
    for part in [path, *sorted(path.with_name(f"{path.name}.d").glob("*.conf"))]:
        for line in part.read_text().replace("\\\n", " ").splitlines():
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
