"""
The commands of the runbooks, run beside the running service. Your own runbooks are run too.
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
# The functions that "Before you start" defines for each platform, here for a process of this
# machine. Runbooks of earlier releases use the variables instead.
FUNCTIONS = """\
role=web
svc()    { "$SERVICE" "$@"; }
logs()   { cat "$LOG"; }
stacks() { kill -USR1 "$PID"; }
"""
# Each command that fails, with the exit codes of its whole pipeline.
FAILURES = """\
set -u -o pipefail
trap 'echo "${PIPESTATUS[@]}" >>"$FAILURES"' ERR
"""


def blocks() -> list[Any]:
    """
    Each block once, but for those with a note that says why they can't run here.
    """
    found: dict[str, Any] = {}
    for path in sorted(FOLDER.glob("*.md")):
        text = path.read_text(encoding="utf-8")
        for block in BLOCK.finditer(text):
            line = text.count("\n", 0, block.start("script")) + 1
            if not NOT_RUN.fullmatch(block["before"].strip()):
                script = block["script"]
                block_id = f"{path.name}:{line}"
                found.setdefault(script, pytest.param(path.stem, script, id=block_id))
    return [*found.values()]


@pytest.fixture(name="situation", scope="session")
def _situation(
    request: pytest.FixtureRequest,
    command: list[str],
    environment: dict[str, str],
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, str]:
    """
    What the person on call has: command, settings, ports, process, log and the id of a request.
    """
    log = tmp_path_factory.mktemp("runbooks") / "log"
    log.write_text(json.dumps({"event": "started", "request_id": REQUEST}) + "\n", encoding="utf-8")
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
@pytest.mark.parametrize(("book", "script"), blocks())
def test_command(
    request: pytest.FixtureRequest,
    book: str,
    script: str,
    situation: dict[str, str],
    tmp_path: Path,
) -> None:
    """
    Each command can be run as it is printed. It may fail in one way only: a `grep` that finds
    nothing, because this service is healthy. In a faulted service it finds something: that is what
    the template's tests show.
    """
    others = {name: text for name, text in os.environ.items() if not name.startswith("APP_")}
    if book == "worker" and any(PROJECT.glob("src/*/worker.py")):
        worker = request.getfixturevalue("worker_beside")
        known = {"LOG": str(worker.stdout), "PID": str(worker.process.pid)}
        situation = situation | worker.environment | known
    failures = tmp_path / "failures"
    failures.touch()

    ended = subprocess.run(  # noqa: S603  # what the project's own runbooks say
        ["bash", "-c", FUNCTIONS + FAILURES + script],  # noqa: S607  # found on PATH
        env=others | situation | {"FAILURES": str(failures)},
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    failed = [{*line.split()} for line in failures.read_text(encoding="utf-8").splitlines()]
    greps = sum("grep" in line for line in script.splitlines())
    found_nothing = len(failed) <= greps and all(codes <= {"0", "1"} for codes in failed)
    said = f"{script}{ended.stdout}{ended.stderr}"
    told = f"{said}Write `<!-- not run: why -->` above a block that can't be run here."
    if failed:
        assert found_nothing, told
        assert not ended.stderr, told
    else:
        assert ended.returncode == 0, told
