"""
Wrong answers are refused with a sentence that helps, and leave nothing behind.
"""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import copier
import pytest
import yaml
from harness import ROOT, TEMPLATE

WRONG = [
    ("service_name", "Order-Desk", "lower-case letters"),
    ("service_name", "order_desk", "lower-case letters"),
    ("service_name", "order desk", "lower-case letters"),
    ("service_name", "order--desk", "lower-case letters"),
    ("service_name", "-order", "lower-case letters"),
    ("service_name", "order-", "lower-case letters"),
    ("service_name", "1order", "lower-case letters"),
    ("service_name", "", "lower-case letters"),
    ("service_name", "order\n", "lower-case letters"),
    ("service_name", "örder", "lower-case letters"),
    ("service_name", "x" * 53, "at most 52 characters"),
    ("service_name", "class", "word or module of Python"),
    ("service_name", "match", "word or module of Python"),
    ("service_name", "json", "word or module of Python"),
    ("service_name", "concurrent", "word or module of Python"),
    ("service_name", "python", "word or module of Python"),
    ("service_name", "python3", "word or module of Python"),
    ("service_name", "activate", "template uses itself"),
    ("service_name", "fastapi", "name of a dependency"),
    ("service_name", "pydantic-settings", "name of a dependency"),
    ("service_name", "jsonschema", "name of a dependency"),
    ("service_name", "markdown-it", "name of a dependency"),
    ("service_name", "test", "template uses itself"),
    ("service_name", "tests", "template uses itself"),
    ("service_name", "chassis", "template uses itself"),
    ("description", "", "one line of text"),
    ("description", " blank at its end", "one line of text"),
    ("description", "two\nlines", "one line of text"),
    ("description", "tab\there", "one line of text"),
    ("description", "next\x85line", "one line of text"),
    ("description", 'a "quote"', "double quotes or backslashes"),
    ("description", "back\\slash", "double quotes or backslashes"),
    ("description", "x" * 201, "at most 200 characters"),
    ("owner", "@payments", "without @"),
    ("owner", "a b", "without @"),
    ("owner", "", "without @"),
    ("owner", "payments\n", "without @"),
    ("processes", [], "at least one"),
    ("processes", ["cron"], "Invalid choice"),
    ("database", "sqlite", "Invalid choice"),
    ("telemetry", ["datadog"], "Invalid choice"),
    ("python_version", "3.10", "Invalid choice"),
    ("ci", "jenkins", "Invalid choice"),
    ("deploy", ["heroku"], "Invalid choice"),
    ("package_index_url", "http://packages.example.com/simple", "https:// URL without credentials"),
    ("package_index_url", "https://me:secret@packages.example.com", "UV_INDEX_INTERNAL_USERNAME"),
    ("package_index_url", "https://packages.example.com/a b", "https:// URL without credentials"),
    ("package_index_url", 'https://packages.example.com/"', "https:// URL without credentials"),
    ("package_index_url", "packages.example.com", "https:// URL without credentials"),
]


@pytest.mark.parametrize(("name", "value", "told"), WRONG)
def test_wrong_answer(tmp_path: Path, name: str, value: object, told: str) -> None:
    """
    A wrong answer names the question and the rule, and nothing is written.
    """
    folder = tmp_path / "service"

    with pytest.raises(ValueError, match=name) as raised:
        copier.run_copy(
            str(ROOT), folder, data={name: value}, defaults=True, quiet=True, vcs_ref="HEAD"
        )

    assert told in str(raised.value)
    assert not folder.exists()


@pytest.mark.parametrize("processes", [["worker"], ["web", "worker", "job"]])
def test_worker_needs_a_database(tmp_path: Path, processes: list[str]) -> None:
    """
    A worker without a database is refused with the reason; unasked, it has one.
    """
    folder = tmp_path / "service"
    told: dict[str, Any] = {"defaults": True, "quiet": True, "vcs_ref": "HEAD"}

    with pytest.raises(ValueError, match="its queue is a table there"):
        copier.run_copy(
            str(ROOT), folder, data={"processes": processes, "database": "none"}, **told
        )
    assert not folder.exists()
    copier.run_copy(str(ROOT), folder, data={"processes": processes}, **told)

    answers = yaml.safe_load((folder / ".copier-answers.yml").read_text())
    assert answers["database"] == "postgresql"


@pytest.mark.parametrize(
    ("folder", "expected"),
    [
        ("order-desk", "order-desk"),
        ("Order Desk", "order-desk"),
        ("2nd_try", "nd-try"),
        ("json", "service"),
        ("ünïcode", "n-code"),
        ("x" * 60, "service"),
    ],
)
def test_name_comes_from_the_folder(tmp_path: Path, folder: str, expected: str) -> None:
    """
    Without an answer the service is named after its folder, made valid.
    """
    copier.run_copy(str(ROOT), tmp_path / folder, defaults=True, quiet=True, vcs_ref="HEAD")

    answers = yaml.safe_load((tmp_path / folder / ".copier-answers.yml").read_text())
    assert answers["service_name"] == expected


def run_copier(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """
    The command, as a person calls it, at no terminal.
    """
    command = [Path(sys.executable).parent / "copier", *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
    )


def test_command_asks_nothing_and_says_what_is_next(tmp_path: Path) -> None:
    """
    `copier copy --defaults` needs no trust, asks nothing, and ends with three lines to paste.
    """
    folder = tmp_path / "a folder" / "order-desk"

    ended = run_copier("copy", "--defaults", "--vcs-ref", "HEAD", ROOT, folder)

    assert ended.returncode == 0, ended.stderr
    lines = [line.strip() for line in ended.stderr.rstrip().splitlines()[-3:]]
    assert lines[0] == f"cd '{folder}'"
    assert lines[2] == "uv run order-desk dev"
    assert os.access(folder / ".ci" / "run", os.X_OK)
    pasted = "\n".join(["set -e", *lines[:2], "uv run order-desk --version"])
    said = subprocess.run(["bash", "-c", pasted], capture_output=True, text=True, check=True)
    assert said.stdout.splitlines()[-1] == "order-desk 0.1.0"


def test_files_that_are_there_are_not_lost(tmp_path: Path) -> None:
    """
    Into a folder with files: copier asks before it overwrites; unasked, it overwrites nothing.
    """
    (tmp_path / "README.md").write_text("mine\n")
    (tmp_path / "mine.txt").write_text("mine\n")

    ended = run_copier("copy", "--defaults", "--vcs-ref", "HEAD", ROOT, tmp_path)

    assert ended.returncode != 0
    assert (tmp_path / "README.md").read_text() == "mine\n"
    assert (tmp_path / "mine.txt").read_text() == "mine\n"


def ask_less(template: Path, git: Callable[..., str]) -> None:
    """
    Commit what could have been the first version: copier renders it with the newest `_exclude`, and
    the answers to newer questions are not there.
    """
    answers = template / "template" / "{{_copier_conf.answers_file}}.jinja"
    text = answers.read_text()
    # In a folder that the team emptied, nothing arrives.
    kept_test = template / "template" / "tests" / "system" / "conftest.py"
    code = kept_test.read_text()
    config = yaml.safe_load((template / "copier.yml").read_text())
    kept = ("_min_copier_version", "_subdirectory", "_envops", "service_name", "package_name")
    git("rm", "--quiet", "-r", "template", cwd=template)
    answers.parent.mkdir(exist_ok=True)
    answers.write_text(text)
    kept_test.parent.mkdir(parents=True)
    kept_test.write_text(code)
    old = {name: config[name] for name in kept}
    (template / "copier.yml").write_text(yaml.safe_dump(old, sort_keys=False))
    git("add", "--all", cwd=template)
    git("commit", "--quiet", "--message", "before", cwd=template)


def test_kubernetes_can_be_chosen_later(
    tmp_path: Path, git: Callable[..., str], template_copy: Path
) -> None:
    """
    `copier update --data deploy=...` brings base, overlay and their test, also from a version that
    asked hardly a question; from then on the overlay is the team's: what it edited stays edited,
    and what it deleted deleted.
    """
    project = tmp_path / "order-desk"
    ask_less(template_copy, git)
    copier.run_copy(str(template_copy), project, defaults=True, quiet=True, vcs_ref="HEAD")
    git("revert", "--no-edit", "HEAD", cwd=template_copy)
    folder = project / "deploy" / "kubernetes"
    edited = folder / "overlays" / "production" / "kustomization.yaml"
    deleted = folder / "overlays" / "production" / "egress.yaml"
    git("init", "--quiet", cwd=project)

    def update(*told: str) -> None:
        git("add", "--all", cwd=project)
        git("commit", "--quiet", "--message", "mine", cwd=project)
        ended = run_copier("update", "--defaults", "--vcs-ref", "HEAD", *told, project)
        assert ended.returncode == 0, ended.stderr

    before = folder.exists()
    update("--data", "deploy=[compose,kubernetes]")
    came = {path.name for path in folder.rglob("*.yaml")}
    tested = (project / "tests" / "system" / "test_kubernetes.py").exists()
    edited.write_text(edited.read_text().replace("0.1.0", "0.2.0"))
    deleted.unlink()
    for path in template_copy.glob("template/deploy/kubernetes/**/kustomization.yaml.jinja"):
        path.write_text(path.read_text() + "# The next version.\n")
    git("commit", "--quiet", "--all", "--message", "next", cwd=template_copy)
    update()

    assert (before, tested) == (False, True)
    assert came == {
        *("deployment.yaml", "disruption.yaml", "egress.yaml", "kustomization.yaml"),
        *("network.yaml", "service.yaml"),
    }
    assert "0.2.0" in edited.read_text()
    assert "next version" not in edited.read_text()
    assert not deleted.exists()
    assert "next version" in (folder / "base" / "kustomization.yaml").read_text()


def test_ci_can_be_changed_later(
    tmp_path: Path, git: Callable[..., str], template_copy: Path
) -> None:
    """
    `copier update --data ci=gitlab` brings that pipeline with its seed and takes the other away;
    the next update leaves the seed and the team's steps as they are.
    """
    project = tmp_path / "order-desk"
    copier.run_copy(str(template_copy), project, defaults=True, quiet=True, vcs_ref="HEAD")
    (project / ".ci" / "steps").write_text("# mine\n")
    git("init", "--quiet", cwd=project)
    told = ["update", "--defaults", "--vcs-ref", "HEAD"]

    def commit() -> None:
        git("add", "--all", cwd=project)
        git("commit", "--quiet", "--message", "mine", cwd=project)

    commit()
    chosen = run_copier(*told, "--data", "ci=gitlab", project)
    arrived = (project / ".gitlab-ci.yml").read_text()
    (project / ".gitlab-ci.yml").write_text("# mine\n")
    commit()
    for name in (".gitlab-ci.yml", ".ci/steps", ".ci/gitlab.yml.jinja"):
        with (template_copy / "template" / name).open("a") as file:
            file.write("# the next version\n")
    git("commit", "--quiet", "--all", "--message", "next", cwd=template_copy)
    updated = run_copier(*told, project)

    assert (chosen.returncode, updated.returncode) == (0, 0), chosen.stderr + updated.stderr
    assert "local: .ci/gitlab.yml" in arrived
    assert not (project / ".github" / "workflows" / "ci.yml").exists()
    assert (project / ".gitlab-ci.yml").read_text() == "# mine\n"
    assert (project / ".ci" / "steps").read_text() == "# mine\n"
    assert (project / ".ci" / "gitlab.yml").read_text().endswith("# the next version\n")


@pytest.fixture(name="git")
def _git() -> Callable[..., str]:
    def git(*arguments: str, cwd: Path) -> str:
        command = ["git", *arguments]
        return subprocess.run(command, cwd=cwd, check=True, capture_output=True, text=True).stdout

    return git


@pytest.fixture(name="template_copy")
def _template_copy(tmp_path: Path, git: Callable[..., str]) -> Path:
    """
    The template as it is in the working tree, in a repository of its own.
    """
    copy = tmp_path / "template"
    for name in git("ls-files", "-z", "--cached", "--others", "--exclude-standard", cwd=ROOT).split(
        "\0"
    ):
        if name.startswith(("template/", "questions/", "copier.yml")) and (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            (copy / name).write_bytes((ROOT / name).read_bytes())
            (copy / name).chmod((ROOT / name).stat().st_mode)
    git("init", "--quiet", cwd=copy)
    git("add", "--all", cwd=copy)
    git("commit", "--quiet", "--message", "first", cwd=copy)
    assert (copy / TEMPLATE.name).is_dir()
    return copy
