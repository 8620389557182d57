"""
The queue of messages of a test, and its workers.
"""

import json
import re
from collections.abc import Callable
from typing import Any

from faulty_postgresql import PostgreSQL
from harness import wait_until

__all__ = ["QUICK", "Queue", "began", "metrics", "oldest"]

# Quick, and consistent with one another.
QUICK: dict[str, object] = {
    "message_stall_seconds": 3,
    "heartbeat_seconds": 0.5,
    "pool_checkout_seconds": 0.3,
    "database_connect_seconds": 0.5,
    "database_statement_seconds": 0.6,
    "database_lock_seconds": 0.3,
    "database_client_check_seconds": 0.3,
    "message_poll_seconds": 0.2,
    "message_backoff_seconds": 0.1,
    "message_deadline_seconds": 10,
    "message_attempts": 3,
}

Start = Callable[..., Any]


class Queue:
    """
    The queue of a test, and its workers.
    """

    def __init__(self, postgresql: PostgreSQL, start: Start) -> None:
        self.postgresql = postgresql
        self._start = start
        postgresql.execute("CREATE TABLE effects (effect text)")
        postgresql.execute("GRANT ALL ON effects TO service")

    def worker(self, **settings: object) -> Any:
        url = self.postgresql.url
        return self._start("worker", **{"database_url": url, **QUICK, **settings})

    def command(self, *arguments: str) -> Any:
        return self._start(*arguments, ready=False, database_url=self.postgresql.url)

    def run(self, *arguments: str) -> tuple[int, str]:
        """
        The exit code of a command, and what it printed.
        """
        ended = self.command(*arguments)
        return ended.wait(), ended.stdout.read_text() + ended.stderr.read_text()

    def put(self, name: str = "fault", **fault: object) -> int:
        """
        Enqueue a message; its id.
        """
        sql = "INSERT INTO messages (name, payload) VALUES ($1, $2::text::jsonb) RETURNING id"
        (row,) = self.postgresql.fetch(sql, name, json.dumps(fault))
        return int(row["id"])

    def rows(self, condition: str = "true") -> list[Any]:
        return self.postgresql.fetch(f"SELECT * FROM messages WHERE {condition} ORDER BY id")  # noqa: S608  # of tests

    def effects(self) -> list[str]:
        found = self.postgresql.fetch("SELECT effect FROM effects ORDER BY effect")
        return [row["effect"] for row in found]

    def wait_until_empty(self, *, seconds: float = 10) -> None:
        wait_until(lambda: not self.rows("dead_at IS NULL"), seconds=seconds)


def began(services: list[Any], number: int) -> int:
    return sum(len(service.events("began", number=number)) for service in services)


def oldest(worker: Any, state: str, name: str = "fault") -> float:
    """
    The age in seconds of the oldest message in this state, as the worker's metrics have it, or -1.
    """
    line = rf'^app_messages_oldest_seconds{{name="{name}",state="{state}"}} (\S+)$'
    found = re.findall(line, metrics(worker), re.MULTILINE)
    return float(found[0]) if found else -1.0


def metrics(worker: Any) -> str:
    return str(worker.get("/metrics", admin=True).body.decode())
