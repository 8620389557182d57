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


def test_one_truth(web: dict[str, Any], compare: Callable[..., None]) -> None:
    """
    Grace period and an own health check carry the numbers of the settings.
    """
    said = {
        "services.web.stop_grace_period": (
            web.get("stop_grace_period", "10s"),
            "APP_PLATFORM_GRACE_SECONDS",
        ),
    }
    if "interval" in (check := web.get("healthcheck", {})):
        said["services.web.healthcheck.interval"] = (
            check["interval"],
            "APP_LIVENESS_PERIOD_SECONDS",
        )
    if "retries" in check:
        said["services.web.healthcheck.retries"] = (check["retries"], "APP_LIVENESS_FAILURES")

    signal = web.get("stop_signal", "SIGTERM")
    assert signal == "SIGTERM", f"compose.yaml: stop_signal is {signal}, and only SIGTERM drains"
    compare(PATH, dict(variables(web)), said)


def test_ports_are_served(web: dict[str, Any], values: Callable[..., dict[str, str]]) -> None:
    """
    What is published leads to a port of the service; behind a proxy of compose nothing need be.
    """
    settings = values(dict(variables(web)))
    served = {int(settings["APP_PORT"]), int(settings["APP_ADMIN_PORT"])}

    wrong = sorted({*targets(web.get("ports", []))} - served)

    assert not wrong, (
        f"compose.yaml: services.web.ports lead to {wrong}, but APP_PORT is "
        f"{settings['APP_PORT']} and APP_ADMIN_PORT is {settings['APP_ADMIN_PORT']}"
    )


def targets(ports: list[Any]) -> Iterator[int]:
    """
    The ports inside the container that are published.
    """
    for port in ports:
        target = port["target"] if isinstance(port, dict) else str(port).rsplit(":", 1)[-1]
        # Of a range both ends.
        yield from map(int, str(target).partition("/")[0].split("-"))


def variables(web: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """
    The settings with values that are known here, of `env_file` first, since `environment` wins.

    The folder of the secrets is where the service runs, not here.
    """
    files, environment = web.get("env_file", []), web.get("environment") or {}
    pairs: list[Any] = []
    for each in [files] if isinstance(files, str) else files:
        path = PATH.parent / (each["path"] if isinstance(each, dict) else each)
        pairs += path.read_text().splitlines() if path.exists() else []
    pairs += environment if isinstance(environment, list) else environment.items()
    for pair in pairs:
        name, _, value = pair.partition("=") if isinstance(pair, str) else (pair[0], "", pair[1])
        text = str(value).lower() if isinstance(value, bool) else str(value)
        known = value not in {None, ""} and "$" not in text and name != "APP_SECRETS_DIR"
        if name.startswith("APP_") and known:
            yield name, text.strip("\"'") if isinstance(pair, str) else text
