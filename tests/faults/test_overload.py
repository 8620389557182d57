"""
More work than there is time for: some is refused at once, the rest is done in time.
"""

import asyncio
import contextlib
import http.client
import os
import re
import socket
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import openloop
import pytest
from balancer import balance
from harness import find_command, wait_until

pytestmark = pytest.mark.alone
Start = Callable[..., Any]
Idle = Callable[[Any], list[socket.socket]]
WORK = "/overload/work"
DEADLINE = 2.0
# What 20 ms of work for each allows on a whole core; on a busy machine capacity is less.
MOST = 1 / 0.02


@pytest.fixture(name="cores", autouse=True)
def _cores() -> Iterator[tuple[int, int]]:
    """
    A core for the load and one for the server, as far as there are two.
    """
    every = sorted(os.sched_getaffinity(0))
    cores = (every * 2)[:2]
    openloop.raise_file_limit()
    os.sched_setaffinity(0, {cores[0]})
    yield cores[0], cores[1]
    os.sched_setaffinity(0, every)


@pytest.fixture(name="serve")
def _serve(start: Start, cores: tuple[int, int]) -> Start:
    """
    Start a service on a core of its own.
    """

    def serve(**settings: Any) -> Any:
        named = {"request_deadline_seconds": DEADLINE, "log_level": "warning", **settings}
        prefix = ("taskset", "--cpu-list", str(cores[1]))
        return start(prefix=prefix, **named)

    return serve


@pytest.fixture(name="idle")
def _idle() -> Iterator[Idle]:
    """
    Open 500 connections to a service, each used once and kept alive.
    """
    with contextlib.ExitStack() as stack:

        def idle(service: Any) -> list[socket.socket]:
            opened = []
            for _ in range(500):
                # At once: a connection that says nothing is closed, and 500 take a while.
                opened.append(stack.enter_context(service.connect()))
                assert exchange(opened[-1]) == 200
            return opened

        yield idle


def exchange(connection: socket.socket) -> int:
    """
    One request on a connection that stays open; the status.
    """
    connection.sendall(b"GET /faults/ok HTTP/1.1\r\nhost: x\r\n\r\n")
    response = http.client.HTTPResponse(connection)
    response.begin()
    response.read()
    return response.status


def metric(service: Any, name: str) -> float:
    """
    The value of a metric, the sum over its labels.
    """
    text = service.get("/metrics", admin=True).body.decode()
    found = re.findall(rf"^{name}(?:{{.*}})? (\S+)$", text, re.MULTILINE)
    assert found, f"there is no metric {name}"
    return sum(map(float, found))


def resident_mib(service: Any) -> float:
    text = Path(f"/proc/{service.process.pid}/status").read_text()
    found = re.search(r"^VmRSS:\s+(\d+) kB", text, re.MULTILINE)
    assert found
    return int(found[1]) / 1024


@pytest.mark.promise("T8")
@pytest.mark.parametrize("keep_alive", [False, True], ids=["new", "kept alive"])
@pytest.mark.parametrize("way", ["direct", "haproxy"])
def test_four_times_capacity(serve: Start, tmp_path: Path, way: str, *, keep_alive: bool) -> None:
    """
    At four times capacity nearly all of it goes into answers in time; what is refused is refused
    soon, with 503 and Retry-After; no accepted request misses its deadline; every probe passes.

    The bound here is 0.7, since five seconds on a machine that does other things measure no
    better. That it is 0.85 at two, four and eight times capacity is shown by repeated runs on a
    quiet machine: benchmarks/overload.py and its results.
    """
    service = serve()
    with contextlib.ExitStack() as stack:
        port = service.port
        if way == "haproxy":
            servers = [(service.port, service.admin_port)]
            port, _ = stack.enter_context(balance(tmp_path, servers))

        async def overload() -> tuple[float, openloop.Load]:
            capacity = await openloop.capacity(service.port, WORK, seconds=1.5)
            load = await openloop.drive(
                port,
                WORK,
                rate=4 * MOST,
                seconds=5,
                deadline=DEADLINE,
                keep_alive=keep_alive,
                admin_port=service.admin_port,
            )
            return capacity, load

        capacity, load = asyncio.run(overload())

    assert load.lateness < 0.5
    assert load.late == []
    assert len(load.good) / (capacity * load.seconds) > 0.7
    refused = [reply for reply in load.replies if reply.status == 503]
    assert refused
    assert all(re.search(rb"(?i)\r\nretry-after: \d", reply.head) for reply in refused)
    assert all(b"application/problem+json" in reply.head for reply in refused)
    assert load.percentile(503, 99) < 0.5 + 0.5
    assert load.probe_success == 1
    assert metric(service, "app_requests_shed_total") > 0


@pytest.mark.promise("T8", "H4")
def test_eight_times_capacity(serve: Start, idle: Idle) -> None:
    """
    At eight times capacity and with 500 idle connections every probe passes; at most five seconds
    after it, nothing is refused any more.
    """
    service = serve()
    idle(service)

    async def burst_and_trickle() -> tuple[openloop.Load, float, openloop.Load]:
        capacity = await openloop.capacity(service.port, WORK, seconds=1)
        drive = partial(openloop.drive, service.port, WORK, deadline=DEADLINE)
        burst = await drive(
            rate=8 * MOST, seconds=4, keep_alive=False, admin_port=service.admin_port
        )
        ended = time.monotonic()
        while (await openloop.ask(service.port, WORK)) != 200:
            assert time.monotonic() < ended + 5
        took = time.monotonic() - ended
        return burst, took, await drive(rate=capacity / 4, seconds=2, keep_alive=True)

    burst, took, trickle = asyncio.run(burst_and_trickle())

    assert burst.statuses[503] > burst.statuses[200]
    assert burst.late == []
    assert burst.probe_success == 1
    assert took < 5
    assert set(trickle.statuses) == {200}


@pytest.mark.promise("T8")
def test_requests_that_only_wait(serve: Start) -> None:
    """
    Ten thousand requests that only wait make no loop late: `in_flight_max` bounds them.
    """
    count, most = 10_000, 1000
    service = serve(in_flight_max=most, request_deadline_seconds=8)
    before = resident_mib(service)

    async def ask_all() -> tuple[list[int], list[openloop.Probe], float]:
        # In portions, so that no backlog overflows; none of those that wait ends in between.
        asked = []
        for _ in range(count // 200):
            asked += [
                asyncio.create_task(openloop.ask(service.port, "/overload/wait?seconds=7"))
                for _ in range(200)
            ]
            await asyncio.sleep(0.02)
        probes = [await openloop.probe(service.admin_port, "/readyz") for _ in range(5)]
        in_flight = await asyncio.to_thread(metric, service, "app_requests_in_flight")
        return await asyncio.gather(*asked), probes, in_flight

    statuses, probes, in_flight = asyncio.run(ask_all())

    assert in_flight <= most
    assert most <= statuses.count(200) < count / 2
    assert statuses.count(200) + statuses.count(503) == count
    assert all(probe.passed for probe in probes)
    assert resident_mib(service) - before < 150
    assert metric(service, "app_requests_in_flight") == 0


def test_everything_at_once(serve: Start, idle: Idle) -> None:
    """
    A dependency that does not answer, work for the processor and 500 idle connections at once:
    a healthy endpoint is served, memory is bounded, what was abandoned ends.
    """
    service = serve(request_deadline_seconds=0.5)
    before = resident_mib(service)
    connections = idle(service)

    async def mixed() -> tuple[openloop.Load, ...]:
        capacity = await openloop.capacity(service.port, WORK, seconds=1)
        drive = partial(openloop.drive, service.port, seconds=4, deadline=DEADLINE, keep_alive=True)
        return await asyncio.gather(
            drive("/faults/ok", rate=20, admin_port=service.admin_port),
            drive(WORK, rate=capacity / 2),
            drive("/overload/stubborn?seconds=1.5", rate=50),
            drive("/overload/fan-out?parts=20&seconds=0.1", rate=20),
        )

    healthy, work, stubborn, fan_out = asyncio.run(mixed())

    assert healthy.statuses[200] >= 0.9 * len(healthy.replies)
    assert set(healthy.statuses) <= {200, 503}
    assert healthy.probe_success == 1
    assert set(work.statuses) | set(fan_out.statuses) <= {200, 503, 504}
    assert set(stubborn.statuses) <= {503, 504}
    assert resident_mib(service) - before < 60
    wait_until(lambda: metric(service, "app_requests_abandoned") == 0)
    assert metric(service, "app_requests_in_flight") == 0
    assert {exchange(connection) for connection in connections} == {200}


@pytest.mark.promise("L3")
def test_rolling_restarts(serve: Start, tmp_path: Path) -> None:
    """
    Five rolling restarts of two instances behind haproxy under constant load, GET and POST, on
    connections that are kept alive and on new ones: every answer is a 200.
    """
    codes, replies = rolling_restarts(serve, tmp_path, times=5, drain_seconds=1)

    assert codes == [0] * 10
    assert [reply for reply in replies if reply.status != 200] == []
    assert len(replies) > 200


@pytest.mark.promise("L3")
@pytest.mark.parametrize("drain_seconds", [1, 0], ids=["drain", "no drain"])
def test_it_is_the_drain(serve: Start, tmp_path: Path, drain_seconds: float) -> None:
    """
    Also behind a balancer that tries nothing twice no request is lost, and without the drain some
    are.
    """
    codes, replies = rolling_restarts(
        serve, tmp_path, times=1, drain_seconds=drain_seconds, retries=False
    )
    lost = [reply for reply in replies if reply.status != 200]

    assert codes == [0] * 2
    assert bool(lost) == (drain_seconds == 0)


def rolling_restarts(
    serve: Start, folder: Path, *, times: int, drain_seconds: float, retries: bool = True
) -> tuple[list[int], list[openloop.Reply]]:
    """
    Restart two instances in turn behind haproxy; their exit codes, and what clients were answered.
    """
    find_command("haproxy")
    # What else this machine does must not make it shed.
    settings = {"drain_seconds": drain_seconds, "shed_lag_seconds": 60, "log_level": "info"}
    services = [serve(**settings), serve(**settings)]
    ports = [(service.port, service.admin_port) for service in services]

    def restart_all() -> list[int]:
        codes = []
        for _ in range(times):
            for index, (port, admin_port) in enumerate(ports):
                codes.append(services[index].stop())
                again = serve(ready=False, port=port, admin_port=admin_port, **settings)
                again.port, again.admin_port = port, admin_port
                again.wait_until_ready()
                # The next one's turn comes when the balancer uses this one again.
                again.wait_for("request")
                services[index] = again
        return codes

    async def restart_under_load(port: int) -> tuple[list[int], list[openloop.Load]]:
        restarting = asyncio.create_task(asyncio.to_thread(restart_all))
        loads = await asyncio.gather(
            *(
                openloop.drive(
                    port,
                    f"{WORK}?seconds=0.002",
                    rate=25,
                    seconds=120,
                    deadline=3,
                    keep_alive=keep_alive,
                    methods=("GET", "POST"),
                    until=restarting.done,
                )
                for keep_alive in (True, False)
            )
        )
        return await restarting, loads

    with balance(folder, ports, check="100ms", retries=retries) as (port, _):
        wait_until(lambda: answers(port), seconds=10)
        codes, loads = asyncio.run(restart_under_load(port))
    return codes, [reply for load in loads for reply in load.replies]


def answers(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1) as one:
        one.sendall(b"GET /faults/ok HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        return one.recv(64).startswith(b"HTTP/1.1 200 ")
    return False
