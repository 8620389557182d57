"""
`uv run python -m ops`: checklists, postmortems and the envelope.
"""

import argparse
import sys
from pathlib import Path
from typing import NoReturn

from ops.tools import envelope, postmortem
from ops.tools.checks import CHECKS
from ops.tools.project import Project

__all__ = ["main"]

ROOT = Path(__file__).parents[1]


def main() -> NoReturn:
    """
    Exits with 64 on wrong usage.
    """
    parser = argparse.ArgumentParser("python -m ops", description=__doc__)
    commands = parser.add_subparsers(metavar="COMMAND")
    postmortem.register(commands)
    envelope.register(commands)
    arguments = parser.parse_args()
    project = Project(ROOT)
    if "function" in arguments:
        sys.exit(arguments.function(arguments, project))
    for name, check in CHECKS.items():
        found = check(project)
        print(f"{found.result:<8} {name}: {found.evidence}")
    sys.exit(0)


if __name__ == "__main__":
    main()
