"""
Each line is written at once and whole, and a reader that stalls costs lines only.
"""

import http.client
import os
import resource
import select
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from harness import slack, wait_until
from readers import stalled

pytestmark = pytest.mark.covers(
    "template/src/{{ package_name }}/chassis/logs.py",
    "template/src/{{ package_name }}/chassis/process.py",
    "template/src/{{ package_name }}/chassis/sink.py",
    "template/src/{{ package_name }}/chassis/watchdog.py",
)

Start = Callable[..., Any]


class Clients:
    """
    Four clients that ask again and again, each on its connection, and note who was answered when.
    """

    def __init__(self, service: Any) -> None:
        self.answered: dict[str, float] = {}
        self._service = service
        self._threads = [threading.Thread(target=self._ask, args=[number]) for number in range(4)]
        for thread in self._threads:
            thread.start()
        wait_until(lambda: len(self.answered) > 1000)

    def _ask(self, number: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._service.port, timeout=slack(10))
        count = 0
        while True:
            name = f"client-{number}-{count}"
            try:
                connection.request("GET", "/faults/ok", headers={"X-Request-ID": name})
                connection.getresponse().read()
            except (OSError, http.client.HTTPException):
                return
            self.answered[name] = time.time()
            count += 1

    def missing(self) -> dict[str, float]:
        """
        Who was answered and has no line, when the process has ended.
        """
        for thread in self._threads:
            thread.join()
        told = Counter(event["request_id"] for event in self._service.events("request"))
        assert not told or max(told.values()) == 1
        return {name: when for name, when in self.answered.items() if name not in told}


def pipeline(service: Any, *targets: str) -> None:
    """
    Send requests one after the other without waiting for answers.
    """
    lines = "".join(f"{target} HTTP/1.1\r\nhost: a\r\n\r\n" for target in targets)
    with service.connect() as connection:
        connection.sendall(lines.encode())
        # As many answers have come as requests were sent, or the service is stuck.
        connection.settimeout(3)
        said = b""
        while said.count(b"HTTP/1.1 ") < len(targets):
            try:
                said += connection.recv(65_536)
            except TimeoutError:
                return


@pytest.mark.parametrize(
    ("end", "code", "event"),
    [
        ("SIGTERM", 0, "stopped"),
        ("second signal", 128 + signal.SIGTERM, "stopped_by_force"),
        ("/faults/trip/task", 70, "crash"),
        ("/faults/trip/thread", 70, "crash"),
        ("/flood/exit/stray", 70, "crash"),
        ("/faults/block?seconds=60", 70, "loop_stuck"),
    ],
)
def test_no_line_is_lost(start: Start, end: str, code: int, event: str) -> None:
    """
    However the process ends while it is under load: who got an answer has a line, before the last.
    """
    limits = {"watchdog_seconds": slack(1), "request_deadline_seconds": 0.5}
    service = start(drain_seconds=1, **limits)
    clients = Clients(service)

    if end.startswith("/"):
        # It ends before it answers, or soon after.
        with suppress(OSError, http.client.HTTPException):
            service.get(end, method="GET" if "block" in end else "POST")
    else:
        service.send_signal(signal.SIGTERM)
    if end == "second signal":
        service.wait_for("stopping")
        service.send_signal(signal.SIGTERM)
    ended = service.wait(seconds=20)

    # A thread that ends the process does not wait for the loop, which may have sent one answer
    # and not yet come to its line.
    unsaid = 1 if end in {"second signal", "/faults/trip/thread"} else 0
    assert ended == code
    assert len(clients.missing()) <= unsaid
    assert len(service.events(event)) == 1
    assert service.lines()[-1 - unsaid :][0]["event"] == event or unsaid


def test_end_below_the_level(start: Start) -> None:
    """
    Also when the last events are below the level, and so write nothing themselves.
    """
    service = start(log_level="warning", drain_seconds=10)
    for _ in range(3):
        assert service.get("/flood/status").status == 500
    # By now the line of the last one has been handed over.
    assert service.get("/faults/ok").status == 200

    service.send_signal(signal.SIGTERM)
    wait_until(lambda: not service.is_ready())
    service.stop()

    assert len(service.events("request", status=500)) == 3
    assert not service.events("stopped_by_force")


def test_thread_that_exits(start: Start) -> None:
    """
    A thread of a third party that calls sys.exit ends nothing but itself.
    """
    service = start()

    service.get("/flood/exit/thread", method="POST")

    assert service.wait_for("stray_error", kind="thread")
    assert service.get("/faults/ok").status == 200


def test_sigkill_loses_nothing(start: Start) -> None:
    """
    On SIGKILL no answer is without a line but the last one of each client.
    """
    service = start()
    clients = Clients(service)

    service.process.kill()
    service.process.wait()

    assert len(clients.missing()) <= 4


def test_held_loop_keeps_no_line(start: Start) -> None:
    """
    A line is written in time although the very next handler holds the event loop.
    """
    service = start()

    both = ["GET /faults/ok", "GET /faults/block?seconds=2"]
    asking = threading.Thread(target=pipeline, args=[service, *both])
    asking.start()
    service.wait_for("request", path="/faults/ok")

    assert not service.events("request", path="/faults/block")
    asking.join()
    assert service.wait_for("request", path="/faults/block")["duration_ms"] >= 2000


def test_child_repeats_nothing(start: Start, ask: Callable[..., Any]) -> None:
    """
    A forked child writes its own lines, and not once more those that wait in its parent.
    """
    service = start(prefix=stalled(full=True))

    pipeline(service, *["GET /faults/ok"] * 5)
    forked = ask(service, "/flood/fork", method="POST")
    (service.stdout.parent / "go").touch()
    assert forked().status == 200
    service.stop()

    assert service.events("child")
    assert len(service.events("request", path="/faults/ok")) == 5
    assert len(service.events("request", path="/flood/fork")) == 1


def dropped(service: Any) -> int:
    """
    How many lines the metric says were dropped.
    """
    text = service.get("/metrics", admin=True).body.decode()
    return int(float(text.rpartition("\napp_log_lines_dropped_total ")[2].partition("\n")[0]))


def written(service: Any) -> list[str]:
    """
    What the process wrote, without what filled the pipe before.
    """
    return [line for line in service.stdout.read_text().split("\n")[:-1] if line.strip() != "{}"]


@pytest.mark.promise("M8")
@pytest.mark.parametrize("kind", ["pipe", "socket"])
def test_reader_that_stalls(start: Start, kind: str) -> None:
    """
    Nobody reads stdout: every request is answered and the process is live. When the reader is back,
    what is written are whole lines in order, and one event has the number of those that were
    dropped, also if nothing else is logged.
    """
    service = start(prefix=stalled(kind))

    statuses = [service.get("/flood/warn", method="POST").status for _ in range(450)]
    lives = [service.get("/livez", admin=True).status for _ in range(20)]
    count = dropped(service)
    (service.stdout.parent / "go").touch()
    told = service.wait_for("log_lines_dropped")
    service.stop()

    assert (set(statuses), set(lives)) == ({200}, {200})
    assert count > 100
    assert (told["lines"], told["level"]) == (count, "warning")
    numbers = [line["number"] for line in service.events("warned")]
    assert numbers == sorted(numbers)
    assert len(service.events("log_lines_dropped")) == 1
    assert len(numbers) + len(service.events("request")) + count == 450 * 6


@pytest.mark.promise("M8")
@pytest.mark.promise("T9")
def test_backlog_is_bounded(start: Start) -> None:
    """
    What waits for the reader is a mebibyte at most, as what is written afterwards shows.
    """
    service = start(prefix=stalled(full=True))

    wait_until(
        lambda: service.get("/flood/warn", method="POST") and dropped(service) > 500, seconds=60
    )
    (service.stdout.parent / "go").touch()
    service.wait_for("log_lines_dropped")

    assert 900_000 < sum(map(len, written(service))) < 1_100_000


@pytest.mark.promise("M8")
@pytest.mark.parametrize("kind", ["pipe", "socket"])
def test_stalled_from_start_to_stop(start: Start, kind: str) -> None:
    """
    With a reader that never reads, a process starts, answers SIGUSR1, drains and stops in time.
    """
    service = start(prefix=stalled(kind, full=True))

    service.send_signal(signal.SIGUSR1)
    assert service.get("/faults/ok").status == 200
    began = time.monotonic()
    assert service.stop() == 0

    assert time.monotonic() - began < slack(5)


@pytest.mark.promise("M8")
def test_end_waits_for_the_reader(start: Start) -> None:
    """
    A reader that is back within a second gets the last lines of a process that stops.
    """
    service = start(prefix=stalled(full=True, pause=0.5))

    (service.stdout.parent / "go").touch()
    assert service.stop() == 0

    assert service.wait_for("stopped")


@pytest.mark.promise("M8")
@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/faults/trip/task", 70),
        ("/faults/block?seconds=60", 70),
        ("/faults/hold-gil", -signal.SIGPROF),
    ],
)
def test_stalled_reader_holds_no_end(start: Start, path: str, code: int) -> None:
    """
    A crash, the watchdog and its last resort end the process although nobody reads what they say.
    """
    limits = {"watchdog_seconds": slack(1), "request_deadline_seconds": 0.5}
    service = start(prefix=stalled(full=True), **limits)

    with suppress(OSError, http.client.HTTPException):
        service.get(path, method="POST" if "trip" in path else "GET", timeout=1)

    assert service.wait(seconds=60) == code


@pytest.mark.promise("M8")
def test_stalled_reader_holds_no_configuration_error(start: Start) -> None:
    """
    What is wrong with the settings ends the process although nobody reads it.
    """
    service = start(ready=False, prefix=stalled(full=True), port="x", admin_port="y")

    assert service.wait(seconds=20) == 78


@pytest.mark.promise("M8")
def test_full_disk(start: Start) -> None:
    """
    A disk that is full in the middle of a line: requests go on. When there is room again, this
    line goes on before the next, and what was dropped is reported.
    """
    service = start(prefix=("prlimit", "--fsize=100100:unlimited"))

    wait_until(
        lambda: service.get("/flood/warn", method="POST") and dropped(service) > 100, seconds=60
    )
    assert service.stdout.stat().st_size == 100_100
    assert service.get("/livez", admin=True).status == 200
    count = dropped(service)
    free = resource.RLIM_INFINITY
    resource.prlimit(service.process.pid, resource.RLIMIT_FSIZE, (free, free))

    assert service.wait_for("log_lines_dropped")["lines"] == count
    numbers = [line["number"] for line in service.events("warned")]
    assert numbers == sorted(numbers)


def test_reader_that_is_gone(start: Start) -> None:
    """
    Without a reader, what does not fit into the backlog is counted line by line.
    """
    service = start(prefix=("sh", "-c", 'exec "$0" "$@" >/dev/full'))

    wait_until(lambda: service.get("/flood/warn", method="POST") and dropped(service), seconds=60)
    before = dropped(service)
    pipeline(service, *["GET /faults/ok"] * 100)

    wait_until(lambda: dropped(service) == before + 100)
    assert service.stop() == 0


def test_two_processes_and_one_pipe(start: Start, tmp_path: Path) -> None:
    """
    Processes that share a pipe whose reader is slow do not write into each other's lines.
    """
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reading = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    prefix = ("sh", "-c", f'exec "$0" "$@" >{pipe}')
    services = [start(prefix=prefix) for _ in range(2)]
    asking = [
        threading.Thread(target=pipeline, args=[service, *["POST /flood/warn"] * 100])
        for service in services
    ]

    for thread in asking:
        thread.start()
    said = b""
    while said.count(b'"warned"') < 1000:
        assert select.select([reading], [], [], 10)[0], said[-2000:]
        part = os.read(reading, 1000)
        assert part, said[-2000:]
        said += part

    assert all(line.startswith(b"{") and line.endswith(b"}") for line in said.split(b"\n")[:-1])
