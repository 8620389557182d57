"""
The systemd unit's limits don't stop the service; a container stands in for systemd.
"""

import json
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.covers(
    "template/deploy/systemd/*",
    "docs/how-to/systemd.md",
)

# PR_SET_MDWE (65) with PR_MDWE_REFUSE_EXEC_GAIN (1): what MemoryDenyWriteExecute=yes asks for.
DENY = """\
import ctypes, os
assert ctypes.CDLL(None).prctl(65, 1, 0, 0, 0) == 0
os.execv("/app/bin/order-desk", ["order-desk", "web"])
"""


def calls(names: str) -> Iterator[str]:
    """
    The system calls that names and groups of systemd mean.
    """
    for name in names.split():
        if not name.startswith("@"):
            yield name
            continue
        command = ["systemd-analyze", "--no-pager", "syscall-filter", name]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        listed = [line.strip() for line in said.splitlines()[1:]]
        yield from calls(" ".join(line for line in listed if not line.startswith("#")))


def test_service_runs_under_the_limits_of_the_unit(
    contain: Callable[..., Any], render: Callable[..., Path], tmp_path: Path
) -> None:
    """
    With the unit's system calls and without writable code it answers, is measured, tells its
    stacks, and stops with 0.
    """
    (unit,) = render(deploy=["systemd"]).glob("deploy/systemd/*.service")
    text = unit.read_text()
    filters = re.findall(r"^SystemCallFilter=(~?)(.*)$", text, re.MULTILINE)
    # What any process needs, systemd never takes away.
    always = {*calls("@default")}
    denied = {call for minus, names in filters if minus for call in calls(names)}
    allowed = {call for minus, names in filters if not minus for call in calls(names)}
    group = {"names": sorted((allowed - denied) | always), "action": "SCMP_ACT_ALLOW"}
    profile = {"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 1, "syscalls": [group]}
    (tmp_path / "seccomp.json").write_text(json.dumps(profile))
    (tmp_path / "deny.py").write_text(DENY)

    service = contain(
        f"--security-opt=seccomp={tmp_path / 'seccomp.json'}",
        f"--volume={tmp_path / 'deny.py'}:/deny.py:ro",
        '--entrypoint=["/app/bin/python", "/deny.py"]',
        drain_seconds=0,
        readiness_period_seconds=0,
    )
    written = service.post_json("/v1/notes", {"text": "Five weeks."})
    metrics = service.get("/metrics", admin=True).body.decode()
    service.podman("kill", "--signal=USR1", service.id)
    service.podman("stop", service.id)

    assert "MemoryDenyWriteExecute=yes" in text
    assert "setpriority" not in group["names"]
    assert written.status == 201
    assert "process_resident_memory_bytes" in metrics
    assert '"event":"stacks"' in service.logs()
    assert service.inspect("State.ExitCode") == "0"
