"""
The lines of requests are written together, and none is lost.
"""

import http.client
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from harness import wait_until

Start = Callable[..., Any]
# What `stdout` is then: a pipe that does not block, whose reader sleeps until `go` exists.
SLOW_READER = """
import fcntl, os, sys, time
out, into = os.pipe()
# So small that a batch does not fit.
fcntl.fcntl(into, fcntl.F_SETPIPE_SZ, 4096)
if not os.fork():
    os.close(into)
    while not os.path.exists("go"):
        time.sleep(0.01)
    while said := os.read(out, 1000):
        os.write(1, said)
    os._exit(0)
os.set_blocking(into, False)
os.dup2(into, 1)
os.execvp(sys.argv[1], sys.argv[1:])
"""


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
        connection = http.client.HTTPConnection("127.0.0.1", self._service.port, timeout=10)
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
    limits = {"watchdog_seconds": 1, "request_deadline_seconds": 0.5}
    service = start(batch_seconds=600, drain_seconds=1, **limits)
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
    ended = service.process.wait(20)

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
    service = start(log_level="warning", batch_seconds=600, drain_seconds=10)
    for _ in range(3):
        assert service.get("/flood/status").status == 500

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


def test_sigkill_loses_20_ms(start: Start) -> None:
    """
    On SIGKILL there is no line for some of the answers of the last 20 ms (and a margin for a busy
    machine), and for no other.
    """
    service = start()
    clients = Clients(service)

    killed = time.time()
    service.process.kill()
    service.process.wait()

    assert all(when > killed - 0.02 - 0.1 for when in clients.missing().values())


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


def test_written_together(start: Start) -> None:
    """
    Hundreds of lines need a few writes.
    """
    service = start()
    io = Path(f"/proc/{service.process.pid}/io")

    def writes() -> int:
        fields = dict(line.split(": ") for line in io.read_text().splitlines())
        return int(fields["syscw"])

    before = writes()
    pipeline(service, *["GET /faults/ok"] * 400)
    wait_until(lambda: len(service.events("request")) == 400)

    assert writes() - before < 200


def test_order_is_kept(start: Start) -> None:
    """
    An event that is written at once comes after the requests that ended before it.
    """
    service = start(batch_seconds=0.5)

    pipeline(service, "GET /faults/ok", "POST /flood/errors?times=1", "GET /faults/slow?seconds=0")
    service.stop()

    events = [line.get("path", line["event"]) for line in service.lines()]
    wanted = ["/faults/ok", "failed", "/flood/errors", "/faults/slow"]
    assert [event for event in events if event in wanted] == wanted


@pytest.mark.promise("T9")
def test_what_waits_is_bounded(start: Start) -> None:
    """
    When 64 KiB of lines wait, they are written without waiting for more.
    """
    service = start(batch_seconds=600)

    pipeline(service, *["GET /faults/ok"] * 400)

    assert len(service.events("request")) > 100


def test_dropped_lines_are_counted(start: Start) -> None:
    """
    What could not be written is counted line by line, however many were to be written together.
    """
    service = start(prefix=("sh", "-c", 'exec "$0" "$@" >/dev/full'))

    def dropped() -> float:
        text = service.get("/metrics", admin=True).body.decode()
        return float(text.rpartition("\napp_log_lines_dropped_total ")[2].partition("\n")[0])

    wait_until(dropped)
    before = dropped()
    pipeline(service, *["GET /faults/ok"] * 100)

    wait_until(lambda: dropped() == before + 100)


def test_pipe_that_is_full(start: Start) -> None:
    """
    With a stdout that does not block and a reader that stalls: lines are dropped and counted, what
    is written are whole lines, and later ones follow.
    """
    service = start(prefix=(sys.executable, "-c", SLOW_READER))
    for _ in range(4):
        pipeline(service, *["GET /faults/ok"] * 100)
    wait_until(
        lambda: b"app_log_lines_dropped_total 0" not in service.get("/metrics", admin=True).body
    )

    (service.stdout.parent / "go").touch()
    wait_until(lambda: service.events("request"))
    assert service.get("/faults/slow?seconds=0").status == 200

    wait_until(lambda: service.events("request", path="/faults/slow"))
    assert 0 < len(service.events("request", path="/faults/ok")) < 400


def test_child_repeats_nothing(start: Start) -> None:
    """
    A forked child writes its own lines, and not once more those that wait in its parent.
    """
    service = start(batch_seconds=0.5)

    pipeline(service, *["GET /faults/ok"] * 5, "POST /flood/fork")
    service.stop()

    assert len(service.events("child")) == 1
    assert len(service.events("request", path="/faults/ok")) == 5
    assert len(service.events("request", path="/flood/fork")) == 1
