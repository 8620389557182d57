"""
Updates that cross a migration, forward from each release before it.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import copier
import pytest
from copier.errors import UnsafeTemplateError
from harness import ROOT, clean, wait_until
from releases import NEXT, RELEASES, add_release, crosses_migration, git, make_repository
from selection import IS_NIGHTLY, others_nightly

pytestmark = pytest.mark.covers(
    "copier.yml",
    "hooks/*",
)

ANSWERS = {
    "database": "postgresql",
    "processes": ["web", "worker", "job"],
    "deploy": ["compose", "kubernetes"],
}
BEFORE = [version for version in RELEASES if crosses_migration(version, NEXT)]
OLD = re.compile(
    r"db_(connect|statement|lock|idle_in_transaction|client_check)_seconds", re.IGNORECASE
)
UNIT = '''"""
What our reports need.
"""

from collections.abc import Callable
from typing import Any

from .settings import Settings


class Pool:
    """
    Not a setting.
    """

    db_lock_seconds = 1.0


def patient(settings: Settings, count: Callable[..., Any], pool: Pool) -> Settings:
    """
    As long as they may.
    """
    count("db_lock_seconds", pool.db_lock_seconds)
    limits = {"db_statement_seconds": settings.db_statement_seconds * 2}
    return settings.model_copy(update=limits)
'''
VALIDATOR = '''
    @field_validator("db_lock_seconds")
    @classmethod
    def _whole(cls, seconds: float) -> float:
        """
        Tenths are enough.
        """
        return round(seconds, 1)
'''
UNIT_TEST = '''"""
Our reports.
"""

from order_desk.reports import Pool, patient
from order_desk.settings import Settings


def test_patient() -> None:
    """
    Twice the time.
    """
    settings = Settings(db_lock_seconds=0.2, db_statement_seconds=1.5)
    settings = patient(settings, print, Pool())
    assert settings.db_statement_seconds == 3
    assert settings.model_dump()["db_lock_seconds"] == 0.2
'''


def replace(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert text.count(old) == 1, (path, old)
    path.write_text(text.replace(old, new))


def append(path: Path, text: str) -> None:
    with path.open("a") as file:
        file.write(text)


def use_old_names(project: Path) -> None:
    """
    As a team does that sets limits of the database wherever it can.
    """
    package = project / "src" / "order_desk"
    example = project / ".env.example"
    append(example, "APP_DB_STATEMENT_SECONDS=4\nAPP_DB_LOCK_SECONDS=0.5\n")
    (project / ".env").write_text("APP_DB_CONNECT_SECONDS=2\n")
    (project / "compose.override.yaml").write_text(
        'services:\n  web:\n    environment:\n      APP_DB_STATEMENT_SECONDS: "4"\n'
    )
    overlay = project / "deploy" / "kubernetes" / "overlays" / "production"
    replace(
        overlay / "kustomization.yaml",
        "      - APP_ENVIRONMENT=production\n",
        "      - APP_ENVIRONMENT=production\n      - APP_DB_CLIENT_CHECK_SECONDS=1\n",
    )
    append(package / "settings.py", VALIDATOR)
    replace(package / "settings.py", "Field, HttpUrl\n", "Field, HttpUrl, field_validator\n")
    # A fix of the team within a file that is the template's, on a line that the release changes.
    replace(package / "chassis" / "database.py", "+ SLACK_SECONDS,", "+ 2 * SLACK_SECONDS,")
    (package / "reports.py").write_text(UNIT)
    (project / "tests" / "test_reports.py").write_text(UNIT_TEST)
    append(project / "README.md", "\nWe set `APP_DB_STATEMENT_SECONDS` to 4.\n")
    replace(project / ".ci" / "steps", "    test) ;;", "    test) APP_DB_LOCK_SECONDS=1 true ;;")
    (project / "notes.txt").write_bytes("größer: APP_DB_LOCK_SECONDS\n".encode("latin-1"))


@pytest.fixture(name="edited", params=others_nightly(BEFORE[::-1]), scope="module")
def _edited(
    request: pytest.FixtureRequest, repository: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """
    A project of a release before the migration, with old names everywhere.
    """
    folder = tmp_path_factory.mktemp("edited") / "order-desk"
    told: dict[str, Any] = {"defaults": True, "quiet": True, "vcs_ref": f"v{request.param}"}
    copier.run_copy(repository.as_uri(), folder, data=ANSWERS, **told)
    use_old_names(folder)
    git("init", "--quiet", cwd=folder)
    git("add", "--all", cwd=folder)
    git("commit", "--quiet", "--message", "edited", cwd=folder)
    return folder


def files(project: Path) -> dict[str, bytes]:
    """
    Everything that is no repository, environment or cache.
    """
    ignored = {".git", ".venv", "__pycache__"}
    return {
        str(path.relative_to(project)): path.read_bytes()
        for path in project.rglob("*")
        if path.is_file() and not ignored & {*path.relative_to(project).parts}
    }


def rename(project: Path, *arguments: str) -> tuple[int, str]:
    """
    Run the script by hand.
    """
    ended = subprocess.run(
        [sys.executable, "-B", ROOT / "hooks" / "rename_settings.py", *arguments, "0.3.0", project],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.stderr == ""
    return ended.returncode, ended.stdout


def test_without_trust(edited: Path) -> None:
    """
    Without trust the update is refused, and the project is as it was; the dry run tells what would
    be done, and changes nothing either.
    """
    before = files(edited)

    with pytest.raises(UnsafeTemplateError, match="migrations"):
        copier.run_update(edited, defaults=True, quiet=True, overwrite=True)
    code, told = rename(edited, "--dry-run")

    assert files(edited) == before
    assert git("status", "--porcelain", cwd=edited) == ""
    assert code == 2
    assert "would rename compose.override.yaml:4: APP_DB_STATEMENT_SECONDS -> " in told


def test_with_trust(
    edited: Path, capfd: pytest.CaptureFixture[str], uv: Callable[..., Any], tmp_path: Path
) -> None:
    """
    With trust, no old name is left but what is told with its file and line; nothing conflicts, the
    project's own tests of its configuration and of the team's code pass, and what it is configured
    to is what it was. A second run changes nothing.
    """
    project = Path(shutil.copytree(edited, tmp_path / "order-desk", symlinks=True))

    copier.run_update(project, defaults=True, quiet=True, overwrite=True, unsafe=True)

    told = capfd.readouterr().out
    after = files(project)
    left = {
        f"{name}:{number}"
        for name, data in after.items()
        for number, line in enumerate(data.decode(errors="replace").splitlines(), start=1)
        if OLD.search(line)
    }
    told_of = set(re.findall(r"^look at (\S+:\d+): ", told, re.MULTILINE))
    rules = {place for place in left if "/chassis/rules.py:" in place}
    assert len(rules) == 5
    assert left - rules == told_of
    assert sorted(place.rpartition(":")[0] for place in told_of) == [
        ".env",
        "notes.txt",
        "src/order_desk/reports.py",
        "src/order_desk/reports.py",
        "tests/test_reports.py",
    ]
    assert "<<<<<<< before" not in str(after)
    assert git("ls-files", "--unmerged", cwd=project) == ""
    assert b"\nAPP_DATABASE_STATEMENT_SECONDS=4\n" in after[".env.example"]
    assert (
        b"database_statement_seconds + 2 * SLACK_SECONDS"
        in (after["src/order_desk/chassis/database.py"])
    )
    code, again = rename(project)
    assert (code, files(project)) == (0, after)
    assert "order-desk: renamed 0 uses of settings of 0.3.0, " in again

    # What only a person can know.
    replace(project / "tests" / "test_reports.py", '"db_lock_seconds"', '"database_lock_seconds"')
    uv("sync", "--quiet", cwd=project)
    uv("run", "ruff", "format", "--quiet", cwd=project)
    uv("run", "ruff", "check", "--quiet", cwd=project)
    assert "Run `uv run ruff format`: lines have another length in " in told
    tests = ("tests/system/test_configuration.py", "tests/test_reports.py")
    some = () if IS_NIGHTLY else ("-k", "reference or patient")
    uv("run", "pytest", "-q", *tests, *some, cwd=project, UV_NO_SYNC="1")
    shown = configuration(project, APP_DATABASE_LOCK_SECONDS="0.54")
    assert re.search(r"^APP_DATABASE_LOCK_SECONDS=0\.5\b", shown, re.MULTILINE)


@pytest.mark.parametrize("version", BEFORE)
def test_nothing_runs_without_a_database(version: str, repository: Path, tmp_path: Path) -> None:
    """
    Where a migration can't concern a service, nothing of it runs. Copier asks for trust all the
    same: once it does not, the pages that say so are wrong.
    """
    project = tmp_path / "order-desk"
    told: dict[str, Any] = {"defaults": True, "quiet": True}
    copier.run_copy(repository.as_uri(), project, vcs_ref=f"v{version}", **told)
    append(project / "README.md", "\nNothing here reads `APP_DB_STATEMENT_SECONDS`.\n")
    git("init", "--quiet", cwd=project)
    git("add", "--all", cwd=project)
    git("commit", "--quiet", "--message", "mine", cwd=project)

    with pytest.raises(UnsafeTemplateError, match="migrations"):
        copier.run_update(project, overwrite=True, **told)
    copier.run_update(project, overwrite=True, unsafe=True, **told)

    assert f"_commit: v{NEXT}" in (project / ".copier-answers.yml").read_text()
    assert "README.md" not in git("status", "--porcelain", cwd=project)


def configuration(project: Path, **environment: str) -> str:
    """
    What `config show` prints.
    """
    told = {"APP_DATABASE_URL": "postgresql://user@localhost/orders"} | environment
    ended = subprocess.run(
        [project / ".venv" / "bin" / "order-desk", "config", "show"],
        env=clean(dict(os.environ)) | told,
        cwd=project.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


def test_past_the_migration(tmp_path: Path) -> None:
    """
    An update that begins after it needs no trust, and neither did the copy.
    """
    repository = make_repository(tmp_path / "fiveweeks.git")
    newer = "100.0.0"
    told: dict[str, Any] = {"defaults": True, "quiet": True}
    add_release(repository, ROOT, newer)
    project = tmp_path / "order-desk"
    copier.run_copy(repository.as_uri(), project, vcs_ref=f"v{NEXT}", **told)
    git("init", "--quiet", cwd=project)
    git("add", "--all", cwd=project)
    git("commit", "--quiet", "--message", "new", cwd=project)

    copier.run_update(project, overwrite=True, **told)

    changed = [".copier-answers.yml", "src/order_desk/chassis/VERSION"]
    assert git("diff", "--name-only", cwd=project).splitlines() == changed
    assert all(f"v{newer}" in (project / name).read_text() for name in changed)


@pytest.mark.parametrize("version", [NEXT, *others_nightly(BEFORE[::-1])])
def test_both_names(
    repository: Path, tmp_path: Path, uv: Callable[..., Any], start_in: Any, version: str
) -> None:
    """
    With both names set to the same, a release before the rename starts as well as one after it: an
    environment can be made ready for an update, and for the way back.
    """
    project = tmp_path / "order-desk"
    copier.run_copy(repository.as_uri(), project, defaults=True, quiet=True, vcs_ref=f"v{version}")
    uv("sync", "--quiet", cwd=project)

    values = {
        "connect": 2,
        "statement": 4,
        "lock": 0.5,
        "idle_in_transaction": 9,
        "client_check": 1,
    }
    names = {
        f"{prefix}_{name}_seconds": values[name] for name in values for prefix in ("db", "database")
    }
    service = start_in(project, **names)

    unread = "database" if version != NEXT else "db"
    wait_until(lambda: service.stdout.read_text().count('"setting_unknown"') == len(values))
    assert service.stdout.read_text().count(f'"APP_{unread.upper()}_') == len(values)
