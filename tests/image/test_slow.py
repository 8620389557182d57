"""
A container with a tenth of a CPU, under load, and the probes of the manifests.
"""

import contextlib
import http.client
import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

pytestmark = pytest.mark.covers(
    "template/Dockerfile.jinja",
)

CPUS = 0.1
CLIENTS = 6
# Within the limit of a body, and refused: to read so many names takes a while.
BODY = json.dumps({f"unknown-{number}": number for number in range(40_000)})
LOAD_SECONDS = 60
Contain = Callable[..., Any]


class Kubelet:
    """
    Probes a container as a kubelet does: one probe after the other, each on its own connection.
    """

    def __init__(self, container: Any, probe: dict[str, Any]) -> None:
        self._container = container
        self._port, self._path = container.admin_port, probe["httpGet"]["path"]
        self._period, self._limit = probe.get("periodSeconds", 10), probe.get("timeoutSeconds", 1)
        self._most = probe.get("failureThreshold", 3)
        self.seconds: list[float] = []
        self.failures = self.worst = 0

    def probe(self) -> bool:
        """
        Ask once; whether the answer came in time, and was good.
        """
        began, is_good = time.monotonic(), False
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=self._limit)
        with (
            contextlib.closing(connection),
            contextlib.suppress(OSError, http.client.HTTPException),
        ):
            connection.request("GET", self._path)
            is_good = connection.getresponse().status == 200
        self.seconds.append(time.monotonic() - began)
        self.failures = 0 if is_good else self.failures + 1
        self.worst = max(self.worst, self.failures)
        return is_good

    def run(self, until: Callable[[], bool]) -> None:
        """
        Probe in each period; raises AssertionError when the container would be killed.
        """
        while not until():
            began = time.monotonic()
            self.probe()
            assert self.failures < self._most, (self._path, self.seconds, self._container.logs())
            rest = began + self._period - time.monotonic()
            threading.Event().wait(max(rest, 0))


@pytest.fixture(name="probes", scope="module")
def _probes() -> dict[str, Any]:
    """
    The probes of the Deployment that the template renders.
    """
    path = Path(__file__).parents[2] / "template/deploy/kubernetes/base/deployment.yaml.jinja"
    text = re.sub(r"(?s)\{%.*?%\}|\{\{.*?\}\}", "", path.read_text())
    found = {}
    for kind in ("startup", "readiness", "liveness"):
        block = re.search(rf"(?m)^( +){kind}Probe:\n((?:\1  .*\n)+)", text)
        assert block
        found[kind] = yaml.safe_load(block[2])
    return found


@contextlib.contextmanager
def load(container: Any) -> Iterator[list[int]]:
    """
    Clients that send large bodies all the time; the statuses of the answers, 0 if there was none.
    """
    statuses: list[int] = []
    is_over = threading.Event()

    def ask() -> None:
        while not is_over.is_set():
            status = 0
            with contextlib.suppress(OSError, http.client.HTTPException):
                headers = {"content-type": "application/json"}
                options = {"method": "POST", "body": BODY, "headers": headers, "timeout": 20}
                status = container.get("/v1/notes", **options).status
            statuses.append(status)

    clients = [threading.Thread(target=ask, daemon=True) for _ in range(CLIENTS)]
    for client in clients:
        client.start()
    try:
        yield statuses
    finally:
        is_over.set()
        for client in clients:
            client.join()


@pytest.mark.promise("H6")
def test_tenth_of_a_cpu(contain: Contain, probes: dict[str, Any]) -> None:
    """
    At a tenth of a CPU the service starts within the startup probe's time, and under load the
    liveness probe never fails so often in a row that Kubernetes kills it; nor does the watchdog.
    """
    container = contain(f"--cpus={CPUS}", ready=False)
    startup, liveness = (
        Kubelet(container, probes["startup"]),
        Kubelet(container, probes["liveness"]),
    )
    startup.run(lambda: bool(startup.seconds) and not startup.failures)

    ends = time.monotonic() + LOAD_SECONDS
    with load(container) as statuses:
        liveness.run(lambda: time.monotonic() > ends)

    assert container.inspect("State.Running") is True
    events = [json.loads(line)["event"] for line in container.logs().splitlines()]
    assert "loop_stuck" not in events
    # It was the load that it should be: most of the time there was nothing left of the CPU.
    assert throttled(container) > 0.5
    assert 422 in statuses


def throttled(container: Any) -> float:
    """
    The share of periods in which the kernel held the container back.
    """
    pid = container.inspect("State.Pid")
    lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    groups = {names: path for _, names, path in (line.split(":", 2) for line in lines)}
    group = (
        f"/sys/fs/cgroup/cpu{groups['cpu']}" if "cpu" in groups else f"/sys/fs/cgroup{groups['']}"
    )
    numbers = dict(line.split() for line in Path(group, "cpu.stat").read_text().splitlines())
    return int(numbers["nr_throttled"]) / int(numbers["nr_periods"])
