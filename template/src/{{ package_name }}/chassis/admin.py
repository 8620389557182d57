"""
What operators ask: probes and metrics, on a port of their own.
"""

from collections.abc import Iterable

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
    The ASGI application of the admin port; it answers from memory, nothing here waits.
    """

    def __init__(self, *, process: Process, health: Health, ticker: Ticker, unknown: int) -> None:
        self._process, self._health = process, health
        self._ticker, self._unknown = ticker, unknown
        REGISTRY.register(self)

    async def __call__(self, scope: Scope, _: Receive, send: Send) -> None:
        path = scope.get("path", "")
        if result := self._health.probes.get(path):
            status, body = 503 if result == "fail" else 200, orjson.dumps({"status": result})
            await respond(send, status, body, "application/health+json")
        elif path == "/metrics":
            await respond(send, 200, generate_latest(REGISTRY), "text/plain; version=0.0.4")
        elif scope["type"] == "http":
            await respond(send, 404, problem.body(404), problem.MEDIA_TYPE)

    def collect(self) -> Iterable[Metric]:
        """
        What the process knows of itself, for Prometheus and for `status`.
        """
        yield InfoMetricFamily("app_build", "What is running.", self._process.logs.identity)
        errors = CounterMetricFamily("app_errors", "Errors by kind.", labels=["kind"])
        for kind, count in self._process.errors.items():
            errors.add_metric([kind], count)
        checks = GaugeMetricFamily("app_check_up", "1 if the check passes.", labels=["check"])
        for name, result in self._health.checks.items():
            checks.add_metric([name], result == "pass")
        refused = CounterMetricFamily("app_connections_refused", "Before it.", labels=["reason"])
        for reason, count in self._process.refused.items():
            refused.add_metric([reason], count)
        yield from (errors, checks, refused)
        ready, logs = self._health.ready() != "fail", self._process.logs
        yield GaugeMetricFamily("app_ready", "1 if ready for requests.", ready)
        left = len(self._process.abandoned)
        yield GaugeMetricFamily("app_requests_in_flight", "Requests.", self._process.in_flight)
        yield GaugeMetricFamily("app_requests_abandoned", "Still run after their answer.", left)
        yield GaugeMetricFamily("app_loop_lag_seconds", "Lateness of the loop.", self._ticker.lag)
        yield GaugeMetricFamily("app_draining", "1 after SIGTERM.", self._process.stopping)
        yield GaugeMetricFamily("app_settings_unknown", "Variables not read.", self._unknown)
        yield CounterMetricFamily("app_log_lines_dropped", "Not written.", logs.sink.dropped)
        total = logs.flood.suppressed
        yield CounterMetricFamily("app_log_events_suppressed", "Told only as a count.", total)
