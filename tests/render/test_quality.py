"""
Every rendered project is clean, whatever was answered.
"""

import importlib.util
import itertools
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from harness import ROOT, TEMPLATE
from ownership import OWNERS, owners
from selection import others_nightly

from questions import QUESTIONS, pairwise

# All that can be chosen, for each platform of CI, and all that comes without a database.
WHOLE = {name: QUESTIONS[name][-1] for name in ("processes", "database", "telemetry", "deploy")}
ANSWERS: list[dict[str, Any]] = [
    {"processes": ["web", "job"]},
    *({**WHOLE, "ci": ci} for ci in QUESTIONS["ci"]),
]
# The questions that choose modules which others import; elsewhere Python differs in names alone.
MODULES = {name: QUESTIONS[name] for name in ("processes", "database", "telemetry")}
Render = Callable[..., Path]


def files(project: Path) -> list[Path]:
    """
    What was rendered, without what tools left behind.
    """
    tools = {".git", ".mypy_cache", ".pytest_cache", ".ruff_cache", ".venv", "__pycache__"}
    found = (path for path in project.rglob("*") if not tools & {*path.parts})
    return sorted(path for path in found if path.is_file() and path.name != "uv.lock")


def check(*command: str | Path, cwd: Path) -> None:
    """
    Raises AssertionError with the output of a tool that objects.
    """
    ended = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_pairs_are_complete() -> None:
    """
    The answers that are tried hold every pair of answers to two questions.
    """
    rows = list(pairwise())
    for (one, ones), (two, twos) in itertools.combinations(QUESTIONS.items(), 2):
        for pair in itertools.product(ones, twos):
            if {one, two} == {"processes", "database"} and "none" in pair and "worker" in pair[0]:
                continue
            assert any((row[one], row[two]) == pair for row in rows), pair


def test_formatted(project: Path) -> None:
    """
    The formatter changes nothing.
    """
    check("ruff", "format", "--check", cwd=project)


def test_linted(project: Path) -> None:
    """
    The linter finds nothing.
    """
    check("ruff", "check", "--no-cache", cwd=project)


# Ways to wait for ever: how each is written without a limit, what the error says, and how it is
# written within limits.
ALLOW = "  # noqa: TID251  # limits"
OUTBOUND = "from order_desk.chassis.outbound import Dependency\n\nprint(Dependency)"
OPENED = "from order_desk.chassis.database import open_database\n\nprint(open_database)"
WAYS = {
    "http.client": ("import http.client", "chassis.outbound.Dependency", OUTBOUND),
    "urllib": ("from urllib.request import urlopen", "chassis.outbound.Dependency", OUTBOUND),
    "httpx": ("import httpx", "chassis.outbound.Dependency", OUTBOUND),
    "httpx2": ("import httpx2", "chassis.outbound.Dependency", OUTBOUND),
    "requests": ("import requests", "chassis.outbound.Dependency", OUTBOUND),
    "aiohttp": ("import aiohttp", "chassis.outbound.Dependency", OUTBOUND),
    "niquests": ("import niquests", "chassis.outbound.Dependency", OUTBOUND),
    "urllib3": ("import urllib3", "chassis.outbound.Dependency", OUTBOUND),
    "connect": ("import asyncpg\nasyncpg.connect()", "chassis.database.open_database", OPENED),
    "pool": ("from asyncpg import create_pool", "chassis.database.open_database", OPENED),
    "psycopg": ("from psycopg import AsyncConnection", "chassis.database.open_database", OPENED),
    "engine": ("import sqlalchemy as sa\nsa.create_engine('')", "docs/how-to/orm.md", ""),
    "async engine": (
        "from sqlalchemy.ext.asyncio import create_async_engine",
        "docs/how-to/orm.md",
        "",
    ),
    "redis": (
        "import redis\nredis.Redis.from_url('')",
        "`socket_timeout` and `socket_connect_timeout`",
        f"import redis\nredis.Redis(socket_timeout=1, socket_connect_timeout=1){ALLOW}",
    ),
    "redis.asyncio": (
        "from redis import asyncio\nasyncio.Redis()",
        "`socket_timeout` and `socket_connect_timeout`",
        f"from redis import asyncio\nasyncio.Redis(socket_timeout=1){ALLOW}",
    ),
    "boto3": (
        "import boto3\nboto3.client('s3')",
        "`connect_timeout`, `read_timeout`",
        f"import boto3\nboto3.client('s3', config=LIMITS){ALLOW}",
    ),
    "boto3 session": (
        "from boto3.session import Session",
        "`connect_timeout`, `read_timeout`",
        f"from boto3.session import Session{ALLOW}",
    ),
    "gRPC": (
        "import grpc\ngrpc.insecure_channel('')",
        "timeout=remaining()",
        f"import grpc\ngrpc.insecure_channel(''){ALLOW}",
    ),
    "gRPC with asyncio": (
        "import grpc.aio\ngrpc.aio.secure_channel('', None)",
        "timeout=remaining()",
        f"import grpc.aio\ngrpc.aio.secure_channel('', None){ALLOW}",
    ),
    "SMTP": (
        "import smtplib\nsmtplib.SMTP('mail')",
        "`timeout`",
        f"import smtplib\nsmtplib.SMTP('mail', timeout=2){ALLOW}",
    ),
    "FTP": (
        "from ftplib import FTP",
        "`timeout`",
        f"from ftplib import FTP{ALLOW}",
    ),
    "IMAP": (
        "import imaplib\nimaplib.IMAP4_SSL('mail')",
        "`timeout`",
        f"import imaplib\nimaplib.IMAP4_SSL('mail', timeout=2){ALLOW}",
    ),
    "SSH": (
        "import paramiko\nparamiko.SSHClient()",
        "`timeout`",
        f"import paramiko\nparamiko.SSHClient(){ALLOW}",
    ),
    "connected socket": (
        "import socket\nsocket.create_connection(('a', 1))",
        "`timeout`",
        f"import socket\nsocket.create_connection(('a', 1), timeout=2){ALLOW}",
    ),
    "socket": (
        "from socket import socket",
        "`settimeout`",
        f"from socket import socket{ALLOW}",
    ),
    "stream": (
        "import asyncio\nasyncio.open_connection('a', 1)",
        "`asyncio.timeout`",
        f"import asyncio\nasyncio.open_connection('a', 1){ALLOW}",
    ),
    "Unix stream": (
        "import asyncio\nasyncio.open_unix_connection('a')",
        "`asyncio.timeout`",
        f"import asyncio\nasyncio.open_unix_connection('a'){ALLOW}",
    ),
    "program": (
        "import subprocess\nsubprocess.run(['/bin/true'], check=True)",
        "`timeout`",
        f"import subprocess\nsubprocess.run(['/bin/true'], check=True, timeout=2){ALLOW}",
    ),
    "program of asyncio": (
        "import asyncio\nasyncio.create_subprocess_exec('/bin/true')",
        "`asyncio.timeout`",
        f"import asyncio\nasyncio.create_subprocess_exec('/bin/true'){ALLOW}",
    ),
    "shell": (
        "import os\nos.system('true')",
        "`subprocess.run` with `timeout`",
        f"import subprocess\nsubprocess.run(['/bin/true'], check=True, timeout=2){ALLOW}",
    ),
}


def lint(project: Path, code: str, path: str) -> str:
    """
    What the linter says of calls without limits, and of needless comments that allow them.
    """
    command = [
        "ruff",
        "check",
        "--no-cache",
        "--select",
        "TID,RUF100",
        "--stdin-filename",
        path,
        "-",
    ]
    return subprocess.run(
        command, cwd=project, input=f"{code}\n", capture_output=True, text=True, check=False
    ).stdout


@pytest.mark.parametrize("way", WAYS)
def test_endless_waits_are_refused(render: Render, way: str) -> None:
    """
    A call without limits can't be written: the linter says what to write instead, and accepts that.
    """
    endless, told, limited = WAYS[way]

    refused = lint(render(), endless, "src/order_desk/a.py")
    accepted = lint(render(), limited, "src/order_desk/a.py")
    exempt = [
        lint(render(), endless, path) for path in ("tests/test_a.py", "src/order_desk/chassis/a.py")
    ]

    assert "TID251" in refused
    assert told in refused
    assert "All checks passed" in accepted
    assert all("All checks passed" in said for said in exempt)


def test_every_endless_wait_is_documented(render: Render) -> None:
    """
    The page of such calls names each that the linter refuses, and no other; its example and that
    of SQLAlchemy's ORM are accepted as they are.
    """
    refused = tomllib.loads((render() / "pyproject.toml").read_text())["tool"]["ruff"]["lint"]
    page = (ROOT / "docs" / "reference" / "waiting.md").read_text()
    listed = re.findall(r"^\| [^|]+ \| (`[^|]+`) \|", page, re.MULTILINE)
    orm = (ROOT / "docs" / "how-to" / "orm.md").read_text()
    blocks = re.findall("```python\n(.*?)```", page + orm, re.DOTALL)
    examples = [block for block in blocks if "TID251" in block]

    named = {name for names in listed for name in re.findall("`([^`]+)`", names)}
    assert named == {*refused["flake8-tidy-imports"]["banned-api"]}
    assert len(examples) == 2
    for example in examples:
        assert "All checks passed" in lint(render(), example, "src/order_desk/a.py")


@pytest.fixture(name="known_types", scope="session")
def _known_types(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """
    What the type checker knows of files that are as they were in the project before: of
    dependencies it is most of its work.
    """
    return tmp_path_factory.mktemp("mypy")


TYPED = [{name: QUESTIONS[name][-1] for name in MODULES}, *others_nightly(pairwise(MODULES))]


@pytest.mark.parametrize("answers", TYPED, ids=repr)
def test_typed(render: Render, known_types: Path, answers: dict[str, Any]) -> None:
    """
    The type checker, at its strictest, finds nothing, whatever modules were chosen.
    """
    mypy = ["mypy", "--cache-dir", str(known_types), "--python-executable", sys.executable]
    everything = {"deploy": QUESTIONS["deploy"][-1]}

    check(*mypy, cwd=render(**everything, **answers))


def test_no_jinja_left(project: Path) -> None:
    """
    No tag of the template language is left, but for the one that an answer holds.
    """
    for path in files(project):
        # In Markdown the asterisk is escaped.
        text = re.sub(r"\{\{ 7\\?\*7 \}\}", "", path.read_text())
        # GitHub's own.
        text = re.sub(r"\$\{\{ .*? \}\}", "", text)
        # Of Prometheus in its annotations, and of Grafana in its legends.
        if path.is_relative_to(project / "ops" / "alerts"):
            text = re.sub(r"\{\{ (or )?\$\w+.*? \}\}", "", text)
            # The commit that runs, in the address of a runbook.
            text = re.sub(r"\{\{ (with query `.*?`|\. \|.*?|else|end) \}\}", "", text)
        if path.is_relative_to(project / "ops" / "dashboards"):
            text = re.sub(r"\{\{\w+\}\}", "", text)
        # Of Renovate in the names of its branches.
        if path == project / "renovate.json":
            text = re.sub(r"\{\{[#/]?\w+( \w+)?\}\}", "", text)
        assert not re.search(r"\{\{|\{%|%\}|\{#", text), path


def test_documents_parse(project: Path) -> None:
    """
    TOML and YAML mean what was answered.
    """
    answers = yaml.safe_load((project / ".copier-answers.yml").read_text())
    toml = tomllib.loads((project / "pyproject.toml").read_text())["project"]
    service = yaml.safe_load((project / "ops" / "service.yaml").read_text())

    assert (toml["name"], toml["description"]) == (answers["service_name"], answers["description"])
    assert service["metadata"]["name"] == answers["service_name"]
    assert service["metadata"]["description"] == answers["description"]
    assert service["spec"]["owner"] == answers["owner"]
    assert not re.search(r"(?m)^ *(\[\]|\{\})$", (project / "ops" / "service.yaml").read_text())


@pytest.mark.parametrize("page", ["AGENTS.md", "README.md"])
def test_paths_in_documents_exist(page: str, project: Path) -> None:
    """
    Each path that the first pages of a service name is there, but for what a person makes, and what
    is in the template.
    """
    answers = yaml.safe_load((project / ".copier-answers.yml").read_text())
    text = (project / page).read_text()
    named = {*re.findall(r"`([\w.*/-]+(?:/|\.(?:py|md|ya?ml|json|toml)))`", text)}
    folders = ["", f"src/{answers['service_name'].replace('-', '_')}/"]

    assert {
        name
        for name in named
        if not name.startswith(("docs/", ".dev/", "/"))
        and not any([*project.glob(f"{folder}{name}")] for folder in folders)
    } == set()
    assert ("pipeline that calls it" in text) is (answers["ci"] != "none")


def test_pypi_refuses_it(project: Path) -> None:
    """
    A service that somebody publishes by mistake stays private: PyPI takes nothing with this
    classifier.
    """
    toml = tomllib.loads((project / "pyproject.toml").read_text())["project"]

    assert toml["classifiers"] == ["Private :: Do Not Upload"]


YAMLLINT = """
extends: default
rules:
  line-length: disable
  document-start: disable
  comments: {min-spaces-from-content: 1}
  comments-indentation: disable  # a line between the team's and ours, the same for all answers
  truthy: {check-keys: false}
  indentation: {indent-sequences: whatever}
"""


def test_other_linters(project: Path, unseen: Callable[..., list[Path]]) -> None:
    """
    YAML and the Dockerfile please the linters of their kind.
    """
    if paths := unseen("yamllint", project, "**/*.yaml", "**/*.yml"):
        check("yamllint", "--strict", "--config-data", YAMLLINT, *paths, cwd=project)
    if paths := unseen("hadolint", project, "Dockerfile"):
        check("hadolint", *paths, cwd=project)


def test_build_sees_what_is_allowed(render: Render) -> None:
    """
    Whatever lies about in a checkout, a `.env` above all, reaches no build.
    """
    patterns = (render() / ".dockerignore").read_text().splitlines()

    assert [line for line in patterns if line and line[0] != "#"] == [
        "*",
        *("!pyproject.toml", "!uv.lock", "!README.md", "!src/"),
        *("**/.*", "**/__pycache__/"),
    ]


def test_owned(project: Path) -> None:
    """
    Every file has exactly one owner.
    """
    claims = {
        str(path.relative_to(project)): owners(str(path.relative_to(project)))
        for path in files(project)
    }

    assert {path: claim for path, claim in claims.items() if len(claim) != 1} == {}


def test_every_pattern_owns_something(render: Render) -> None:
    """
    The list of owners names nothing that is not rendered.
    """
    projects = [render(**answers) for answers in ANSWERS]
    paths = {str(path.relative_to(project)) for project in projects for path in files(project)}
    for owner, patterns in OWNERS.items():
        for pattern in patterns:
            assert any(owners(path) == [owner] and matches(path, pattern) for path in paths), (
                pattern
            )


def matches(path: str, pattern: str) -> bool:
    """
    As in copier.yml.
    """
    expression = re.escape(pattern).replace(r"\*", "[^/]*")
    return re.fullmatch(f"{expression}(/.*)?", path) is not None


def test_seeds_are_left_alone_on_update() -> None:
    """
    copier.yml keeps every seed out of updates, and nothing but seeds; those of what can be chosen
    later come once.
    """
    table = (ROOT / "copier.yml").read_text().partition("SEEDS = {")[2].partition("} %}")[0]
    kept = " ".join(re.findall(r": '([^']*)'", table)).split()

    assert sorted(kept) == sorted(OWNERS["seed"])


def test_jinja_is_rare() -> None:
    """
    Python has none but the imports of tests; at least seventy of a hundred files have none.
    """
    tracked = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "template"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    with_jinja = [name for name in tracked if name.endswith(".jinja")]

    assert len(with_jinja) <= 0.3 * len(tracked)
    for name in tracked:
        text = (ROOT / name).read_text()
        if name.endswith(".py"):
            assert "{{" not in text.replace("{{{", "").replace("{{}", ""), name
            assert "{%" not in text, name
        elif name.endswith(".py.jinja"):
            used = [line for line in text.splitlines() if "{{" in line or "{%" in line]
            assert "/tests/" in name
            assert all(re.match(r"(from|import) \{\{ package_name \}\}", line) for line in used)


def test_no_trust_is_needed() -> None:
    """
    No task, no extension, and no migration without a version: they would need `--trust`.
    """
    loaded: dict[str, Any] = yaml.safe_load((ROOT / "copier.yml").read_text())

    assert not {"_tasks", "_jinja_extensions"} & loaded.keys()
    assert all(migration.get("version") for migration in loaded.get("_migrations", []))
    assert loaded["_envops"]["undefined"] == "jinja2.StrictUndefined"


def test_dependencies_are_tested_in_place() -> None:
    """
    The tests in place use what generated services use.
    """
    ours = tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]["service"]
    text = (TEMPLATE / "pyproject.toml.jinja").read_text()
    theirs = re.findall(r'^    "([a-z].*[<>].*)",$', text, re.MULTILINE)

    assert ours == theirs


def test_dependencies_are_few() -> None:
    """
    At most twelve direct dependencies, besides what was chosen; the template's block is unsorted,
    or `uv add` would insert into it and the next update conflict.
    """
    text = (TEMPLATE / "pyproject.toml.jinja").read_text()
    text = re.sub(r"\{%- if .*?\{%- endif %\}\n", "", text, flags=re.DOTALL)
    for block in re.findall(r"= \[\n    # Ours.*?# Yours below\.\n\]", text, re.DOTALL):
        names = re.findall(r'^    "([a-z0-9-]+)', block, re.MULTILINE)
        assert 0 < len(names) <= 12
        assert names != sorted(names)
        assert block.endswith("    #\n    # Yours below.\n]")


def test_stdlib_names_are_known() -> None:
    """
    The names that a service may not have are those of the standard library that tests run on.
    """
    listed = (ROOT / "questions" / "names.jinja").read_text().split()
    public = {name for name in sys.stdlib_module_names if re.fullmatch("[a-z][a-z0-9_]*", name)}

    assert public <= {*listed}
    assert importlib.util.find_spec("order_desk") is None


@pytest.mark.parametrize("answers", ANSWERS, ids=repr)
def test_generated_code_needs_no_notice(render: Render, answers: dict[str, Any]) -> None:
    """
    A service says under which licence its files are, and that is the one that the template's
    licence names for them: it asks for no notice. No file is there for that alone.
    """
    project = render(**answers)
    licence = (ROOT / "LICENSE").read_text()

    assert "SPDX: MIT-0" in licence
    assert "template/" in licence.partition("SPDX: MIT-0")[2]
    # First the text of MIT, by which tools know it.
    assert licence.startswith("MIT License\n\nCopyright (c) ")
    assert "MIT-0" in (ROOT / "README.md").read_text()
    for name in ("README.md", "src/order_desk/chassis/__init__.py"):
        assert "under MIT-0" in (project / name).read_text()
    assert not [path for path in files(project) if "licen" in path.name.lower()]
