"""
What must be right between this service and its database before it serves, each with its evidence.
"""

import time
from collections.abc import AsyncIterator
from importlib.util import find_spec
from typing import Any
from urllib.parse import parse_qs, urlsplit

from .database import Connection, Database, connection_options, open_database
from .exits import Exit
from .migrations import compare, differs, known
from .settings import Settings, place_of

__all__ = ["Finding", "examine"]

# Tokens, certificates and schedules all take it for granted that clocks agree.
SKEW_SECONDS_MAX = 1
LOCAL = {"", "localhost", "127.0.0.1", "[::1]"}
FACTS = """
    SELECT current_user AS role, rolsuper, rolreplication, rolconnlimit, datconnlimit,
        pg_backend_pid() AS pid, current_setting('server_version') AS version,
        (SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()) AS tls,
        current_setting('max_connections')::int AS most,
        current_setting('superuser_reserved_connections')::int
            + coalesce(current_setting('reserved_connections', true)::int, 0) AS reserved
    FROM pg_roles, pg_database WHERE rolname = current_user AND datname = current_database()
"""


# What was looked at; the code to exit with if it is not as it must be; what was seen.
Finding = tuple[str, Exit, str]


async def examine(settings: Settings, processes: int) -> AsyncIterator[Finding]:
    """
    Everything there is to say of the database; *processes* types of this service use it.
    """
    yield _tls(settings)
    try:
        async with open_database(settings) as database, database.connection() as connection:
            (facts,) = await connection.fetch(FACTS)
            told = "PostgreSQL {version} answers at {host}:{port}/{database}, with{tls} TLS"
            seen = {"version": facts["version"], "tls": "" if facts["tls"] else "out"}
            yield "database", Exit.OK, told.format(**seen, **database.place)
            yield _role(facts)
            yield _connections(settings, facts, processes)
            yield await _limits(settings, connection)
            yield await _session(settings, database, connection, facts["pid"])
            yield await _clock(connection)
            yield await _migrations(connection)
    except Exception as error:  # noqa: BLE001  # told like the others
        told = ", ".join(str(error).removeprefix("database ").splitlines())
        if "unsupported startup parameter" in told:
            told += "; a pooler is between: connect to PostgreSQL itself"
        is_ours = "ClientConfigurationError" in told or "startup parameter" in told
        yield "database", Exit.CONFIGURATION if is_ours else Exit.UNAVAILABLE, told


def _tls(settings: Settings) -> Finding:
    """
    Who may listen or answer in the database's place; less than all of it must be said in the URL.
    """
    url = settings.database_url.get_secret_value() if settings.database_url else ""
    mode = parse_qs(urlsplit(url).query).get("sslmode", [""])[-1]
    host = place_of(url)["host"]
    if mode == "verify-full" or host in LOCAL or host.startswith("/"):
        return "tls", Exit.OK, mode or "on this machine"
    if mode in {"disable", "require", "verify-ca"}:
        return "tls", Exit.OK, f"sslmode={mode} as told: not proof against everyone between"
    told = "say sslmode=verify-full in APP_DATABASE_URL, or disable where nobody is between"
    return "tls", Exit.CONFIGURATION, told


def _role(facts: Any) -> Finding:
    if too_much := [name for name in ("rolsuper", "rolreplication") if facts[name]]:
        told = f"{facts['role']} may too much ({', '.join(too_much)}): use a role of its own"
        return "role", Exit.CONFIGURATION, told
    return "role", Exit.OK, f"{facts['role']} is neither superuser nor replicates"


def _connections(settings: Settings, facts: Any, processes: int) -> Finding:
    most = facts["most"] - facts["reserved"]
    most = min([most, *(n for n in (facts["rolconnlimit"], facts["datconnlimit"]) if n >= 0)])
    pool, count = settings.pool_size_max, settings.replicas + settings.surge
    # A worker has some for its queue, too; of a job one run is enough, and one is its lock.
    own = 3 if find_spec(".worker", __package__) else 0
    run = 1 if find_spec(".job", __package__) else 0
    serving = processes - run
    needed = (pool * serving + own) * count + (pool + 1) * run
    each = f"pool_size_max {pool} * {serving} process types"
    each = f"({each} + {own} of the queue)" if own else each
    told = f"{each} * (replicas {settings.replicas} + surge {settings.surge})"
    told += f" + {pool + 1} of a job" if run else ""
    told += f" = {needed} of at most {most}"
    if needed <= most:
        return "connections", Exit.OK, told
    fits = (most - own * count - run) // (serving * count + run)
    told += f": try APP_POOL_SIZE_MAX={fits}" if fits > 0 else ": raise max_connections"
    return "connections", Exit.CONFIGURATION, told


async def _limits(settings: Settings, connection: Connection) -> Finding:
    """
    Whether the session has the limits that it was opened with.
    """
    query = "SELECT name, setting FROM pg_settings WHERE name = ANY($1)"
    limits = connection_options(settings)["server_settings"]
    found = {row["name"]: f"{row['setting']}ms" for row in await connection.fetch(query, [*limits])}
    if wrong := sorted(limits.items() - found.items()):
        told = "; ".join(f"{name} is {found.get(name)}, not {limit}" for name, limit in wrong)
        return "session limits", Exit.CONFIGURATION, f"{told}; is a pooler between?"
    return "session limits", Exit.OK, "all in force"


async def _session(
    settings: Settings, database: Database, connection: Connection, pid: int
) -> Finding:
    """
    Whether a session is ours until we leave it: a pooler in transaction mode gives it to others.
    """
    is_direct = connection.get_server_pid() == pid
    mark, kept = f"preflight-{pid}-{time.time()}", True
    await connection.execute("SELECT set_config('preflight.mark', $1, false)", mark)
    if settings.pool_size_max > 1:
        async with database.transaction() as other:
            query = "SELECT current_setting('preflight.mark', true)"
            seen = await other.fetchval(query)
            kept = seen != mark and await connection.fetchval(query) == mark
    if kept:
        told = "no pooler between" if is_direct else "a pooler between, which keeps sessions"
        return "session", Exit.OK, told
    told = "a pooler in transaction mode is between: limits, locks and prepared statements are lost"
    return "session", Exit.CONFIGURATION, f"{told}; use session mode or PostgreSQL itself"


async def _clock(connection: Connection) -> Finding:
    before = time.time()
    there = await connection.fetchval("SELECT extract(epoch FROM clock_timestamp())::float8")
    after = time.time()
    # The answer was made somewhere between.
    skew = max(before - there, there - after, 0)
    code = Exit.UNAVAILABLE if skew > SKEW_SECONDS_MAX else Exit.OK
    return "clock", code, f"{skew:.3f} s apart, of at most {SKEW_SECONDS_MAX}"


async def _migrations(connection: Connection) -> Finding:
    missing, changed, last = await compare(connection.fetchval)
    if changed:
        return "migrations", Exit.BUG, str(differs(changed))
    if missing:
        return "migrations", Exit.UNAVAILABLE, f"{', '.join(missing)}: run `migrate up`"
    told = f"{last} is the last one" + ("" if last in known() else ", of a newer release")
    return "migrations", Exit.OK, told
