"""
CPU per request: the chassis and the generated service against the same bare FastAPI application.

    uv run python benchmarks/requests.py [--quick] [--rounds N] [--also NAME=VALUE] [--profile]

Bursts of a fixed number of requests on keep-alive connections, in rounds in which every subject
has its turn, so that a drift of the machine's speed hits all; a figure is a ratio of one round.
"""

import argparse
import contextlib
import json
import random
import re
import select
import socket
import statistics
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import subjects
from page import Bars, Section, spread

CONNECTIONS = 8
# A burst with a refusal in it is thrown away and sent again.
ATTEMPTS = 20
NOTE = {"text": "Five weeks, all of them."}
LENGTH = re.compile(rb"\r\ncontent-length: (\d+)", re.IGNORECASE)
NAMES = {"A": "bare", "B": "bare application in the chassis", "C": "generated service"}
BOUNDS = {("B", "GET"): 1.3, ("B", "POST"): 1.3, ("C", "GET"): 1.0, ("C", "POST"): 0.85}


class Refused(Exception):  # noqa: N818  # an answer, not a failure
    """
    The shedder found the loop late: something else ran on the server's core.
    """


def burst(port: int, request: bytes, status: bytes, count: int) -> None:
    """
    Send *count* requests on keep-alive connections, each with one request on its way; raises
    AssertionError when an answer has another status or does not come, and `Refused`.
    """
    expected = b"HTTP/1.1 " + status
    with contextlib.ExitStack() as stack:
        poll = stack.enter_context(select.epoll())
        received: dict[int, bytes] = {}
        sockets = {}
        for _ in range(min(CONNECTIONS, count)):
            one = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=10))
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sockets[one.fileno()] = one
            received[one.fileno()] = b""
            poll.register(one.fileno(), select.EPOLLIN)
            one.sendall(request)
        unsent = unanswered = count - len(sockets)
        unanswered += len(sockets)
        while unanswered:
            ready = poll.poll(10)
            assert ready, "no answer within 10 s"
            for descriptor, _ in ready:
                one = sockets[descriptor]
                more = one.recv(65536)
                assert more, "the server closed a connection"
                data = received[descriptor] + more
                head, end, body = data.partition(b"\r\n\r\n")
                length = LENGTH.search(head) if end else None
                if length is None or len(body) < int(length[1]):
                    received[descriptor] = data
                    continue
                if head.startswith(b"HTTP/1.1 503 "):
                    raise Refused
                assert head.startswith(expected), data[:200]
                received[descriptor] = b""
                unanswered -= 1
                if unsent:
                    one.sendall(request)
                    unsent -= 1


@dataclass(frozen=True, kw_only=True)
class Subject:
    """
    A server, and what a request costs it.
    """

    running: subjects.Running

    def cost(self, method: str, count: int) -> float:
        """
        CPU seconds of one request, from a burst of *count*.
        """
        if method == "POST":
            body = json.dumps(NOTE).encode()
            head = f"POST /v1/notes HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n"
            request = head.encode() + b"content-type: application/json\r\n\r\n" + body
            status = b"201"
        else:
            # A new one: the store forgets the oldest.
            note = self.running.ask("/v1/notes", method="POST", body=NOTE)[1]["id"]
            request = f"GET /v1/notes/{note} HTTP/1.1\r\nhost: x\r\n\r\n".encode()
            status = b"200"
        for _ in range(ATTEMPTS):
            before = self.running.cpu_seconds
            with contextlib.suppress(Refused):
                burst(self.running.port, request, status, count)
                return (self.running.cpu_seconds - before) / count
        raise Refused


def are_alike(bare: subjects.Running, service: subjects.Running) -> bool:
    """
    Whether both do the same work: the same answers but for what is new in each.
    """
    answers = []
    for running in (bare, service):
        added = running.ask("/v1/notes", method="POST", body=NOTE)
        read = running.ask(f"/v1/notes/{added[1]['id']}")
        assert read[1] == added[1]
        page = running.ask("/v1/notes?size=1")
        answers.append((added[0], read[0], [*read[1]], read[1]["text"], page[0], [*page[1]]))
    return answers[0] == answers[1]


def measure(*, rounds: int, count: int, also: list[str], fill: int) -> dict[str, Any]:
    """
    CPU seconds per request by subject and method, a figure per round.
    """
    subjects.on_own_core()
    with subjects_of(also) as found:
        assert are_alike(found["A"].running, found["C"].running)
        for subject in found.values():
            # All hold the same number of notes: as many as fit.
            for _ in range(-(-fill // count)):
                subject.cost("POST", count)
            subject.cost("GET", count)
        keys = [(name, method) for name in found for method in ("GET", "POST")]
        costs: dict[tuple[str, str], list[float]] = {key: [] for key in keys}
        for _ in range(rounds):
            for name, method in random.sample(keys, len(keys)):
                costs[name, method].append(found[name].cost(method, count))
        lines = {name: subject.running.log.stat().st_size for name, subject in found.items()}
    assert lines["A"] == 0
    assert lines["B"] > rounds * count
    return {"costs": costs, "rounds": rounds, "count": count}


@contextlib.contextmanager
def subjects_of(also: list[str]) -> Iterator[dict[str, Subject]]:
    """
    Every subject, running; *also* are settings, each switched in one more subject like B.
    """
    here = Path(__file__).parent
    overlay = {"bare.py": here / "bare.py", "web.py": here / "overlay" / "bare.py"}
    with tempfile.TemporaryDirectory() as temporary, contextlib.ExitStack() as stack:
        base = Path(temporary)
        plain = subjects.make_project(base, "plain")
        inside = subjects.make_project(base, "inside", overlay=overlay)
        settings = {name: dict([name.split("=")]) for name in also}
        wanted = {
            "A": (plain, "bare", {}),
            "B": (inside, "service", {}),
            "C": (plain, "service", {}),
        }
        wanted |= {f"B, {name}": (inside, "service", setting) for name, setting in settings.items()}
        found = {}
        for name, (project, what, environment) in wanted.items():
            running = stack.enter_context(subjects.start(project, what, **environment))
            running.wait_for("/v1/notes")
            found[name] = Subject(running=running)
        yield found


def section(measured: dict[str, Any]) -> Section:
    """
    As a part of the page.
    """
    costs, rows, bars = measured["costs"], [], Bars(title="CPU per request, ratio to bare FastAPI")
    for name, method in sorted(key for key in costs if key[0] != "A"):
        pairs = zip(costs[name, method], costs["A", method], strict=True)
        ratios = [one / other for one, other in pairs]
        p10 = _p10(costs[name, method]) / _p10(costs["A", method])
        bound = BOUNDS.get((name, method))
        rows.append(
            [
                f"{name}: {NAMES.get(name, 'the chassis with another setting')}",
                method,
                *spread(ratios),
                f"{p10:.2f}",
                f"≤ {bound}" if bound else "",
            ]
        )
        if bound:
            bars.add(f"{name} {method}", statistics.median(ratios), bound=bound)
    return Section(
        title="CPU per request",
        text=(
            f"CPU time of the server process over that of A, the bare application on stock uvicorn "
            f"(asyncio, httptools, no access log): {measured['rounds']} rounds, in each a burst of "
            f"{measured['count']} requests to every subject and method in random order, "
            f"{CONNECTIONS} keep-alive connections, server and load on a core of their own. "
            "The ratio is made within a round; p10 is the ratio of the tenth percentiles."
        ),
        head=["subject", "method", "median", "quartiles", "p10", "bound"],
        rows=rows,
        bars={"requests": bars},
    )


def _p10(values: list[float]) -> float:
    return statistics.quantiles(values, n=10)[0] if len(values) > 1 else values[0]


def profile(count: int) -> None:
    """
    Print where B and C spend their time, by py-spy's samples: 40 functions with their own share.
    """
    subjects.on_own_core()
    with subjects_of([]) as found:
        for name, method in [
            ("A", "GET"),
            ("B", "GET"),
            ("C", "GET"),
            ("B", "POST"),
            ("C", "POST"),
        ]:
            found[name].cost(method, 2000)
            pid = found[name].running.process.pid
            out = found[name].running.log.with_suffix(".raw")
            spy = ["uvx", "--quiet", "py-spy", "record", "--rate", "500", "--format", "raw"]
            spy += ["--nolineno", "--duration", "8", "--output", out, "--pid", str(pid)]
            with subprocess.Popen(spy, stdout=subprocess.DEVNULL) as spying:
                while spying.poll() is None:
                    found[name].cost(method, count)
            own: Counter[str] = Counter()
            files: Counter[str] = Counter()
            for line in out.read_text().splitlines():
                stack, _, times = line.rpartition(" ")
                if "watchdog.py" in stack or "select (selectors.py)" in stack:
                    # It sleeps; py-spy can't tell.
                    continue
                frames = [frame.replace(str(out.parent), "") for frame in stack.split(";")]
                own[frames[-1]] += int(times)
                where = re.search(r"\((.*)\)", frames[-1])
                files[where[1] if where else frames[-1]] += int(times)
            for title, counted in (("function", own), ("file", files)):
                print(f"\n{name} {method}: own time by {title}")
                for what, times in counted.most_common(25):
                    print(f"  {times / own.total():6.1%}  {what}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--quick", action="store_true", help="a smoke run")
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--also", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--profile", action="store_true", help="by py-spy, instead of measuring")
    options = parser.parse_args()
    if options.profile:
        profile(count=1000)
        return
    print(section(run(quick=options.quick, rounds=options.rounds, also=options.also)).markdown)


def run(*, quick: bool, rounds: int = 60, also: list[str] | None = None) -> dict[str, Any]:
    """
    Measure, quickly to see that it works or long enough to believe it.
    """
    if quick:
        return measure(rounds=2, count=100, also=also or [], fill=200)
    return measure(rounds=rounds, count=500, also=also or [], fill=10_500)


if __name__ == "__main__":
    main()
