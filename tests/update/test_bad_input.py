"""
What goes wrong with `copier update` and `copier copy` as people call them: what is said, and that
the project is as it was. docs/reference/update-errors.md has a row for each, with the way back.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from harness import ROOT
from releases import NEXT, RELEASES, add_release, git
from selection import others_nightly

pytestmark = pytest.mark.covers(
    "copier.yml",
    "docs/reference/update-errors.md",
)

LATER = "99.1.0"
"""The same as what is in the working tree, as one release more: no migration lies between."""

ERRORS = ROOT / "docs" / "reference" / "update-errors.md"
ANSWERS = ".copier-answers.yml"
COPIER = Path(sys.executable).parent / "copier"
MORE = ("--data", "processes=[web,job]", "--data", "database=postgresql")


@pytest.fixture(name="releases", scope="module")
def _releases(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """
    The template with a release after what is in the working tree.
    """
    folder = tmp_path_factory.mktemp("releases") / "fiveweeks.git"
    git("clone", "--quiet", "--bare", "--shared", repository, folder, cwd=ROOT)
    add_release(folder, ROOT, LATER)
    return folder


@pytest.fixture(name="made", scope="module")
def _made(releases: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made") / "order-desk"
    told = ("copy", "--quiet", "--defaults", "--vcs-ref", f"v{NEXT}")
    subprocess.run([COPIER, *told, releases.as_uri(), folder], check=True, stdin=subprocess.DEVNULL)
    git("init", "--quiet", cwd=folder)
    commit(folder, "made")
    return folder


@pytest.fixture(name="service")
def _service(made: Path, tmp_path: Path) -> Path:
    """
    A service that is one release behind; the test may change it.
    """
    return Path(shutil.copytree(made, tmp_path / "order-desk", symlinks=True))


def commit(folder: Path, message: str) -> None:
    git("add", "--all", cwd=folder)
    git("commit", "--quiet", "--allow-empty", "--message", message, cwd=folder)


def run(*arguments: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    """
    The command, at no terminal.
    """
    return subprocess.run(
        [COPIER, *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )


def tree(folder: Path) -> dict[str, tuple[int, bytes]]:
    """
    Each file and link of a folder, without git's own, with its mode and content.
    """
    found = {}
    for path in folder.rglob("*"):
        name = path.relative_to(folder)
        if name.parts[0] == ".git" or (path.is_dir() and not path.is_symlink()):
            continue
        content = str(path.readlink()).encode() if path.is_symlink() else path.read_bytes()
        found[str(name)] = (path.lstat().st_mode, content)
    return found


def state(folder: Path) -> tuple[object, ...]:
    """
    All that a failed command must leave as it was: files, index, branch and what git says.
    """
    if not (folder / ".git").exists():
        return (tree(folder),)
    status = git("status", "--porcelain=v2", "--branch", "--untracked-files=all", cwd=folder)
    return tree(folder), status, git("ls-files", "--stage", cwd=folder)


class Error(NamedTuple):
    """
    What was done to a project, what copier says then, as in the document, and the way back there.
    """

    symptom: str
    broken: Callable[[Path], None]
    mended: Callable[[Path], None]


def rewrite(old: str, new: str) -> Callable[[Path], None]:
    """
    Change the file of answers by hand, and commit it.
    """

    def change(folder: Path) -> None:
        path = folder / ANSWERS
        text = re.sub(old, new, path.read_text(), flags=re.MULTILINE)
        assert text != path.read_text()
        path.write_text(text)
        commit(folder, "by hand")

    return change


def put(text: str | None) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        if text is None:
            (folder / ANSWERS).unlink()
        else:
            (folder / ANSWERS).write_text(text)
        commit(folder, "by hand")

    return change


def restore_answers(folder: Path) -> None:
    """
    The document's way back: the newest version of that file that was right.
    """
    git("checkout", "--quiet", "HEAD~1", "--", ANSWERS, cwd=folder)
    commit(folder, "back")


def conflict(folder: Path) -> None:
    branch = git("branch", "--show-current", cwd=folder)
    git("checkout", "--quiet", "-b", "other", cwd=folder)
    (folder / "README.md").write_text("one\n")
    commit(folder, "one")
    git("checkout", "--quiet", branch, cwd=folder)
    (folder / "README.md").write_text("two\n")
    commit(folder, "two")
    subprocess.run(["git", "merge", "--quiet", "other"], cwd=folder, check=False)


def forget_git(folder: Path) -> None:
    shutil.rmtree(folder / ".git")


def begin_again(folder: Path) -> None:
    forget_git(folder)
    git("init", "--quiet", cwd=folder)


def remember_git(folder: Path) -> None:
    git("init", "--quiet", cwd=folder)
    commit(folder, "again")


def commit_all(folder: Path) -> None:
    commit(folder, "mine")


def edited(folder: Path) -> None:
    (folder / "README.md").write_text("mine\n")


def added(folder: Path) -> None:
    (folder / "mine.txt").write_text("mine\n")


DIRTY = "Destination repository is dirty"
BROKEN = 'copier-answers.yml", line'
ERRORS_OF_UPDATE = {
    "dirty": Error(DIRTY, edited, commit_all),
    "untracked": Error(DIRTY, added, commit_all),
    "merging": Error(DIRTY, conflict, commit_all),
    "no commit": Error(DIRTY, begin_again, commit_all),
    "no repository": Error("Updating is only supported in git-tracked", forget_git, remember_git),
    "no answers": Error("Template not found", put(None), restore_answers),
    "no source": Error("Template not found", rewrite("^_src_path.*\n", ""), restore_answers),
    "no version": Error("cannot obtain old template", rewrite("^_commit.*\n", ""), restore_answers),
    "no yaml": Error(BROKEN, put("a: [\n"), restore_answers),
    "markers": Error(
        BROKEN,
        rewrite("^owner.*", "<<<<<<< HEAD\nowner: a\n=======\nowner: b\n>>>>>>> other"),
        restore_answers,
    ),
    "a list": Error("object has no attribute 'items'", put("- a\n"), restore_answers),
    "empty": Error("object has no attribute 'items'", put(""), restore_answers),
    "deleted tag": Error(
        "invalid reference",
        rewrite("^_commit.*", "_commit: v98.0.0"),
        rewrite("^_commit.*", f"_commit: v{NEXT}"),
    ),
    "unreachable": Error(
        "Could not read from remote repository",
        rewrite("^_src_path.*", "_src_path: file:///nowhere/fiveweeks.git"),
        restore_answers,
    ),
    "relative": Error(
        "Local template must be a directory",
        rewrite("^_src_path.*", "_src_path: ../nowhere"),
        restore_answers,
    ),
    "choice": Error(
        "Invalid choice for",
        rewrite("^python_version.*", "python_version: '3.11'"),
        rewrite("^python_version.*", "python_version: '3.12'"),
    ),
    "rule": Error(
        "Validation error for question",
        rewrite("^service_name.*", "service_name: json"),
        restore_answers,
    ),
    "worker": Error(
        "Validation error for question",
        rewrite("^- web", "- worker"),
        rewrite("^database.*", "database: postgresql"),
    ),
}


@pytest.mark.parametrize("name", others_nightly(ERRORS_OF_UPDATE, 4))
def test_refused(service: Path, name: str) -> None:
    """
    An update that can't be is refused with 1 and a sentence, and the project is as it was.
    """
    error = ERRORS_OF_UPDATE[name]
    error.broken(service)
    before = state(service)

    ended = run("update", "--defaults", cwd=service)

    assert ended.returncode == 1, ended.stderr
    assert error.symptom in ended.stderr
    assert state(service) == before


@pytest.mark.parametrize("name", others_nightly(ERRORS_OF_UPDATE))
def test_way_back(service: Path, name: str) -> None:
    """
    After what the document says to do, the same command updates.
    """
    ERRORS_OF_UPDATE[name].broken(service)
    ERRORS_OF_UPDATE[name].mended(service)

    ended = run("update", "--defaults", cwd=service)

    assert ended.returncode == 0, ended.stderr
    assert yaml.safe_load((service / ANSWERS).read_text())["_commit"] == f"v{LATER}"


def test_errors_are_documented() -> None:
    """
    Each row of the document is of an error that is tried here, and each of these has a row.
    """
    rows = re.findall(r"^\| `(.+?)` \|", ERRORS.read_text(), re.MULTILINE)
    tried = {error.symptom for error in ERRORS_OF_UPDATE.values()}

    assert len(rows) == len({*rows})
    assert {row for row in rows if not row.startswith("--data")} == tried | {"downgrading"}


def test_downgrade(service: Path, releases: Path) -> None:
    """
    There is no way to an earlier version but git's, and copier says so.
    """
    assert git("tag", "--list", f"v{LATER}", cwd=releases)
    before = state(service)

    ended = run("update", "--defaults", "--vcs-ref", f"v{next(iter(RELEASES))}", cwd=service)

    assert ended.returncode == 1
    assert "downgrading" in ended.stderr
    assert state(service) == before


def test_rules_never_get_stricter(repository: Path) -> None:
    """
    What a release took as an answer is taken by the next: copier would silently put the default in
    its place.
    """
    now = yaml.safe_load((ROOT / "copier.yml").read_text())
    for version in RELEASES:
        then = yaml.safe_load(git("show", f"v{version}:copier.yml", cwd=repository))
        for name, question in then.items():
            if name.startswith("_") or not question.get("choices"):
                continue
            assert choices(question) <= choices(now[name]), (version, name)


def choices(question: dict[str, Any]) -> set[str]:
    found = question["choices"]
    return {*(found.values() if isinstance(found, dict) else found)}


@pytest.mark.nightly
def test_vanished_choice(service: Path, releases: Path, tmp_path: Path) -> None:
    """
    Where a template takes a choice away, copier puts the default in its place and says nothing:
    only the difference shows it. This is why ours never does.
    """
    there = tmp_path / "fiveweeks.git"
    git("clone", "--quiet", "--bare", "--shared", releases, there, cwd=tmp_path)
    stricter = tmp_path / "stricter"
    git("clone", "--quiet", there, stricter, cwd=tmp_path)
    config = stricter / "copier.yml"
    config.write_text(config.read_text().replace('["3.12", ', "["))
    shutil.rmtree(stricter / ".git")
    add_release(there, stricter, "99.2.0")
    rewrite("^python_version.*", "python_version: '3.12'")(service)
    rewrite("^_src_path.*", f"_src_path: {there.as_uri()}")(service)

    ended = run("update", "--defaults", cwd=service)

    assert ended.returncode == 0, ended.stderr
    assert "3.12" not in ended.stderr
    assert "+python_version: '3.13'" in git("diff", ANSWERS, cwd=service)


def is_asked(_: Path, temporary: Path) -> bool:
    return any(temporary.glob("copier._vcs.clone.*"))


def is_compared(_: Path, temporary: Path) -> bool:
    return any(temporary.glob("copier._main.old_copy.*"))


def is_begun(service: Path, _: Path) -> bool:
    return (service / "src" / "order_desk" / "chassis" / "job.py").exists()


def is_recorded(service: Path, _: Path) -> bool:
    return "postgresql" in (service / ANSWERS).read_text()


MOMENTS = [
    (sent, moment)
    for moment in (is_asked, is_compared, is_begun, is_recorded)
    for sent in (signal.SIGINT, signal.SIGKILL)
]


@pytest.mark.parametrize(
    ("sent", "moment"),
    others_nightly(MOMENTS, arguments=2),
    ids=lambda value: value.name if isinstance(value, signal.Signals) else value.__name__,
)
def test_interrupted(
    service: Path,
    tmp_path: Path,
    sent: signal.Signals,
    moment: Callable[[Path, Path], bool],
) -> None:
    """
    Whenever an update is interrupted: what was committed, and what git ignores, is as it was after
    the two commands of the document, and the next update succeeds.
    """
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    (service / ".env").write_text("APP_MINE=1\n")
    before = state(service)
    with subprocess.Popen(
        [COPIER, "update", "--defaults", *MORE],
        cwd=service,
        env=os.environ | {"TMPDIR": str(temporary)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as process:
        deadline = time.monotonic() + 60
        while not moment(service, temporary):
            assert time.monotonic() < deadline
            assert process.poll() is None, "it ended before that moment"
        # As Ctrl-C and a power cut do: git, which it started, gets it, too.
        os.killpg(process.pid, sent)
        code = process.wait(60)

    # Python drops a KeyboardInterrupt that comes in a finalizer: copier then goes on to its end.
    assert code != 0 or sent is signal.SIGINT
    if code != 0 and moment in {is_asked, is_compared}:
        assert tree(service) == before[0]
    (service / ".git" / "index.lock").unlink(missing_ok=True)
    for line in ("git reset --quiet --hard", "git clean --quiet --force -d"):
        subprocess.run(line.split(), cwd=service, check=True)
    assert state(service) == before
    ended = run("update", "--defaults", *MORE, cwd=service)
    assert ended.returncode == 0, ended.stderr
    assert is_begun(service, temporary)
