"""
Environments for generated services: one is installed for each set of dependencies, and services
that have the same dependencies link its packages.
"""

import fcntl
import hashlib
import shutil
import subprocess
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

__all__ = ["compile_modules", "duplicate", "environment", "link"]

NO_COPY = shutil.ignore_patterns(".venv", ".git", ".*_cache")


def environment(project: Path, folder: Path, install: Callable[[Path], object]) -> Path:
    """
    A project in *folder* with the dependencies of *project*, which *install* has installed there.

    Other processes that share *folder* share it too.
    """
    told = tomllib.loads((project / "pyproject.toml").read_text())
    names = ("requires-python", "dependencies", "optional-dependencies")
    needed: list[Any] = [told["project"].get(name) for name in names]
    needed += [told.get("dependency-groups"), told.get("tool", {}).get("uv")]
    key = hashlib.sha256(repr(needed).encode()).hexdigest()[:16]
    made = folder / f"environment-{key}" / project.name
    with (folder / f"environment-{key}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (made / ".installed").exists():
            shutil.copytree(project, made, ignore=NO_COPY)
            install(made)
            (made / ".installed").touch()
    return made


def link(installed: Path, project: Path) -> None:
    """
    Give *project* an environment that runs it, with the packages of another project's.

    It has its own file that puts the project on the path, and its own commands, as those name the
    folder that they are installed in.
    """
    source, target = installed / ".venv", project / ".venv"
    (target / "bin").mkdir(parents=True)
    shutil.copy(source / "pyvenv.cfg", target)
    for path in (source / "bin").iterdir():
        if path.is_symlink():
            (target / "bin" / path.name).symlink_to(path.resolve())
        else:
            _copy_moved(path, target / "bin" / path.name, installed, project)
    (packages,) = source.glob("lib/python*/site-packages")
    own = target / packages.relative_to(source)
    own.mkdir(parents=True)
    for path in packages.iterdir():
        if path.suffix == ".pth":
            _copy_moved(path, own / path.name, installed, project)
        else:
            (own / path.name).symlink_to(path.resolve())


def duplicate(project: Path, folder: Path, installed: Path | None = None) -> Path:
    """
    Copy a project into *folder*, under its own name, with an environment that runs the copy: its
    own, or that of *installed*.
    """
    copy = folder / project.name
    shutil.copytree(project, copy, ignore=NO_COPY)
    link(installed or project, copy)
    return copy


def compile_modules(project: Path) -> None:
    """
    Compile the project's modules, so that not each of its copies does.
    """
    command = [f"{project}/.venv/bin/python", "-m", "compileall", "-q", f"{project}/src"]
    subprocess.run(command, check=True)


def _copy_moved(path: Path, target: Path, old: Path, new: Path) -> None:
    """
    Copy a file with each mention of the old folder replaced.
    """
    target.write_bytes(path.read_bytes().replace(bytes(old), bytes(new)))
    target.chmod(path.stat().st_mode)
