"""
Which time must be shorter than which, checked before anything starts.

Each rule comes from an outage that its absence allows; the reason is part of the message.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["PREFIX", "RENAMED", "RULES", "SWITCHES", "Rule", "variable"]

PREFIX = "APP_"


def variable(field: str) -> str:
    """
    The environment variable that sets *field*.
    """
    return f"{PREFIX}{field.upper()}"


@dataclass(frozen=True)
class Rule:
    """
    A sum of settings, their products and numbers; `<` or `<=`; one setting; and why.
    """

    text: str
    why: str
    # The module that it is about; without it the rule does not count.
    module: str = "settings"

    @property
    def fields(self) -> list[str]:
        """
        The settings it compares, that on the right last.
        """
        return re.findall(r"[a-z]\w+", self.text)

    def broken(self, values: Mapping[str, float]) -> str | None:
        """
        How *values* break this rule and what would mend it, or None.
        """
        left, operator, right = re.split(r" (<=?) ", self.text)
        sizes = {
            term: math.prod(
                values[part] if part in values else float(part) for part in term.split(" * ")
            )
            for term in left.split(" + ")
        }
        total = sum(sizes.values())
        if total < values[right] or (operator == "<=" and total == values[right]):
            return None
        step = operator == "<"
        longest = max((term for term in sizes if not term.isdecimal()), key=sizes.__getitem__)
        part, _, count = longest.partition(" * ")
        each = float(count) if count.isdecimal() else values.get(count, 1)
        room = (values[right] - total + sizes[longest]) // each - step
        mends = [f"{variable(right)}={math.ceil(total) + step}"]
        mends += [f"{variable(part)}={room:g}"] if room > 0 else []
        shown = re.sub(r"[a-z]\w+", lambda name: _assignment(name[0], values), left)
        limit = f"{'less than' if step else 'at most'} {_assignment(right, values)}"
        return f"{shown} must be {limit}: {self.why}; try {' or '.join(mends)}"


def _assignment(field: str, values: Mapping[str, float]) -> str:
    return f"{variable(field)}={values[field]:g}"


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
        "database_lock_seconds < database_statement_seconds",
        "who waits for a lock must be told so",
        "database",
    ),
    Rule(
        "database_client_check_seconds < database_statement_seconds",
        "what nobody waits for must end early",
        "database",
    ),
    Rule(
        "pool_checkout_seconds + database_statement_seconds < request_deadline_seconds",
        "who waited for a connection must still get an answer",
        "database",
    ),
    Rule(
        "migration_lock_seconds < migration_statement_seconds",
        "who waits for a lock must be told so",
        "migrations",
    ),
    Rule("heartbeat_seconds * 2 < message_stall_seconds", "one lost beat is no death", "worker"),
    Rule(
        "heartbeat_seconds + pool_checkout_seconds * 2 + database_statement_seconds * 2"
        " < message_stall_seconds",
        "after a beat that the database did not take there is time for another",
        "worker",
    ),
    Rule(
        "job_jitter_seconds + job_max_runtime_seconds + grace_seconds < job_interval_seconds",
        "a run ends before the next one",
        "job",
    ),
    Rule("check_timeout_seconds < probe_timeout_seconds", "a probe waits for the checks' results"),
    Rule(
        "readiness_period_seconds * readiness_failures <= drain_seconds",
        "who sends requests must have noticed the end before the listener closes",
    ),
    Rule(
        "pre_stop_seconds + drain_seconds + grace_seconds + telemetry_flush_seconds + 1"
        " < platform_grace_seconds",
        "or the platform kills it",
    ),
)

# Settings that had another name, and since which version of the template they have this one.
RENAMED = {
    "db_client_check_seconds": ("database_client_check_seconds", "0.3.0"),
    "db_connect_seconds": ("database_connect_seconds", "0.3.0"),
    "db_idle_in_transaction_seconds": ("database_idle_in_transaction_seconds", "0.3.0"),
    "db_lock_seconds": ("database_lock_seconds", "0.3.0"),
    "db_statement_seconds": ("database_statement_seconds", "0.3.0"),
}

# The modules that the question `telemetry` brings, and the setting that turns each on.
SWITCHES = {"sentry": "sentry_dsn", "opentelemetry": "otlp_endpoint"}
