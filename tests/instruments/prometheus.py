"""
A real Prometheus that scrapes services on this machine and evaluates a project's own rules.
"""

import contextlib
import http.client
import json
import re
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from harness import find_command, free_ports, wait_until

__all__ = ["Prometheus", "prometheus"]


class Prometheus:
    """
    What it says of its alerts.
    """

    def __init__(self, port: int) -> None:
        self._port = port

    def ask(self, path: str) -> tuple[int, bytes]:
        """
        Status and body of an answer.
        """
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=10)
        with contextlib.closing(connection):
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read()

    def is_ready(self) -> bool:
        try:
            return self.ask("/-/ready")[0] == http.HTTPStatus.OK
        except OSError:
            return False

    def firing(self) -> dict[str, dict[str, Any]]:
        """
        The alerts that fire, by name.
        """
        alerts = json.loads(self.ask("/api/v1/alerts")[1])["data"]["alerts"]
        return {one["labels"]["alertname"]: one for one in alerts if one["state"] == "firing"}


@contextmanager
def prometheus(
    folder: Path,
    alerts: Path,
    ports: Sequence[int],
    *,
    job: str = "order-desk",
    shorten: Sequence[tuple[str, str]] = (),
) -> Iterator[Prometheus]:
    """
    Prometheus with the rules in *alerts*, in which each pattern of *shorten* is replaced: nobody
    waits for hours here. It scrapes the admin *ports*, and evaluates, once a second.
    """
    folder.mkdir()
    for path in alerts.glob("*.yaml"):
        text = path.read_text()
        for pattern, replacement in shorten:
            text = re.sub(pattern, replacement, text)
        (folder / path.name).write_text(text)
    targets = [{"targets": [f"127.0.0.1:{port}" for port in ports]}]
    configuration = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(folder / path.name) for path in alerts.glob("*.yaml")],
        "scrape_configs": [{"job_name": job, "static_configs": targets}],
    }
    (folder / "prometheus.yml").write_text(json.dumps(configuration))
    port = free_ports()[0]
    with (
        (folder / "log").open("wb") as log,
        subprocess.Popen(
            [
                find_command("prometheus"),
                f"--config.file={folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            stderr=log,
        ) as process,
    ):
        try:
            server = Prometheus(port)
            wait_until(lambda: process.poll() is not None or server.is_ready(), seconds=30)
            assert process.poll() is None, (folder / "log").read_text()
            yield server
        finally:
            process.kill()
