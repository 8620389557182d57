"""
A service as a process: started, talked to over HTTP, stopped. Nothing is imported from it.
"""

import contextlib
import functools
import hashlib
import http.client
import importlib
import json
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
import tomllib
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

import pytest

PROJECT = Path(__file__).parents[2]
# The process types of this service that serve; those tests that are about all of them take one.
SERVING = [kind for kind in ("web", "worker") if any(PROJECT.glob(f"src/*/{kind}.py"))]
# A busy machine may take that many times as long for whatever has no promised limit.
PATIENCE = float(os.environ.get("TEST_PATIENCE", "1"))
START_SECONDS = 30.0
SHORT_SCHEDULES = {"@hourly": "0 * * * *", "@daily": "0 0 * * *", "@weekly": "0 0 * * 0"}
# Settings that name folders and files of where the service runs, not of here.
ELSEWHERE = ("_DIR", "_FILE")
# The files of the tests about platforms and operations, by module. A test that passed is left out
# until one of its files changes. In CI, and where somebody names tests, all of them run.
SETTINGS = (
    "pyproject.toml",
    "uv.lock",
    "src/*/__main__.py",
    "src/*/settings.py",
    "src/*/chassis/**/*",
    "tests/conftest.py",
    "tests/system/*",
)
READS = {
    "test_alerts": ("ops/alerts/**/*", "tests/system/*"),
    "test_compose": (*SETTINGS, "compose.yaml", "*.env", ".env*"),
    "test_dockerfile": (*SETTINGS, "Dockerfile"),
    "test_kubernetes": (*SETTINGS, "deploy/kubernetes/**/*"),
    "test_nomad": (*SETTINGS, "deploy/nomad/**/*"),
    "test_ops": (*SETTINGS, "ops/**/*"),
    "test_runbooks": (*SETTINGS, "ops/runbooks/*"),
    "test_systemd": (*SETTINGS, "deploy/systemd/**/*"),
}
# The digest of those files for each test that passed with them, and how many are left out.
PASSED, LEFT_OUT = pytest.StashKey[dict[str, str]](), pytest.StashKey[int]()
Values = Callable[[Path, Mapping[str, str | None]], dict[str, str]]
Compare = Callable[[Path, Mapping[str, str | None], Mapping[str, tuple[object, str]]], None]


@dataclass(frozen=True, kw_only=True)
class Answer:
    """
    An HTTP response, read to its end.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Service:
    """
    One process of the service, with ports of its own.
    """

    begin: Callable[..., "subprocess.Popen[bytes]"] = subprocess.Popen

    def __init__(self, command: list[str], environment: Mapping[str, str], folder: Path) -> None:
        self.port, self.admin_port = free_ports()
        self.environment = {
            "APP_PORT": str(self.port),
            "APP_ADMIN_PORT": str(self.admin_port),
            "APP_DRAIN_SECONDS": "0",
            "APP_READINESS_PERIOD_SECONDS": "0",
            **environment,
        }
        self.stdout, self.stderr = folder / "stdout", folder / "stderr"
        with self.stdout.open("wb") as out, self.stderr.open("wb") as err:
            self.process = self.begin(
                command, env=clean(self.environment), stdout=out, stderr=err, cwd=folder
            )

    def get(
        self,
        path: str,
        *,
        method: str = "GET",
        admin: bool = False,
        timeout: float = 10,
        **send: Any,
    ) -> Answer:
        """
        Send one request on a connection of its own.
        """
        port = self.admin_port if admin else self.port
        limit = timeout * PATIENCE
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=limit)
        with contextlib.closing(connection):
            connection.request(method, path, **send)
            response = connection.getresponse()
            headers = {name.lower(): value for name, value in response.getheaders()}
            return Answer(status=response.status, headers=headers, body=response.read())

    def post_json(self, path: str, body: object) -> Answer:
        """
        Send *body* as JSON.
        """
        headers = {"content-type": "application/json"}
        return self.get(path, method="POST", body=json.dumps(body), headers=headers)

    def connect(self) -> socket.socket:
        """
        A connection to the public port that nothing is sent on.
        """
        return socket.create_connection(("127.0.0.1", self.port), timeout=10 * PATIENCE)

    def is_listening(self) -> bool:
        """
        Whether the public port takes connections.
        """
        try:
            self.connect().close()
        except OSError:
            return False
        return True

    def is_ready(self) -> bool:
        """
        Whether /readyz answers 200.
        """
        try:
            return self.get("/readyz", admin=True).status == 200
        except OSError:
            return False

    def wait_until_ready(self) -> None:
        """
        Raises AssertionError with the logs if the process ends or takes too long.
        """
        wait_until(
            lambda: self.process.poll() is not None or self.is_ready(), seconds=START_SECONDS
        )
        told = self.stdout.read_bytes() + self.stderr.read_bytes()
        assert self.process.poll() is None, told.decode()

    def send_signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def wait(self, *, seconds: float = 30) -> int:
        """
        The exit code; raises subprocess.TimeoutExpired when the process does not end in time.
        """
        return self.process.wait(seconds * PATIENCE)

    def stop(self, *, seconds: float = 30) -> int:
        """
        Stop with SIGTERM; the exit code.
        """
        self.send_signal(signal.SIGTERM)
        return self.wait(seconds=seconds)

    def lines(self) -> list[dict[str, Any]]:
        """
        Everything the process wrote, line by line; raises ValueError where it is no JSON.
        """
        lines: list[str] = []
        for path in (self.stdout, self.stderr):
            # A line without its end is still being written. Texts may hold other line ends.
            lines += path.read_text("utf-8").split("\n")[:-1]
        return [json.loads(line) for line in lines]

    def events(self, name: str, **fields: object) -> list[dict[str, Any]]:
        """
        The events of this name that have these fields.
        """
        wanted = {"event": name, **fields}
        return [line for line in self.lines() if line | wanted == line]

    def wait_for(self, name: str, **fields: object) -> dict[str, Any]:
        """
        The first such event; raises AssertionError when there is none in time.
        """
        wait_until(lambda: self.events(name, **fields))
        return self.events(name, **fields)[0]


class Start(Protocol):
    """
    Starts a service with settings; with `ready=False` without waiting for it.
    """

    def __call__(self, *, ready: bool = True, **settings: object) -> Service: ...


def free_ports() -> tuple[int, int]:
    """
    Two TCP ports that nobody used a moment ago.
    """
    with socket.socket() as one, socket.socket() as two:
        one.bind(("127.0.0.1", 0))
        two.bind(("127.0.0.1", 0))
        return one.getsockname()[1], two.getsockname()[1]


def clean(environment: Mapping[str, str]) -> dict[str, str]:
    """
    The environment of these tests without settings, plus *environment*.
    """
    own = {name: value for name, value in os.environ.items() if not name.upper().startswith("APP_")}
    return own | dict(environment)


def wait_until(condition: Callable[[], object], *, seconds: float = 10.0) -> None:
    """
    Raises AssertionError when *condition* has not come true in time.
    """
    limit = time.monotonic() + seconds * PATIENCE
    while not condition():
        assert time.monotonic() < limit, f"not within {seconds * PATIENCE} s"
        threading.Event().wait(0.02)


@functools.cache
def digest_of(module: Path) -> str | None:
    """
    A digest of the files of a module of these tests, or nothing where it always runs.
    """
    if module.parent != Path(__file__).parent or module.stem not in READS:
        return None
    digest = hashlib.sha256()
    paths = {path for pattern in READS[module.stem] for path in PROJECT.glob(pattern)}
    for path in sorted(path for path in paths if path.is_file() and path.suffix != ".pyc"):
        digest.update(f"{path} ".encode() + path.read_bytes())
    return digest.hexdigest()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """
    Leave out what passed with the files as they are.
    """
    if not config.cache:
        return
    config.stash[PASSED] = passed = config.cache.get("system/passed", {})
    is_named = any(map(config.getoption, ("file_or_dir", "keyword", "markexpr")))
    # A process of xdist can't report what it leaves out.
    if is_named or os.environ.get("CI") or hasattr(config, "workerinput"):
        return
    digests = [(item, digest_of(item.path)) for item in items]
    left_out = [item for item, now in digests if now and passed.get(item.nodeid) == now]
    # pytest takes a run without any test for a failure.
    if len(left_out) == len(items):
        return
    config.stash[LEFT_OUT] = len(left_out)
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """
    Remember what passed, and with which files.
    """
    report = yield
    passed, now = item.config.stash.get(PASSED, {}), digest_of(item.path)
    if report.failed:
        passed.pop(item.nodeid, None)
    elif now and report.passed and report.when == "call":
        passed[item.nodeid] = now
    return report


def pytest_sessionfinish(session: pytest.Session) -> None:
    """
    Keep that for the next run.
    """
    if session.config.cache and PASSED in session.config.stash:
        session.config.cache.set("system/passed", session.config.stash[PASSED])


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """
    Report what did not run.
    """
    if count := config.stash.get(LEFT_OUT, 0):
        terminalreporter.write_line(
            f"{count} tests of platforms and operations were left out: they passed before, and "
            "their files have not changed. `uv run pytest --cache-clear` runs all tests."
        )


@pytest.fixture(name="command", scope="session")
def _command() -> list[str]:
    """
    The installed command, named in pyproject.toml.
    """
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text("utf-8"))["project"]
    return [str(Path(sys.executable).parent / next(iter(project["scripts"])))]


@pytest.fixture(name="kind", scope="session")
def _kind() -> str:
    """
    The process type that the tests start; where none serves, the command that reads as much.
    """
    return SERVING[0] if SERVING else "preflight"


@pytest.fixture(name="environment", scope="session")
def _environment(
    environment: dict[str, str], command: list[str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, str]]:
    """
    As tests/conftest.py says; where that is older than the database, with one, and its migrations.
    """
    if "APP_DATABASE_URL" in environment or not any(PROJECT.glob("src/*/chassis/database.py")):
        yield environment
        return
    postgresql = importlib.import_module("postgresql")

    def migrate(url: str) -> None:
        whole = clean(environment | {"APP_DATABASE_URL": url})
        subprocess.run([*command, "migrate", "up"], env=whole, check=True)  # noqa: S603

    folder = tmp_path_factory.mktemp("postgresql")
    with postgresql.server(folder) as admin, postgresql.migrated(admin, migrate) as url:
        yield environment | {"APP_DATABASE_URL": url}


@pytest.fixture(name="run")
def _run(
    command: list[str], environment: dict[str, str], tmp_path: Path
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """
    Run a command of the service to its end.
    """

    def run(*arguments: str, **settings: object) -> subprocess.CompletedProcess[str]:
        named = {f"APP_{name.upper()}": str(value) for name, value in settings.items()}
        return subprocess.run(  # noqa: S603  # the service under test
            [*command, *arguments],
            env=clean(environment | named),
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=START_SECONDS * PATIENCE,
            check=False,
        )

    return run


@pytest.fixture(name="values", scope="session")
def _values(command: list[str], environment: dict[str, str]) -> Values:
    """
    The settings in force where a manifest sets these variables, all with their text; None stands
    for a text that the manifest takes from elsewhere.
    """

    @functools.cache
    def show(known: frozenset[tuple[str, str]]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(  # noqa: S603  # the service under test
            [*command, "config", "show", "--all"],
            env=clean(environment | dict(known)),
            capture_output=True,
            text=True,
            timeout=START_SECONDS * PATIENCE,
            check=False,
        )

    def values(path: Path, variables: Mapping[str, str | None]) -> dict[str, str]:
        named = {name: text for name, text in variables.items() if not name.endswith(ELSEWHERE)}
        ended = show(frozenset((name, text) for name, text in named.items() if text is not None))
        where = (PROJECT / path).relative_to(PROJECT)
        told = f"{where}: refused with its settings:\n{ended.stdout}{ended.stderr}"
        assert ended.returncode == 0, told
        unseen = {name: "set from elsewhere" for name, text in named.items() if text is None}
        return dict(re.findall(r"^(APP_\w+)=(.*)  # \w+", ended.stdout, re.MULTILINE)) | unseen

    return values


@pytest.fixture(name="compare", scope="session")
def _compare(values: Values) -> Compare:
    """
    Compare the times and numbers of a manifest with the settings of the same meaning.
    """

    def compare(
        path: Path, variables: Mapping[str, str | None], said: Mapping[str, tuple[object, str]]
    ) -> None:
        settings = values(path, variables)
        where = (PROJECT / path).relative_to(PROJECT)
        wrong = [
            f"{where}: {key} is {found}, but {name} is {settings[name]}"
            for key, (found, name) in said.items()
            if seconds(str(found)) != seconds(settings[name])
        ]
        assert not wrong, "both must say the same:\n" + "\n".join(wrong)

    return compare


@pytest.fixture(name="span", scope="session")
def _span() -> Callable[[str], float]:
    return seconds


@pytest.fixture(name="interval", scope="session")
def _interval() -> Callable[[str], float]:
    return shortest_interval


def shortest_interval(schedule: str) -> float:
    """
    The shortest time between two starts of a cron schedule, in seconds.

    Without names of months and days, and as everybody's cron has it: where both kinds of days are
    restricted, one of them is enough.
    """
    fields = SHORT_SCHEDULES.get(schedule, schedule).split()
    ranges = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 7))
    pairs = zip(fields, ranges, strict=True)
    minutes, hours, days, months, weekdays = (numbers_in(text, *ends) for text, ends in pairs)
    is_any = fields[2][0] == "*" or fields[4][0] == "*"
    starts = []
    # In eight years each day comes twice.
    for number in range(2 * 1461):
        day = date(2024, 1, 1) + timedelta(days=number)
        chosen = [day.day in days, day.isoweekday() in weekdays or day.isoweekday() % 7 in weekdays]
        if day.month in months and (all(chosen) if is_any else any(chosen)):
            starts.append(number)
    times = sorted(hour * 3600 + minute * 60 for hour in hours for minute in minutes)
    within = [later - earlier for earlier, later in pairwise(times)]
    overnight = [86400 * (b - a) + times[0] - times[-1] for a, b in pairwise(starts)]
    return float(min(within + overnight))


def numbers_in(text: str, first: int, last: int) -> set[int]:
    """
    The numbers that one field of a schedule names: `*`, `*/5`, `1-5`, `0,30`.
    """
    found: set[int] = set()
    for part in text.split(","):
        span, _, step = part.partition("/")
        ends = [first, last] if span == "*" else [int(end) for end in span.split("-")]
        if step and len(ends) == 1:
            ends.append(last)
        found.update(range(ends[0], ends[-1] + 1, int(step or 1)))
    return found


def seconds(text: str) -> float:
    """
    A number or duration as manifests write it; NaN, which equals nothing, if it is none.
    """
    names = {
        0.000_001: ("us", "usec"),
        0.001: ("ms", "msec"),
        1: ("", "s", "sec", "second", "seconds"),
        60: ("m", "min", "minute", "minutes"),
        3600: ("h", "hr", "hour", "hours"),
    }
    units = {name: size for size, same in names.items() for name in same}
    part = rf"([\d.]+) ?({'|'.join(sorted(units, key=len, reverse=True))})"
    if not text.strip() or re.sub(part, "", text).strip():
        return float("nan")
    return sum(float(number) * units[unit] for number, unit in re.findall(part, text))


@pytest.fixture(name="start")
def _start(command: list[str], environment: dict[str, str], tmp_path: Path) -> Iterator[Start]:
    """
    Start services; those that still run are killed at the end of the test.
    """
    yield from starter(command, environment, tmp_path)


@pytest.fixture(name="service", scope="session")
def _service(
    command: list[str], environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Service]:
    """
    A ready service with its defaults, for tests that leave it as it is.
    """
    for start in starter(command, environment, tmp_path_factory.mktemp("service")):
        yield start()


def starter(command: list[str], environment: dict[str, str], tmp_path: Path) -> Iterator[Start]:
    """
    What starts services in *tmp_path*, and then their end.
    """
    started: list[Service] = []

    def start(*, ready: bool = True, **settings: object) -> Service:
        folder = tmp_path / str(len(started))
        folder.mkdir()
        named = {f"APP_{name.upper()}": str(value) for name, value in settings.items()}
        service = Service([*command, *SERVING[:1]], environment | named, folder)
        started.append(service)
        if ready:
            service.wait_until_ready()
        return service

    yield start
    for service in started:
        service.process.kill()
        service.process.wait()


@pytest.fixture(name="worker")
def _worker(command: list[str], environment: dict[str, str], tmp_path: Path) -> Iterator[Service]:
    """
    A ready worker with its defaults, for one test.
    """
    folder = tmp_path / "worker"
    folder.mkdir()
    yield from working(command, environment, folder)


@pytest.fixture(name="worker_beside", scope="session")
def _worker_beside(
    command: list[str], environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Service]:
    """
    A ready worker with its defaults, for tests that leave it as it is.
    """
    yield from working(command, environment, tmp_path_factory.mktemp("worker"))


def working(command: list[str], environment: dict[str, str], folder: Path) -> Iterator[Service]:
    """
    A ready worker, and then its end.
    """
    service = Service([*command, "worker"], environment, folder)
    with service.process:
        try:
            service.wait_until_ready()
            yield service
        finally:
            service.process.kill()


@pytest.fixture(name="empty_url")
def _empty_url(environment: dict[str, str]) -> Iterator[str]:
    """
    The database as if nothing was in it: a schema of its own.
    """
    url, name = environment["APP_DATABASE_URL"], f"empty_{secrets.token_hex(8)}"
    execute = importlib.import_module("postgresql").execute
    execute(url, f"CREATE SCHEMA {name}")
    yield f"{url}{'&' if urlsplit(url).query else '?'}search_path={name}"
    execute(url, f"DROP SCHEMA {name} CASCADE")
