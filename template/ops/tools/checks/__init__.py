"""
Every check that a machine item can name: a function of the project that returns what it found.
"""

from collections.abc import Callable

from ops.tools.checks import alerting, code, declaration, deployment, network, pipeline, records
from ops.tools.finding import Finding
from ops.tools.project import Project

__all__ = ["CHECKS", "Check"]

Check = Callable[[Project], Finding]

CHECKS: dict[str, Check] = {
    check.__name__: check
    for module in (alerting, code, declaration, deployment, network, pipeline, records)
    for check in (getattr(module, name) for name in module.__all__)
}
