"""
What stops `.ci/run check` of a project, each in one line that says what to do.
"""

import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import copier
import pytest
from harness import ROOT
from releases import add_release, git, make_repository
from selection import IS_NIGHTLY

pytestmark = pytest.mark.covers(
    "template/.ci/*",
)

Copy = Callable[..., Path]

# Without the variable that these tests set, which would make another lock file.
LOCK = "uv lock" if IS_NIGHTLY else "env -u UV_EXCLUDE_NEWER uv lock"
NO_LOCK = f".ci/run: uv.lock is missing: run `{LOCK}`, and commit it"
STALE = (
    f".ci/run: uv.lock is not what pyproject.toml asks for: run `{LOCK}`, and commit it; "
    "if that changes nothing, a variable of uv is set where you ran it: `env | grep '^UV_'`"
)


def check(project: Path, **environment: str) -> tuple[int, list[str]]:
    """
    Exit code, and all that `.ci/run check` says.
    """
    ended = subprocess.run(
        [".ci/run", "check"],
        cwd=project,
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=200,
    )
    return ended.returncode, ended.stdout.splitlines()


def unreleased(version: str) -> str:
    """
    What is said of it.
    """
    return (
        f".ci/run: the template's version {version} is no release; go to one: "
        '`uvx --from "copier>=9.19.1,<10" copier update`, with `--vcs-ref v1.2.3` to a certain one'
    )


def record(project: Path, line: str) -> None:
    """
    Change what is recorded of the version.
    """
    path = project / ".copier-answers.yml"
    path.write_text(re.sub(r"^_commit: .*\n", line, path.read_text(), flags=re.MULTILINE))


@pytest.fixture(name="project", scope="module")
def _project(copy: Copy) -> Path:
    """
    Without a lock file and without git: what passes gets to the next guard.
    """
    return copy(sync=False)


@pytest.mark.parametrize(
    "version", ["v0.1.0-3-gabc1234", "v1.2.3-1-g29a5b1b", "29a5b1b", "1234567", "12a4567", "main"]
)
def test_unreleased_version(project: Path, version: str) -> None:
    """
    A version between releases, a commit or a branch stops the check, with the way to a release.
    """
    record(project, f"_commit: '{version}'\n")

    assert check(project) == (1, [unreleased(version)])


@pytest.mark.parametrize(
    "version", ["v1.2.3", "1.2.3", "v2", "v1.2.3rc1", "v1.2.3-rc.1", "'1.10'", "v1.2.3.post1"]
)
def test_released_version(project: Path, version: str) -> None:
    """
    A tag as in PEP 440 passes, also in a checkout with other ends of lines.
    """
    record(project, f"_commit: {version}\r\n")

    assert check(project) == (1, [NO_LOCK])
    record(project, "_commit: v1.0.0\n")


def test_no_version(project: Path) -> None:
    """
    Answers without a version stop the check, with the way back to it.
    """
    record(project, "")

    code, said = check(project)

    (project / ".copier-answers.yml").write_text("_commit: v1.0.0\n")
    assert code == 1
    (line,) = said
    assert line.startswith(
        ".ci/run: .copier-answers.yml names no _commit, so nothing can be updated;"
    )
    assert line.endswith("`git checkout COMMIT -- .copier-answers.yml`")


def test_who_left_the_template_passes(copy: Copy) -> None:
    """
    A project without answers has no version of the template that could be wrong.
    """
    project = copy(sync=False)
    (project / ".copier-answers.yml").unlink()

    assert check(project) == (1, [NO_LOCK])


def test_from_head_to_a_release(tmp_path: Path) -> None:
    """
    A service made between two releases is refused until `copier update` brought it to the next one.
    """
    repository = make_repository(tmp_path / "template.git")
    head = {"GIT_DIR": str(repository)}
    tree = git("rev-parse", "HEAD^{tree}", cwd=tmp_path, **head)
    commit = git("commit-tree", tree, "-p", "HEAD", "-m", "between", cwd=tmp_path, **head)
    git("update-ref", "HEAD", commit, cwd=tmp_path, **head)
    project = tmp_path / "order-desk"
    copier.run_copy(repository.as_uri(), project, defaults=True, quiet=True, vcs_ref="HEAD")
    git("init", "--quiet", cwd=project)
    git("add", "--all", cwd=project)
    git("commit", "--quiet", "--message", "start", cwd=project)

    before = check(project)
    add_release(repository, ROOT, "100.0.0")
    copier.run_update(project, defaults=True, quiet=True, overwrite=True)
    after = check(project)

    assert before == (1, [unreleased(f"v99.0.0-1-g{commit[:7]}")])
    assert after == (1, [NO_LOCK])


@pytest.fixture(name="locked", scope="module")
def _locked(copy: Copy) -> Path:
    """
    A committed project with its environment.
    """
    project = copy()
    git("init", "--quiet", cwd=project)
    git("add", "--all", cwd=project)
    git("commit", "--quiet", "--message", "start", cwd=project)
    return project


@pytest.fixture(autouse=True)
def _clean(request: pytest.FixtureRequest) -> None:
    """
    What the test before changed is undone.
    """
    if "locked" in request.fixturenames:
        git("checkout", "--quiet", ".", cwd=request.getfixturevalue("locked"))


def test_stale_lock(locked: Path) -> None:
    """
    A dependency that is not in uv.lock stops the check in one line.
    """
    toml = locked / "pyproject.toml"
    toml.write_text(toml.read_text().replace("below.\n]", 'below.\n    "humanize>=4",\n]', 1))

    assert check(locked) == (1, [STALE])


def test_lock_that_can_not_be_compared(locked: Path, tmp_path: Path) -> None:
    """
    Where uv can't look, such as without its index, nobody is told that the lock is stale.
    """
    toml = locked / "pyproject.toml"
    toml.write_text(toml.read_text().replace("below.\n]", 'below.\n    "humanize>=4",\n]', 1))
    nowhere = {"UV_DEFAULT_INDEX": "http://127.0.0.1:9/simple", "UV_HTTP_RETRIES": "0"}

    code, said = check(locked, UV_CACHE_DIR=str(tmp_path), UV_NO_CONFIG="1", **nowhere)

    assert code == 1
    assert STALE not in said
    assert "127.0.0.1:9" in "\n".join(said)


def test_broken_answers(locked: Path) -> None:
    """
    An answers file that is no YAML any more stops the check in one line, with the line.
    """
    with (locked / ".copier-answers.yml").open("a") as file:
        file.write("x: [\n")

    code, said = check(locked)

    assert code == 78
    told = r"\.copier-answers\.yml:\d+: can't be read as YAML: bring it back"
    assert [line for line in said if re.match(told, line)], said


def test_broken_declaration(locked: Path) -> None:
    """
    A declaration that can't say what is waived stops the check, with file and line.
    """
    path = locked / "ops/service.yaml"
    path.write_text(path.read_text().replace("waivers: []", "waivers: [{check: template_files}]"))

    code, said = check(locked)

    assert code == 78
    told = r"ops/service\.yaml:\d+: spec\.waivers\[0\]\.until is missing"
    assert [line for line in said if re.match(told, line)], said


def test_conflict_and_rejected(locked: Path) -> None:
    """
    What an update left is named in one line each, under one that says what to do.
    """
    (locked / "README.md").write_text("a\n<<<<<<< before updating\nb\n")
    conflict = check(locked)
    git("checkout", "--quiet", ".", cwd=locked)
    (locked / "Dockerfile.rej").touch()
    rejected = check(locked)
    (locked / "Dockerfile.rej").unlink()

    assert conflict[0] == rejected[0] == 1
    assert conflict[1][1:] == ["README.md:2:<<<<<<< before updating"]
    assert rejected[1][1:] == ["Dockerfile.rej"]
    assert all("commit:" in said[0] for _, said in (conflict, rejected))
