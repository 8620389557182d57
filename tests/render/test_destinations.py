"""
`copier copy` into strange places, and from strange files of answers: a service that works, or a
refusal that leaves nothing behind.
"""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from releases import NEXT, git
from selection import others_nightly

pytestmark = pytest.mark.covers(
    "copier.yml",
    "questions/*",
)

COPIER = Path(sys.executable).parent / "copier"
ANSWERS = ".copier-answers.yml"


def copy(
    repository: Path, folder: Path | str, *told: str | Path, cwd: Path
) -> subprocess.CompletedProcess[str]:
    """
    The command, as a person calls it, at no terminal.
    """
    command = [COPIER, "copy", "--defaults", "--vcs-ref", f"v{NEXT}", *told]
    return subprocess.run(
        [*command, repository.as_uri(), folder],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )


def tree(folder: Path) -> dict[str, bytes]:
    """
    What is in a folder, without git's own.
    """
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else b""
        for path in folder.rglob("*")
        if ".git" not in path.relative_to(folder).parts
    }


def place(folder: Path, kind: str) -> Path:
    """
    A destination into which nothing can be written.
    """
    (folder / "file").write_text("mine\n")
    (folder / "dangling").symlink_to("nowhere")
    if kind == "nobody's":
        # Also for root, who may write into every folder of a disk.
        return Path("/proc/order-desk" if Path("/proc/self").exists() else "/dev/null/order-desk")
    return folder / kind


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ("file", "NotADirectoryError"),
        ("file/order-desk", "NotADirectoryError"),
        ("dangling", "FileExistsError"),
        ("nobody's", "Error"),
    ],
)
def test_no_place(repository: Path, tmp_path: Path, kind: str, told: str) -> None:
    """
    Where nothing can be written, the last line says why and which path, and all is as it was.
    """
    there = place(tmp_path, kind)
    before = tree(tmp_path)

    ended = copy(repository, there, cwd=tmp_path)

    assert ended.returncode == 1
    last = ended.stderr.rstrip().splitlines()[-1]
    assert told in last
    assert str(there) in last
    assert tree(tmp_path) == before


@pytest.mark.parametrize(
    "name",
    others_nightly(["$HOME `id`", "two words", "it's", '"q"', "ünï🌴", "-x", "{{ 7*7 }}"], 2),
)
def test_names_of_folders(repository: Path, tmp_path: Path, name: str) -> None:
    """
    A folder may have any name: the service is there, and the line that is to be pasted leads to it.
    """
    ended = copy(repository, tmp_path / name, cwd=tmp_path)

    assert ended.returncode == 0, ended.stderr
    line = next(line for line in ended.stderr.splitlines() if line.startswith("    cd "))
    there = subprocess.run(
        ["bash", "-c", f"{line} && pwd"], capture_output=True, text=True, check=True, cwd="/"
    )
    assert Path(there.stdout.rstrip("\n")) == tmp_path / name
    assert shlex.split(line)[1] == str(tmp_path / name)
    assert (tmp_path / name / ANSWERS).is_file()


def test_link(repository: Path, tmp_path: Path) -> None:
    """
    A link to a folder stays one, and the service is in that folder.
    """
    (tmp_path / "real").mkdir()
    (tmp_path / "order-desk").symlink_to("real")

    ended = copy(repository, tmp_path / "order-desk", cwd=tmp_path)

    assert ended.returncode == 0, ended.stderr
    assert (tmp_path / "order-desk").is_symlink()
    assert (tmp_path / "real" / ANSWERS).is_file()


def test_inside_another_repository(repository: Path, tmp_path: Path) -> None:
    """
    In another repository the service is a new folder; nothing else is touched, also where there is
    work that is not committed.
    """
    git("init", "--quiet", cwd=tmp_path)
    for name in ("committed", "staged", "changed"):
        (tmp_path / name).write_text("mine\n")
        if name != "staged":
            git("add", name, cwd=tmp_path)
            git("commit", "--quiet", "--message", name, cwd=tmp_path)
    git("add", "staged", cwd=tmp_path)
    (tmp_path / "changed").write_text("more\n")
    before = git("status", "--short", cwd=tmp_path)
    index = git("ls-files", "--stage", cwd=tmp_path)

    ended = copy(repository, tmp_path / "order-desk", cwd=tmp_path)

    assert ended.returncode == 0, ended.stderr
    assert git("status", "--short", cwd=tmp_path) == f"{before}\n?? order-desk/"
    assert git("ls-files", "--stage", cwd=tmp_path) == index
    assert not (tmp_path / "order-desk" / ".git").exists()


DATA = {
    "a: [": "line 1, column",
    "- a": "object has no attribute 'items'",
    "": "object has no attribute 'items'",
    'owner: !!python/object/apply:os.mkdir ["pwned"]': "could not determine a constructor",
    "owner: [a]": "Could not convert ['a'] to string",
    "owner: '{{ 7*7 }}'": "owner must be",
    "service_name: on": "service_name must be",
    "python_version: 3.10": "Invalid choice for 'python_version'",
    "processes: web": "Not a YAML list: 'web'",
    "description: &a [*a]": "Could not convert",
    "package_name: ../../out": "package_name must not be given",
    "package_name: other": "package_name must not be given",
    "job_name: ../out": "job_name must not be given",
    "with_database: ../out": "with_database must not be given",
    "without_database: /tmp": "without_database must not be given",
    "with_web: ../out": "with_web must not be given",
    "without_web: /tmp": "without_web must not be given",
    "job_alone: ../out": "job_alone must not be given",
    "not_job_alone: /tmp": "not_job_alone must not be given",
}


@pytest.mark.parametrize("text", others_nightly(DATA, 6))
def test_hostile_data(repository: Path, tmp_path: Path, text: str) -> None:
    """
    A file of wrong answers is refused with what is wrong; nothing in it is run, nothing is written.
    """
    (tmp_path / "data.yml").write_text(text)
    before = tree(tmp_path)

    ended = copy(
        repository, tmp_path / "order-desk", "--data-file", tmp_path / "data.yml", cwd=tmp_path
    )

    assert ended.returncode == 1
    assert DATA[text] in ended.stderr
    assert tree(tmp_path) == before


def test_some_data(repository: Path, tmp_path: Path) -> None:
    """
    Answers that are given count, the others are the defaults, what copier records for itself is
    ignored, and text is no template.
    """
    text = "description: '{{ 7*7 }}'\nprocesses: [job]\n_src_path: /evil\n_commit: v1\n"
    (tmp_path / "data.yml").write_text(text)

    ended = copy(
        repository,
        tmp_path / "order-desk",
        *("--data-file", tmp_path / "data.yml", "--data", "owner=acme/payments_2"),
        cwd=tmp_path,
    )

    assert ended.returncode == 0, ended.stderr
    answers = yaml.safe_load((tmp_path / "order-desk" / ANSWERS).read_text())
    assert answers["description"] == "{{ 7*7 }}"
    assert (answers["processes"], answers["owner"]) == (["job"], "acme/payments_2")
    assert (answers["_src_path"], answers["_commit"]) == (repository.as_uri(), f"v{NEXT}")
    assert answers["python_version"] == "3.13"
    assert os.access(tmp_path / "order-desk" / ".ci" / "run", os.X_OK)


@pytest.mark.parametrize("given", ["--data", "--data-file"])
@pytest.mark.parametrize("command", ["copy", "update"])
def test_typo_is_refused(repository: Path, tmp_path: Path, command: str, given: str) -> None:
    """
    A name that no question has is refused, also without a terminal and with `--quiet`, and nothing
    is written: the copy or the update is as if it had not begun.
    """
    folder = tmp_path / "order-desk"
    (tmp_path / "acme.yml").write_text("owner: payments\ndeploi: [kubernetes]\nproceses: [job]\n")
    told = {
        "--data": ("--data", "deploi=[kubernetes]", "--data", "proceses=[job]"),
        "--data-file": ("--data-file", str(tmp_path / "acme.yml")),
    }[given]
    if command == "update":
        copy(repository, folder, cwd=tmp_path)
        git("init", "--quiet", cwd=folder)
        git("add", "--all", cwd=folder)
        git("commit", "--quiet", "--message", "mine", cwd=folder)

    if command == "copy":
        ended = copy(repository, folder, "--quiet", *told, cwd=tmp_path)
    else:
        ended = subprocess.run(
            [COPIER, "update", "--defaults", "--quiet", *told],
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
        )

    assert ended.returncode == 1
    said = ended.stderr.splitlines()[-1]
    assert "deploi, proceses: not a question of this template" in said
    assert "owner" not in said
    if command == "copy":
        assert not folder.exists()
    else:
        assert git("status", "--porcelain", cwd=folder) == ""


def test_recorded_answers_of_another_release_are_taken(repository: Path, tmp_path: Path) -> None:
    """
    A line that somebody added to the recorded answers, or a question that another release had, is
    no obstacle to an update.
    """
    folder = tmp_path / "order-desk"
    copy(repository, folder, cwd=tmp_path)
    answers = folder / ANSWERS
    answers.write_text(answers.read_text() + "retired: yes\n")
    git("init", "--quiet", cwd=folder)
    git("add", "--all", cwd=folder)
    git("commit", "--quiet", "--message", "mine", cwd=folder)

    ended = subprocess.run(
        [COPIER, "update", "--defaults", "--quiet", "--data", "owner=payments"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )

    assert ended.returncode == 0, ended.stderr
    assert yaml.safe_load(answers.read_text())["owner"] == "payments"
