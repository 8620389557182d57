"""
A PostgreSQL that freezes, crashes and comes back at the same port.
"""

import asyncio
import atexit
import contextlib
import functools
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import asyncpg
import postgresql
import psutil
from harness import clean, slack

__all__ = ["PostgreSQL", "Tables", "install"]

# Of every server, as all are copies.
_ADMIN_PASSWORD, _PASSWORD = secrets.token_hex(16), secrets.token_hex(16)
Prepare = Callable[[str], None]


@dataclass(frozen=True)
class Tables:
    """
    Makes the tables of a service, for `prepare`.
    """

    project: Path

    def __call__(self, url: str) -> None:
        command = [f"{self.project}/.venv/bin/order-desk", "migrate", "up"]
        environment = clean({"APP_DATABASE_URL": url})
        subprocess.run(command, env=environment, check=True, capture_output=True)


class PostgreSQL:
    """
    A server of its own for one database, `app`, and a role that is no superuser, `service`.

    *settings* are those of postgresql.conf, such as `max_connections=10`. With *tls* it takes no
    other connections of the service; that needs Debian's programs, as the wheel is built without.
    *prepare* gets the URL of the database, once for all servers that are given the same one.
    """

    def __init__(
        self, *, tls: bool = False, prepare: Prepare | None = None, **settings: object
    ) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="postgresql-"))
        self.log = self._folder / "log"
        self.port = _free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._settings = [f"{name}={value}" for name, value in settings.items()]
        try:
            cluster, self._programs = install(tls=tls, prepare=prepare)
            # With the owner of each file: PostgreSQL does not run as root.
            subprocess.run(["cp", "-a", f"{cluster}/.", self._folder / "data"], check=True)
            os.chown(self._folder, owner := cluster.stat().st_uid, owner)
            if tls:
                self._settings += self._certify()
            try:
                self.start()
            except AssertionError:
                # Another process may have taken the port meanwhile.
                self.kill()
                self.port = _free_port()
                self.start()
        except BaseException:
            self.stop()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def url(self) -> str:
        return _url(self.port, "service", _PASSWORD, "app")

    @property
    def url_with_wrong_password(self) -> str:
        return _url(self.port, "service", "wrong", "app")

    @property
    def url_of_missing_database(self) -> str:
        return _url(self.port, "service", _PASSWORD, "missing")

    @property
    def superuser_url(self) -> str:
        """
        The database of the service, seen by a superuser.
        """
        return _url(self.port, "postgres", _ADMIN_PASSWORD, "app")

    @property
    def certificate(self) -> Path:
        """
        What a client trusts; for 127.0.0.1 and localhost.
        """
        return self._folder / "server.crt"

    def start(self) -> None:
        """
        Start, with all that was committed, and wait for it; nothing where it runs.
        """
        if self._process is not None:
            return
        self._process = postgresql.launch(
            self._programs, self._folder, self.log, *self._settings, port=self.port
        )
        postgresql.wait_until_ready(self._process, self._folder, self.log)

    def kill(self) -> None:
        """
        End at once, as after a failure of the machine, frozen or not; the port then refuses.
        """
        if self._process is None:
            return
        processes = self._processes()
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        # The next server refuses to start while a process of this one has the shared memory.
        for process in processes:
            _wait_for(process, psutil.STATUS_ZOMBIE)
        with self._process:
            self._process = None

    def restart(self) -> None:
        """
        Shut down immediately, telling the clients, as `pg_ctl restart -m immediate` does.
        """
        if self._process is not None:
            self.thaw()
            # The end of its standard input is the order to do so.
            with self._process:
                self._process = None
        self.start()

    def freeze(self) -> None:
        """
        Stop every process: connections are taken by the kernel, and nobody ever answers.
        """
        for process in self._processes():
            _suspend(process)

    def thaw(self) -> None:
        for process in reversed(self._processes()):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.resume()

    def stop(self) -> None:
        """
        End for good, whatever the state, and remove the data.
        """
        self.kill()
        shutil.rmtree(self._folder, ignore_errors=True)

    def execute(self, sql: str, *arguments: object) -> None:
        """
        Run one statement as superuser on a connection of its own.
        """
        asyncio.run(self._run("execute", sql, arguments))

    def fetch(self, sql: str, *arguments: object) -> list[Any]:
        """
        The rows of one query, as `execute`.
        """
        return list(asyncio.run(self._run("fetch", sql, arguments)))

    async def _run(self, method: str, sql: str, arguments: tuple[object, ...]) -> Any:
        connection = await asyncpg.connect(self.superuser_url, timeout=10, command_timeout=60)
        try:
            return await getattr(connection, method)(sql, *arguments)
        finally:
            await connection.close(timeout=10)

    def _certify(self) -> list[str]:
        """
        Make a certificate and let nobody in without TLS but the superuser; the settings for it.
        """
        key = self._folder / "server.key"
        command = ["openssl", "req", "-x509", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
        command += ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
        command += ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
        command += ["-keyout", str(key), "-out", str(self.certificate)]
        subprocess.run(command, check=True, capture_output=True, timeout=60)
        rules = self._folder / "data/pg_hba.conf"
        # PostgreSQL wants the key to be its own.
        owner = rules.stat()
        os.chown(key, owner.st_uid, owner.st_gid)
        rules.write_text("hostnossl all service all reject\n" + rules.read_text())
        return ["ssl=on", f"ssl_cert_file={self.certificate}", f"ssl_key_file={key}"]

    def _processes(self) -> list[psutil.Process]:
        """
        The postmaster, stopped so that it starts no others, and then its children.
        """
        try:
            text = (self._folder / "data/postmaster.pid").read_text()
            postmaster = psutil.Process(int(text.partition("\n")[0]))
            # After a crash, it may be the PID of someone else.
            if str(self._folder) not in " ".join(postmaster.cmdline()):
                return []
            _suspend(postmaster)
            return [postmaster, *postmaster.children()]
        except (FileNotFoundError, psutil.NoSuchProcess):
            return []


@functools.cache
def install(*, tls: bool = False, prepare: Prepare | None = None) -> tuple[Path, Path]:
    """
    The data of a server that was shut down, of which each server gets a copy, and the programs.

    Making them takes longer than most tests.
    """
    folder = Path(tempfile.mkdtemp(prefix="postgresql-installed-"))
    maker = os.getpid()

    def remove() -> None:
        # Not where a process that was forked meanwhile ends.
        if os.getpid() == maker:
            shutil.rmtree(folder, ignore_errors=True)

    atexit.register(remove)
    data, log, port = folder / "data", folder / "log", _free_port()
    if prepare:
        cluster, programs = install(tls=tls)
        subprocess.run(["cp", "-a", cluster, data], check=True)
        os.chown(folder, owner := cluster.stat().st_uid, owner)
    else:
        debian = _debian() if tls else None
        programs = postgresql.install(folder, _ADMIN_PASSWORD, programs=debian)
    with postgresql.launch(programs, folder, log, port=port) as process:
        postgresql.wait_until_ready(process, folder, log)
        if prepare:
            prepare(_url(port, "service", _PASSWORD, "app"))
        else:
            postgresql.execute(
                _url(port, "postgres", _ADMIN_PASSWORD, "postgres"),
                f"CREATE ROLE service LOGIN PASSWORD '{_PASSWORD}'",
                "CREATE DATABASE app OWNER service",
            )
        # A fast shutdown, after which nothing is to be recovered.
        postmaster = (data / "postmaster.pid").read_text().partition("\n")[0]
        os.kill(int(postmaster), signal.SIGINT)
        process.wait(30)
    return data, programs


def _url(port: int, user: str, password: str, database: str) -> str:
    return f"postgresql://{user}:{password}@127.0.0.1:{port}/{database}"


def _suspend(process: psutil.Process) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        process.suspend()
        # That only asks.
        _wait_for(process, psutil.STATUS_STOPPED)


def _wait_for(process: psutil.Process, status: str) -> None:
    """
    Returns when the process has this status, or is gone.
    """
    limit = time.monotonic() + slack(10)
    with contextlib.suppress(psutil.NoSuchProcess):
        while process.status() not in {status, psutil.STATUS_ZOMBIE}:
            assert time.monotonic() < limit, f"not {status}: {process!r}"
            time.sleep(0.001)


def _free_port() -> int:
    """
    A port that stays free while the server is down: the kernel gives clients those from 32768 on.
    """
    while True:
        port = secrets.choice(range(20_000, 32_000))
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


def _debian() -> Path:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parts[-2]))
    assert found, "apt-get install postgresql: the wheel's PostgreSQL is built without TLS"
    return found[-1]
