"""
`python -m ops update` in a project: the newest release of the template, or nothing at all.
"""

import os
import shutil
import signal
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from harness import clean, wait_until
from releases import NEXT, add_release, git, make_repository

pytestmark = pytest.mark.covers(
    "copier.yml",
    "template/.ci/*",
    "template/ops/*",
)

NEWER = "99.1.0"
CHANGES = f"""\
# Changelog

## {NEWER} (2026-12-01)

### Changed

- The drain waits for what is in flight. Do this: nothing but to read
  the second line, too.
- A change that asks nothing: [what runs](hooks/README.md).
- [How](https://example.com/a) is told [elsewhere](#old).


## {NEXT} (2026-11-30)

- What it already has.
"""
MIGRATION = '''"""
Rename what was renamed.
"""
'''

Edit = Callable[[Path], None]


@dataclass(frozen=True)
class World:
    """
    A template with releases, and a project made from its newest one, in a repository.
    """

    template: Path
    project: Path
    python: Path

    def release(self, *edits: Edit, version: str = NEWER) -> None:
        """
        A release of the template in which files were edited.
        """
        tree = self.template.parent / f"tree-{version}"
        tree.mkdir()
        git("--work-tree", tree, "checkout", "--quiet", f"v{NEXT}", "--", ".", cwd=self.template)
        for edit in edits:
            edit(tree)
        add_release(self.template, tree, version)

    def commit(self) -> None:
        git("add", "--all", cwd=self.project)
        git("commit", "--quiet", "--allow-empty", "--message", "mine", cwd=self.project)

    def start(self, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [self.python, "-m", "ops", "update", *arguments],
            cwd=self.project,
            env=clean(dict(os.environ)) | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def update(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        process = self.start(*arguments, **environment)
        out, err = process.communicate(timeout=120)
        return subprocess.CompletedProcess(arguments, process.returncode, out, err)

    def state(self) -> dict[str, Any]:
        """
        Everything in the project but git's own files, and what git makes of it.
        """
        files = {
            str(path.relative_to(self.project)): path.read_bytes()
            for path in self.project.rglob("*")
            if path.is_file() and ".git" not in path.parts and path.suffix != ".pyc"
        }
        git_says = git("status", "--porcelain", cwd=self.project) if self.is_repository else ""
        return {"files": files, "git": git_says}

    @property
    def is_repository(self) -> bool:
        return (self.project / ".git").exists()


@pytest.fixture(name="made", scope="module")
def _made(copy: Callable[..., Path]) -> Path:
    project = copy(service_name="order-desk")
    subprocess.run(["uv", "lock", "--quiet"], cwd=project, check=True)
    return project


@pytest.fixture(name="world")
def _world(made: Path, tmp_path: Path) -> World:
    template = make_repository(tmp_path / "template.git")
    project = tmp_path / "project"
    shutil.copytree(made, project, ignore=shutil.ignore_patterns(".venv", ".*_cache", "*.pyc"))
    answers = project / ".copier-answers.yml"
    told = yaml.safe_load(answers.read_text()) | {"_src_path": template.as_uri()}
    answers.write_text(yaml.safe_dump(told))
    git("init", "--quiet", cwd=project)
    world = World(template, project, made / ".venv" / "bin" / "python")
    world.commit()
    return world


def tell(tree: Path) -> None:
    """
    Tell of the release.
    """
    (tree / "CHANGELOG.md").write_text(CHANGES)


def change_the_chassis(tree: Path) -> None:
    """
    Change a line of a file of the template, and one of a shared file.
    """
    exits = tree / "template" / "src" / "{{ package_name }}" / "chassis" / "exits.py"
    exits.write_text(exits.read_text() + "# The next version.\n")
    bounds = tree / "template" / "pyproject.toml.jinja"
    bounds.write_text(
        bounds.read_text().replace('"uvicorn>=0.54,<0.55"', '"uvicorn>=0.54,<0.55.1"')
    )


def migrate(tree: Path) -> None:
    """
    Let the update run a script.
    """
    with (tree / "copier.yml").open("a") as file:
        command = '"{{ _copier_python }}", "{{ _copier_conf.src_path }}/hooks/rename.py"'
        command += ', "{{ _version_current }}"'
        file.write(f"\n_migrations:\n- version: '{NEWER}'\n  command: [{command}]\n")
    (tree / "hooks" / "rename.py").write_text(MIGRATION + 'print("It ran.\\nlook at a.py:1: it")\n')


def test_update(world: World, tmp_path: Path) -> None:
    """
    The newest release arrives with a current lock file, uncommitted; the summary begins with what
    people must do, and has nothing of releases that were there. The next one has nothing to do.
    """
    world.release(tell, change_the_chassis)
    summary = tmp_path / "summary.md"

    would = world.update("--dry-run")
    before = git("status", "--porcelain", cwd=world.project)
    ended = world.update("--summary", str(summary))
    changed = git("status", "--porcelain", cwd=world.project).split()[1::2]
    world.commit()
    again = world.update()

    assert (would.returncode, before) == (0, "")
    assert ended.returncode == 0, ended.stderr
    text = summary.read_text()
    assert ended.stdout.strip() == text.strip()
    assert text.startswith(f"Update the template from v{NEXT} to v{NEWER}\n")
    do, _, rest = text.partition("## What changed in the template")
    assert "## For people to do" in do
    assert "the second line, too." in do
    assert "asks nothing" not in do
    assert "asks nothing" in rest
    assert "already has" not in text
    assert "#### Changed\n\n- The drain" in rest
    assert {*changed} == {
        ".copier-answers.yml",
        "pyproject.toml",
        "src/order_desk/chassis/VERSION",
        "src/order_desk/chassis/exits.py",
        "uv.lock",
    }
    subprocess.run(["uv", "lock", "--check", "--quiet"], cwd=world.project, check=True)
    assert (again.returncode, again.stdout) == (0, f"There is nothing newer than v{NEWER}\n")


def is_dirty(world: World) -> None:
    (world.project / "mine.txt").write_text("mine\n")


def has_no_answers(world: World) -> None:
    (world.project / ".copier-answers.yml").unlink()
    world.commit()


def answers_are_no_yaml(world: World) -> None:
    (world.project / ".copier-answers.yml").write_text("_commit: [\n")
    world.commit()


def answer(world: World, **told: str) -> None:
    path = world.project / ".copier-answers.yml"
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | told))
    world.commit()


def has_no_source(world: World) -> None:
    path = world.project / ".copier-answers.yml"
    path.write_text("_commit: v1.0.0\n")
    world.commit()


def tag_is_gone(world: World) -> None:
    git("tag", "--delete", f"v{NEXT}", cwd=world.template)


def template_is_gone(world: World) -> None:
    world.template.rename(world.template.with_name("elsewhere"))


def is_no_repository(world: World) -> None:
    shutil.rmtree(world.project / ".git")


@pytest.mark.parametrize(
    ("break_it", "arguments", "code", "told"),
    [
        (is_dirty, [], 1, "the work tree is not clean: commit"),
        (has_no_answers, [], 78, "there is no .copier-answers.yml"),
        (answers_are_no_yaml, [], 78, "can't be read as YAML"),
        (has_no_source, [], 78, "is no mapping with _src_path"),
        (lambda world: answer(world, _src_path="../template"), [], 78, "whole address"),
        (
            lambda world: answer(world, python_version="3.11"),
            [],
            78,
            "Invalid choice for 'python_version'",
        ),
        (lambda world: answer(world, description='a "quote"'), [], 78, "must not hold double"),
        (tag_is_gone, [], 69, f"has no v{NEXT} any more"),
        (template_is_gone, [], 69, "`git ls-remote` failed"),
        (is_no_repository, [], 69, "not a git repository"),
        (
            lambda _: None,
            ["--to", "v98.0.0"],
            64,
            f"has no release 'v98.0.0'; the newest is v{NEWER}",
        ),
        (lambda _: None, ["--to", "v0.1.0"], 64, "to go back, git revert the update"),
        (lambda _: None, ["--too", "v0.1.0"], 64, "unrecognized arguments"),
    ],
    ids=lambda each: getattr(each, "__name__", str(each)),
)
def test_refused(
    world: World, break_it: Callable[[World], None], arguments: list[str], code: int, told: str
) -> None:
    """
    Bad input is one sentence and an exit code, and changes nothing.
    """
    world.release(tell, change_the_chassis)
    break_it(world)
    before = world.state()

    ended = world.update(*arguments)

    assert (ended.returncode, ended.stdout) == (code, ""), ended.stderr
    assert told in ended.stderr
    assert len(ended.stderr.splitlines()) <= (2 if code == 64 else 1)
    assert world.state() == before


def test_migration_needs_trust(world: World) -> None:
    """
    An update that runs something of the template's says what, and runs it only when trusted; then
    it tells what that leaves to people.
    """
    world.release(tell, change_the_chassis, migrate)
    before = world.state()

    refused = world.update()
    after = world.state()
    trusted = world.update("--trust")

    assert refused.returncode == 77
    assert f"the migration to {NEWER}" in refused.stderr
    assert "`hooks/rename.py` (Rename what was renamed.)" in refused.stderr
    assert "Read what it does (`hooks/README.md`), then add --trust" in refused.stderr
    assert "{{" not in refused.stderr + trusted.stdout
    assert after == before
    assert trusted.returncode == 2, trusted.stderr
    assert "## For people to decide\n\n- look at a.py:1: it\n" in trusted.stdout
    assert "## Run on the way" in trusted.stdout


ADDRESSES = {
    "https://git.example.com/acme/template.git": "https://git.example.com/acme/template/blob",
    "https://user:hidden@git.example.com/acme/template.git": (
        "https://git.example.com/acme/template/blob"
    ),
    "ssh://git@git.example.com/acme/template.git": "https://git.example.com/acme/template/blob",
    "git@git.example.com:acme/template.git": "https://git.example.com/acme/template/blob",
    "gh:acme/template": "https://github.com/acme/template/blob",
}


@pytest.mark.parametrize("address", ADDRESSES)
def test_links_lead_to_the_template(world: World, tmp_path: Path, address: str) -> None:
    """
    The summary is read in a change request of the service, so its links are whole addresses of the
    template's pages at that release, and no password of the address is in them.
    """
    world.release(tell, change_the_chassis)
    answer(world, _src_path=address)
    config = tmp_path / "gitconfig"
    source = address.replace("gh:", "https://github.com/")
    config.write_text(f'[url "{world.template.as_uri()}"]\n insteadOf = {source}\n')

    ended = world.update("--dry-run", GIT_CONFIG_GLOBAL=str(config))

    assert ended.returncode == 0, ended.stderr
    pages = f"{ADDRESSES[address]}/v{NEWER}"
    assert f"[what runs]({pages}/hooks/README.md)" in ended.stdout
    assert f"[elsewhere]({pages}/CHANGELOG.md#old)" in ended.stdout
    assert "[How](https://example.com/a)" in ended.stdout
    assert "hidden" not in ended.stdout


def lengthen(tree: Path) -> None:
    """
    Let the update run a script that makes a line of the team's too long.
    """
    migrate(tree)
    write = f"Path('src/order_desk/mine.py').write_text({LONG!r})"
    script = f"from pathlib import Path\n{write}\n"
    (tree / "hooks" / "rename.py").write_text(MIGRATION + script)


LONG = f"NAMES = dict.fromkeys(({', '.join(repr('x' * 20) for _ in range(4))}), 'and something')\n"


def test_lines_are_formatted(world: World) -> None:
    """
    Where the update gave a line of the team another length, the formatter has run over that file.
    """
    mine, other = (world.project / "src" / "order_desk" / name for name in ("mine.py", "b.py"))
    for path in (mine, other):
        path.write_text("A   = 1\n")
    world.commit()
    world.release(tell, lengthen)

    ended = world.update("--trust")

    assert ended.returncode == 0, ended.stderr
    assert max(map(len, mine.read_text().splitlines())) <= 100
    assert other.read_text() == "A   = 1\n"


@pytest.mark.parametrize("is_known", [True, False], ids=["changed", "new"])
def test_lock_file_of_its_own_call(world: World, is_known: bool) -> None:  # noqa: FBT001
    """
    `uv run` locks before it starts this: the lock file that it leaves is no reason to refuse, and
    stays what it is when the update fails.
    """
    lock = world.project / "uv.lock"
    right = lock.read_text()
    lock.write_text(f"# Stale.\n{right}")
    if not is_known:
        lock.unlink()
    world.commit()
    lock.write_text(f"# Of uv run.\n{right}")
    world.release(tell, change_the_chassis)
    before = world.state()

    failed = world.update(PATH=stand_in(world.project.parent / "bin", "exit 1"))
    after = world.state()
    ended = world.update()

    assert failed.returncode == 1
    assert after == before
    assert ended.returncode == 0, ended.stderr
    subprocess.run(["uv", "lock", "--check", "--quiet"], cwd=world.project, check=True)
    assert f"v{NEWER}" in (world.project / ".copier-answers.yml").read_text()


def test_conflict(world: World) -> None:
    """
    Where both sides changed a line, the file is named and the exit code is another.
    """
    bounds = world.project / "pyproject.toml"
    bounds.write_text(bounds.read_text().replace('"uvicorn>=0.54,<0.55"', '"uvicorn>=0.54,<1"'))
    world.commit()
    world.release(tell, change_the_chassis)

    ended = world.update()

    assert ended.returncode == 2, ended.stderr
    assert "- `pyproject.toml` has conflict markers" in ended.stdout
    assert git("diff", "--name-only", "--diff-filter=U", cwd=world.project) == "pyproject.toml"


def test_dependencies_that_contradict(world: World) -> None:
    """
    Where no lock file satisfies the template and the team, uv's reason is told.
    """
    bounds = world.project / "pyproject.toml"
    bounds.write_text(
        bounds.read_text().replace("below.\n]", 'below.\n    "uvicorn==0.53.0",\n]', 1)
    )
    world.commit()
    world.release(tell, change_the_chassis)

    ended = world.update()

    assert ended.returncode == 2, ended.stderr
    assert "`uv lock` failed: " in ended.stdout


STANDIN = """\
#!/bin/sh
echo half > half-written
echo half >> README.md
echo half > src/order_desk/chassis/new.py
git add README.md
rm tests/conftest.py
{end}
"""


def stand_in(folder: Path, end: str) -> str:
    """
    A PATH whose uvx leaves things half done.
    """
    folder.mkdir()
    (folder / "uvx").write_text(STANDIN.format(end=end))
    (folder / "uvx").chmod(0o755)
    return f"{folder}:{os.environ['PATH']}"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda each: each.name)
def test_interrupted(world: World, tmp_path: Path, number: int) -> None:
    """
    Interrupted while copier writes, the project is as it was, and copier is gone.
    """
    world.release(tell)
    (world.project / ".env").write_text("ignored and mine\n")
    before = world.state()
    path = stand_in(tmp_path / "bin", "echo $$ > ../pid; exec sleep 600")

    process = world.start(PATH=path)
    wait_until((tmp_path / "pid").exists)
    wait_until(lambda: (tmp_path / "pid").read_text().endswith("\n"))
    process.send_signal(number)
    _, err = process.communicate(timeout=20)

    assert process.returncode == 1
    assert err == "python -m ops update: it was ended before it was done; nothing was changed\n"
    assert world.state() == before
    assert not Path("/proc", (tmp_path / "pid").read_text().strip()).exists()


def test_copier_fails(world: World, tmp_path: Path) -> None:
    """
    What copier left when it failed is taken back, and its last line told.
    """
    world.release(tell)
    before = world.state()

    ended = world.update(PATH=stand_in(tmp_path / "bin", 'echo "No space left" >&2; exit 1'))

    assert ended.returncode == 1
    assert "nothing was changed: No space left" in ended.stderr
    assert world.state() == before


def test_killed(world: World, tmp_path: Path) -> None:
    """
    After SIGKILL the next one refuses, and says the way back.
    """
    world.release(tell)
    before = world.state()
    path = stand_in(tmp_path / "bin", "echo done > ../written; kill -9 $PPID")

    killed = world.update(PATH=path)
    refused = world.update()
    back = refused.stderr.partition("go back: ")[2]
    subprocess.run(["bash", "-c", back], cwd=world.project, check=True)

    assert killed.returncode == -signal.SIGKILL
    assert refused.returncode == 1
    assert world.state() == before


def test_no_copier(world: World, tmp_path: Path) -> None:
    """
    Without uvx it says so.
    """
    world.release(tell)
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "git").symlink_to(str(shutil.which("git")))
    before = world.state()

    ended = world.update(PATH=str(folder))

    assert ended.returncode == 69
    assert "uvx can't be run" in ended.stderr
    assert world.state() == before
