"""
The harness of the generated system tests, which the template's own tests use too.
"""

import importlib.util
import os
import shutil
import sys
from pathlib import Path
from types import ModuleType
from typing import NoReturn

import pytest

__all__ = [
    "BESIDE_WITHOUT_DATABASE",
    "BESIDE_WITH_DATABASE",
    "PACKAGE",
    "ROOT",
    "TEMPLATE",
    "WITHOUT_DATABASE",
    "WITH_DATABASE",
    "clean",
    "find_command",
    "free_ports",
    "is_missing",
    "modules",
    "slack",
    "system",
    "wait_until",
]

ROOT = Path(__file__).parents[1]
TEMPLATE = ROOT / "template"
# What every service has, the seeds that differ by its database, and those of them that a job alone
# has otherwise.
PACKAGE, WITHOUT_DATABASE, WITH_DATABASE, BESIDE_WITHOUT_DATABASE, BESIDE_WITH_DATABASE = (
    TEMPLATE / folder / "src" / "{{ package_name }}"
    for folder in (
        "",
        "{{ without_database }}",
        "{{ with_database }}",
        "{{ not_job_alone }}/{{ without_database }}",
        "{{ not_job_alone }}/{{ with_database }}",
    )
)


def modules() -> list[Path]:
    """
    Every module that some service has.
    """
    return sorted(TEMPLATE.glob("**/src/{{ package_name }}/**/*.py"))


def slack(seconds: float) -> float:
    """
    What a busy machine may add to a promised limit. Tests that are `alone` have no such excuse.
    """
    return seconds * float(system.PATIENCE)


def find_command(name: str) -> str:
    """
    Where a command of the system is, which need not be on the PATH of everybody.
    """
    return shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin") or is_missing(name)


def is_missing(what: str) -> NoReturn:
    """
    The test needs what this machine does not have: it fails in CI and is skipped elsewhere.
    """
    message = f"there is no {what} on this machine"
    if os.environ.get("CI"):
        pytest.fail(message)
    pytest.skip(message)


def _load() -> ModuleType:
    path = TEMPLATE / "tests" / "system" / "conftest.py"
    spec = importlib.util.spec_from_file_location("system_harness", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


system = _load()
clean = system.clean
free_ports = system.free_ports
wait_until = system.wait_until
