"""
What the Dockerfile says of times and ports is what the settings say.
"""

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

PATH = Path(__file__).parents[2] / "Dockerfile"

pytestmark = pytest.mark.skipif(not PATH.exists(), reason="there is no Dockerfile")


@pytest.fixture(name="instructions", scope="session")
def _instructions() -> dict[str, str]:
    """
    The instructions of the last stage, and of those it starts from; of ENV all.
    """
    text = re.sub(r"(?m)^\s*#.*\n", "", PATH.read_text(encoding="utf-8"))
    found: dict[str, str] = {}
    stages: dict[str, dict[str, str]] = {}
    for line in re.sub(r"\\\n\s*", "", text).splitlines():
        name, value = (*line.split(maxsplit=1), "", "")[:2]
        if (name := name.upper()) == "FROM":
            image, *named = value.split()
            found = dict(stages.get(image, {}))
            stages[named[-1] if named else ""] = found
        found[name] = f"{found.get(name, '')} {value}" if name == "ENV" else value
    return found


def variables(instructions: dict[str, str]) -> dict[str, str]:
    """
    The settings that ENV names.
    """
    pairs = (word.partition("=") for word in shlex.split(instructions.get("ENV", "")))
    return {name: value for name, _, value in pairs if name.startswith("APP_")}


@pytest.mark.promise("C4")
def test_one_truth(instructions: dict[str, str], compare: Callable[..., None], kind: str) -> None:
    """
    Ports and health check carry the numbers of the settings; the stop signal drains.
    """
    ports = [*instructions.get("EXPOSE", "").replace("/tcp", "").split(), None, None]
    check = dict(re.findall(r"--(\S+?)=(\S+)", instructions.get("HEALTHCHECK", "")))
    said = {
        "HEALTHCHECK --interval": (check.get("interval", "30s"), "APP_LIVENESS_PERIOD_SECONDS"),
        "HEALTHCHECK --retries": (check.get("retries", "3"), "APP_LIVENESS_FAILURES"),
    }
    served = ["APP_PORT", "APP_ADMIN_PORT"] if kind == "web" else ["APP_ADMIN_PORT"]
    for place, port, name in zip(["first", "second"], ports, served, strict=False):
        said[f"EXPOSE, the {place}"] = (port, name)

    signal = instructions.get("STOPSIGNAL", "SIGTERM")
    assert signal == "SIGTERM", f"Dockerfile: STOPSIGNAL is {signal}, and only SIGTERM drains"
    compare(PATH, variables(instructions), said)


def test_health_check_has_time(
    instructions: dict[str, str], values: Callable[..., dict[str, str]]
) -> None:
    """
    There is time to start Python besides the limit of the probe itself.
    """
    timeout = re.search(r"--timeout=(\d+)s", instructions.get("HEALTHCHECK", ""))
    assert timeout, "Dockerfile: HEALTHCHECK has no --timeout in seconds"
    settings = values(PATH, variables(instructions))
    probe = float(settings["APP_LIVENESS_TIMEOUT_SECONDS"])
    told = f"Dockerfile: HEALTHCHECK {timeout[0]}, but APP_LIVENESS_TIMEOUT_SECONDS is {probe:g}"

    assert float(timeout[1]) >= probe + 1, told


def test_health_check_works(instructions: dict[str, str], service: Any, tmp_path: Path) -> None:
    """
    Its command says yes to a live process, and no where there is none.
    """
    command = json.loads(instructions["HEALTHCHECK"].partition("CMD ")[2])

    def check(port: int) -> int:
        return subprocess.run(  # noqa: S603  # as the Dockerfile has it
            [sys.executable, *command[1:]],
            env={**os.environ, "APP_ADMIN_PORT": str(port)},
            cwd=tmp_path,
            timeout=30,
            check=False,
        ).returncode

    assert check(service.admin_port) == 0
    assert check(1) == 1
