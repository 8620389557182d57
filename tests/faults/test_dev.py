"""
`dev` and what it started, when one of them ends.
"""

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from harness import clean, free_ports, wait_until

pytestmark = pytest.mark.covers(
    "template/src/{{ package_name }}/__main__.py",
    "template/src/{{ package_name }}/chassis/dev.py",
    "template/src/{{ package_name }}/chassis/logs.py",
    "template/tests/postgresql.py",
)


@pytest.fixture(name="dev")
def _dev(project: Path, tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    port, admin_port = free_ports()
    own = {"APP_PORT": str(port), "APP_ADMIN_PORT": str(admin_port)}
    with (tmp_path / "said").open("wb") as said:
        process = subprocess.Popen(
            [project / ".venv" / "bin" / "python", "-m", "order_desk", "dev"],
            cwd=project,
            env=clean(dict(os.environ)) | own,
            stdout=said,
            stderr=said,
            start_new_session=True,
        )
    yield process
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def has_ended(process: psutil.Process) -> bool:
    """
    Whether it is gone, or waits for a parent that asks no more.
    """
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_processes_end_with_dev(dev: subprocess.Popen[bytes], tmp_path: Path) -> None:
    """
    If `dev` is killed, the processes that it started end by themselves: the next one finds its
    ports free.
    """
    wait_until(lambda: "started" in (tmp_path / "said").read_text(), seconds=60)
    (web,) = psutil.Process(dev.pid).children()

    dev.kill()
    dev.wait()

    wait_until(lambda: has_ended(web))


def test_lines_are_told_apart(dev: subprocess.Popen[bytes], tmp_path: Path) -> None:
    """
    Each log line begins with the process type, and has colours at a terminal only.
    """
    said = tmp_path / "said"
    wait_until(lambda: "started" in said.read_text(), seconds=60)

    assert dev.poll() is None
    assert any(line.startswith("web     20") for line in said.read_text().splitlines())
    assert "\x1b" not in said.read_text()
