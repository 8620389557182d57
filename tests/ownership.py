"""
Who owns which file of a generated service; `docs/reference/ownership.md` is checked against this.

Patterns are as in copier.yml: `*` does not cross `/`, a folder means all below it.
"""

from pathlib import PurePosixPath

__all__ = ["OWNERS", "owners"]

OWNERS: dict[str, list[str]] = {
    "template": [
        ".ci/gitlab.yml",
        ".ci/run",
        ".copier-answers.yml",
        ".dockerignore",
        "deploy/compose",
        "deploy/kubernetes/base",
        "deploy/nomad",
        "deploy/systemd",
        ".github/workflows/audit.yml",
        ".github/workflows/ci.yml",
        ".github/workflows/update.yml",
        "ops/__init__.py",
        "ops/__main__.py",
        "ops/ruff.toml",
        "ops/tools",
        "src/*/__init__.py",
        "src/*/__main__.py",
        "src/*/chassis",
        "src/*/py.typed",
        "tests/postgresql.py",
        "tests/system",
    ],
    "seed": [
        ".ci/steps",
        ".editorconfig",
        ".gitattributes",
        ".gitlab-ci.yml",
        ".pre-commit-config.yaml",
        "README.md",
        "deploy/kubernetes/overlays",
        "ops/alerts/database.yaml",
        "ops/alerts/job.yaml",
        "ops/alerts/process.yaml",
        "ops/alerts/tests/database.yaml",
        "ops/alerts/tests/job.yaml",
        "ops/alerts/tests/process.yaml",
        "ops/alerts/tests/web.yaml",
        "ops/alerts/tests/worker.yaml",
        "ops/alerts/web.yaml",
        "ops/alerts/worker.yaml",
        "ops/checklists/deploy.md",
        "ops/checklists/first-deploy.md",
        "ops/checklists/incident.md",
        "ops/checklists/restore-drill.md",
        "ops/checklists/rollback.md",
        "ops/checklists/vacation.md",
        "ops/dashboards/database.json",
        "ops/dashboards/job.json",
        "ops/dashboards/web.json",
        "ops/dashboards/worker.json",
        "ops/postmortems",
        "ops/runbooks/database.md",
        "ops/runbooks/job.md",
        "ops/runbooks/process.md",
        "ops/runbooks/web.md",
        "ops/runbooks/worker.md",
        "ops/service.yaml",
        "src/*/announcer.py",
        "src/*/backup.py",
        "src/*/domain.py",
        "src/*/handlers.py",
        "src/*/memory.py",
        "src/*/migrations/*.py",
        "src/*/migrations/versions/0001_*.py",
        "src/*/migrations/versions/0002_messages.py",
        "src/*/migrations/versions/__init__.py",
        "src/*/notes.py",
        "src/*/resources.py",
        "src/*/routes.py",
        "src/*/settings.py",
        "src/*/tasks.py",
        "src/*/web.py",
        "src/*/worker.py",
        "tests/conftest.py",
        "tests/test_backup.py",
        "tests/test_handlers.py",
        "tests/test_notes.py",
        "tests/test_tasks.py",
    ],
    "shared": [
        ".env.example",
        ".gitignore",
        "AGENTS.md",
        "CODEOWNERS",
        "Dockerfile",
        "compose.yaml",
        "pyproject.toml",
        "renovate.json",
    ],
}


def owners(path: str) -> list[str]:
    """
    The classes that claim *path*; it must be exactly one.
    """
    parts = PurePosixPath(path)
    heads = [parts, *parts.parents]
    return [
        owner
        for owner, patterns in OWNERS.items()
        if any(
            head.match(pattern) and len(head.parts) == len(PurePosixPath(pattern).parts)
            for head in heads
            for pattern in patterns
        )
    ]
