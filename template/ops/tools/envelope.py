"""
`ops/envelope.md`: what this service promises its callers, and what it does not.
"""

import argparse
import json
import re
import sys
from subprocess import TimeoutExpired
from typing import Any

from ops.tools.project import Project

__all__ = ["PATH", "envelope", "register"]

PATH = "ops/envelope.md"
COMMAND = "uv run python -m ops envelope"
# The defaults, not what is in force on the machine that writes: every checkout says the same.
KNOWN = re.compile(r"^# (APP_\w+)=(.*)$", re.MULTILINE)


def envelope(project: Project) -> str:
    """
    The text that the file must have; raises ValueError where the service can't tell its settings.
    """
    settings = dict(KNOWN.findall(_said(project, "config", "doc")))
    spec: dict[str, Any] = project.declaration.values.get("spec") or {}
    name = project.declaration.values.get("metadata", {}).get("name", project.package)
    lines = [
        f"# What {name} promises",
        "",
        f"Written by `{COMMAND}` from the defaults of the settings and `ops/service.yaml`:",
        "change those. A setting that a place sets otherwise holds there instead.",
        "What is not here is not promised.",
        "",
    ]
    if "web" in project.process_types:
        lines += _requests(settings, json.loads(_said(project, "openapi"))["paths"])
    lines += _objectives(spec.get("objectives") or {})
    lines += _data(project, settings)
    lines += _dependencies(spec.get("dependencies") or [])
    lines += [
        "## Not promised",
        "",
        "- That shapes stay: there is no version or deprecation but what the owner announces.",
        "- That a call is answered: a caller has a deadline, few retries, and a plan without us.",
        "- The order of answers, of log lines and of metrics beyond what the documents name.",
    ]
    return "\n".join(lines) + "\n"


def _said(project: Project, *arguments: str) -> str:
    ended = project.run(*arguments)
    if ended.returncode:
        raise ValueError(f"`{' '.join(arguments)}` failed:\n{ended.stdout}{ended.stderr}".rstrip())
    return ended.stdout


def _requests(settings: dict[str, str], paths: dict[str, Any]) -> list[str]:
    get = {name.removeprefix("APP_").lower(): text for name, text in settings.items()}
    declared = [
        f"- {method.upper()} `{path}`: {limit} {value}."
        for path, operations in sorted(paths.items())
        for method, operation in sorted(operations.items())
        for limit, value in sorted(operation.get("x-limits", {}).items())
    ]
    return [
        "## Requests",
        "",
        f"- A request is answered within {get['request_deadline_seconds']} s, or with 504.",
        (
            f"- Bodies over {get['body_max_bytes']} bytes are answered with 413, heads over "
            f"{get['header_max_bytes']} bytes with 431."
        ),
        (
            f"- Beyond {get['in_flight_max']} requests at once, or when the process is late by "
            f"{get['shed_lag_seconds']} s, the answer is 503 with Retry-After, at once."
        ),
        (
            "- 503 has Retry-After; GET, HEAD, PUT and DELETE may be "
            "repeated as HTTP says, others only with what their operation declares."
        ),
        (
            "- Errors are problem details (RFC 9457): `instance` is the request's id, `reason` is "
            "there where the answer is not the application's."
        ),
        (
            "- A planned restart loses no request, where the balancer asks `/readyz`; a process "
            f"stops taking new ones {get['drain_seconds']} s after it says so."
        ),
        *declared,
        "",
    ]


def _objectives(objectives: dict[str, Any]) -> list[str]:
    texts = {
        "availability": "{percent} % of requests in {days} days are not answered with 500 or above",
        "latency": "{percent} % of requests in {days} days are answered within {seconds} s",
        "queue_age": "a message is begun within {seconds} s after it is ready",
        "job_age": "a job has succeeded within the last {hours} h",
    }
    told = [
        f"- {texts[name].format(**goal)}." for name, goal in objectives.items() if name in texts
    ]
    return ["## Objectives", "", *(told or ["- None is declared."]), ""]


def _data(project: Project, settings: dict[str, str]) -> list[str]:
    lines = ["## Data", ""]
    if project.has_database:
        lines += [
            (
                "- What was acknowledged after its transaction is in the database: a crash of this "
                "service loses none of it. A loss of the database itself loses what came after the "
                "last backup."
            ),
        ]
    else:
        lines += ["- This service has no database: what it keeps in memory ends with its process."]
    if "worker" in project.process_types:
        lines += [
            (
                "- A message is handled at least once, so maybe twice; after "
                f"{settings['APP_MESSAGE_ATTEMPTS']} failures it waits for a person, "
                f"{settings['APP_MESSAGE_DEAD_DAYS']} days."
            ),
        ]
    if "job" in project.process_types:
        lines += [
            (
                "- A run of a job ends within "
                f"{settings['APP_JOB_MAX_RUNTIME_SECONDS']} s; a missed one is not made up for."
            ),
        ]
    return [*lines, ""]


def _dependencies(dependencies: list[dict[str, Any]]) -> list[str]:
    told = [
        f"- Without {one.get('name', '?')}: {one.get('fallback', 'nothing is declared')}."
        for one in dependencies
    ]
    # What is a heading or a list in somebody's text would be one of the envelope.
    told = [" ".join(one.split()) for one in told]
    return ["## What it depends on", "", *(told or ["- None is declared."]), ""]


def _write(arguments: argparse.Namespace, project: Project) -> int:
    path = project.root / PATH
    try:
        text = envelope(project)
        there = path.read_text(encoding="utf-8") if path.exists() else ""
        if not arguments.check:
            path.write_text(text, encoding="utf-8")
    except (OSError, ValueError, KeyError, TimeoutExpired) as error:
        print(f"{PATH} can't be written: {error}", file=sys.stderr)
        return 78
    if arguments.check:
        if text != there:
            print(f"{PATH} is not what settings and declaration say: run `{COMMAND}`")
        return int(text != there)
    print(f"{PATH}: {'written' if text != there else 'as it was'}")
    return 0


def register(commands: Any) -> None:
    """
    `envelope`, with or without `--check`.
    """
    told = "write ops/envelope.md: what this service promises"
    one = commands.add_parser("envelope", help=told)
    one.add_argument("--check", action="store_true", help="only say whether it is stale")
    one.set_defaults(function=_write)
