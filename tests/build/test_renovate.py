"""
Renovate, really run, finds the template's next version by our `renovate.json`, and what it then
does needs no trust.

Installing it takes half a minute and 360 MB. Without network or Node the tests fail.
"""

import json
import os
import re
import shutil
import subprocess
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import copier
import pytest
import yaml
from harness import ROOT
from releases import NEXT, RELEASES, crosses_migration, git

Copy = Callable[..., Path]

NEWEST = list(RELEASES)[-1]
# As it is in Renovate's manager `copier`; a test below compares it with what is called.
COMMAND = [
    "copier",
    "update",
    "--skip-answered",
    "--defaults",
    "--answers-file",
    ".copier-answers.yml",
    "--vcs-ref",
    f"v{NEXT}",
]
OURS = ROOT / "template" / "renovate.json"

# Renovate takes half a minute to install.
covers = pytest.mark.covers("template/renovate.json", "docs/how-to/renovate.md", "scripts/renovate")


@pytest.fixture(name="make")
def _make(repository: Path) -> Callable[[Path], Path]:
    """
    Make a service of the newest release in a folder, which need not be there, and commit it; it
    has the `renovate.json` of the working tree.
    """

    def make(folder: Path) -> Path:
        release = f"v{NEWEST}"
        copier.run_copy(repository.as_uri(), folder, defaults=True, quiet=True, vcs_ref=release)
        shutil.copy(OURS, folder)
        git("init", "--quiet", cwd=folder)
        git("add", "--all", cwd=folder)
        git("commit", "--quiet", "--message", "all", cwd=folder)
        return folder

    return make


def run(*command: str | Path, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """
    A command in a project, with its output and its errors as one text.
    """
    return subprocess.run(
        command,
        cwd=cwd,
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=250,
    )


def renovate(
    project: Path, *arguments: str, managers: list[str] | None = None, **inherited: Any
) -> list[dict[str, Any]]:
    """
    What Renovate logs of a project, which it looks at and leaves as it is; *inherited* is what an
    organisation's own configuration says.
    """
    told = {
        "LOG_FORMAT": "json",
        "LOG_LEVEL": "debug",
        "RENOVATE_BASE_DIR": str(project.parent / "renovate"),
        "RENOVATE_CONFIG": json.dumps(inherited),
        "RENOVATE_ONBOARDING": "false",
        # A host named "gh" is nobody's.
        "GIT_SSH_COMMAND": "false",
    }
    if managers:
        told["RENOVATE_FORCE"] = json.dumps({"enabledManagers": managers})
    command: list[str | Path] = [
        ROOT / "scripts" / "renovate",
        "renovate",
        "--platform=local",
        *arguments,
    ]
    ended = run(*command, cwd=project, **told)
    assert ended.returncode == 0, ended.stdout[-2000:]
    assert git("status", "--porcelain", cwd=project) == ""
    return [json.loads(line) for line in ended.stdout.splitlines() if line.startswith("{")]


def updates(logged: list[dict[str, Any]]) -> dict[str, list[tuple[str, str, str]]]:
    """
    The versions before and after, and the branch, of each update of a template, by its file.
    """
    (found,) = (line["config"] for line in logged if line["msg"] == "packageFiles with updates")
    return {
        file["packageFile"]: [
            (dep["currentValue"], update["newValue"], update["branchName"])
            for dep in file["deps"]
            for update in dep["updates"]
        ]
        for file in found.get("copier", [])
    }


def test_its_command_needs_no_trust(make: Callable[[Path], Path], tmp_path: Path) -> None:
    """
    The command that Renovate issues updates a service without trust and without a conflict; across
    a migration it is refused, and the service is as it was.
    """
    project = make(tmp_path / "order-desk")

    ended = run(*COMMAND, cwd=project)

    answers = yaml.safe_load((project / ".copier-answers.yml").read_text())
    changed = git("status", "--porcelain", cwd=project)
    if crosses_migration(NEWEST, NEXT):
        assert (ended.returncode, answers["_commit"], changed) == (4, f"v{NEWEST}", "")
        return
    assert (ended.returncode, answers["_commit"]) == (0, f"v{NEXT}"), ended.stdout
    assert not re.search(r"(?m)^(UU|AA|.U|U.) ", changed)
    assert not [*project.rglob("*.rej")]
    assert git("ls-files", "--unmerged", cwd=project) == ""


@covers
def test_its_configuration_is_valid(tmp_path: Path) -> None:
    """
    Renovate itself takes `renovate.json`, strictly, and objects to what it does not know.
    """
    validator: list[str | Path] = [ROOT / "scripts" / "renovate", "renovate-config-validator"]
    shutil.copy(OURS, tmp_path)
    wrong = json.loads(OURS.read_text()) | {"minimumReleaseAge": 7}
    (tmp_path / "wrong.json").write_text(json.dumps(wrong))

    right = run(*validator, "--strict", "--no-global", "renovate.json", cwd=tmp_path)
    refused = run(*validator, "--strict", "--no-global", "wrong.json", cwd=tmp_path)

    assert right.returncode == 0, right.stdout
    assert "successfully against 1 file" in right.stdout
    assert refused.returncode != 0


@covers
def test_it_finds_the_next_version(make: Callable[[Path], Path], tmp_path: Path) -> None:
    """
    It finds exactly the template's next version, at once and on a branch of its own for each
    service of a repository, also where the organisation groups all updates.
    """
    project = make(tmp_path / "monorepo")
    second = project / "services" / "second"
    second.mkdir(parents=True)
    shutil.copy(project / ".copier-answers.yml", second)
    git("add", "--all", cwd=project)
    git("commit", "--quiet", "--message", "second", cwd=project)

    logged = renovate(project, managers=["copier"], extends=["group:all"], automerge=True)

    old, new = f"v{NEWEST}", f"v{NEXT}"
    topic = f"template-{NEXT.partition('.')[0]}.x"
    assert updates(logged) == {
        ".copier-answers.yml": [(old, new, f"renovate/{topic}")],
        "services/second/.copier-answers.yml": [(old, new, f"renovate/services/second-{topic}")],
    }
    assert not [line for line in logged if "releaseTimestamp" in line["msg"]]
    # It did not ask the network: the rest of the configuration costs nothing here.
    assert [line["requests"] for line in logged if line["msg"] == "HTTP statistics"] == [0]


@covers
def test_it_calls_copier_so(
    make: Callable[[Path], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    What Renovate's own code calls is the command that is tested above, and it reports no conflict;
    a migration that is refused is an error on its pull request.
    """
    project = make(tmp_path / "origin")
    real = shutil.which("copier")
    (tmp_path / "bin").mkdir()
    standin = tmp_path / "bin" / "copier"
    asked = tmp_path / "asked"
    standin.write_text(f'#!/bin/sh\nprintf "%s\\n" copier "$@" >"{asked}"\nexec "{real}" "$@"\n')
    standin.chmod(0o755)
    monkeypatch.setenv("PATH", f"{standin.parent}{os.pathsep}{os.environ['PATH']}")
    script = ROOT / "tests" / "build" / "renovate.mjs"
    installed = run(ROOT / "scripts" / "renovate", cwd=tmp_path).stdout.splitlines()[-1]
    folders = [installed, str(tmp_path / "cache"), project.as_uri(), str(tmp_path / "clone")]

    # The clone has a name of its own, as it has with Renovate: no file may depend on it.
    git("clone", "--quiet", project, tmp_path / "clone", cwd=tmp_path)
    ended = run(ROOT / "scripts" / "renovate", "node", script, *folders, f"v{NEXT}", cwd=tmp_path)

    assert ended.returncode == 0, ended.stdout
    assert asked.read_text().splitlines() == COMMAND
    told = json.loads(ended.stdout.splitlines()[-1])
    if crosses_migration(NEWEST, NEXT):
        assert [line["fileName"] for line in told] == [".copier-answers.yml"]
        return
    assert ".copier-answers.yml" in [line.get("path") for line in told]
    assert [line for line in told if "path" not in line] == []


@pytest.mark.nightly
@pytest.mark.parametrize("address", ["gh:acme/fiveweeks", "/srv/fiveweeks", "../fiveweeks"])
def test_addresses_that_it_finds_nothing_at(
    make: Callable[[Path], Path], tmp_path: Path, address: str
) -> None:
    """
    As the documents say, a short address or a path of a folder is none for Renovate.
    """
    project = make(tmp_path / "order-desk")
    answers = project / ".copier-answers.yml"
    text = re.sub(r"(?m)^_src_path: .*", f"_src_path: {address}", answers.read_text())
    answers.write_text(text)
    git("commit", "--quiet", "--all", "--message", "address", cwd=project)

    logged = renovate(project, managers=["copier"])

    assert not any(updates(logged).values())


@pytest.mark.nightly
def test_it_finds_the_dependencies(copy: Copy) -> None:
    """
    It finds packages, images, actions and the template.
    """
    project = copy(deploy=["compose", "kubernetes"])
    answers = project / ".copier-answers.yml"
    text = re.sub(
        r"(?m)^_src_path: .*",
        "_src_path: https://github.com/acme/fiveweeks.git",
        answers.read_text(),
    )
    answers.write_text(re.sub(r"(?m)^_commit: .*", "_commit: v1.0.0", text))
    git("init", "--quiet", cwd=project)
    git("add", "--all", cwd=project)
    git("commit", "--quiet", "--message", "all", cwd=project)

    logged = renovate(project, "--dry-run=extract")

    (extracted,) = (line["packageFiles"] for line in logged if "packageFiles" in line)
    found = {
        manager: {dep["depName"] for file in files for dep in file["deps"] if "depName" in dep}
        for manager, files in extracted.items()
    }
    toml = tomllib.loads((project / "pyproject.toml").read_text())
    names = {re.split("[<>=]", line)[0] for line in toml["project"]["dependencies"]}
    assert found["pep621"] >= names
    assert found["dockerfile"] >= {
        "docker.io/library/python",
        "docker/dockerfile",
        "ghcr.io/astral-sh/uv",
    }
    assert found["github-actions"] >= {"actions/checkout", "re-actors/alls-green"}
    assert found["copier"] == {"https://github.com/acme/fiveweeks.git"}
    locked = [
        dep for file in extracted["pep621"] for dep in file["deps"] if dep.get("lockedVersion")
    ]
    assert len(locked) >= len(names)
