"""
A database that is chosen later, as docs/how-to/add-database.md has it.
"""

import re
import shutil
import subprocess
import tomllib
from collections.abc import Callable
from pathlib import Path

import copier
import pytest
from harness import ROOT

Uv = Callable[..., subprocess.CompletedProcess[str]]
PAGE = (ROOT / "docs" / "how-to" / "add-database.md").read_text()


def git(*arguments: str, cwd: Path) -> None:
    """
    Raises CalledProcessError when it fails.
    """
    subprocess.run(["git", *arguments], cwd=cwd, check=True, capture_output=True)


def commit(folder: Path) -> None:
    git("init", "--quiet", cwd=folder)
    git("add", "--all", cwd=folder)
    git("commit", "--quiet", "--message", "mine", cwd=folder)


def block(behind: str) -> str:
    """
    The lines of code behind these words of the page.
    """
    text = PAGE.partition(behind)[2]
    found = re.search(r"\n\n((?:    .*\n|\n(?=\n?    ))+)", text)
    assert found, behind
    return re.sub(r"^    ", "", found[1], flags=re.MULTILINE)


def indented(text: str, by: int) -> str:
    return re.sub(r"^(?=.)", " " * by, text, flags=re.MULTILINE)


def edit(path: Path, old: str, new: str) -> None:
    """
    Replace what must be there once.
    """
    text = path.read_text()
    assert text.count(old) == 1, f"{path}: {old!r}"
    path.write_text(text.replace(old, new))


@pytest.mark.covers("docs/how-to/add-database.md", "template/*{{ with_database }}/*")
@pytest.mark.filterwarnings("ignore::copier.errors.MissingFileWarning")
def test_database_can_be_chosen_later(tmp_path: Path, uv: Uv) -> None:
    """
    The update and the lines of the page make a service with a database: its checks and tests pass.
    """
    template, project = tmp_path / "template", tmp_path / "order-desk"
    template.mkdir()
    for name in ("copier.yml", "questions", "template"):
        copied = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copied(ROOT / name, template / name)
    commit(template)
    copier.run_copy(str(template), project, defaults=True, quiet=True, vcs_ref="HEAD")
    commit(project)
    package, tests = project / "src" / "order_desk", project / "tests"

    copier.run_update(
        project,
        data={"database": "postgresql"},
        defaults=True,
        quiet=True,
        overwrite=True,
        vcs_ref="HEAD",
    )
    came = {path.name for path in package.rglob("*.py")}
    resources, conftest = package / "resources.py", tests / "conftest.py"
    edit(
        resources,
        "from .chassis.health import Check\n",
        "from .chassis.health import Check\n" + block("In `resources.py`, import"),
    )
    edit(
        resources,
        "    announcer: Announcer\n",
        "    announcer: Announcer\n" + indented(block("give `Resources` the field"), 4),
    )
    opening, handing = block("hand it and its check over:").split("\n\n")
    edit(
        resources,
        "        yield Resources(settings=settings, notes=NotesInMemory(), announcer=announcer)\n",
        indented(opening, 8)
        + "\n        yield Resources(settings=settings, notes=NotesInMemory(),\n"
        + "            announcer=announcer,\n"
        + indented(handing, 12)
        + "        )\n",
    )
    text = conftest.read_text()
    lines, _, fixtures = block("these fixtures take the place").partition("\nPROJECT")
    own = re.search(r"@pytest\.fixture\(name=\"environment\".*?return {}\n", text, re.DOTALL)
    assert own
    text = text.replace(own[0], fixtures.partition("\n\n\n")[2])
    head, _, postgresql = lines.strip().partition("\n\n")
    place = "PROJECT" + fixtures.partition("\n")[0]
    text = text.replace("import pytest\n", f"{head}\n\nimport pytest\n{postgresql}\n\n{place}\n", 1)
    conftest.write_text(text)
    # The example's tests open its resources without one.
    (tests / "test_notes.py").unlink()
    uv("sync", "--quiet", cwd=project)
    uv("run", "ruff", "check", "--quiet", "--fix", "--select", "F401,I001", cwd=project)
    uv("run", "ruff", "format", "--quiet", cwd=project)

    uv("run", "ruff", "check", cwd=project)
    uv("run", "mypy", cwd=project)
    uv("run", "pytest", "-q", "tests/system/test_database.py", cwd=project)

    assert {"database.py", "migrations.py", "preflight.py", "0001_notes.py", "notes.py"} <= came
    assert "asyncpg" in str(tomllib.loads((project / "pyproject.toml").read_text())["project"])


@pytest.mark.parametrize("module", ["resources.py", "conftest.py"])
def test_lines_are_those_of_the_seeds(module: str) -> None:
    """
    What the page has one write is what a service with web and a database starts with.
    """
    others = {"{{ job_alone }}", "{{ without_web }}"}
    found = (ROOT / "template").glob(f"**/{{{{ with_database }}}}/**/{module}")
    (seed,) = [path for path in found if not others & {*path.parts}]
    written = (
        block("In `resources.py`, import")
        + block("give `Resources` the field")
        + block("hand it and its check over:")
        if module == "resources.py"
        else block("these fixtures take the place")
    )

    wanted = {line.strip() for line in written.splitlines()}
    assert wanted <= {line.strip() for line in seed.read_text().splitlines()}
