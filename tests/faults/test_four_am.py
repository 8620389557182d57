"""
The walk from a page to a decision, with a database that is frozen.
"""

import json
import re
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from books import Person
from faulty_postgresql import PostgreSQL
from harness import ROOT, wait_until
from warm import COLD

PAGE = (ROOT / "docs" / "how-to" / "four-am.md").read_text()
BLOCKS = re.findall(r"^```sh\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)


@pytest.fixture(name="answers", scope="module")
def _answers() -> dict[str, Any]:
    return {"database": "postgresql", "deploy": []}


@pytest.mark.promise("P2")
def test_walk(start: Callable[..., Any], project: Path, postgresql: PostgreSQL) -> None:
    """
    Each command of the page works as printed, and leads to the next one.
    """
    command = project / ".venv" / "bin" / "order-desk"
    subprocess.run([command, "migrate", "up"], env={"APP_DATABASE_URL": postgresql.url}, check=True)
    service = start(prefix=COLD, database_url=postgresql.url)
    person = Person(project=project, service=service)

    def sh(script: str) -> str:
        return person.run(script, check=True)

    status, find, cause, wait, migrations, connections = BLOCKS
    postgresql.freeze()
    with ThreadPoolExecutor(8) as pool:
        answers = [*pool.map(lambda _: service.get("/v1/notes"), range(8))]
    service.wait_for("check_changed", check="database", is_up=False)
    ids = {one.json["instance"] for one in answers}
    wait_until(lambda: ids <= {line["request_id"] for line in service.events("request")})
    told = sh(status)
    found = json.loads(sh(find))
    outage = json.loads(sh(cause))
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(sh, wait)
        postgresql.thaw()
        waited = waiting.result(90)

    assert {one.status for one in answers} <= {503, 504}
    assert "kind=unavailable" in told
    assert re.search(r"check_up +0 check=database", told)
    assert found["request_id"] in ids
    assert {one.json["reason"] for one in answers} == {"unavailable: database"}
    assert (found["reason"], found["dependency"]) == ("unavailable", "database")
    assert (outage["host"], outage["port"]) == ("127.0.0.1", postgresql.port)
    assert re.search(r"check_up +1 check=database", waited)
    assert "0001" in sh(migrations)
    assert "pass" in sh(connections)
