"""
What compose.yaml says of times and ports is what the settings say.
"""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml

PATH = Path(__file__).parents[2] / "compose.yaml"


def test_one_truth(compare: Callable[..., None]) -> None:
    """
    Grace period, ports and an own health check carry the numbers of the settings.
    """
    web = yaml.safe_load(PATH.read_text())["services"]["web"]
    public, *others = sorted(targets(web.get("ports", [])))
    said = {
        "services.web.stop_grace_period": (
            web.get("stop_grace_period", "10s"),
            "APP_PLATFORM_GRACE_SECONDS",
        ),
        "services.web.ports, the first": (public, "APP_PORT"),
    }
    if others:
        said["services.web.ports, the second"] = (others[0], "APP_ADMIN_PORT")
    if "interval" in (check := web.get("healthcheck", {})):
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
    The ports inside the container that are published.
    """
    for port in ports:
        target = port["target"] if isinstance(port, dict) else str(port).rsplit(":", 1)[-1]
        yield int(str(target).partition("/")[0])


def variables(environment: Any) -> Iterator[tuple[str, str]]:
    """
    The settings with values that are known here: without interpolation, or with its default.
    """
    pairs = environment if isinstance(environment, list) else environment.items()
    for pair in pairs:
        name, _, value = pair.partition("=") if isinstance(pair, str) else (pair[0], "", pair[1])
        text = str(value).lower() if isinstance(value, bool) else str(value)
        text = re.sub(r"\$\{\w+:?-([^}]*)\}", r"\1", text)
        if name.startswith("APP_") and value not in {None, ""} and "$" not in text:
            yield name, text
