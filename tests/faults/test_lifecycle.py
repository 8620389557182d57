"""
The process: drains, ends in time, crashes loudly, can be looked into.
"""

import os
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from harness import slack, wait_until
from warm import COLD

Start = Callable[..., Any]
Ask = Callable[..., Callable[[], Any]]


def in_flight(service: Any) -> bool:
    """
    Whether a request is being answered.
    """
    return b"app_requests_in_flight 1.0" in service.get("/metrics", admin=True).body


def is_stuck(service: Any, path: str = "") -> bool:
    """
    Whether the event loop answers nobody.
    """
    try:
        service.get(path or "/faults/ok", timeout=0.5)
    except TimeoutError:
        return True
    return False


@pytest.mark.promise("L2")
def test_request_in_flight_is_answered(start: Start, ask: Ask) -> None:
    """
    A request that began before SIGTERM and outlasts the drain gets its answer; then 0.
    """
    service = start(drain_seconds=0.5, grace_seconds=10)
    answer = ask(service, "/faults/slow?seconds=2")
    wait_until(lambda: in_flight(service))

    service.send_signal(signal.SIGTERM)
    code = service.wait(seconds=20)

    assert answer().status == 200
    assert code == 0
    assert not service.events("grace_exceeded")


@pytest.mark.alone
@pytest.mark.promise("L2")
def test_unready_at_once(start: Start) -> None:
    """
    Readiness is 503 within a tenth of a second of SIGTERM (with a margin for a busy machine).
    """
    service = start(drain_seconds=2)

    service.send_signal(signal.SIGTERM)
    began = time.monotonic()
    wait_until(lambda: service.get("/readyz", admin=True).status == 503)

    assert time.monotonic() - began < 0.1 + slack(0.3)
    while time.monotonic() < began + 1.5:
        assert service.get("/livez", admin=True).status == 200
        assert service.get("/faults/ok").status == 200


@pytest.mark.alone
@pytest.mark.promise("L4")
@pytest.mark.parametrize("how", ["swallow", "thread", "block"])
def test_grace_is_a_bound(start: Start, ask: Ask, how: str) -> None:
    """
    A handler that never ends can't keep the process past drain + grace + 1; exit 0 and an event.
    """
    service = start(drain_seconds=0.5, grace_seconds=1, request_deadline_seconds=1)
    ask(service, f"/faults/{how}?seconds=60")
    wait_until(lambda: is_stuck(service) if how == "block" else in_flight(service))

    began = time.monotonic()
    code = service.stop()

    assert code == 0
    assert time.monotonic() - began < 0.5 + 1 + 1 + slack(1)
    assert service.events("grace_exceeded")


@pytest.mark.promise("L4")
def test_second_signal_with_a_stuck_loop(start: Start, ask: Ask) -> None:
    """
    A second SIGTERM ends the process at once, even when the event loop is blocked.
    """
    service = start(drain_seconds=20, grace_seconds=20)
    ask(service, "/faults/block?seconds=60")
    wait_until(lambda: is_stuck(service))

    service.send_signal(signal.SIGTERM)
    service.wait_for("stopping")
    service.send_signal(signal.SIGTERM)

    assert service.wait(seconds=5) == 128 + signal.SIGTERM


@pytest.mark.promise("L4")
def test_log_that_nobody_reads(start: Start) -> None:
    """
    A reader of the log that stalls neither stops the process nor keeps it past its end.
    """
    # `sleep` holds the pipe's other end and never reads it.
    service = start(
        prefix=("bash", "-c", 'exec "$0" "$@" > >(exec sleep 600)'),
        grace_seconds=1,
        request_deadline_seconds=1,
    )
    # Two megabytes of lines, of which one waits.
    service.get("/faults/progress")
    wait_until(lambda: service.get("/faults/ok").status == 200)

    began = time.monotonic()
    service.send_signal(signal.SIGTERM)

    assert service.wait(seconds=20) == 0
    assert time.monotonic() - began < 0 + 1 + 1 + 1 + slack(2)


@pytest.mark.promise("L4")
def test_crash_that_hangs(start: Start) -> None:
    """
    An exception whose text never comes does not hold back the end.
    """
    # The watchdog would end it, too, but later.
    service = start(watchdog_seconds=60, liveness_timeout_seconds=90)
    service.get("/faults/trip/endless", method="POST")

    assert service.wait(seconds=20) == 70


@pytest.mark.promise("L9")
def test_debug_ends_by_itself(start: Start) -> None:
    """
    The level that SIGUSR2 raised is the usual one again after its time.
    """
    service = start(log_level="error", debug_seconds=1)
    service.send_signal(signal.SIGUSR2)
    service.wait_for("log_level_changed")
    service.get("/faults/ok")
    service.wait_for("request")

    def is_quiet() -> bool:
        before, shown = len(service.events("request")), len(service.events("stacks"))
        service.get("/faults/ok")
        # Lines keep their order, so that of the request would be there before this one.
        service.send_signal(signal.SIGUSR1)
        wait_until(lambda: len(service.events("stacks")) > shown)
        return len(service.events("request")) == before

    wait_until(is_quiet)


@pytest.mark.promise("L2")
def test_tasks_on_closed_resources(start: Start) -> None:
    """
    A background task that meets a closed resource while the process stops is no crash.
    """
    service = start()

    assert service.stop() == 0
    assert service.events("stray_error", kind="task task on a resource")
    assert not service.events("crash")


@pytest.mark.promise("L9")
@pytest.mark.parametrize("event", ["stacks", "grace_exceeded"])
def test_where_a_request_waits(start: Start, ask: Ask, event: str) -> None:
    """
    The stacks have the line of a suspended handler, and what it waits in before it.
    """
    service = start(grace_seconds=1, request_deadline_seconds=1)
    ask(service, "/faults/swallow?seconds=60")
    wait_until(lambda: in_flight(service))

    service.send_signal(signal.SIGUSR1 if event == "stacks" else signal.SIGTERM)
    tasks = service.wait_for(event)["tasks"]

    assert any(
        re.search(r": asyncio/tasks.py:\d+ sleep, web.py:\d+ swallow, ", task) for task in tasks
    )


@pytest.mark.promise("L9")
def test_signals_while_it_starts(start: Start) -> None:
    """
    SIGUSR1 and SIGUSR2 do not end a process that is still starting.
    """
    service = start(ready=False, prefix=COLD)
    maps = Path(f"/proc/{service.process.pid}/maps")
    wait_until(lambda: "pydantic_core" in maps.read_text())

    service.send_signal(signal.SIGUSR1)
    service.send_signal(signal.SIGUSR2)

    wait_until(service.is_ready)


@pytest.mark.alone
@pytest.mark.promise("L6")
@pytest.mark.parametrize(
    ("what", "cause"),
    [
        ("task", "task faulty task"),
        ("thread", "thread faulty thread"),
        ("cancelled", "task cancelled task"),
        ("callback", "loop callback"),
    ],
)
def test_crashes_loudly(start: Start, what: str, cause: str) -> None:
    """
    What the chassis supervises ends the process with 70 and one `crash` event, within a second.
    """
    service = start()

    service.get(f"/faults/trip/{what}", method="POST")
    code = service.wait(seconds=1 + 2)

    assert code == 70
    (event,) = service.events("crash")
    assert event["cause"] == cause
    assert event["exception"][0]["exc_type"] in {"RuntimeError", "CancelledError"}
    assert {"version", "uptime_seconds", "in_flight", "threads", "tasks"} <= event.keys()


@pytest.mark.promise("L6")
def test_crashes_at_the_start(start: Start) -> None:
    """
    Resources that can't be opened are a crash, which waits for nobody's threads.
    """
    service = start(ready=False, app="broken")
    began = time.monotonic()

    assert service.wait(seconds=20) == 70
    assert [event["cause"] for event in service.events("crash")] == ["task main"]
    assert time.monotonic() - began < 1 + slack(5)


@pytest.mark.promise("L6")
def test_parked_task_lives_on(start: Start) -> None:
    """
    A task that waits for ever, with nothing else referring to it, survives the garbage collector.
    """
    service = start()

    service.get("/faults/trip/garbage", method="POST")

    assert service.get("/faults/ok").status == 200
    assert not service.events("crash")


@pytest.mark.promise("L6")
@pytest.mark.parametrize("what", ["stray task", "stray thread", "finaliser"])
def test_strays_are_counted(start: Start, what: str) -> None:
    """
    What a third party leaves behind is an error event and a counter, never the end.
    """
    service = start()

    service.get(f"/faults/trip/{what.replace(' ', '%20')}", method="POST")
    event = service.wait_for("stray_error")

    metrics = service.get("/metrics", admin=True).body.decode()
    assert f'app_errors_total{{kind="{event["kind"]}"}} 1.0' in metrics
    assert service.get("/faults/ok").status == 200


@pytest.mark.promise("L6")
def test_out_of_files_is_not_fatal(start: Start) -> None:
    """
    A stranger who uses up all file descriptors does not end the process. What asyncio says of it
    hundreds of times is told once.
    """
    service = start(prefix=("prlimit", "--nofile=32:32"))
    held = []
    while not service.events("stray_error"):
        held.append(service.connect())
        assert len(held) < 200
    for connection in held:
        connection.close()

    wait_until(service.is_ready)
    assert service.get("/faults/ok").status == 200
    assert service.stop() == 0
    # asyncio tries again after a second, and fails otherwise if the listener is closed by then.
    repeated = "socket.accept() out of system resource"
    assert len(service.events("stray_error", kind="loop", message=repeated)) == 1
    (told,) = service.events("events_suppressed", of="stray_error")
    assert told["suppressed"] > 10


@pytest.mark.promise("L6")
def test_raising_while_cancelled_is_not_fatal(start: Start) -> None:
    """
    A handler that raises while it is being cancelled is answered, and life goes on.
    """
    service = start(request_deadline_seconds=0.3)

    assert service.get("/faults/raise-when-cancelled").status in {500, 504}
    assert service.get("/faults/ok").status == 200


@pytest.mark.promise("L7")
def test_stuck_loop_dies(start: Start, ask: Ask) -> None:
    """
    An event loop blocked for longer than the watchdog allows: all stacks, exit 70.
    """
    service = start(watchdog_seconds=slack(1), request_deadline_seconds=0.5)

    ask(service, "/faults/block?seconds=60")
    code = service.wait(seconds=20)

    assert code == 70
    (event,) = service.events("loop_stuck")
    assert any("block" in call for calls in event["threads"].values() for call in calls)


@pytest.mark.promise("L7")
def test_held_gil_dies(start: Start, ask: Ask) -> None:
    """
    Even when no Python thread can run, the process ends, with plain text as its last words.
    """
    service = start(watchdog_seconds=slack(1), request_deadline_seconds=0.5)

    ask(service, "/faults/hold-gil")
    code = service.wait()

    assert code == -signal.SIGPROF
    assert "hold_gil" in service.stderr.read_text()


@pytest.mark.promise("L7")
def test_paused_process_lives_on(start: Start) -> None:
    """
    A process that was stopped and goes on, as by a suspended machine, is not taken for stuck.
    """
    service = start(watchdog_seconds=slack(1), request_deadline_seconds=0.5)

    service.send_signal(signal.SIGSTOP)
    with pytest.raises(AssertionError):
        wait_until(lambda: service.process.poll() is not None, seconds=1 + 5 + 2)
    service.send_signal(signal.SIGCONT)

    wait_until(service.is_ready)
    assert service.stop() == 0


@pytest.mark.promise("L8")
@pytest.mark.parametrize("ready", [True, False])
def test_as_pid_1(start: Start, *, ready: bool) -> None:
    """
    As PID 1 it stops on SIGTERM with 0, also while it is still starting.
    """
    unshare = (
        "unshare",
        "--user",
        "--map-root-user",
        "--pid",
        "--fork",
        "--mount-proc",
        "--kill-child",
    )
    service = start(ready=ready, prefix=unshare)
    children = Path(f"/proc/{service.process.pid}/task/{service.process.pid}/children")
    wait_until(lambda: children.exists() and children.read_text().strip())
    child = int(children.read_text())
    # The shim of unshare has become the service when its command line says so.
    wait_until(lambda: b"web" in Path(f"/proc/{child}/cmdline").read_bytes())
    if not ready:
        wait_until(lambda: "asyncio" in Path(f"/proc/{child}/maps").read_text())

    os.kill(child, signal.SIGTERM)

    assert service.wait(seconds=20) == 0


@pytest.mark.promise("C9")
def test_address_of_another_machine(start: Start) -> None:
    """
    An address that can't be bound is one event with cause and action, exit 78.
    """
    service = start(ready=False, host="192.0.2.1", log_level="error")

    assert service.wait(seconds=20) == 78
    (event,) = service.events("port_not_bindable")
    assert "APP_HOST" in event["action"]
    assert "exception" not in event


@pytest.mark.promise("C9")
def test_port_is_taken_while_the_other_still_starts(start: Start) -> None:
    """
    Two processes that want the same port at the same time: the second is told so.
    """
    first = start(ready=False, app="late")
    wait_until(first.is_listening)
    second = start(ready=False, port=first.port)

    assert second.wait(seconds=20) == 69
    assert len(second.events("port_in_use")) == 1
    first.wait_until_ready()


@pytest.mark.promise("L5")
def test_without_a_database(copy: Callable[..., Path], start_in: Start) -> None:
    """
    The example without a database keeps its notes in memory: after SIGKILL they are gone, and the
    service starts again as if it were new.
    """
    project = copy()
    first = start_in(project)
    written = first.post_json("/v1/notes", {"text": "Five weeks."})
    kept = first.get(f"/v1/notes/{written.json['id']}")
    first.process.kill()
    first.process.wait()
    second = start_in(project)

    assert (written.status, kept.status) == (201, 200)
    assert second.get(f"/v1/notes/{written.json['id']}").status == 404
