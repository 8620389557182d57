"""
Several services in one repository: what is pasted is docs/how-to/monorepo.md.
"""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from harness import ROOT
from pages import World, blocks, commit, conflicts, paste
from releases import git
from selection import others_nightly

pytestmark = pytest.mark.covers(
    "docs/how-to/monorepo.md",
    "template/.ci/*",
)

PAGE = "monorepo"
AFTER = "100.0.0"
GITHUB, GITLAB = ".github/workflows/services.yml", ".gitlab-ci.yml"


@pytest.fixture(name="world", scope="module")
def _world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """
    Our releases, and one more.
    """
    world = World(tmp_path_factory.mktemp("monorepo"))
    exits = "template/src/{{ package_name }}/chassis/exits.py"
    edits = [(exits, '"""\n', '"""\nNext. ')]
    world.release(AFTER, *edits)
    return world


@pytest.fixture(name="repository", scope="module")
def _repository(world: World) -> Path:
    """
    A repository with two services, of the release before the newest.
    """
    folder = world.folder / "acme-services"
    folder.mkdir()
    (folder / "README.md").write_text("Services of Acme.\n")
    commit(folder)
    (start,) = blocks(PAGE, "Several services in one repository")
    world.paste(start.replace("--defaults", "--defaults --vcs-ref v99.0.0"), folder)
    github, gitlab = blocks(PAGE, "Pipelines at the root")
    for name, text in ((GITHUB, github), (GITLAB, gitlab)):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    commit(folder)
    return folder


@pytest.fixture(name="services")
def _services(repository: Path) -> Iterator[Path]:
    """
    That repository, which the test may change.
    """
    yield repository
    git("reset", "--quiet", "--hard", cwd=repository)
    git("clean", "-fdq", cwd=repository)


def test_update_of_one_leaves_the_other(world: World, services: Path) -> None:
    """
    One service is updated, and gets the seeds of a process type, while the other is being edited
    and holds what a conflict left; nothing outside its folder is touched.
    """
    (services / "services" / "billing" / "new.py").write_text("<<<<<<< before\n")
    (services / "services" / "billing" / "README.md").write_text("Being written.\n")
    (services / "README.md").write_text("Being written, too.\n")
    before = git("status", "--porcelain", cwd=services).splitlines()
    (update,) = blocks(PAGE, "Update one")

    world.paste(update.replace("--defaults", "--defaults --data processes=[web,job]"), services)

    changed = {*git("status", "--porcelain", "-uall", cwd=services).splitlines()} - {*before}
    assert changed
    assert all(line[3:].startswith("services/orders/") for line in changed)
    orders = services / "services" / "orders"
    assert "Next. " in (orders / "src" / "orders" / "chassis" / "exits.py").read_text()
    assert (orders / "src" / "orders" / "tasks.py").exists()
    assert conflicts(services) == ["services/billing/new.py"]
    answers = yaml.safe_load((orders / ".copier-answers.yml").read_text())
    assert (answers["_commit"], answers["service_name"]) == (f"v{AFTER}", "orders")


def test_answers_file_from_the_root_changes_nothing(world: World, services: Path) -> None:
    """
    Who names the answers file at the root, while anything is edited, is refused.
    """
    (services / "README.md").write_text("Being written.\n")
    update = "uvx --from copier copier update -q --defaults -a services/orders/.copier-answers.yml"

    said = world.paste(update, services, check=False)

    assert "dirty" in said
    assert git("status", "--porcelain", cwd=services) == " M README.md"


def test_pipelines_are_well_formed(services: Path) -> None:
    """
    The page's pipelines please the linters, and name the actions and images of the template's.
    """
    commands = (
        ["actionlint", GITHUB],
        ["zizmor", "--offline", "--quiet", GITHUB],
        ["check-jsonschema", "--builtin-schema", "vendor.gitlab-ci", GITLAB],
    )
    for command in commands:
        ended = subprocess.run(command, cwd=services, capture_output=True, text=True, check=False)
        assert ended.returncode == 0, ended.stdout + ended.stderr
    ours = (ROOT / "template" / ".github" / "workflows" / "ci.yml.jinja").read_text()
    for line in (services / GITHUB).read_text().splitlines():
        assert "uses: " not in line or line in ours.splitlines(), line


def steps(name: str) -> list[str]:
    """
    What a pipeline of the page runs, without images.
    """
    github, gitlab = (yaml.safe_load(text) for text in blocks(PAGE, "Pipelines at the root"))
    lists: dict[str, list[Any]] = {
        "github": [step.get("run") for step in github["jobs"]["service"]["steps"]],
        "gitlab": [job.get("script") for job in gitlab.values() if isinstance(job, dict)],
    }
    return [line for line in lists[name] if line and not line.endswith("image")]


@pytest.mark.covers("docs/how-to/monorepo.md", "template/.ci/*")
@pytest.mark.parametrize(
    ("pipeline", "service"),
    others_nightly(
        [("github", "billing"), ("gitlab", "orders"), ("github", "orders"), ("gitlab", "billing")],
        arguments=2,
    ),
)
def test_pipelines_run(services: Path, pipeline: str, service: str) -> None:
    """
    What they run at the root checks and tests the one service, while another has a conflict.
    """
    other = {"billing": "orders", "orders": "billing"}[service]
    (services / "services" / other / "new.py").write_text("<<<<<<< before\n")
    environment = dict(os.environ) | {"SERVICE": service}

    check, test = steps(pipeline)
    paste(check, services, environment)
    ended = paste(test, services, environment)
    there = paste(check, services, environment | {"SERVICE": other}, check=False)

    assert " passed" in ended.stdout
    assert there.returncode == 1
    assert "conflict markers" in there.stderr
