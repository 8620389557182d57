"""
The edits that teams make to a service: each is a function over a project, which does nothing where
its answers leave it nothing to edit.
"""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from harness import clean

__all__ = ["EDITS", "Edit", "edit_all"]

Edit = Callable[[Path], None]

ROUTE = '''

@router.get("/greeting/of/the/day")
async def greet() -> dict[str, str]:
    """
    Greet.
    """
    return {"text": "Hello"}
'''

ROUTE_TEST = '''"""
The greeting.
"""

from fastapi.testclient import TestClient

from PACKAGE.web import api


def test_greeting() -> None:
    """
    Who asks is greeted.
    """
    assert TestClient(api()).get("/v1/notes/greeting/of/the/day").json() == {"text": "Hello"}
'''

BARE_ROUTES = '''"""
HTTP in and out: one function per operation.
"""

from .chassis.fastapi import Router

__all__ = ["router"]

router = Router(prefix="/v1/notes", tags=["notes"])
'''

README = """# Orders

We wrote this anew.


## Run it

    uv sync
    uv run pytest


## Ask

The team is in room 101.
"""

SYSTEM_PACKAGE = """RUN apt-get update \\
    && apt-get install --yes --no-install-recommends libmagic1 \\
    && rm -rf /var/lib/apt/lists/*
"""

STEP = """      - name: Check the licences
        run: ./licences
"""


def add_dependency(project: Path) -> None:
    """
    A dependency, as uv adds it.
    """
    _uv_add(project, "cachetools")


def add_dev_dependency(project: Path) -> None:
    """
    A tool for the tests, as uv adds it.
    """
    _uv_add(project, "--dev", "pytest-timeout")


def add_route(project: Path) -> None:
    """
    A route, and its test.
    """
    package = _package(project)
    if (routes := package / "routes.py").exists():
        routes.write_text(routes.read_text() + ROUTE)
        test = project / "tests" / "test_greeting.py"
        test.write_text(ROUTE_TEST.replace("PACKAGE", package.name))


def add_setting(project: Path) -> None:
    """
    A setting, and a word about it.
    """
    settings = _package(project) / "settings.py"
    field = '    greeting: str = "Hello"\n    """What to say first."""\n'
    settings.write_text(settings.read_text() + field)
    readme = project / "README.md"
    readme.write_text(f"{readme.read_text()}\n`APP_GREETING` is what to say first.\n")


def add_example_of_setting(project: Path) -> None:
    """
    A setting of the team in `.env.example`, at its end.
    """
    example = project / ".env.example"
    line = "#\n# What to say first. [text]\n# APP_GREETING=Hello\n"
    example.write_text(example.read_text() + line)


def add_variable(project: Path) -> None:
    """
    An environment variable for every container.
    """
    _below(project / "Dockerfile", r"# Yours below: .*\n", "ENV TZ=Europe/Berlin\n")
    _below(project / "compose.yaml", " {6}# Yours below.\n", "      TZ: Europe/Berlin\n")


def add_system_package(project: Path) -> None:
    """
    A system package in the image.
    """
    _below(project / "Dockerfile", r"# Yours below: .*\n", SYSTEM_PACKAGE)


def add_step(project: Path) -> None:
    """
    A step of the team's own in CI, where it belongs.
    """
    steps = project / ".ci" / "steps"
    steps.write_text(steps.read_text().replace("check) ;;", "check) echo licences ;;"))


def edit_pipeline(project: Path) -> None:
    """
    A step in our pipeline itself, where it does not belong.
    """
    _below(project / ".github/workflows/ci.yml", r" {8}run: \.ci/run test\n", STEP)
    _below(project / ".ci/gitlab.yml", r" +- \.ci/run check\n", "    - ./licences\n")


def rewrite_readme(project: Path) -> None:
    """
    A README of the team's own.
    """
    (project / "README.md").write_text(README)


def delete_example(project: Path) -> None:
    """
    The example is gone: its storage, its routes, its tests.
    """
    package = _package(project)
    if not (package / "memory.py").exists():
        return
    (package / "memory.py").unlink()
    resources = package / "resources.py"
    text = resources.read_text()
    for old, new in (
        (
            "from .domain import Announcer, Notes, SilentAnnouncer",
            "from .domain import Announcer, SilentAnnouncer",
        ),
        ("from .memory import NotesInMemory\n", ""),
        ("    notes: Notes\n", ""),
        (" notes=NotesInMemory(),", ""),
    ):
        text = text.replace(old, new)
    resources.write_text(text)
    if (package / "routes.py").exists():
        (package / "routes.py").write_text(BARE_ROUTES)
        (project / "tests" / "test_notes.py").unlink()
        shared = project / "tests" / "conftest.py"
        smoke = '("GET", "/v1/nothing", 404)'
        shared.write_text(shared.read_text().replace('("GET", "/v1/notes", 200)', smoke))


def rename_module(project: Path) -> None:
    """
    A module has another name.
    """
    package = _package(project)
    (package / "announcer.py").rename(package / "announcing.py")
    for path in (*package.glob("*.py"), *(project / "tests").glob("*.py")):
        text = path.read_text()
        path.write_text(text.replace(".announcer import", ".announcing import"))


def change_width(project: Path) -> None:
    """
    Other lines for the formatter, which the team ran.
    """
    settings = project / "pyproject.toml"
    settings.write_text(settings.read_text().replace("line-length = 100", "line-length = 120"))
    ruff = Path(sys.executable).parent / "ruff"
    subprocess.run([ruff, "format", "--quiet", "."], cwd=project, check=True)


def hot_fix(project: Path) -> None:
    """
    A line of the chassis that the team could not wait for.
    """
    probe = _package(project) / "chassis" / "probe.py"
    text = probe.read_text()
    assert text.count("connection.recv(64)") == 1
    probe.write_text(text.replace("connection.recv(64)", "connection.recv(128)"))


# In the order in which one project can have them all.
EDITS: dict[str, Edit] = {
    function.__name__: function
    for function in (
        add_dependency,
        add_dev_dependency,
        rewrite_readme,
        delete_example,
        rename_module,
        add_route,
        add_setting,
        add_example_of_setting,
        add_variable,
        add_system_package,
        add_step,
        edit_pipeline,
        change_width,
        hot_fix,
    )
}


def edit_all(project: Path) -> None:
    """
    Every edit, in one project.
    """
    for edit in EDITS.values():
        edit(project)


def _package(project: Path) -> Path:
    return next(project.glob("src/*/chassis")).parent


def _below(path: Path, pattern: str, text: str) -> None:
    """
    Add *text* directly below each line that matches; there must be one, where the file is there.
    """
    if path.exists():
        edited, count = re.subn(f"(?m)^{pattern}", lambda match: match[0] + text, path.read_text())
        assert count, f"{path}: {pattern}"
        path.write_text(edited)


def _uv_add(project: Path, *told: str) -> None:
    # Nobody serves the index that the tests answer with, and to lock all that can be chosen takes
    # long: what uv writes into pyproject.toml is the same.
    text = (project / "pyproject.toml").read_text()
    is_default = not re.search(
        r'tool\.uv\.index|^    "(asyncpg|sentry|opentelemetry)', text, re.MULTILINE
    )
    command = ["uv", "add", "--quiet", "--no-sync" if is_default else "--frozen", *told]
    ended = subprocess.run(
        command,
        cwd=project,
        env=clean(dict(os.environ)),
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
