"""
What compose.yaml says of times and ports is what the settings say.
"""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

PROJECT = Path(__file__).parents[2]
PATH = PROJECT / "compose.yaml"
HAS_DATABASE = any(PROJECT.glob("src/*/chassis/database.py"))


Services = dict[str, dict[str, Any]]


@pytest.fixture(name="services", scope="session")
def _services() -> Services:
    """
    Those that run a process type of ours; what is interpolated has its default.
    """
    text = re.sub(r"\$\{\w+:?-([^}]*)\}", r"\1", PATH.read_text(encoding="utf-8"))
    services: Services = yaml.safe_load(text)["services"]
    return {kind: services[kind] for kind in ("web", "worker", "job") if kind in services}


@pytest.mark.promise("C4")
def test_one_truth(services: Services, compare: Callable[..., None]) -> None:
    """
    Grace period, an own health check and replicas carry the numbers of the settings.
    """
    for kind, service in services.items():
        signal = service.get("stop_signal", "SIGTERM")

        assert signal == "SIGTERM", (
            f"compose.yaml: stop_signal is {signal}, and only SIGTERM drains"
        )
        compare(PATH, dict(variables(service)), dict(numbers(kind, service)))


def numbers(kind: str, service: dict[str, Any]) -> Iterator[tuple[str, tuple[Any, str]]]:
    """
    Where a number stands, what it is or what compose takes without it, and its setting.
    """
    key, check = f"services.{kind}", service.get("healthcheck", {})
    grace = service.get("stop_grace_period", "10s")
    yield f"{key}.stop_grace_period", (grace, "APP_PLATFORM_GRACE_SECONDS")
    if "interval" in check:
        yield f"{key}.healthcheck.interval", (check["interval"], "APP_LIVENESS_PERIOD_SECONDS")
    if "retries" in check:
        yield f"{key}.healthcheck.retries", (check["retries"], "APP_LIVENESS_FAILURES")
    # What the connections to the database are counted by.
    if HAS_DATABASE and kind != "job":
        replicas = service.get("deploy", {}).get("replicas", service.get("scale", 1))
        yield f"{key}.deploy.replicas", (replicas, "APP_REPLICAS")


@pytest.mark.promise("C4")
def test_ports_are_served(services: Services, values: Callable[..., dict[str, str]]) -> None:
    """
    What is published leads to a port of the service; behind a proxy of compose nothing need be.
    """
    for kind, service in services.items():
        settings = values(PATH, dict(variables(service)))
        served = settings["APP_PORT"], settings["APP_ADMIN_PORT"]

        wrong = sorted({*targets(service.get("ports", []))} - {*served})

        assert not wrong, (
            f"compose.yaml: services.{kind}.ports lead to {', '.join(wrong)}, "
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


def variables(service: dict[str, Any]) -> Iterator[tuple[str, str | None]]:
    """
    The settings, those of `env_file` first, since `environment` wins; with None for a value that
    is not known here: interpolated without a default.
    """
    files, environment = service.get("env_file", []), service.get("environment") or {}
    pairs: list[tuple[str, Any]] = []
    for each in [files] if isinstance(files, str) else files:
        path = PATH.parent / (each["path"] if isinstance(each, dict) else each)
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        pairs += [(line.partition("=")[0], line.partition("=")[2].strip("\"'")) for line in lines]
    if isinstance(environment, list):
        pairs += [(pair.partition("=")[0], pair.partition("=")[2] or None) for pair in environment]
    else:
        pairs += environment.items()
    for name, value in pairs:
        text = str(value).lower() if isinstance(value, bool) else str(value)
        if name.startswith("APP_"):
            yield name, None if value is None or "$" in text else text
