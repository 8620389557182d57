"""
The pipelines of every rendered project please the linters of their kinds.
"""

import functools
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from harness import ROOT

from questions import QUESTIONS

Render = Callable[..., Path]

WORKFLOW = [
    ["actionlint"],
    ["zizmor", "--offline", "--no-progress", "--quiet", "--persona=pedantic", ".github"],
    ["check-jsonschema", "--builtin-schema", "vendor.github-workflows"],
]
LINTERS: dict[str, list[list[str]]] = {
    ".github/workflows/ci.yml": WORKFLOW,
    ".github/workflows/audit.yml": WORKFLOW,
    ".github/workflows/update.yml": WORKFLOW,
    ".ci/gitlab.yml": [["check-jsonschema", "--builtin-schema", "vendor.gitlab-ci"]],
    ".gitlab-ci.yml": [["check-jsonschema", "--builtin-schema", "vendor.gitlab-ci"]],
    ".ci/run": [["shellcheck"]],
    ".ci/steps": [["shellcheck"]],
    "renovate.json": [["check-jsonschema", "--builtin-schema", "vendor.renovate"]],
}


@functools.cache
def findings(path: str, text: str) -> str:
    """
    What the linters say of this text, which is asked once: most answers change nothing of it.
    """
    path_to_tools = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    said = []
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        # zizmor and actionlint look for the repository.
        subprocess.run(["git", "init", "--quiet"], cwd=folder, check=True)
        for linter in LINTERS[path]:
            command = linter if linter[-1] == ".github" else [*linter, path]
            ended = subprocess.run(
                command,
                cwd=folder,
                env=os.environ | {"PATH": path_to_tools},
                capture_output=True,
                text=True,
                check=False,
            )
            if ended.returncode:
                said.append(f"{linter[0]}: {ended.stdout}{ended.stderr}")
    return "\n".join(said)


def test_linted(project: Path) -> None:
    """
    Nothing is found by actionlint with shellcheck, zizmor at its most pedantic, and the schemas.
    """
    for path in LINTERS:
        if (project / path).exists():
            assert findings(path, (project / path).read_text()) == ""


def test_linters_find_something() -> None:
    """
    Nothing found means something: each linter objects to a fault of its kind.
    """
    workflow = "on: push\nwrong: 1\njobs: {a: {runs-on: nowhere, steps: [{run: echo $x}]}}\n"

    said = findings(".github/workflows/ci.yml", workflow)

    assert shutil.which("shellcheck") or (Path(sys.executable).parent / "shellcheck").exists()
    assert {line.split(":")[0] for line in said.splitlines()} >= {
        "actionlint",
        "zizmor",
        "check-jsonschema",
    }
    assert "SC2086" in said
    assert "SC2086" in findings(".ci/run", "#!/bin/sh\necho $1\n")
    assert findings(".ci/gitlab.yml", "image:\n  script: [a]\n")
    assert findings("renovate.json", '{"minimumReleaseAge": 7}')


def test_pipeline_is_the_one_that_was_chosen(render: Render) -> None:
    """
    `ci` selects the files of one platform; the door, the steps and Renovate are always there.
    """
    platform = {
        "github": {f".github/workflows/{name}.yml" for name in ("audit", "ci", "update")},
        "gitlab": {".ci/gitlab.yml", ".gitlab-ci.yml"},
        "none": set(),
    }

    assert {*platform} == {*QUESTIONS["ci"]}
    for ci, files in platform.items():
        project = render(ci=ci)
        found = {path for path in LINTERS if (project / path).exists()}
        assert found == {".ci/run", ".ci/steps", "renovate.json", *files}
        assert os.access(project / ".ci" / "steps", os.X_OK)


def workflow(render: Render, name: str, **answers: Any) -> dict[Any, Any]:
    """
    A rendered workflow, read.
    """
    text = (render(**answers) / ".github" / "workflows" / name).read_text()
    loaded: dict[Any, Any] = yaml.safe_load(text)
    return loaded


def test_least_privilege(render: Render) -> None:
    """
    Nothing may be written but by `publish`, which runs nothing of the project's; every job ends in
    time, and what was checked out keeps no credentials.
    """
    for name in ("ci.yml", "audit.yml", "update.yml"):
        loaded = workflow(render, name)
        assert loaded["permissions"] == {}
        for job, said in loaded["jobs"].items():
            uses = [step.get("uses", "") for step in said["steps"]]
            if "write" in said["permissions"].values():
                assert job == "publish"
                assert not any(use.startswith("actions/checkout@") for use in uses)
            assert said["timeout-minutes"] <= (40 if job == "update" else 20)
            assert all(re.search(r"@[0-9a-f]{40}$", use) for use in uses if use)
            for step in said["steps"]:
                if step.get("uses", "").startswith("actions/checkout@"):
                    assert step["with"]["persist-credentials"] is False


def test_publishing_is_asked_for(render: Render) -> None:
    """
    A fresh project publishes nothing; what is published passed all that is required.
    """
    jobs = workflow(render, "ci.yml")["jobs"]
    gitlab = yaml.safe_load((render(ci="gitlab") / ".ci" / "gitlab.yml").read_text())

    assert "vars.PUBLISH_IMAGE == 'true'" in jobs["publish"]["if"]
    assert jobs["publish"]["needs"] == ["required"]
    assert {*jobs["required"]["needs"]} == {*jobs} - {"required", "publish"}
    assert [rule["if"] for rule in gitlab["publish"]["rules"] if "when" not in rule] == [
        '$PUBLISH_IMAGE == "true" && ($CI_COMMIT_BRANCH == $CI_DEFAULT_BRANCH || $CI_COMMIT_TAG)'
    ]


def test_credentials_of_the_index(render: Render) -> None:
    """
    Secrets are named only where there is an index of one's own, and only for what resolves.
    """
    url = "https://packages.example.com/simple"
    names = {"UV_INDEX_INTERNAL_USERNAME", "UV_INDEX_INTERNAL_PASSWORD"}

    for name in ("ci.yml", "audit.yml"):
        assert "secrets." not in json.dumps(workflow(render, name)["jobs"])
        for job in workflow(render, name, package_index_url=url)["jobs"].values():
            for step in job["steps"]:
                resolves = step.get("run", "").startswith(".ci/run")
                assert (names <= {*step.get("env", {})}) == resolves, step
    updates = workflow(render, "update.yml", package_index_url=url)["jobs"]["update"]["steps"]
    assert [step["name"] for step in updates if names & {*step.get("env", {})}] == [
        "Update and test"
    ]


def test_token_is_with_whom_runs_nothing(render: Render) -> None:
    """
    The job that runs an update knows whether there is a token; the one that has it runs no update.
    """
    jobs = workflow(render, "update.yml")["jobs"]
    gitlab = yaml.safe_load((render(ci="gitlab") / ".ci" / "gitlab.yml").read_text())

    asked = json.dumps(jobs["update"]).split("secrets.")[1:]
    assert [text.partition(" }}")[0] for text in asked] == ["UPDATE_TOKEN != ''"]
    assert jobs["propose"]["permissions"] == {}
    assert [step.get("run") for step in jobs["propose"]["steps"]][-1] == ".ci/run propose"
    assert gitlab["update"]["script"] == "env --unset=UPDATE_TOKEN .ci/run update"


def test_python_is_the_one_that_was_chosen(project: Path) -> None:
    """
    What is tested is the Python of the image.
    """
    answers = yaml.safe_load((project / ".copier-answers.yml").read_text())
    version = answers["python_version"]

    if answers["ci"] == "github":
        loaded = yaml.safe_load((project / ".github" / "workflows" / "ci.yml").read_text())
        assert loaded["env"] == {"UV_PYTHON": version}
    elif answers["ci"] == "gitlab":
        loaded = yaml.safe_load((project / ".ci" / "gitlab.yml").read_text())
        assert loaded["default"]["image"].endswith(f"-python{version}-trixie")


# Who builds, by the variables of its pipeline, and the repository that the image names.
BUILDERS = {
    "nobody": ({}, ""),
    "GitHub": (
        {"GITHUB_SERVER_URL": "https://github.com", "GITHUB_REPOSITORY": "acme/desk"},
        "https://github.com/acme/desk",
    ),
    "GitLab": (
        {"CI_PROJECT_URL": "https://gitlab.com/acme/desk"},
        "https://gitlab.com/acme/desk",
    ),
    "another": ({"SOURCE": "https://git.example.com/desk"}, "https://git.example.com/desk"),
}
# In place of Docker: what it was asked for.
DOCKER = """#!/bin/sh
printf '%s\\n' "$@" > "$ASKED"
exit 3
"""


@pytest.mark.parametrize("builder", BUILDERS)
def test_image_names_its_repository(builder: str, render: Render, tmp_path: Path) -> None:
    """
    The image has a label by which a registry finds the repository, from the pipeline that builds.
    """
    variables, source = BUILDERS[builder]
    (tmp_path / "docker").write_text(DOCKER)
    (tmp_path / "docker").chmod(0o755)
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "ASKED": str(tmp_path / "asked")}

    ended = subprocess.run(
        [".ci/run", "image"], cwd=render(), env=environment | variables, check=False
    )

    asked = (tmp_path / "asked").read_text().splitlines()
    label = 'org.opencontainers.image.source="${SOURCE}"'
    assert ended.returncode == 3
    assert f"SOURCE={source}" in asked
    assert label in (render() / "Dockerfile").read_text().partition("\nARG SOURCE=\n")[2]


def test_a_release_waits_as_long_for_all(render: Render) -> None:
    """
    Renovate offers a release when uv would lock it; no sooner, or it would offer what can't be.
    """
    renovate = json.loads((render() / "renovate.json").read_text())
    uv = tomllib.loads((render() / "pyproject.toml").read_text())["tool"]["uv"]

    assert (renovate["minimumReleaseAge"], uv["exclude-newer"]) == ("7 days", "1 week")
    # The template's tags tell no date, and would wait for ever.
    assert renovate["minimumReleaseAgeBehaviour"] == "timestamp-optional"


def test_renovate_leaves_the_pipeline_to_the_template() -> None:
    """
    What `copier update` replaces, Renovate does not touch: the two would conflict.
    """
    renovate = json.loads((ROOT / "template" / "renovate.json").read_text())
    (rule,) = (rule for rule in renovate["packageRules"] if "matchFileNames" in rule)

    assert rule["enabled"] is False
    assert {".ci/**", *(path for path in LINTERS if path.startswith(".github"))} == {
        *rule["matchFileNames"]
    }
