"""
What can't be built is told in one line that says what to do.
"""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.covers(
    "template/.dockerignore",
    "template/Dockerfile.jinja",
)

BASE = "docker.io/library/python:3.13-slim-trixie"
TAG = "localhost/fiveweeks/order-desk:bad"

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(name="fail")
def _fail(build: Any) -> Callable[..., list[str]]:
    """
    Build what can't be built; what was said, without the commands that the builder repeats.
    """

    def fail(project: Path, *options: str) -> list[str]:
        ended = build(project, TAG, *options, check=False)
        assert ended.returncode != 0
        return [line for line in ended.stderr.splitlines() if not line.startswith(("[", "Error:"))]

    return fail


@pytest.fixture(name="changed")
def _changed(project: Path, tmp_path: Path) -> Path:
    """
    A copy of the default service.
    """
    return Path(shutil.copytree(project, tmp_path / "order-desk"))


def edit(path: Path, old: str, new: str) -> None:
    """
    Replace what must be there once.
    """
    text = path.read_text()
    assert text.count(old) == 1, f"{path}: {old!r}"
    path.write_text(text.replace(old, new))


def test_missing_lock(changed: Path, fail: Callable[..., list[str]]) -> None:
    """
    Without uv.lock: make it.
    """
    (changed / "uv.lock").unlink()

    assert "uv.lock is missing: run 'uv lock', and commit it" in fail(changed)


def test_outdated_lock(changed: Path, fail: Callable[..., list[str]]) -> None:
    """
    With a lock of other dependencies than those of pyproject.toml: make it anew.
    """
    edit(changed / "pyproject.toml", '"orjson>=3.13,<4"', '"orjson>=3.13,<3.99"')

    said = fail(changed)

    assert any("The lockfile at `uv.lock` needs to be updated" in line for line in said)
    assert "hint: To update the lockfile, run `uv lock`." in said


def test_base_without_python(
    changed: Path, podman: Run, fail: Callable[..., list[str]], tmp_path: Path
) -> None:
    """
    On a base image without Python: name another.
    """
    base = "localhost/fiveweeks/base:without-python"
    (tmp_path / "Dockerfile").write_text(f"FROM {BASE}\nRUN rm /usr/local/bin/python3\n")
    podman("build", "--pull=never", "--tag", base, "--file", tmp_path / "Dockerfile", tmp_path)

    said = fail(changed, f"--build-arg=BASE_IMAGE={base}")

    assert f"BASE_IMAGE has no python3: name an image such as {BASE}" in said


def test_base_with_an_older_python(changed: Path, fail: Callable[..., list[str]]) -> None:
    """
    On a base image whose Python is older than the project asks for: both versions are told.
    """
    for name in ("pyproject.toml", "uv.lock"):
        edit(changed / name, 'requires-python = ">=3.11"', 'requires-python = ">=3.14"')

    said = fail(changed)

    assert any("Python 3.13" in line and "requirement: `>=3.14`" in line for line in said)
