"""
`uv run python -m ops`: checklists, postmortems, the envelope, drift and updates of the template.
"""

import argparse
import io
import os
import sys
from datetime import date
from pathlib import Path
from typing import NoReturn

from ops.tools import checklist, drift, envelope, postmortem, report, update
from ops.tools.checks import CHECKS
from ops.tools.declaration import Malformed, did_you_mean
from ops.tools.project import Project

__all__ = ["main"]

ROOT = Path(__file__).parents[1]

EXITS = """\
exit status:
  0   nothing failed and nothing is open, or spec.tier in ops/service.yaml is not
      named yet and nothing failed
  1   a check failed, could not look or was slow; a signature or a waiver has ended
  2   only what humans do is open
  64  wrong usage, such as an unknown checklist
  78  a checklist or ops/service.yaml is wrong: file, line and what to do
"""


class _Parser(argparse.ArgumentParser):
    """
    Its subcommands end with 64, too.
    """

    def error(self, message: str) -> NoReturn:
        self.exit(64, f"{self.format_usage()}{message}\n")


def main() -> NoReturn:
    """
    Exits with the status that `--help` explains.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    formatter = argparse.RawDescriptionHelpFormatter
    parser = _Parser(
        "python -m ops",
        description=(__doc__ or "").strip(),
        epilog=EXITS,
        formatter_class=formatter,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    lists = commands.add_parser("checklist", help="run, look at and sign checklists")
    verbs = lists.add_subparsers(required=True, metavar="VERB")
    for verb, text in (("run", "look at everything"), ("status", "only what people signed")):
        command = verbs.add_parser(verb, help=text, epilog=EXITS, formatter_class=formatter)
        command.add_argument("names", nargs="*", metavar="NAME", help="a list, such as deploy")
        command.add_argument("--json", action="store_true", help="a list of items")
        command.set_defaults(function=_run, checks=CHECKS if verb == "run" else {})
    command = verbs.add_parser("sign", help="say that something was done")
    command.add_argument("item", metavar="ITEM")
    command.add_argument("--by", required=True, metavar="NAME", help="who did it")
    command.add_argument(
        "--date", type=date.fromisoformat, help="when, such as 2027-01-31 (default: today)"
    )
    command.set_defaults(function=_sign)
    postmortem.register(commands)
    envelope.register(commands)
    drift.register(commands)
    update.register(commands)
    arguments = parser.parse_args()
    try:
        code = arguments.function(arguments, Project(ROOT))
        print(end="", flush=True)
    except checklist.Misuse as error:
        parser.exit(64, f"{error}\n")
    except Malformed as error:
        parser.exit(78, f"{error}\n")
    except BrokenPipeError:
        # The reader, such as `head`, has seen enough; the status is what a shell says of SIGPIPE.
        os._exit(141)
    sys.exit(code)


def _run(arguments: argparse.Namespace, project: Project) -> int:
    lists = _read(project)
    known = {each.name: each for each in lists}
    for name in arguments.names:
        if name not in known:
            raise checklist.Misuse(f"{name!r} is no checklist{did_you_mean(name, known)}")
    chosen = [known[name] for name in dict.fromkeys(arguments.names)] or lists
    waived = {waiver.check for waiver in project.declaration.waivers if not waiver.file}
    tier = project.declaration.tier or "A"
    wanted = {
        item.check for each in chosen for item in each.items if item.check and tier <= item.tier
    }
    checks = {name: arguments.checks[name] for name in wanted - waived if name in arguments.checks}
    found = report.look(project, checks)
    lines = report.weigh(chosen, project, found, with_each_time=bool(arguments.names))
    if arguments.json:
        print(report.as_json(lines))
    else:
        print(report.as_table(lines, chosen, project.declaration))
    return report.exit_code(lines, project.declaration)


def _sign(arguments: argparse.Namespace, project: Project) -> int:
    items = {item.id: item for each in _read(project) for item in each.items}
    if arguments.item not in items:
        said = f"{arguments.item!r} is no item{did_you_mean(arguments.item, items)}"
        raise checklist.Misuse(said)
    item = items[arguments.item]
    today = project.now.date()
    on = arguments.date or today
    if on > today:
        raise checklist.Misuse(f"{on} is to come: sign when it is done")
    try:
        until = checklist.sign(
            project.root,
            item,
            by=arguments.by,
            on=on,
            declaration=project.declaration,
            checks=CHECKS,
            today=today,
        )
    except OSError as error:
        raise Malformed([f"{item.where}: can't be written: {error.strerror}"]) from error
    print(f"{item.where}: {item.id} is signed until {until}; commit it")
    return 0


def _read(project: Project) -> list[checklist.Checklist]:
    """
    Raises Malformed with what is wrong with the lists and with the declaration.
    """
    lists = checklist.read_all(project.root)
    problems = checklist.lint(lists, project.declaration, CHECKS, project.now.date())
    problems += drift.wrong_waivers(project)
    if problems:
        raise Malformed(problems)
    return lists


if __name__ == "__main__":
    main()
