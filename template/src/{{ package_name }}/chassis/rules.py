"""
Which setting must be smaller than which, checked before anything starts.

Each rule comes from an outage that its absence allows; the reason is part of the message.
"""

import math
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

__all__ = ["MODULES", "PREFIX", "RENAMED", "RULES", "SWITCHES", "Rule", "assignment", "variable"]

PREFIX = "APP_"
FIELD = re.compile("[a-z_]+")

# The module that shows whether a service has a process type, or the part `database`.
MODULES = {"web": ".web", "worker": "worker", "job": "job", "migrate": "migrations"}
MODULES |= {"database": "database"}
# Who reads the settings whose names begin like this: one of these process types, or this part.
READERS = {
    ("web",): ("header_", "keep_alive_", "lb_", "readiness_", "request_"),
    ("worker",): ("heartbeat_", "message_"),
    ("job",): ("job_",),
    ("migrate",): ("migration_",),
    ("web", "worker"): ("check_", "drain_", "liveness_", "probe_", "watchdog_"),
    ("web", "worker", "job"): ("grace_", "platform_", "pre_stop_"),
    ("database",): ("database_", "pool_"),
    ("telemetry",): ("telemetry_",),
}


def variable(field: str) -> str:
    """
    The environment variable that sets *field*.
    """
    return f"{PREFIX}{field.upper()}"


def assignment(field: str, values: Mapping[str, float]) -> str:
    """
    The variable with its value.
    """
    return f"{variable(field)}={values[field]:.12g}"


@dataclass(frozen=True)
class Rule:
    """
    A sum of settings, their products and numbers; `<` or `<=`; one setting; and why.
    """

    left: str
    sign: str
    limit: str
    why: str

    @property
    def is_outbound(self) -> bool:
        """
        Whether it counts only in a process that calls other services.
        """
        return self.left.startswith("out_")

    @property
    def fields(self) -> list[str]:
        """
        The settings it compares, that on the right last.
        """
        return [*re.findall(FIELD, self.left), self.limit]

    def total(self, values: Mapping[str, float]) -> float:
        """
        The left side.
        """
        terms = (term.split(" * ") for term in self.left.split(" + "))
        return sum(math.prod(float(values.get(one, one)) for one in term) for term in terms)

    def holds(self, values: Mapping[str, float]) -> bool:
        total, limit = self.total(values), values[self.limit]
        return total < limit or (self.sign == "<=" and total == limit)

    def enough(self, values: Mapping[str, float], digits: int) -> float:
        """
        The smallest limit with so many digits behind the point.
        """
        total = self.total(values)
        return total if self.sign == "<=" else round(total + 0.501 / 10**digits, digits)

    def where(self, there: Collection[str]) -> "Rule | None":
        """
        What is left of the rule if only these process types and parts are there.
        """

        def is_read(field: str) -> bool:
            needed = [who for who, begins in READERS.items() if field.startswith(begins)]
            return all(any(one in there for one in who) for who in needed)

        terms = (term for term in self.left.split(" + ") if all(map(is_read, term.split(" * "))))
        rest = replace(self, left=" + ".join(terms))
        return rest if is_read(self.limit) and rest.fields != [self.limit] else None

    def explain(self, values: Mapping[str, float]) -> str:
        """
        The rule with its variables and their values.
        """
        left = re.sub(FIELD, lambda field: assignment(field[0], values), self.left)
        than = "at most" if self.sign == "<=" else "less than"
        return f"{left} must be {than} {assignment(self.limit, values)}: {self.why}"


# A rule that limits a setting comes before the rules that have this setting on their left.
_TABLE = """
out_connect_seconds < out_attempt_seconds: a connection needs time for its response
out_attempt_seconds < out_total_seconds: a call needs time for another attempt
out_total_seconds < request_deadline_seconds: a failed call must leave time to answer
database_lock_seconds < database_statement_seconds: the error must say that it waited for a lock
database_client_check_seconds < database_statement_seconds: \
a statement whose client is gone must end early
pool_checkout_seconds + database_statement_seconds < request_deadline_seconds: \
a request that waited for a connection must still be answered
header_receive_seconds < request_deadline_seconds: headers are only the start of a request
request_deadline_seconds < lb_response_seconds: answer before the load balancer gives up
request_deadline_seconds <= grace_seconds: requests in flight must end while the process stops
request_deadline_seconds < watchdog_seconds: a slow request is not a stuck event loop
watchdog_seconds + 5 < liveness_timeout_seconds: \
the watchdog must end a stuck process, and log its stacks, before the platform does
lb_idle_seconds < keep_alive_seconds: the load balancer must not reuse a closed connection
check_timeout_seconds < probe_timeout_seconds: a probe must not time out before a check does
readiness_period_seconds * readiness_failures <= drain_seconds: \
load balancers must notice the end before the listener closes
pre_stop_seconds + drain_seconds + grace_seconds + telemetry_flush_seconds + 1 \
< platform_grace_seconds: the process must end before the platform kills it
migration_lock_seconds < migration_statement_seconds: the error must say that it waited for a lock
heartbeat_seconds * 2 < message_stall_seconds: one lost heartbeat is not the death of a worker
heartbeat_seconds + pool_checkout_seconds * 2 + database_statement_seconds * 2 \
< message_stall_seconds: after a heartbeat that failed there must be time for another
job_jitter_seconds + job_max_runtime_seconds + grace_seconds < job_interval_seconds: \
a run must end before the next one starts
"""


RULES = tuple(Rule(*line) for line in re.findall(r"(?m)^(.+) (<=?) (\w+): (.+)$", _TABLE))

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
