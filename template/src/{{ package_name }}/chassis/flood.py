"""
Flood control: what repeats is told once, or a few times, in ten seconds, and then as a number.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from typing import Any

from structlog import DropEvent
from structlog.contextvars import get_contextvars
from structlog.typing import EventDict

from .excerpt import Cut, Excerpt, brief, fit, origin

__all__ = ["Flood"]

WINDOW_SECONDS = 10
KEYS_MAX = 1000
# What leads to the event that was logged.
IDS = ("request_id", "message_id", "run_id")


@dataclass(slots=True)
class Repeated:
    """
    Events that are alike: how many were suppressed; below zero, so many may still be logged.
    """

    level: str
    ends: float
    count: int
    fields: dict[str, Any]


class Flood:
    """
    Knows what was logged lately; writes numbers by *line* and shortens texts by *cut*.
    """

    def __init__(self, line: Callable[..., None], cut: Cut) -> None:
        self.suppressed = 0
        self._line, self._cut = line, cut
        # No lock: each step is atomic, and a finalizer may log between any two.
        self._seen: dict[int, Repeated] = {}

    def limit(self, level: str, event: EventDict, error: BaseException | None) -> None:
        """
        Raises DropEvent if the event is one of many that are alike.

        Errors are alike by name, type and place. Events without an exception are alike if every
        field is the same. They are logged ten times, because a state may well change to and fro.
        """
        if level in {"debug", "info"}:
            return
        times, alike = 10, dict(event)
        if error is not None:
            # What a third party writes into its text, others write into fields.
            times, alike = 1, {"name": event.get("logger", event["event"])}
        place = (type(error), *origin(error)) if error is not None else ()
        key = hash((level, fit(alike, self._cut), place))
        if seen := self._seen.get(key):
            seen.count += 1
            if seen.count > 0:
                self.suppressed += 1
                raise DropEvent
            return
        if len(self._seen) >= KEYS_MAX:
            self.tell()
        fields = Excerpt(self._cut, 1_000).fields({"of": event["event"]})
        fields |= {"error": brief(error)} if error is not None else {}
        # Those of the first, which is logged in full.
        context = get_contextvars()
        fields |= {key: context[key] for key in IDS if key in context}
        self._seen[key] = Repeated(level, time.monotonic() + WINDOW_SECONDS, 1 - times, fields)

    def tell(self, until: float = inf) -> None:
        """
        Log the numbers of all that ends *until* then, in seconds of time.monotonic; forget them.
        """
        for key in [key for key, seen in list(self._seen.items()) if seen.ends <= until]:
            seen = self._seen.pop(key, None)
            if seen and seen.count > 0:
                fields = seen.fields | {"suppressed": seen.count}
                self._line("events_suppressed", seen.level, fields)
