"""
Generated projects, built: their own tests, their wheel, and a real process that answers HTTP.
"""

import contextlib
import os
import re
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from harness import ROOT, is_missing
from postgresql import database, server
from selection import others_nightly

from questions import QUESTIONS, pairwise

# That of a default service; the other tests take the oldest that must work.
PYTHONS = others_nightly(["3.13", "3.12", "3.11"])
# The questions whose answers change what runs.
RUNNING = {
    name: QUESTIONS[name]
    for name in ("service_name", "description", "processes", "database", "telemetry")
}
# All that can be chosen.
WHOLE = {name: QUESTIONS[name][-1] for name in ("processes", "database", "telemetry")}
Copy = Callable[..., Path]
Uv = Callable[..., subprocess.CompletedProcess[str]]


def find_python(version: str) -> str:
    """
    An interpreter of this version; without one the test fails in CI and is skipped elsewhere.
    """
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    candidates = [*pyenv.glob(f"versions/{version}.*/bin/python{version}")]
    if found := shutil.which(f"python{version}"):
        candidates.append(Path(found))
    for path in candidates:
        if subprocess.run([path, "-c", ""], capture_output=True, check=False).returncode == 0:
            return str(path)
    return is_missing(f"Python {version}")


@pytest.fixture(name="admin", scope="module")
def _admin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """
    A PostgreSQL for all projects of this module.
    """
    with server(tmp_path_factory.mktemp("postgresql")) as url:
        yield url


@pytest.mark.parametrize(
    "answers",
    [{"service_name": "order-desk", **WHOLE}, *others_nightly(pairwise(RUNNING), 3)],
    ids=lambda answers: answers["service_name"],
)
def test_boots_and_answers(
    copy: Copy, start_in: Callable[..., Any], admin: str, answers: dict[str, Any]
) -> None:
    """
    Whatever was answered, each process type starts, does its work and stops with 0.
    """
    project, settings = copy(**answers), dict[str, Any]()
    with contextlib.ExitStack() as stack:
        if answers["database"] == "postgresql":
            settings["database_url"] = stack.enter_context(database(admin))
            migrated = start_in(project, "migrate", "up", ready=False, **settings)
            assert migrated.process.wait(60) == 0, migrated.stderr.read_text()
        for kind in answers["processes"]:
            if kind == "job":
                listed = start_in(project, "job", "--list", ready=False, **settings)
                assert listed.process.wait(60) == 0, listed.stderr.read_text()
                continue
            service = start_in(project, kind, **settings)
            assert service.lines()[0]["service"] == answers["service_name"]
            if kind == "web":
                written = service.post_json("/v1/notes", {"text": "Five weeks."})
                assert written.status == 201
                assert service.get(f"/v1/notes/{written.json['id']}").json == written.json
            assert service.stop() == 0


def test_note_is_kept_whoever_hears_of_it(copy: Copy, start_in: Callable[..., Any]) -> None:
    """
    While the service that is told of notes is frozen, notes are kept, a little later.
    """
    limits = {"out_connect_seconds": 0.1, "out_attempt_seconds": 0.2, "out_total_seconds": 0.3}

    # The kernel takes the connection, and nobody ever reads from it.
    with socket.create_server(("127.0.0.1", 0)) as frozen:
        url = f"http://127.0.0.1:{frozen.getsockname()[1]}"
        service = start_in(copy(), announce_url=url, **limits)
        written = service.post_json("/v1/notes", {"text": "Five weeks."})

    assert written.status == 201
    assert service.get(f"/v1/notes/{written.json['id']}").json == written.json
    (failed,) = service.events("outbound_failed")
    assert (failed["dependency"], failed["outcome"]) == ("announcer", "timeout")
    assert service.stop() == 0


@pytest.mark.parametrize("version", PYTHONS)
def test_own_tests(copy: Copy, uv: Uv, version: str) -> None:
    """
    Fresh from copier, all checks and tests of the project pass, with nothing started by hand.
    """
    project = copy(sync=False)
    uv("sync", "--quiet", "--python", find_python(version), cwd=project)

    ended = subprocess.run([".ci/run"], cwd=project, capture_output=True, text=True, check=False)

    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert re.search(r"\d+ passed", ended.stdout)
    assert "skipped" not in ended.stdout
    assert (project / ".venv" / "bin" / f"python{version}").exists()


@pytest.mark.covers("template/ops/*", "template/tests/*", "template/*/tests/*")
@pytest.mark.parametrize(
    "answers",
    others_nightly(
        [
            {"processes": processes, "database": database}
            for processes in reversed(QUESTIONS["processes"])
            for database in reversed(QUESTIONS["database"])
            if not ("worker" in processes and database == "none")
        ]
    ),
    ids=lambda answers: "-".join([*answers["processes"], answers["database"]]),
)
def test_own_tests_of_each(copy: Copy, answers: dict[str, Any]) -> None:
    """
    They pass for whatever process types and database, each in its turn.
    """
    project = copy(**answers)

    ended = subprocess.run(
        [".venv/bin/pytest", "-q"], cwd=project, capture_output=True, text=True, check=False
    )

    assert ended.returncode == 0, ended.stdout + ended.stderr


@pytest.mark.covers("template/pyproject.toml.jinja")
@pytest.mark.parametrize("resolution", others_nightly(["lowest-direct", "highest"]))
def test_own_tests_otherwise(copy: Copy, uv: Uv, resolution: str) -> None:
    """
    They pass too with all that can be chosen, also with the oldest releases that the bounds admit.
    """
    chosen = ("deploy", "telemetry", "processes", "database")
    project = copy(sync=False, **{name: QUESTIONS[name][-1] for name in chosen})
    uv("sync", "--quiet", cwd=project, UV_RESOLUTION=resolution)

    ended = subprocess.run(
        [".venv/bin/pytest", "-q"], cwd=project, capture_output=True, text=True, check=False
    )

    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert re.search(r"\d+ passed", ended.stdout)


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("src/order_desk/domain.py", "\n\n\n\n"),
        ("src/order_desk/domain.py", "import os\n"),
        ("src/order_desk/domain.py", 'WRONG: int = "text"\n'),
        ("pyproject.toml", "\n[tool.uv.sources]\n"),
    ],
    ids=["format", "lint", "types", "lock"],
)
def test_own_checks_object(copy: Copy, path: str, text: str) -> None:
    """
    `.ci/run` fails when one of its checks fails, and runs no tests then.
    """
    project = copy()
    with (project / path).open("a") as file:
        file.write(text)
    if path == "pyproject.toml":
        edit(project / path, '"orjson>=3.13,<4"', '"orjson>=3.13,<3.99"')

    ended = subprocess.run([".ci/run"], cwd=project, capture_output=True, text=True, check=False)

    assert ended.returncode != 0
    assert " passed in " not in ended.stdout


def test_uses_the_python_that_is_there(copy: Copy, uv: Uv) -> None:
    """
    `uv run` takes an interpreter of this machine; none is asked for that would be downloaded.
    """
    project = copy(python_version="3.15", sync=False)

    ended = uv("run", "--quiet", "order-desk", "--version", cwd=project)

    assert ended.stdout.strip() == "order-desk 0.1.0"


def test_wheel(copy: Copy, uv: Uv, tmp_path: Path, start_in: Callable[..., Any]) -> None:
    """
    The wheel holds the package alone, and what it installs runs.
    """
    project = copy()
    uv("build", "--quiet", "--wheel", "--out-dir", str(tmp_path), cwd=project)
    (wheel,) = tmp_path.glob("*.whl")
    held = subprocess.run(
        ["python3", "-m", "zipfile", "--list", str(wheel)],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    shutil.rmtree(project / ".venv")
    uv("venv", "--quiet", cwd=project)
    uv("pip", "install", "--quiet", str(wheel), cwd=project)
    shutil.rmtree(project / "src")

    assert "order_desk/py.typed" in held
    assert "tests/" not in held
    assert start_in(project).get("/v1/notes").status == 200


def test_names_of_dependencies_are_known(copy: Copy) -> None:
    """
    A service can't have the name of a module that its dependencies install.
    """
    packages = (copy() / ".venv" / "lib").glob("python*/site-packages/*")
    modules = {path.stem for path in packages if path.suffix in {"", ".py"}}
    listed = (ROOT / "questions" / "names.jinja").read_text().split()

    public = {name for name in modules if re.fullmatch("[a-z][a-z0-9_]*", name)}
    assert public - {*listed} == set()


def test_as_a_module(copy: Copy) -> None:
    """
    `python -m` is the same as the command.
    """
    python = copy() / ".venv" / "bin" / "python"

    ended = subprocess.run(
        [python, "-m", "order_desk", "--version"], capture_output=True, text=True, check=True
    )

    assert ended.stdout == "order-desk 0.1.0\n"


ENDPOINT = '''
"""
HTTP in and out: one function per operation.
"""

import humanize
from fastapi import Request

from .chassis.fastapi import Router

__all__ = ["router"]

router = Router(prefix="/v1")


@router.get("/greeting")
async def greet(request: Request, number: int = 1) -> dict[str, str]:
    """
    Greet.
    """
    greeting: str = request.app.state.resources.settings.greeting
    return {"text": f"{greeting} {humanize.apnumber(number)}"}
'''

EXAMPLE_SETTING = '''\
    page_size_max: int = Field(default=100, ge=1, le=1000)
    """Most items that one page of a list holds."""
    announce_url: HttpUrl | None = None
    """Service that is told of each new note; none is told without it."""
'''

RESOURCES = '''
"""
What the service holds open: opened and closed by the composition root.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from .settings import Settings

__all__ = ["Resources", "open_resources"]


@dataclass(frozen=True, kw_only=True)
class Resources:
    """
    The settings that requests need.
    """

    settings: Settings


@asynccontextmanager
async def open_resources(settings: Settings) -> AsyncIterator[Resources]:
    """
    Nothing to open.
    """
    yield Resources(settings=settings)
'''

TEST = '''
"""
Greetings.
"""

from fastapi.testclient import TestClient

from order_desk.resources import Resources
from order_desk.settings import Settings
from order_desk.web import api


def test_greeting() -> None:
    """
    The greeting is spoken.
    """
    app = api()
    app.state.resources = Resources(settings=Settings(greeting="Hello"))

    assert TestClient(app).get("/v1/greeting?number=5").json() == {"text": "Hello five"}
'''


@pytest.mark.covers("template/src/*", "template/*/src/*", "template/tests/*")
def test_newcomer(copy: Copy, uv: Uv, start_in: Callable[..., Any]) -> None:
    """
    Add an endpoint, a required setting and a dependency, delete the example: all is still well.
    """
    project = copy()
    package = project / "src" / "order_desk"

    uv("add", "--quiet", "humanize", cwd=project)
    for name in ("announcer", "domain", "memory"):
        (package / f"{name}.py").unlink()
    (project / "tests" / "test_notes.py").unlink()
    edit(package / "web.py", ", checks=resources.checks", "")
    (package / "routes.py").write_text(ENDPOINT.lstrip())
    (project / "tests" / "test_greeting.py").write_text(TEST.lstrip())
    (package / "resources.py").write_text(RESOURCES.lstrip())
    edit(package / "settings.py", "import Field, HttpUrl", "import Field")
    edit(
        package / "settings.py",
        EXAMPLE_SETTING,
        '    greeting: str = Field(min_length=1)\n    """What to say."""\n',
    )
    edit(project / ".env.example", "# APP_PAGE_SIZE_MAX=100", "# APP_GREETING=")
    edit(project / ".env.example", "# APP_ANNOUNCE_URL=\n", "")
    edit(project / "tests" / "conftest.py", "return {}", 'return {"APP_GREETING": "Hello"}')
    edit(project / "tests" / "conftest.py", '"/v1/notes", 200', '"/v1/greeting", 200')
    test = "tests/system/test_configuration.py::test_required_settings_are_everywhere"
    named = subprocess.run(
        ["uv", "run", "--quiet", "pytest", "-q", test],
        cwd=project,
        capture_output=True,
        text=True,
        check=False,
    ).stdout
    setting = "APP_ENVIRONMENT: production\n"
    edit(project / "compose.yaml", setting, f"{setting}      APP_GREETING: Hello\n")
    (project / ".ci" / "image.env").write_text("APP_GREETING=Hello\n")

    ended = subprocess.run([".ci/run"], cwd=project, capture_output=True, text=True, check=False)

    assert "compose.yaml, services.web.environment, lacks APP_GREETING" in named
    assert ".ci/image.env, which `.ci/run image` reads, lacks APP_GREETING" in named
    assert ".env.example" not in named
    assert ended.returncode == 0, ended.stdout + ended.stderr
    below = (project / "pyproject.toml").read_text().split("# Yours below.")[1]
    assert "humanize" in below.split("]")[0]
    refused = start_in(project, ready=False)
    assert refused.process.wait(20) == 78
    assert [line["variable"] for line in refused.lines()] == ["APP_GREETING"]
    service = start_in(project, greeting="Hello")
    assert service.get("/v1/greeting").json == {"text": "Hello one"}
    assert service.stop() == 0


def edit(path: Path, old: str, new: str) -> None:
    """
    Replace what must be there once.
    """
    text = path.read_text()
    assert text.count(old) == 1, f"{path}: {old!r}"
    path.write_text(text.replace(old, new))
