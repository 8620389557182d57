"""
The scheduled pipelines that propose updates, run as their platforms do, with a real remote.
"""

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from harness import clean
from releases import NEXT, add_release, git, make_repository
from selection import others_nightly

pytestmark = pytest.mark.covers(
    "template/.ci/*",
    "template/.github/*",
    "template/.gitlab-ci*",
    "template/ops/tools/update.py",
)

CHANGES = "# Changelog\n\n## 99.1.0 (2026-12-01)\n\n- It is better. Do this: rejoice.\n"
TEST = '"""\nMine.\n"""\n\n\ndef test_mine() -> None:\n    """\n    It holds.\n    """\n'
GH = """\
#!/bin/sh
echo "$@" >>"$GH_LOG"
case "$1 $2" in "pr list") cat "$GH_OPEN" ;; esac
"""
HOOK = """\
#!/bin/sh
for number in $(seq 0 $((GIT_PUSH_OPTION_COUNT - 1))); do
    eval echo "\\$GIT_PUSH_OPTION_$number"
done >options
"""


class Platform:
    """
    A project in a remote, and a pipeline that clones it, calls the jobs and records what they ask.
    """

    def __init__(self, folder: Path, ci: str, made: Path) -> None:
        self.folder = folder
        self.ci = ci
        self.template = make_repository(folder / "template.git")
        self.remote = folder / "remote.git"
        self.log, self.open = folder / "gh.log", folder / "open"
        self.open.touch()
        self.log.touch()
        mine = folder / "mine"
        shutil.copytree(made, mine, ignore=shutil.ignore_patterns(".venv", ".*_cache", "*.pyc"))
        answers = mine / ".copier-answers.yml"
        told = yaml.safe_load(answers.read_text()) | {"_src_path": self.template.as_uri()}
        answers.write_text(yaml.safe_dump(told))
        # The project's own tests take a minute, and are tried elsewhere.
        shutil.rmtree(mine / "tests")
        (mine / "tests").mkdir()
        (mine / "tests" / "test_mine.py").write_text(TEST)
        git("init", "--quiet", cwd=mine)
        git("add", "--all", cwd=mine)
        git("commit", "--quiet", "--message", "mine", cwd=mine)
        git("clone", "--quiet", "--bare", mine, self.remote, cwd=folder)
        git("config", "receive.advertisePushOptions", "true", cwd=self.remote)
        (self.remote / "hooks" / "post-receive").write_text(HOOK)
        (self.remote / "hooks" / "post-receive").chmod(0o755)
        (folder / "bin").mkdir()
        (folder / "bin" / "gh").write_text(GH)
        (folder / "bin" / "gh").chmod(0o755)

    def release(self, version: str, edit: Callable[[Path], None] = lambda _: None) -> None:
        tree = self.folder / f"tree-{version}"
        tree.mkdir()
        git("--work-tree", tree, "checkout", "--quiet", f"v{NEXT}", "--", ".", cwd=self.template)
        (tree / "CHANGELOG.md").write_text(CHANGES)
        exits = tree / "template" / "src" / "{{ package_name }}" / "chassis" / "exits.py"
        exits.write_text(exits.read_text() + f"\n\n# {version}\n")
        edit(tree)
        add_release(self.template, tree, version)

    def script(self, project: Path, job: str, step: str) -> str:
        """
        What the pipeline's file tells to run.
        """
        if self.ci == "gitlab":
            jobs = yaml.safe_load((project / ".ci" / "gitlab.yml").read_text())
            told = jobs[job]["script"]
            return told if isinstance(told, str) else "\n".join(told)
        jobs = yaml.safe_load((project / ".github" / "workflows" / "update.yml").read_text())[
            "jobs"
        ]
        (found,) = [each["run"] for each in jobs[job]["steps"] if each["name"] == step]
        return str(found)

    def run(self) -> subprocess.CompletedProcess[str]:
        """
        Both jobs, each in a clone of its own; what the first leaves in dist/ is handed on.
        """
        first, second = (self._clone(job) for job in ("update", "propose"))
        ended = self._call(first, self.script(first, "update", "Update and test"))
        if not ended.returncode and (first / "dist" / "update" / "change.patch").exists():
            shutil.copytree(first / "dist", second / "dist")
            self._call(second, self.script(second, "propose", "Open or refresh"), secret="canary")  # noqa: S106  # no password
        return ended

    def _clone(self, job: str) -> Path:
        clone = self.folder / job
        shutil.rmtree(clone, ignore_errors=True)
        git("clone", "--quiet", self.remote, clone, cwd=self.folder)
        return clone

    def _call(self, clone: Path, script: str, secret: str = "") -> subprocess.CompletedProcess[str]:
        output = clone.parent / f"{clone.name}.output"
        output.touch()
        told = {
            "PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}",
            "GH_LOG": str(self.log),
            "GH_OPEN": str(self.open),
            "GITHUB_OUTPUT": str(output),
            "UPDATE_TOKEN": secret,
            "GH_TOKEN": secret,
        }
        if self.ci == "gitlab":
            url = str(self.remote).removesuffix(".git")
            told |= {"GITLAB_CI": "true", "CI_DEFAULT_BRANCH": "main", "CI_PROJECT_URL": url}
        return subprocess.run(
            ["bash", "-e", "-o", "pipefail", "-c", script],
            cwd=clone,
            env=clean(dict(os.environ)) | told,
            capture_output=True,
            text=True,
            check=False,
            timeout=240,
        )

    def proposed(self, what: str = "%B") -> str:
        return git("log", "-1", f"--format={what}", "fiveweeks-update", cwd=self.remote)

    def asked(self) -> list[str]:
        return self.log.read_text().splitlines()


@pytest.fixture(name="platform", params=others_nightly(["github", "gitlab"]))
def _platform(request: pytest.FixtureRequest, copy: Callable[..., Path], tmp_path: Path) -> Any:
    made = copy(service_name="order-desk", ci=request.param, sync=False)
    subprocess.run(["uv", "lock", "--quiet"], cwd=made, check=True)
    return Platform(tmp_path, request.param, made)


def break_the_linter(tree: Path) -> None:
    """
    Release what the project's own check refuses.
    """
    exits = tree / "template" / "src" / "{{ package_name }}" / "chassis" / "exits.py"
    exits.write_text(exits.read_text() + "import  os\n")


def test_update_is_proposed(platform: Platform) -> None:
    """
    Nothing new: nothing is asked. A newer release: one request, whose text begins with what people
    must do; the next release refreshes it, and as a draft where the project's checks are red.
    """
    nothing = platform.run()
    idle = platform.asked(), git("branch", "--list", "fiveweeks-update", cwd=platform.remote)
    platform.release("99.1.0")
    first = platform.run()
    message, options = platform.proposed(), platform.remote / "options"
    told = options.read_text() if options.exists() else ""
    asked = platform.asked()
    platform.open.write_text("7\n")
    platform.release("99.2.0", break_the_linter)
    second = platform.run()

    assert nothing.returncode == 0, nothing.stderr
    assert idle == ([], "")
    assert first.returncode == 0, first.stdout + first.stderr
    title = "Update the template from v99.0.0 to v99.1.0"
    assert message.startswith(f"{title}\n\n`.ci/run` was green with it.\n\n## For people to do\n")
    assert "It is better. Do this: rejoice." in message
    assert second.returncode == 0, second.stdout + second.stderr
    newest = "Update the template from v99.0.0 to v99.2.0"
    assert platform.proposed().startswith(f"{newest}\n\n`.ci/run` WAS RED with it")
    assert platform.proposed("%P") == git("rev-parse", "main", cwd=platform.remote)
    if platform.ci == "gitlab":
        lines = [
            "merge_request.create",
            "merge_request.target=main",
            f"merge_request.title={title}",
        ]
        assert told.splitlines() == lines
        assert options.read_text().splitlines()[-1] == "merge_request.draft"
        return
    create, edit, ready = [
        line for line in platform.asked() if "auth" not in line and "list" not in line
    ]
    assert create in asked
    assert create.startswith(f"pr create --head fiveweeks-update --title {title} --body-file")
    assert "--draft" not in create
    assert edit.startswith(f"pr edit 7 --title {newest} --body-file")
    assert ready == "pr ready 7 --undo"


def test_failed_update_proposes_nothing(platform: Platform) -> None:
    """
    Where the template can't be reached the job is red, and nothing is asked.
    """
    platform.template.rename(platform.template.with_name("elsewhere"))

    ended = platform.run()

    assert ended.returncode == 69
    assert "python -m ops update: `git ls-remote` failed" in ended.stderr
    assert platform.asked() == []
