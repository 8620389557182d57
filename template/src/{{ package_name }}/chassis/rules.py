"""
Which time must be shorter than which, checked before anything starts.

Each rule comes from an outage that its absence allows; the reason is part of the message.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["PREFIX", "RULES", "SWITCHES", "Rule", "variable"]

PREFIX = "APP_"


def variable(field: str) -> str:
    """
    The environment variable that sets *field*.
    """
    return f"{PREFIX}{field.upper()}"


@dataclass(frozen=True)
class Rule:
    """
    A sum of settings and numbers, `<` or `<=`, one setting; and why.
    """

    text: str
    why: str

    @property
    def parts(self) -> tuple[list[str], str, str]:
        """
        The terms on the left, the operator, the setting on the right.
        """
        left, operator, right = re.split(r" (<=?) ", self.text)
        return left.split(" + "), operator, right

    def broken(self, values: Mapping[str, float]) -> str | None:
        """
        How *values* break this rule and what would mend it, or None.
        """
        terms, operator, right = self.parts
        total = sum(values[term] if term in values else float(term) for term in terms)
        if total < values[right] or (operator == "<=" and total == values[right]):
            return None
        step = operator == "<"
        longest = max((term for term in terms if term in values), key=values.__getitem__)
        room = math.floor(values[right] - total + values[longest]) - step
        mends = [f"{variable(right)}={math.ceil(total) + step}"]
        mends += [f"{variable(longest)}={room}"] if room > 0 else []
        shown = [f"{variable(term)}={values[term]:g}" if term in values else term for term in terms]
        limit = f"{'less than' if step else 'at most'} {variable(right)}={values[right]:g}"
        return f"{' + '.join(shown)} must be {limit}: {self.why}; try {' or '.join(mends)}"


RULES = (
    Rule("out_connect_seconds < out_attempt_seconds", "who connects must still get an answer"),
    Rule("out_attempt_seconds < out_total_seconds", "a call that may fail needs time for another"),
    Rule("out_total_seconds < request_deadline_seconds", "a failed call must still be answered"),
    Rule("request_deadline_seconds < lb_response_seconds", "answer before the load balancer does"),
    Rule("request_deadline_seconds <= grace_seconds", "a request must end while the process stops"),
    Rule("header_receive_seconds < request_deadline_seconds", "the head is the least of a request"),
    Rule("request_deadline_seconds < watchdog_seconds", "a slow request is no stuck event loop"),
    Rule("lb_idle_seconds < keep_alive_seconds", "the load balancer reuses what is still open"),
    Rule(
        "drain_seconds + grace_seconds + telemetry_flush_seconds + 1 < platform_grace_seconds",
        "or the platform kills it",
    ),
)

# The modules that the question `telemetry` brings, and the setting that turns each on.
SWITCHES = {"sentry": "sentry_dsn", "opentelemetry": "otlp_endpoint"}
