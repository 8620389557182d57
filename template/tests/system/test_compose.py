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


@pytest.mark.promise("C4")
def test_one_truth(compare: Callable[..., None]) -> None:
    """
    Grace period, ports and an own health check carry the numbers of the settings.
    """
    web = yaml.safe_load(PATH.read_text())["services"]["web"]
    check = web.get("healthcheck", {})
    grace = web.get("stop_grace_period", "10s")
    said = {"services.web.stop_grace_period": (grace, "APP_PLATFORM_GRACE_SECONDS")}
    names = ("APP_PORT", "APP_ADMIN_PORT")
    for index, (port, name) in enumerate(zip(targets(web.get("ports", [])), names, strict=False)):
        said[f"services.web.ports[{index}]"] = (port, name)
    if "interval" in check:
        said["services.web.healthcheck.interval"] = (
            check["interval"],
            "APP_LIVENESS_PERIOD_SECONDS",
        )
    if "retries" in check:
        said["services.web.healthcheck.retries"] = (check["retries"], "APP_LIVENESS_FAILURES")

    signal = web.get("stop_signal", "SIGTERM")
    assert signal == "SIGTERM", f"compose.yaml: stop_signal is {signal}, and only SIGTERM drains"
    compare(PATH, dict(variables(web.get("environment", {}))), said)


def targets(ports: list[Any]) -> Iterator[int]:
    """
    The ports inside the container that are published: first the public one, then the admin port.
    """
    for port in ports:
        target = port["target"] if isinstance(port, dict) else str(port).rsplit(":", 1)[-1]
        yield int(str(target).partition("/")[0])


def variables(environment: Any) -> Iterator[tuple[str, str | None]]:
    """
    The settings, with None for a value that is not known here: interpolated without a default.
    """
    if isinstance(environment, list):
        environment = {pair.split("=")[0]: pair.partition("=")[2] or None for pair in environment}
    for name, value in environment.items():
        text = str(value).lower() if isinstance(value, bool) else str(value)
        text = re.sub(r"\$\{\w+:?-([^}]*)\}", r"\1", text)
        if name.startswith("APP_"):
            yield name, None if value is None or "$" in text else text
