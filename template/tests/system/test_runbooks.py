"""
The commands of the runbooks, run against the running service; yours are run as well.
"""

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

PROJECT = Path(__file__).parents[2]
FOLDER = PROJECT / "ops" / "runbooks"
SERVES = any(PROJECT.glob("src/*/web.py")) or any(PROJECT.glob("src/*/worker.py"))
BLOCK = re.compile(
    r"^(?P<before>[^\n]*)\n *```sh\n(?P<script>.*?)^ *```$", re.MULTILINE | re.DOTALL
)
NOT_RUN = re.compile(r"<!-- not run: \S.* -->")
REQUEST = "a-request-of-the-runbooks"
# What the sections of a platform define: run a command of the service, print its log.
FUNCTIONS = 'svc() { "$SERVICE" "$@"; }; logs() { cat "$LOG"; }\n'


def blocks() -> list[Any]:
    """
    Each block that does not say why it can't be run here.
    """
    found = []
    for path in sorted(FOLDER.glob("*.md")):
        text = path.read_text(encoding="utf-8")
        for block in BLOCK.finditer(text):
            line = text.count("\n", 0, block.start("script")) + 1
            if not NOT_RUN.fullmatch(block["before"].strip()):
                found.append(pytest.param(block["script"], id=f"{path.name}:{line}"))
    return found


@pytest.fixture(name="situation", scope="session")
def _situation(
    request: pytest.FixtureRequest,
    command: list[str],
    environment: dict[str, str],
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, str]:
    """
    What whoever is on call has set: command, ports, process, log and a request.
    """
    log = tmp_path_factory.mktemp("runbooks") / "log"
    log.write_text(json.dumps({"event": "started", "request_id": REQUEST}) + "\n")
    known = {"SERVICE": command[0], "REQUEST": REQUEST, "LOG": str(log), "PID": str(os.getpid())}
    if SERVES:
        service = request.getfixturevalue("service")
        known |= service.environment | {"PID": str(service.process.pid)}
        if any(PROJECT.glob("src/*/web.py")):
            service.get("/", headers={"x-request-id": REQUEST})
            # The line of a request is written a moment after its answer.
            service.wait_for("request", request_id=REQUEST)
            known["LOG"] = str(service.stdout)
    return environment | known


@pytest.mark.promise("P2")
@pytest.mark.parametrize("script", blocks())
def test_command(script: str, situation: dict[str, str]) -> None:
    """
    It ends with 0; a command that can't be run here says why, in the line before its block.
    """
    others = {name: text for name, text in os.environ.items() if not name.startswith("APP_")}

    ended = subprocess.run(  # noqa: S603  # what the project's own runbooks say
        ["bash", "-euo", "pipefail", "-c", FUNCTIONS + script],  # noqa: S607  # found on PATH
        env=others | situation,
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    told = "write `<!-- not run: why -->` above a block that can't be run here"
    assert ended.returncode == 0, f"{script}{ended.stdout}{ended.stderr}{told}"
