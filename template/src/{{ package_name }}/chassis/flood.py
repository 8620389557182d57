"""
Flood control: what repeats is told once, or a few times, in ten seconds, and then as a number.
"""

import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from math import inf

from structlog import DropEvent
from structlog.typing import EventDict

__all__ = ["Flood"]

WINDOW_SECONDS = 10
KEYS_MAX = 1000
# The package that this chassis is a part of.
OURS = __file__.rpartition("chassis")[0]


@dataclass(slots=True)
class Repeated:
    """
    Events that are alike: how many were suppressed; below zero, so many may still be told.
    """

    event: str
    level: str
    ends: float
    count: int


class Flood:
    """
    Knows what was told lately; writes numbers by *line* and compares fields by *dumps*.
    """

    def __init__(self, line: Callable[..., None], dumps: Callable[..., bytes]) -> None:
        self.suppressed = 0
        self._line, self._dumps = line, dumps
        # No lock: each step is atomic, and a finaliser may log between any two.
        self._seen: dict[int, Repeated] = {}

    def limit(self, _: object, level: str, event: EventDict) -> EventDict:
        """
        Let pass what is new, as a processor of structlog.

        Errors are alike by name, type and place. What has no exception must be the same in every
        field, and is told ten times: a state may well change to and fro.
        """
        if level in {"debug", "info"}:
            return event
        error = event.get("exc_info")
        if error is True or isinstance(error, tuple):
            error = sys.exc_info()[1] if error is True else error[1]
        if isinstance(error, BaseException):
            # What a third party writes into its text, others write into fields.
            times, alike = 1, hash((level, event.get("logger", event["event"]), *_place(error)))
        else:
            times, alike = 10, hash((level, self._dumps(event)))
        if seen := self._seen.get(alike):
            seen.count += 1
            if seen.count > 0:
                self.suppressed += 1
                raise DropEvent
        else:
            if len(self._seen) >= KEYS_MAX:
                self.tell()
            ends = time.monotonic() + WINDOW_SECONDS
            self._seen[alike] = Repeated(event["event"], level, ends, 1 - times)
        return event

    def tell(self, until: float = inf) -> None:
        """
        Tell the numbers of all that ends *until* then, in seconds of time.monotonic; forget it.
        """
        for key in [key for key, seen in list(self._seen.items()) if seen.ends <= until]:
            seen = self._seen.pop(key, None)
            if seen and seen.count > 0:
                fields = {"of": seen.event, "suppressed": seen.count}
                self._line("events_suppressed", seen.level, fields)


def _place(error: BaseException) -> tuple[object, ...]:
    """
    An exception's type, where it was raised, and the last call of ours on the way there.
    """
    trace = traceback.walk_tb(error.__traceback__)
    calls = [(frame.f_code.co_filename, line) for frame, line in trace]
    return type(error), *calls[-1:], *[call for call in calls if call[0].startswith(OURS)][-1:]
