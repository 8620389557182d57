"""
Unexpected errors go to Sentry: what broke and where, without variables, bodies or headers.

The SDK patches nothing here and sees no request: it is told of errors only, and of each once.
"""

import json
from collections.abc import Mapping
from functools import partial
from typing import Any

from sentry_sdk import Client
from sentry_sdk.types import Event, Hint
from sentry_sdk.utils import event_from_exception
from structlog.contextvars import get_contextvars

from .excerpt import Excerpt, traceback_text, words
from .logs import Logs
from .settings import Settings
from .telemetry import Telemetry

__all__ = ["start"]

# Sentry itself keeps no more of a tag.
TAG_SIZE = 200


def start(settings: Settings, logs: Logs) -> Telemetry:
    """
    Ready to report; a queue of a hundred events is all the memory it takes.
    """

    def mask(event: Event, _: Hint) -> Event:
        masked: Event = json.loads(logs.sink.mask(json.dumps(event, default=str).encode()))
        return masked

    client = Client(
        settings.sentry_dsn.get_secret_value() if settings.sentry_dsn else "",
        release="{service}@{version}+{revision}".format_map(logs.identity),
        environment=settings.environment,
        before_send=mask,
        server_name="",
        include_local_variables=False,
        default_integrations=False,
        send_client_reports=False,
        # Said here, so that no variable of the environment says otherwise.
        debug=False,
        spotlight=False,
    )
    flush = partial(client.flush, settings.telemetry_flush_seconds)
    return Telemetry(report=partial(_report, client, logs), flush=flush)


def _report(
    client: Client, logs: Logs, error: BaseException | None, context: Mapping[str, str]
) -> None:
    """
    Queue an event; in a flood, or while Sentry is dead, drop it before it costs anything.
    """
    marks: dict[str, Any] = {} if error is None else vars(error)
    is_healthy = client.transport is not None and client.transport.is_healthy()
    if not is_healthy or "_is_reported" in marks:
        return
    event: Event = {"message": context["event"], "level": "error"}
    if error is not None:
        excerpt = Excerpt(logs.sink.cut)
        shown = excerpt.exceptions(error, frames_max=100)
        if excerpt.left_out:
            event |= {
                "message": traceback_text(shown),
                "extra": {"left_out": dict(excerpt.left_out)},
            }
        else:
            event, _ = event_from_exception(error, client_options=client.options)
    event["transaction"] = context.get("route") or context["kind"]
    tags: dict[str, Any] = {**get_contextvars(), **context}
    short = {name: logs.sink.cut(words(tags[name]), TAG_SIZE) for name in tags}
    event["tags"] = short | {name: tags[name] for name in tags if isinstance(tags[name], int)}
    client.capture_event(event)
    marks["_is_reported"] = True
