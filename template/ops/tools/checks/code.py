"""
Checks of what is in the repository.
"""

import ast
import re

from ops.tools import drift
from ops.tools.declaration import Malformed
from ops.tools.finding import Finding, fails, judge, not_yet, nothing, passes
from ops.tools.project import Project, problems

__all__ = [
    "configuration",
    "job_runtime",
    "lock_file",
    "migrations_reversible",
    "secrets_ignored",
    "template_files",
]


def lock_file(project: Project) -> Finding:
    """
    uv.lock is there and says what pyproject.toml asks for.
    """
    if not (project.root / "uv.lock").exists():
        return not_yet("there is no uv.lock", next="run `uv lock`, and commit it")
    ended = project.call("uv", "lock", "--check", "--offline")
    if ended.returncode:
        said = (ended.stderr.strip().splitlines() or [""])[-1]
        return fails(f"`uv lock --check` says {said!r}", next="run `uv lock`, and commit it")
    return passes("uv.lock agrees with pyproject.toml")


def configuration(project: Project) -> Finding:
    """
    The settings of this environment are complete, known and consistent.
    """
    ended = project.run("config", "show")
    if not ended.returncode:
        shown = [line.partition("=")[0] for line in ended.stdout.splitlines() if "=" in line]
        return passes(f"complete; set here: {', '.join(shown) or 'nothing'}")
    wrong = problems(ended)
    evidence = "; ".join(f"{name} {problem}" for name, problem in wrong.items())
    env = "run this with the settings of production: `uv run --env-file FILE python -m ops …`"
    if wrong and all(problem.startswith("is missing") for problem in wrong.values()):
        return not_yet(f"this shell lacks settings of production: {evidence}", next=env)
    return fails(evidence or f"`config show` ends with {ended.returncode}", next=env)


def job_runtime(project: Project) -> Finding:
    """
    A run of a job ends before the next one begins, and before the platform ends it.
    """
    if "job" not in project.process_types:
        return nothing("there is no job")
    faults = [f"{name} {said}" for name, said in project.problems.items() if "APP_JOB" in name]
    if not project.settings and not faults:
        return not_yet("the settings are not complete", next="see `configuration`")
    longest = float(project.settings.get("APP_JOB_MAX_RUNTIME_SECONDS", "nan"))
    manifests = project.texts("deploy/kubernetes/base/*.yaml", "deploy/systemd/*.service")
    for name, text in manifests.items():
        found = re.findall(r"(?:activeDeadlineSeconds: |RuntimeMaxSec=)(\d+)", text)
        faults += [f"{name} ends it after {limit} s" for limit in found if float(limit) <= longest]
    return judge(
        faults,
        f"APP_JOB_MAX_RUNTIME_SECONDS={longest:g}, "
        f"APP_JOB_INTERVAL_SECONDS={project.settings.get('APP_JOB_INTERVAL_SECONDS')}",
        next="make the run shorter, or the interval or the platform's limit longer",
    )


def migrations_reversible(project: Project) -> Finding:
    """
    Each migration has a downgrade that does something.
    """
    paths = sorted(project.root.glob(f"src/{project.package}/migrations/versions/[0-9]*.py"))
    faults = []
    for path in paths:
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            # A docstring and `pass` call nothing.
            if getattr(node, "name", "") == "downgrade" and any(
                isinstance(each, ast.Call) for each in ast.walk(node)
            ):
                break
        else:
            faults.append(f"{project.name_of(path)} has no downgrade that does something")
    write = "write `downgrade`, and try `migrate down`"
    return judge(faults, f"{len(paths)} migrations", next=write, looked=paths)


def secrets_ignored(project: Project) -> Finding:
    """
    `.env` and secrets/ are neither in git nor in the image.
    """
    faults = [
        f"{name} does not name {pattern}"
        for name, pattern in ((".gitignore", ".env"), (".gitignore", "/secrets/"))
        if pattern not in project.lines(name)
    ]
    if not {"*", ".env", "**/.env", "**/.*"} & {*project.lines(".dockerignore")}:
        faults.append(".dockerignore lets .env into the image")
    asked = project.git("ls-files", "--", ".env", "*/.env", "secrets")
    faults += [f"git tracks {path}" for path in asked.stdout.split()]
    tracked = "there is no git repository to look at" if asked.returncode else "not tracked"
    return judge(
        faults,
        f".env and secrets/ are in .gitignore, not in the image; {tracked}",
        next="`git rm --cached` it, and replace the secrets that it holds",
    )


def template_files(project: Project) -> Finding:
    """
    Files that the template owns are as the template made them, so that an update does not undo your
    work. The evidence names those with answers in them, which only a render can be compared with.
    """
    try:
        edits = drift.look(project)
    except Malformed as error:
        return fails(str(error), next="mend it")
    told = [f"{edit.name} {edit.said}" for edit in edits if not edit.is_waived]
    waived = len(edits) - len(told)
    return judge(
        told,
        f"{waived} waived; {drift.scope(project)}",
        next="`uv run python -m ops drift`; waive this until the template has the change",
    )
