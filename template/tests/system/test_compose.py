"""
What compose.yaml says of times and ports is what the settings say.
"""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

PATH = Path(__file__).parents[2] / "compose.yaml"


@pytest.fixture(name="web", scope="session")
def _web() -> dict[str, Any]:
    """
    The service; what is interpolated has its default.
    """
    text = re.sub(r"\$\{\w+:?-([^}]*)\}", r"\1", PATH.read_text())
    web: dict[str, Any] = yaml.safe_load(text)["services"]["web"]
    return web


@pytest.mark.promise("C4")
def test_one_truth(web: dict[str, Any], compare: Callable[..., None]) -> None:
    """
    Grace period and an own health check carry the numbers of the settings.
    """
    grace, check = web.get("stop_grace_period", "10s"), web.get("healthcheck", {})
    said = {"services.web.stop_grace_period": (grace, "APP_PLATFORM_GRACE_SECONDS")}
    if "interval" in check:
        said["services.web.healthcheck.interval"] = (
            check["interval"],
            "APP_LIVENESS_PERIOD_SECONDS",
        )
    if "retries" in check:
        said["services.web.healthcheck.retries"] = (check["retries"], "APP_LIVENESS_FAILURES")

    signal = web.get("stop_signal", "SIGTERM")
    assert signal == "SIGTERM", f"compose.yaml: stop_signal is {signal}, and only SIGTERM drains"
    compare(PATH, dict(variables(web)), said)


@pytest.mark.promise("C4")
def test_ports_are_served(web: dict[str, Any], values: Callable[..., dict[str, str]]) -> None:
    """
    What is published leads to a port of the service; behind a proxy of compose nothing need be.
    """
    settings = values(PATH, dict(variables(web)))
    served = settings["APP_PORT"], settings["APP_ADMIN_PORT"]

    wrong = sorted({*targets(web.get("ports", []))} - {*served})

    assert not wrong, (
        f"compose.yaml: services.web.ports lead to {', '.join(wrong)}, "
        f"but APP_PORT is {served[0]} and APP_ADMIN_PORT is {served[1]}"
    )


def targets(ports: list[Any]) -> Iterator[str]:
    """
    The ports inside the container that are published.
    """
    for port in ports:
        target = port["target"] if isinstance(port, dict) else str(port).rsplit(":", 1)[-1]
        # Of a range both ends.
        yield from str(target).partition("/")[0].split("-")


def variables(web: dict[str, Any]) -> Iterator[tuple[str, str | None]]:
    """
    The settings, those of `env_file` first, since `environment` wins; with None for a value that
    is not known here: interpolated without a default.
    """
    files, environment = web.get("env_file", []), web.get("environment") or {}
    pairs: list[tuple[str, Any]] = []
    for each in [files] if isinstance(files, str) else files:
        path = PATH.parent / (each["path"] if isinstance(each, dict) else each)
        lines = path.read_text().splitlines() if path.exists() else []
        pairs += [(line.partition("=")[0], line.partition("=")[2].strip("\"'")) for line in lines]
    if isinstance(environment, list):
        pairs += [(pair.partition("=")[0], pair.partition("=")[2] or None) for pair in environment]
    else:
        pairs += environment.items()
    for name, value in pairs:
        text = str(value).lower() if isinstance(value, bool) else str(value)
        if name.startswith("APP_"):
            yield name, None if value is None or "$" in text else text
