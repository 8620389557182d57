"""
What the Nomad job says of times and ports, with each file of variables, is what the settings say.
"""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
FOLDER = PROJECT / "deploy" / "nomad"
VARIABLES = ["", *sorted(path.name for path in FOLDER.glob("*.vars.hcl"))]


@pytest.mark.promise("C4")
@pytest.mark.parametrize("name", VARIABLES)
def test_one_truth(compare: Callable[..., None], command: list[str], name: str) -> None:
    """
    Pause, grace period, checks and ports carry the numbers of the settings.
    """
    path = FOLDER / f"{Path(command[0]).name}.nomad.hcl"
    job = path.read_text()
    given = (FOLDER / name).read_text() if name else ""
    grace = after(given, "", "kill_timeout") or after(job, 'variable "kill_timeout"', "default")
    pause = after(job, "", "shutdown_delay")
    said = {
        "shutdown_delay": (pause, "APP_PRE_STOP_SECONDS"),
        "shutdown_delay and kill_timeout": (f"{pause} {grace}", "APP_PLATFORM_GRACE_SECONDS"),
        "to of port public": (after(job, 'port "public"', "to"), "APP_PORT"),
        "to of port admin": (after(job, 'port "admin"', "to"), "APP_ADMIN_PORT"),
    }
    for kind, key, setting in (
        ("readiness", "interval", "APP_READINESS_PERIOD_SECONDS"),
        ("readiness", "timeout", "APP_PROBE_TIMEOUT_SECONDS"),
        ("liveness", "interval", "APP_LIVENESS_PERIOD_SECONDS"),
        ("liveness", "timeout", "APP_PROBE_TIMEOUT_SECONDS"),
        ("liveness", "limit", "APP_LIVENESS_FAILURES"),
    ):
        said[f"{key} of the {kind} check"] = (after(job, f'name += "{kind}"', key), setting)

    assert after(job, "task", "kill_signal") == "SIGTERM", (
        f"{path.relative_to(PROJECT)}: only SIGTERM drains"
    )
    compare(FOLDER / name if name else path, variables(given), said)


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
