"""
What hooks/rename_settings.py does with the files of a project.
"""

import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import pytest
from harness import ROOT
from releases import git

SCRIPT = ROOT / "hooks" / "rename_settings.py"
VERSION = "0.3.0"
ELSE = "it may be something else's; where it is the setting, it is "
BOTH = "is in this file, too: one of the two is to go"
PARTS = "may be built from it"
Run = Callable[..., str]
IDENTITY = {
    f"GIT_{who}_{what}": "test@example.com"
    for who in ("AUTHOR", "COMMITTER")
    for what in ("NAME", "EMAIL")
}

# Path, text, text afterwards, and what is told of lines that stay.
CASES: dict[str, tuple[str, str, str, list[str]]] = {
    "environment file": (
        ".env.example",
        "# APP_DB_LOCK_SECONDS=1\nexport APP_DB_CONNECT_SECONDS=2 # not APP_PORT\n",
        "# APP_DATABASE_LOCK_SECONDS=1\nexport APP_DATABASE_CONNECT_SECONDS=2 # not APP_PORT\n",
        [],
    ),
    "YAML": (
        "compose.yaml",
        'web:\n  APP_DB_LOCK_SECONDS: "1"\n  x: ${APP_DB_LOCK_SECONDS:-1}\n',
        'web:\n  APP_DATABASE_LOCK_SECONDS: "1"\n  x: ${APP_DATABASE_LOCK_SECONDS:-1}\n',
        [],
    ),
    "both names": (
        "overlay.yaml",
        "- APP_DB_LOCK_SECONDS=1\n- APP_DATABASE_LOCK_SECONDS=1\n- APP_DB_PORT=1\n",
        "- APP_DB_LOCK_SECONDS=1\n- APP_DATABASE_LOCK_SECONDS=1\n- APP_DB_PORT=1\n",
        [f"1: APP_DB_LOCK_SECONDS: APP_DATABASE_LOCK_SECONDS {BOTH}"],
    ),
    "the new one in a comment": (
        ".env.example",
        "# APP_DATABASE_LOCK_SECONDS=1\n# Yours below.\nAPP_DB_LOCK_SECONDS=2\n",
        "# APP_DATABASE_LOCK_SECONDS=1\n# Yours below.\nAPP_DATABASE_LOCK_SECONDS=2\n",
        [],
    ),
    "what only looks like it": (
        "README.md",
        "MY_APP_DB_LOCK_SECONDS app_db_lock_seconds db_lock_seconds_total APP_DB_LOCK_SECONDSX\n",
        "MY_APP_DB_LOCK_SECONDS app_db_lock_seconds db_lock_seconds_total APP_DB_LOCK_SECONDSX\n",
        [
            f"1: {name}: it looks like db_lock_seconds"
            for name in (
                "MY_APP_DB_LOCK_SECONDS",
                "app_db_lock_seconds",
                "db_lock_seconds_total",
                "APP_DB_LOCK_SECONDSX",
            )
        ],
    ),
    "own settings": (
        "README.md",
        "APP_DB_SHARDS APP_DATABASE_URL db_session my_db_\n",
        "APP_DB_SHARDS APP_DATABASE_URL db_session my_db_\n",
        [],
    ),
    "parts": (
        "run.sh",
        'name="APP_DB_${1}_SECONDS"\nenv | grep APP_DB_\necho APP_${part}\n',
        'name="APP_DB_${1}_SECONDS"\nenv | grep APP_DB_\necho APP_${part}\n',
        [f"{n}: APP_DB_: a name such as APP_DB_CLIENT_CHECK_SECONDS {PARTS}" for n in (1, 2)],
    ),
    "prose": (
        "README.md",
        "`settings.db_lock_seconds` and `db_lock_seconds`\n",
        "`settings.database_lock_seconds` and `db_lock_seconds`\n",
        [f"1: db_lock_seconds: {ELSE}database_lock_seconds"],
    ),
    "the past": (
        "ops/postmortems/2026-01-01.md",
        "We raised APP_DB_LOCK_SECONDS.\n",
        "We raised APP_DB_LOCK_SECONDS.\n",
        ["1: APP_DB_LOCK_SECONDS: it tells of the past"],
    ),
    "the table of the chassis": (
        "src/orders/chassis/rules.py",
        'RENAMED = {\n    "db_lock_seconds": ("database_lock_seconds", "0.3.0"),\n}\n',
        'RENAMED = {\n    "db_lock_seconds": ("database_lock_seconds", "0.3.0"),\n}\n',
        [],
    ),
    "attributes": (
        "a.py",
        (
            "é = settings.db_lock_seconds + a.settings.db_lock_seconds # settings.db_lock_seconds\n"
            "x = Settings().db_lock_seconds + app_settings.db_lock_seconds\n"
            "y = pool.db_lock_seconds\n"
        ),
        (
            "é = settings.database_lock_seconds + a.settings.database_lock_seconds"
            " # settings.database_lock_seconds\n"
            "x = Settings().database_lock_seconds + app_settings.database_lock_seconds\n"
            "y = pool.db_lock_seconds\n"
        ),
        [f"3: db_lock_seconds: {ELSE}database_lock_seconds"],
    ),
    "by its type": (
        "a.py",
        "def f(c: Settings | None, d: Pool):\n    return c.db_lock_seconds, d.db_lock_seconds\n",
        (
            "def f(c: Settings | None, d: Pool):\n"
            "    return c.database_lock_seconds, d.db_lock_seconds\n"
        ),
        [f"2: db_lock_seconds: {ELSE}database_lock_seconds"],
    ),
    "arguments": (
        "a.py",
        (
            "a = Settings(db_lock_seconds=db_lock_seconds)\n"
            "b = a_settings.model_copy(update={'db_lock_seconds': 1})\n"
            "c = getattr(settings, 'db_lock_seconds')\n"
            "d = Histogram('db_lock_seconds', 'Waited')\n"
            "e = start(db_lock_seconds=1)\n"
        ),
        (
            "a = Settings(database_lock_seconds=db_lock_seconds)\n"
            "b = a_settings.model_copy(update={'database_lock_seconds': 1})\n"
            "c = getattr(settings, 'database_lock_seconds')\n"
            "d = Histogram('db_lock_seconds', 'Waited')\n"
            "e = start(db_lock_seconds=1)\n"
        ),
        [f"{n}: db_lock_seconds: {ELSE}database_lock_seconds" for n in (1, 4, 5)],
    ),
    "what is passed on": (
        "a.py",
        (
            "def f(settings):\n"
            "    limits = dict.fromkeys(('db_lock_seconds',), 1) | dict(db_connect_seconds=2)\n"
            "    other = 'db_lock_seconds'\n"
            "    return settings.model_copy(update={**limits})\n"
        ),
        (
            "def f(settings):\n"
            "    limits = dict.fromkeys(('database_lock_seconds',), 1)"
            " | dict(database_connect_seconds=2)\n"
            "    other = 'db_lock_seconds'\n"
            "    return settings.model_copy(update={**limits})\n"
        ),
        [f"3: db_lock_seconds: {ELSE}database_lock_seconds"],
    ),
    "a class of settings": (
        "settings.py",
        (
            "class Settings(chassis.Settings):\n"
            "    db_lock_seconds: float = 1\n"
            "    @field_validator('db_lock_seconds')\n"
            "    def f(self): return self.db_lock_seconds\n"
            "class Other:\n"
            "    db_lock_seconds = 1\n"
        ),
        (
            "class Settings(chassis.Settings):\n"
            "    database_lock_seconds: float = 1\n"
            "    @field_validator('database_lock_seconds')\n"
            "    def f(self): return self.database_lock_seconds\n"
            "class Other:\n"
            "    db_lock_seconds = 1\n"
        ),
        [f"6: db_lock_seconds: {ELSE}database_lock_seconds"],
    ),
    "names built in Python": (
        "a.py",
        "a = getattr(settings, f'db_{part}_seconds')\nb = 'db_' 'lock_seconds'\n",
        "a = getattr(settings, f'db_{part}_seconds')\nb = 'db_' 'lock_seconds'\n",
        [f"{n}: db_: a name such as db_client_check_seconds {PARTS}" for n in (1, 2)],
    ),
    "what would not be Python any more": (
        "a.py",
        "a = Settings(db_lock_seconds=1, database_lock_seconds=1)\n",
        "a = Settings(db_lock_seconds=1, database_lock_seconds=1)\n",
        ["1: db_lock_seconds: renamed, the file would not be Python any more"],
    ),
    "what is no Python": (
        "a.py",
        "this is settings.db_lock_seconds\nand pool.db_lock_seconds\n",
        "this is settings.database_lock_seconds\nand pool.db_lock_seconds\n",
        [f"2: db_lock_seconds: {ELSE}database_lock_seconds"],
    ),
}


@pytest.fixture(name="project")
def _project(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    folder.mkdir()
    git("init", "--quiet", cwd=folder)
    return folder


@pytest.fixture(name="run")
def _run(project: Path) -> Run:
    """
    Give the files to git, and run the script in the project.
    """

    def run(*arguments: str, code: int = 0) -> str:
        git("add", "--all", cwd=project)
        return run_in(project, *arguments, code=code).stdout

    return run


def run_in(
    project: Path, *arguments: str | Path, code: int = 0, prefix: tuple[str | Path, ...] = ()
) -> subprocess.CompletedProcess[str]:
    """
    Run the script in a folder, and look at its exit code.
    """
    ended = subprocess.run(
        [*prefix, sys.executable, "-B", SCRIPT, *arguments],
        cwd=project,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == code, ended.stdout + ended.stderr
    return ended


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode())


def looked_at(told: str, path: str) -> list[str]:
    start = f"look at {path}:"
    return [line.removeprefix(start) for line in told.splitlines() if line.startswith(start)]


class Ran(NamedTuple):
    """
    What was told and what the files are after it.
    """

    told: str
    files: Mapping[str, str]


@pytest.fixture(name="ran", scope="module")
def _ran(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Ran]:
    """
    A dry run over all cases, a run, and a second one.
    """
    folder = tmp_path_factory.mktemp("cases")
    git("init", "--quiet", cwd=folder)
    for case, (path, text, _, _) in CASES.items():
        write(folder / case / path, text)
    git("add", "--all", cwd=folder)
    ran = {}
    for name, arguments in {"dry": ["--dry-run"], "first": [], "second": []}.items():
        ended = run_in(folder, *arguments, VERSION, code=2 if arguments else 0)
        files = {case: (folder / case / path).read_text() for case, (path, *_) in CASES.items()}
        ran[name] = Ran(ended.stdout, files)
    return ran


@pytest.mark.parametrize("case", CASES)
def test_renames_what_is_sure(ran: dict[str, Ran], case: str) -> None:
    """
    What certainly is the setting is renamed; everything else that has to do with it is told with
    its line and why, each time.
    """
    path, _, expected, left = CASES[case]

    assert ran["first"].files[case] == expected
    for each in ran.values():
        assert looked_at(each.told, f"{case}/{path}") == left


def test_dry_run(ran: dict[str, Ran]) -> None:
    """
    A dry run changes nothing, and tells what a run does.
    """
    assert ran["dry"].files == {case: text for case, (_, text, _, _) in CASES.items()}
    assert ran["dry"].told.replace("would rename", "renamed") == ran["first"].told
    assert "would rename attributes/a.py:2: db_lock_seconds -> database_lock_seconds\n" in (
        ran["dry"].told
    )


def test_second_run(ran: dict[str, Ran]) -> None:
    """
    A second run changes nothing.
    """
    assert ran["second"].files == ran["first"].files
    assert ": renamed 0 uses of settings of 0.3.0, " in ran["second"].told
    assert ran["second"].told.count("renamed ") == 1


def test_dry_run_with_nothing_to_do(project: Path) -> None:
    """
    Then it exits with 0.
    """
    write(project / "a", "APP_DATABASE_LOCK_SECONDS")
    git("add", "--all", cwd=project)

    assert run_in(project, "--dry-run", VERSION).stdout.startswith("project: would rename 0 uses")


def test_line_ends_modes_and_marks_stay(project: Path, run: Run) -> None:
    """
    Only the name changes: line ends, a byte order mark, a missing last line end and the mode stay.
    """
    script = project / "run.sh"
    script.write_bytes(
        b"\xef\xbb\xbfA=1\r\nexport APP_DB_LOCK_SECONDS=1\rB\n\r\nAPP_DB_LOCK_SECONDS"
    )
    script.chmod(0o751)

    run(VERSION)

    wanted = (
        b"\xef\xbb\xbfA=1\r\nexport APP_DATABASE_LOCK_SECONDS=1\rB\n\r\nAPP_DATABASE_LOCK_SECONDS"
    )
    assert script.read_bytes() == wanted
    assert script.stat().st_mode & 0o7777 == 0o751


def test_what_is_no_text_is_told(project: Path, run: Run) -> None:
    """
    Files that are binary or in another encoding, and names of files, stay and are told.
    """
    content = {
        "latin.txt": "é\nAPP_DB_LOCK_SECONDS".encode("latin-1"),
        "wide.txt": "x\nAPP_DB_LOCK_SECONDS".encode("utf-16-le"),
        "wide-too.txt": "x\nAPP_DB_LOCK_SECONDS".encode("utf-16-be"),
        "picture.png": b"\0\x01\nAPP_DB_LOCK_SECONDS",
    }
    for name, data in content.items():
        (project / name).write_bytes(data)
    write(project / "secrets" / "APP_DB_LOCK_SECONDS", "1")

    told = run(VERSION)

    assert {name: (project / name).read_bytes() for name in content} == content
    for name in content:
        assert looked_at(told, name) == ["2: db_lock_seconds: this file is no text in UTF-8"]
    assert "look at secrets/APP_DB_LOCK_SECONDS: the file's name holds db_lock_seconds" in told


def test_only_what_git_has_is_changed(project: Path, tmp_path: Path) -> None:
    """
    Files that git does not have are told, the developer's .env too, and their values are not;
    links, what is behind them, other folders of a repository and .venv are not looked at.
    """
    text = "APP_DB_LOCK_SECONDS=hidden-value\n"
    outside = tmp_path / "outside"
    places = [outside / "a", project / "b", project / "c" / "d", project / ".venv" / "e"]
    for place in (*places, project / ".env", project / "service" / "f", project / "target"):
        write(place, text)
    write(project / ".gitignore", ".env\n.venv\n")
    (project / "link").symlink_to(outside / "a")
    git("add", "--all", cwd=project)
    (project / "b").unlink()
    (project / "b").symlink_to(outside / "a")
    (project / "c" / "d").unlink()
    (project / "c").rmdir()
    (project / "c").symlink_to(outside)
    git("rm", "--quiet", "--cached", "target", cwd=project)

    ended = run_in(tmp_path, VERSION, project)

    assert (outside / "a").read_text() == text
    assert (project / ".env").read_text() == text == (project / "target").read_text()
    assert (project / "service" / "f").read_text() != text
    assert "hidden-value" not in ended.stdout + ended.stderr
    why = "1: db_lock_seconds: git does not have this file, so nothing here changes it"
    assert looked_at(ended.stdout, ".env") == [why] == looked_at(ended.stdout, "target")
    assert ended.stdout.splitlines()[-1] == (
        f"{project.name}: renamed 1 uses of settings of 0.3.0, 2 left to look at"
    )


def test_part_of_a_repository(project: Path, run: Run) -> None:
    """
    In a repository of several services, only the one whose folder it is.
    """
    for name in ("orders", "billing"):
        write(project / name / "a", "APP_DB_LOCK_SECONDS")

    run(VERSION, "orders")

    assert (project / "orders" / "a").read_text() == "APP_DATABASE_LOCK_SECONDS"
    assert (project / "billing" / "a").read_text() == "APP_DB_LOCK_SECONDS"


def test_conflict_of_the_rename_alone(project: Path) -> None:
    """
    A line that the team changed and the template renamed conflicts; merged again with the new name
    on both sides it does not. A conflict about anything else stays, with the new names.
    """
    base = "a\n# APP_DB_LOCK_SECONDS=1\nb\nc\nd\ne=1\n"
    theirs = "a\n# APP_DATABASE_LOCK_SECONDS=1\nb\nc\nd\ne=2\n"
    ours = "a\nAPP_DB_LOCK_SECONDS=2\nb\nc\nd\ne=1\n"
    conflict(project, base, theirs, clean=ours, other=ours.replace("e=1", "e=3"))

    told = run_in(project, VERSION).stdout

    merged = "a\nAPP_DATABASE_LOCK_SECONDS=2\nb\nc\nd\n"
    assert (project / "clean").read_text() == merged + "e=2\n"
    both = "<<<<<<< before updating\ne=3\n=======\ne=2\n>>>>>>> after updating\n"
    assert (project / "other").read_text() == merged + both
    assert git("ls-files", "--unmerged", "clean", cwd=project) == ""
    assert git("ls-files", "--unmerged", "other", cwd=project) != ""
    assert "renamed clean: merged again" in told


def test_conflict_that_somebody_looked_at(project: Path) -> None:
    """
    What was written into a file with conflicts since the update is not merged away.
    """
    base, theirs = "# APP_DB_LOCK_SECONDS=1\n", "# APP_DATABASE_LOCK_SECONDS=1\n"
    conflict(project, base, theirs, file="APP_DB_LOCK_SECONDS=2\n")
    text = (project / "file").read_text() + "more\n"
    (project / "file").write_text(text)

    run_in(project, VERSION)

    assert (project / "file").read_text().endswith("after updating\nmore\n")


def conflict(project: Path, base: str, theirs: str, **files: str) -> None:
    """
    As copier leaves it: markers in the files, the sides in the index.
    """
    sides = {"base": base, "theirs": theirs} | files
    blobs, lines = {}, []
    for name, text in sides.items():
        write(project.parent / name, text)
        blobs[name] = git("hash-object", "-w", project.parent / name, cwd=project)
    for name, text in files.items():
        write(project / name, text)
        labels = ["-L", "before updating", "-L", "last update", "-L", "after updating"]
        others = [project.parent / side for side in ("base", "theirs")]
        command = [*map(str, ("git", "merge-file", *labels, project / name, *others))]
        subprocess.run(command, check=False)
        for stage, side in enumerate(("base", name, "theirs"), start=1):
            lines.append(f"100644 {blobs[side]} {stage}\t{name}")
    git("add", "--all", cwd=project)
    git("commit", "-qm", "All", cwd=project, **IDENTITY)
    lines += [f"0 {'0' * 40}\t{name}" for name in files]
    command = ["git", "update-index", "--index-info"]
    subprocess.run(command, input="\n".join(sorted(lines)), text=True, cwd=project, check=True)


def test_full_disk(project: Path) -> None:
    """
    A file that can't be written stays as it was, which is told, and the others are renamed.
    """
    long = "APP_DB_LOCK_SECONDS=1\n" * 5000
    write(project / "a", long)
    write(project / "b", "APP_DB_LOCK_SECONDS=1\n")
    git("add", "--all", cwd=project)

    limited = ("bash", "-c", 'ulimit -f 32; exec "$@"', "-")
    ended = run_in(project, VERSION, prefix=limited, code=1)

    assert "rename_settings: a stays as it was: " in ended.stderr
    assert (project / "a").read_text() == long
    assert (project / "b").read_text() == "APP_DATABASE_LOCK_SECONDS=1\n"
    assert {path.name for path in project.iterdir()} == {".git", "a", "b"}


def test_killed_in_the_middle(project: Path, run: Run) -> None:
    """
    Killed while it writes the second file, each is as it was or as it is to be; the next run does
    the rest.
    """
    for name in "abc":
        write(project / name, "APP_DB_LOCK_SECONDS=1\n")
    git("add", "--all", cwd=project)
    killer = (
        "import os, runpy, sys; sync = os.fsync; left = [1]\n"
        "def fsync(file):\n"
        "    left.pop() if left else os.kill(os.getpid(), 9)\n"
        "    sync(file)\n"
        "os.fsync = fsync; sys.path.insert(0, os.path.dirname(sys.argv[1])); sys.argv.pop(0)\n"
        "runpy.run_path(sys.argv[0], run_name='__main__')\n"
    )

    ended = subprocess.run(
        [sys.executable, "-B", "-c", killer, SCRIPT, VERSION], cwd=project, check=False
    )
    texts = {name: (project / name).read_text() for name in "abc"}
    run(VERSION)

    assert ended.returncode == -9
    old, new = "APP_DB_LOCK_SECONDS=1\n", "APP_DATABASE_LOCK_SECONDS=1\n"
    assert texts == {"a": new, "b": old, "c": old}
    assert {(project / name).read_text() for name in "abc"} == {new}


def test_wrong_usage(project: Path, tmp_path: Path) -> None:
    """
    Wrong usage is 64, a folder without git 1, each with a sentence, and nothing is changed.
    """
    write(project / "a", "APP_DB_LOCK_SECONDS")

    for arguments in ([], ["0.2.9"], [VERSION, ".", "more"], ["--now", VERSION]):
        assert "rename_settings: " in run_in(project, *arguments, code=64).stderr
    ended = run_in(project, VERSION, tmp_path, code=1)

    assert "is no work tree of git" in ended.stderr
    assert (project / "a").read_text() == "APP_DB_LOCK_SECONDS"
