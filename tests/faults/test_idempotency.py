"""
A request that is sent again has one effect and one answer.
"""

import json
import os
import signal
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from faulty_postgresql import PostgreSQL
from harness import wait_until

pytestmark = pytest.mark.covers(
    "template/src/{{ package_name }}/chassis/database.py",
    "template/src/{{ package_name }}/chassis/idempotency.py",
)

KEY = "8e03978e-40d5-43dd-bc93-6894a57f9324"


@pytest.fixture(name="project", scope="module")
def _project(copy: Callable[..., Path]) -> Path:
    """
    A service as it is generated: its example is what is tested.
    """
    given = os.environ.get("FIVEWEEKS_PROJECT")
    return Path(given) if given else copy(database="postgresql")


@pytest.fixture(name="postgresql")
def _postgresql(migrated_postgresql: PostgreSQL) -> PostgreSQL:
    """
    With the tables of the service.
    """
    return migrated_postgresql


@pytest.fixture(name="serve")
def _serve(start: Callable[..., Any], postgresql: PostgreSQL) -> Callable[..., Any]:
    """
    Start the service on a database with its tables.
    """
    return lambda **settings: start(database_url=postgresql.url, **settings)


@contextmanager
def listener() -> Iterator[str]:
    """
    The URL of another service that takes calls and never answers.
    """
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def write(service: Any, text: str, key: str | None = KEY, **more: Any) -> Any:
    """
    Write a note, maybe with a key.
    """
    headers = {"content-type": "application/json"} | ({"idempotency-key": key} if key else {})
    body = json.dumps({"text": text})
    return service.get("/v1/notes", method="POST", body=body, headers=headers, **more)


def count(postgresql: PostgreSQL, table: str = "notes") -> int:
    rows: int = postgresql.fetch(f"SELECT count(*) FROM {table}")[0][0]  # noqa: S608
    return rows


def test_again(serve: Callable[..., Any], postgresql: PostgreSQL) -> None:
    """
    The same key and body: the same answer, byte by byte, and one note; without a key, another one.
    """
    service = serve()

    first, second = write(service, "once"), write(service, "once", f'"{KEY}"')

    assert (first.status, first.body) == (201, second.body)
    assert second.status == 201
    assert count(postgresql) == 1
    write(service, "once", None)
    write(service, "once", "another-key")
    assert count(postgresql) == 3


def test_another_body(serve: Callable[..., Any], postgresql: PostgreSQL) -> None:
    """
    The same key with another body is 422, as problem details, and has no effect.
    """
    service = serve()
    write(service, "once")

    refused = write(service, "twice")

    assert refused.status == 422
    assert refused.headers["content-type"] == "application/problem+json"
    assert "another request" in json.loads(refused.body)["detail"]
    assert count(postgresql) == 1


@pytest.mark.parametrize(
    "key", ["short", '"unbalanced-1', "with blanks 1", "k" * 129, '"', "é" * 9]
)
def test_key_of_another_shape(serve: Callable[..., Any], postgresql: PostgreSQL, key: str) -> None:
    """
    What is no key is 422, and the key is not repeated.
    """
    refused = write(serve(), "once", key)

    assert refused.status == 422
    assert key.encode() not in refused.body or key == '"'
    assert count(postgresql) == 0


def test_at_once(serve: Callable[..., Any], postgresql: PostgreSQL) -> None:
    """
    Twenty at once with the same key, on two processes: one effect, and the same answer for all.
    """
    services = [serve(), serve()]

    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda number: write(services[number % 2], "once"), range(20)))

    assert {answer.status for answer in answers} == {201}
    assert len({answer.body for answer in answers}) == 1
    assert count(postgresql) == 1


def test_killed_behind_the_commit(
    serve: Callable[..., Any], ask: Callable[..., Any], postgresql: PostgreSQL
) -> None:
    """
    SIGKILL between commit and answer: who sends it again gets the answer of the one effect.
    """
    headers = {"content-type": "application/json", "idempotency-key": KEY}
    body = json.dumps({"text": "once"})
    with listener() as url:
        # It tells the other service of the note behind the commit, and waits for it.
        service = serve(announce_url=url)
        lost = ask(service, "/v1/notes", method="POST", body=body, headers=headers)
        wait_until(lambda: count(postgresql) == 1)
        service.send_signal(signal.SIGKILL)
        assert isinstance(lost(), OSError)
    (kept,) = postgresql.fetch("SELECT id::text FROM notes")

    again = write(serve(), "once")

    assert again.status == 201
    assert json.loads(again.body)["id"] == kept["id"]
    assert count(postgresql) == 1


def test_killed_in_front_of_the_commit(
    serve: Callable[..., Any], ask: Callable[..., Any], postgresql: PostgreSQL
) -> None:
    """
    SIGKILL in the middle of the transaction: neither effect nor key; sending it again does it.
    """
    postgresql.execute(
        """
        CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN PERFORM pg_sleep(60); RETURN NEW; END $$
        """
    )
    # The note is written, the answer is about to be.
    postgresql.execute(
        "CREATE TRIGGER wait AFTER UPDATE ON idempotency_keys EXECUTE FUNCTION wait()"
    )
    headers = {"content-type": "application/json", "idempotency-key": KEY}
    body = json.dumps({"text": "once"})
    service = serve(database_client_check_seconds=0.5)
    lost = ask(service, "/v1/notes", method="POST", body=body, headers=headers)
    sleeping = "SELECT 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep'"
    wait_until(lambda: postgresql.fetch(sleeping))

    service.send_signal(signal.SIGKILL)

    assert isinstance(lost(), OSError)
    wait_until(lambda: not postgresql.fetch(sleeping))
    assert (count(postgresql), count(postgresql, "idempotency_keys")) == (0, 0)
    postgresql.execute("DROP TRIGGER wait ON idempotency_keys")
    assert write(serve(), "once").status == 201
    assert count(postgresql) == 1


def test_failed_effect_keeps_no_key(serve: Callable[..., Any], postgresql: PostgreSQL) -> None:
    """
    What failed may be sent again with the same key, and is done then.
    """
    postgresql.execute("ALTER TABLE notes ADD CONSTRAINT broken CHECK (text = '')")
    service = serve()
    assert write(service, "once").status == 500
    postgresql.execute("ALTER TABLE notes DROP CONSTRAINT broken")

    assert write(service, "once").status == 201


def test_keys_are_bounded(serve: Callable[..., Any], postgresql: PostgreSQL) -> None:
    """
    Keys older than a day go when new ones come, ten at a time; younger ones stay.
    """
    postgresql.execute(
        "INSERT INTO idempotency_keys (key, request, written_at)"
        " SELECT 'old-' || n, '', now() - interval '25 hours' FROM generate_series(1, 25) n"
    )
    postgresql.execute(
        "INSERT INTO idempotency_keys (key, request, written_at)"
        " SELECT 'young-' || n, '', now() - interval '23 hours' FROM generate_series(1, 25) n"
    )
    service = serve()
    left = []

    for number in range(4):
        write(service, "once", f"new-key-{number}")
        left.append(count(postgresql, "idempotency_keys WHERE key LIKE 'old-%'"))

    assert left == [15, 5, 0, 0]
    assert count(postgresql, "idempotency_keys") == 25 + 4
