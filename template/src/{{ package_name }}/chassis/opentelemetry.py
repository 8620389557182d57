"""
A span for each request goes to an OpenTelemetry collector.

As JSON (OTLP/HTTP), which costs less to import than protobuf and can be masked like a log line.
"""

import json
from collections.abc import Container, Sequence
from typing import Any
from urllib.request import Request, urlopen

from opentelemetry import trace
from opentelemetry.exporter.otlp.json.common.trace_encoder import encode_spans
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from .asgi import App, Message, Receive, Scope, Send
from .excerpt import Cut
from .logs import Logs
from .settings import Settings
from .telemetry import Telemetry

__all__ = ["start"]

# Characters of a text that are kept, and those that are sent: the end of what is kept may be the
# first half of a secret.
KEPT_SIZE, SENT_SIZE, ITEMS_MAX = 65_536, 4_096, 1_000
_W3C = TraceContextTextMapPropagator()


def start(settings: Settings, logs: Logs) -> Telemetry:
    """
    Ready to trace; a queue of 2,048 spans is all the memory it takes.
    """
    named = {f"service.{key}": logs.identity[key] for key in ("version", "revision")}
    named |= {"service.name": logs.identity["service"]}
    resource = Resource({**named, "deployment.environment.name": settings.environment})
    sampler = ParentBased(TraceIdRatioBased(settings.trace_sample_ratio))
    limits = SpanLimits(max_attribute_length=KEPT_SIZE)
    provider = TracerProvider(sampler, resource, shutdown_on_exit=False, span_limits=limits)
    # Queue, milliseconds between two batches, batch: no variable of the environment says otherwise.
    provider.add_span_processor(BatchSpanProcessor(_Exporter(settings, logs), 2048, 1000, 512, 0))
    trace.set_tracer_provider(provider)
    return Telemetry(wrap=_wrap, flush=provider.shutdown)


class _Exporter(SpanExporter):
    def __init__(self, settings: Settings, logs: Logs) -> None:
        self._url = f"{settings.otlp_endpoint}".rstrip("/") + "/v1/traces"
        self._limit, self._sink = settings.telemetry_flush_seconds, logs.sink

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """
        Send a batch once: one that the collector does not take is dropped.
        """
        shown = _shortened(encode_spans(spans).to_dict(), self._sink.cut)
        body = self._sink.mask(json.dumps(shown).encode())
        request = Request(self._url, body, {"content-type": "application/json"})  # noqa: S310  # see settings
        try:
            urlopen(request, timeout=self._limit).close()  # noqa: S310  # see settings
        except OSError:
            return SpanExportResult.FAILURE
        return SpanExportResult.SUCCESS


def _shortened(value: Any, cut: Cut) -> Any:
    if isinstance(value, dict):
        return {key: _shortened(one, cut) for key, one in value.items()}
    if isinstance(value, list):
        return [_shortened(one, cut) for one in value[:ITEMS_MAX]]
    return cut(value, SENT_SIZE) if isinstance(value, str) else value


def _wrap(app: App, beside: Container[str]) -> App:
    """
    A span around each request, which what is inside finds in the header `traceparent`.
    """
    tracer = trace.get_tracer(__name__)

    async def traced(scope: Scope, receive: Receive, send: Send) -> None:
        async def watch(message: Message) -> None:
            if status := message.get("status"):
                span.set_attribute("http.response.status_code", status)
                if status >= 500:
                    span.set_status(trace.StatusCode.ERROR)
                    span.set_attribute("error.type", str(status))
            await send(message)

        if scope["type"] != "http" or scope["path"] in beside:
            await app(scope, receive, send)
            return
        headers, method, path = scope["headers"], scope["method"], scope["path"][:512]
        known = {"http.request.method": method, "url.path": path, "url.scheme": scope["scheme"]}
        given = {"traceparent": dict(headers).get(b"traceparent", b"").decode("latin-1")}
        with tracer.start_as_current_span(
            method, _W3C.extract(given), trace.SpanKind.SERVER, known, record_exception=False
        ) as span:
            _W3C.inject(given)
            others = [pair for pair in headers if pair[0] != b"traceparent"]
            scope["headers"] = [*others, (b"traceparent", given["traceparent"].encode())]
            await app(scope, receive, watch)
            if route := getattr(scope.get("route"), "path", None):
                span.update_name(f"{method} {route}")
                span.set_attribute("http.route", route)

    return traced
