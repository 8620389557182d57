"""
What operators ask: probes and metrics, on a port of their own.
"""

import asyncio
from collections.abc import Iterable, Mapping
from importlib.resources import files

import orjson
from prometheus_client import REGISTRY, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric

from . import problem
from .asgi import Receive, Scope, Send, respond
from .health import Health
from .process import Process
from .ticker import Ticker

__all__ = ["Admin"]


class Admin:
    """
    The ASGI application of the admin port, which a thread of its own serves.

    Probes are answered from memory. Metrics are collected on the main event loop, because the code
    that they come from expects no other thread.
    """

    def __init__(self, *, process: Process, health: Health, ticker: Ticker) -> None:
        self._process, self._health, self._ticker = process, health, ticker
        # An update of the template writes its version into this file.
        version = files(__package__ or "") / "VERSION"
        template = version.read_text(encoding="utf-8").strip() if version.is_file() else "unknown"
        self._build = process.logs.identity | {"template": template}
        self._loop = asyncio.get_running_loop()
        REGISTRY.register(self)

    async def __call__(self, scope: Scope, _: Receive, send: Send) -> None:
        path = scope.get("path", "")
        if result := self._health.probes.get(path):
            status, body = 503 if result == "fail" else 200, orjson.dumps({"status": result})
            await respond(send, status, body, "application/health+json")
        elif path == "/metrics":
            metrics = asyncio.run_coroutine_threadsafe(_metrics(), self._loop)
            text = await asyncio.wrap_future(metrics)
            await respond(send, 200, text, "text/plain; version=0.0.4")
        elif scope["type"] == "http":
            await respond(send, 404, problem.body(404), problem.MEDIA_TYPE)

    def collect(self) -> Iterable[Metric]:
        """
        What the process knows of itself, for Prometheus and for `status`.
        """
        process, health, logs = self._process, self._health, self._process.logs
        yield InfoMetricFamily("app_build", "What is running.", self._build)
        errors = CounterMetricFamily("app_errors", "Errors by kind.", labels=["kind"])
        yield _filled(errors, process.errors)
        refused = CounterMetricFamily("app_connections_refused", "Before it.", labels=["reason"])
        yield _filled(refused, process.refused)
        checks = GaugeMetricFamily("app_check_up", "1 if the check passes.", labels=["check"])
        yield _filled(checks, {name: state == "pass" for name, state in health.checks.items()})
        ready, running, left = health.ready() != "fail", process.requests, process.abandoned
        yield GaugeMetricFamily("app_ready", "1 if ready for requests.", ready)
        yield GaugeMetricFamily("app_requests_in_flight", "Requests.", len(running))
        yield GaugeMetricFamily("app_requests_abandoned", "They run on, answered.", len(left))
        yield GaugeMetricFamily("app_loop_lag_seconds", "Lateness of the loop.", self._ticker.lag)
        yield GaugeMetricFamily("app_draining", "1 after SIGTERM.", process.stopping)
        yield GaugeMetricFamily("app_settings_unknown", "Never read.", len(process.unknown))
        yield CounterMetricFamily("app_log_lines_dropped", "Not written.", logs.sink.dropped)
        yield CounterMetricFamily("app_log_events_suppressed", "Not told.", logs.flood.suppressed)


async def _metrics() -> bytes:
    return generate_latest(REGISTRY)


def _filled(family: CounterMetricFamily | GaugeMetricFamily, values: Mapping[str, float]) -> Metric:
    for name, value in values.items():
        family.add_metric([name], value)
    return family
