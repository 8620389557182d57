"""
The harness of the generated system tests, which the template's own tests use too.
"""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

__all__ = [
    "PACKAGE",
    "ROOT",
    "TEMPLATE",
    "WITHOUT_DATABASE",
    "WITH_DATABASE",
    "clean",
    "free_ports",
    "modules",
    "system",
    "wait_until",
]

ROOT = Path(__file__).parents[1]
TEMPLATE = ROOT / "template"
# What every service has, and the seeds that differ by its database.
PACKAGE, WITHOUT_DATABASE, WITH_DATABASE = (
    TEMPLATE / folder / "src" / "{{ package_name }}"
    for folder in ("", "{{ without_database }}", "{{ with_database }}")
)


def modules() -> list[Path]:
    """
    Every module that some service has.
    """
    folders = PACKAGE, WITHOUT_DATABASE, WITH_DATABASE
    return [path for folder in folders for path in sorted(folder.rglob("*.py"))]


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
