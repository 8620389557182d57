"""
The harness of the generated system tests, which the template's own tests use too.
"""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

__all__ = ["ROOT", "TEMPLATE", "clean", "free_ports", "system", "wait_until"]

ROOT = Path(__file__).parents[1]
TEMPLATE = ROOT / "template"


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
