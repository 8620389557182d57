"""
What `preflight` finds between a service and its database.
"""

import os
import re
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from faulty_postgresql import PostgreSQL
from harness import ROOT, slack
from pooler import pool

pytestmark = pytest.mark.covers(
    "template/src/{{ package_name }}/__main__.py",
    "template/src/{{ package_name }}/chassis/database.py",
    "template/src/{{ package_name }}/chassis/migrations.py",
    "template/src/{{ package_name }}/chassis/preflight.py",
    "template/src/{{ package_name }}/chassis/settings.py",
)

Preflight = Callable[..., tuple[int, dict[str, str]]]


@pytest.fixture(name="project", scope="module")
def _project(copy: Callable[..., Path]) -> Path:
    """
    A service as it is generated: its seeds are part of what is tested.
    """
    given = os.environ.get("FIVEWEEKS_PROJECT")
    return Path(given) if given else copy(database="postgresql")


@pytest.fixture(name="preflight")
def _preflight(start: Callable[..., Any], postgresql: PostgreSQL) -> Preflight:
    """
    The exit code of `preflight`, and its findings by name, each with `pass` or `fail` in front.
    """

    def preflight(**settings: Any) -> tuple[int, dict[str, str]]:
        command = start("preflight", ready=False, **{"database_url": postgresql.url, **settings})
        code = command.wait()
        text = command.stdout.read_text()
        assert command.stderr.read_text() == ""
        assert re.fullmatch(r"((pass|fail)  [^:\n]+: .+\n)+", text), text
        lines = [line.partition(": ") for line in text.splitlines()]
        return code, {head[6:]: f"{head[:4]} {told}" for head, _, told in lines}

    return preflight


@pytest.fixture(name="migrated")
def _migrated(start: Callable[..., Any], postgresql: PostgreSQL) -> None:
    command = start("migrate", "up", ready=False, database_url=postgresql.url)
    assert command.wait(seconds=60) == 0


def failures(found: dict[str, str]) -> dict[str, str]:
    return {name: told[5:] for name, told in found.items() if told.startswith("fail")}


@pytest.mark.usefixtures("migrated")
def test_all_is_well(preflight: Preflight) -> None:
    """
    Each finding has its evidence, and the exit code is 0.
    """
    code, found = preflight(announce_url="http://127.0.0.1:1")

    assert code == 0
    assert failures(found) == {}
    assert found["migrations"] == "pass 0001_notes is the last one"
    assert found["connections"].endswith("* (replicas 2 + surge 1) = 30 of at most 97")
    assert found["database"].startswith("pass PostgreSQL ")
    assert {*found} >= {"clock", "configuration", "role", "session", "session limits", "tls"}


def test_how_to(preflight: Preflight) -> None:
    """
    What the how-to shows is what is printed without migrations; its table has all the names.
    """
    page = (ROOT / "docs" / "how-to" / "preflight.md").read_text()
    shown = dict(re.findall(r"^    (?:pass|fail)  ([^:]+): (.*)$", page, re.MULTILINE))

    _, found = preflight()

    assert {*found} == {*shown}
    for name in ("connections", "migrations", "role", "session", "session limits", "tls"):
        assert found[name][5:] == shown[name]
    assert {*found} - {"configuration"} <= {*re.findall(r"^\| `(.*?)` \|", page, re.MULTILINE)}


@pytest.mark.promise("D1")
def test_everything_is_named(preflight: Preflight, postgresql: PostgreSQL) -> None:
    """
    All that is wrong is named at once; the configuration decides the exit code.
    """
    postgresql.execute("ALTER DATABASE app CONNECTION LIMIT 20")

    code, found = preflight(database_url=postgresql.superuser_url, from_the_next_release="1")

    assert code == 78
    assert {*failures(found)} == {
        "APP_FROM_THE_NEXT_RELEASE",
        "connections",
        "migrations",
        "role",
    }
    assert failures(found)["connections"].endswith("30 of at most 20: try APP_POOL_SIZE_MAX=6")
    assert "rolsuper" in failures(found)["role"]


def test_all_process_types_fit(
    copy: Callable[..., Path], start_in: Callable[..., Any], postgresql: PostgreSQL
) -> None:
    """
    As they come, all of them fit into PostgreSQL as it comes; of a job, one run counts.
    """
    project = copy(processes=["web", "worker", "job"], database="postgresql")

    command = start_in(project, "preflight", ready=False, database_url=postgresql.url)
    command.wait()

    told = "(pool_size_max 10 * 2 process types + 3 of the queue) * (replicas 2 + surge 1)"
    assert f"pass  connections: {told} + 11 of a job = 80 of at most 97\n" in (
        command.stdout.read_text()
    )


def test_lacking_migrations(preflight: Preflight) -> None:
    """
    They are what the platform may wait for: 69.
    """
    code, found = preflight()

    assert code == 69
    assert failures(found) == {"migrations": "0001_notes: run `migrate up`"}


@pytest.mark.usefixtures("migrated")
@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("db.example.com/app", "fail say sslmode=verify-full"),
        ("db.example.com/app?sslmode=prefer", "fail say sslmode=verify-full"),
        ("db.example.com/app?sslmode=require", "pass sslmode=require as told"),
        ("db.example.com/app?sslmode=disable", "pass sslmode=disable as told"),
        ("db.example.com/app?sslmode=verify-full&sslrootcert={}", "pass verify-full"),
        ("localhost:1/app", "pass on this machine"),
        ("/app?host=db.example.com", "fail say sslmode=verify-full"),
        ("localhost:1,db.example.com:1/app", "fail say sslmode=verify-full"),
        ("/app?host=/run/postgresql-of-nobody", "pass on this machine"),
    ],
)
def test_tls(preflight: Preflight, address: str, expected: str, tmp_path: Path) -> None:
    """
    What stands between is to be verified, unless the URL itself says otherwise or nobody can.
    """
    certificate = tmp_path / "ca.crt"
    command = ["openssl", "req", "-x509", "-nodes", "-newkey", "rsa:2048", "-subj", "/CN=db"]
    command += ["-keyout", str(tmp_path / "key"), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True)
    address = address.format(certificate)

    code, found = preflight(database_url=f"postgresql://service:secret-word@{address}")

    assert found["tls"].startswith(expected)
    assert code == (78 if expected.startswith("fail") else 69)


@pytest.mark.promise("C9")
def test_no_database(preflight: Preflight, postgresql: PostgreSQL) -> None:
    """
    A database that refuses, lacks or is gone is named with the reason, and a frozen one in time.
    """
    wrong = {
        "password authentication failed": preflight(
            database_url=postgresql.url_with_wrong_password
        ),
        "does not exist": preflight(database_url=postgresql.url_of_missing_database),
    }
    postgresql.freeze()
    began = time.monotonic()
    wrong["TimeoutError"] = preflight()
    assert time.monotonic() - began < slack(6)
    postgresql.kill()
    wrong["ConnectionRefusedError"] = preflight()

    for told, (code, found) in wrong.items():
        assert code == 69
        assert {*failures(found)} == {"database"}
        assert told in failures(found)["database"]


@pytest.mark.usefixtures("migrated")
def test_session_limits(preflight: Preflight, postgresql: PostgreSQL) -> None:
    """
    Limits that are not those of the settings are found, whoever changed them.
    """
    # As a pooler would that ignores what a client asks for.
    postgresql.execute(
        """
        CREATE FUNCTION meddle() RETURNS event_trigger LANGUAGE plpgsql AS
        $$ BEGIN PERFORM set_config('statement_timeout', '0', false); END $$
        """
    )
    postgresql.execute("CREATE EVENT TRIGGER meddle ON login EXECUTE FUNCTION meddle()")
    postgresql.execute("ALTER EVENT TRIGGER meddle ENABLE ALWAYS")

    code, found = preflight()

    assert code == 78
    assert {*failures(found)} == {"session limits"}
    assert "statement_timeout is 0ms, not 5000ms" in failures(found)["session limits"]


@pytest.mark.usefixtures("migrated")
@pytest.mark.parametrize("mode", ["session", "transaction"])
def test_pooler(preflight: Preflight, postgresql: PostgreSQL, mode: str) -> None:
    """
    A pooler that keeps sessions may stand between; one in transaction mode is found and named.
    """
    limits = {"statement": 5, "lock": 1, "idle_in_transaction_session": 15}
    settings = [f"ALTER ROLE service SET {name}_timeout = '{s}s'" for name, s in limits.items()]
    for setting in [*settings, "ALTER ROLE service SET client_connection_check_interval = '2s'"]:
        postgresql.execute(setting)
    ignored = [*(f"{name}_timeout" for name in limits), "client_connection_check_interval"]
    with pool(postgresql.url, mode, ignored=",".join(["extra_float_digits", *ignored])) as url:
        code, found = preflight(database_url=url)

    if mode == "session":
        assert (code, failures(found)) == (0, {})
        assert found["session"] == "pass a pooler between, which keeps sessions"
    else:
        assert code == 78
        assert {*failures(found)} == {"session"}
