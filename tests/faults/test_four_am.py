"""
The walk from a page to a decision, with a database that is frozen.
"""

import json
import os
import re
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from faulty_postgresql import PostgreSQL
from harness import ROOT, wait_until

PAGE = (ROOT / "docs" / "how-to" / "four-am.md").read_text()
BLOCKS = re.findall(r"(?<!-->)\n```sh\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)


@pytest.fixture(name="answers", scope="module")
def _answers() -> dict[str, Any]:
    return {"database": "postgresql"}


@pytest.mark.promise("P2")
def test_walk(
    start: Callable[..., Any], project: Path, postgresql: PostgreSQL, tmp_path: Path
) -> None:
    """
    Each command of the page works as printed, and leads to the next one.
    """
    command = project / ".venv" / "bin" / "order-desk"
    url = {"APP_DATABASE_URL": postgresql.url}
    subprocess.run([command, "migrate", "up"], env=url, check=True)
    service = start(database_url=postgresql.url)
    known = {"SERVICE": str(command), "LOG": str(service.stdout), **service.environment, **url}

    def sh(script: str, **more: str) -> str:
        ended = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script],
            env=os.environ | known | {"PID": str(service.process.pid)} | more,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert ended.returncode == 0, script + ended.stdout + ended.stderr
        return ended.stdout

    status, ask, find, cause, wait, migrations, connections = BLOCKS
    postgresql.freeze()
    with ThreadPoolExecutor(8) as pool:
        statuses = {one.status for one in pool.map(lambda _: service.get("/v1/notes"), range(8))}
    told = sh(status)
    problem = json.loads(sh(ask))
    wait_until(lambda: service.events("request", request_id=problem["instance"]))
    found = sh(find, REQUEST=problem["instance"])
    outage = json.loads(sh(cause))
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(sh, wait)
        # It has been told at least once more that the database does not answer.
        number = len(service.events("request", status=problem["status"]))
        wait_until(
            lambda: len(service.events("request", status=problem["status"])) > number, seconds=30
        )
        postgresql.thaw()
        waiting.result(90)

    assert statuses <= {503, 504}
    assert "kind=unavailable" in told
    line = json.loads(found.splitlines()[-1])
    assert problem["reason"] == f"{line['reason']}: {line['dependency']}" == "unavailable: database"
    assert (outage["host"], outage["port"]) == ("127.0.0.1", postgresql.port)
    assert "0001" in sh(migrations)
    assert "pass" in sh(connections)
