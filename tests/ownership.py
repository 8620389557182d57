"""
Who owns which file of a generated service; `docs/reference/ownership.md` is checked against this.

Patterns are as in copier.yml: `*` does not cross `/`, a folder means all below it.
"""

from pathlib import PurePosixPath

__all__ = ["OWNERS", "owners"]

OWNERS: dict[str, list[str]] = {
    "template": [
        ".ci/run",
        ".copier-answers.yml",
        ".dockerignore",
        "src/*/__init__.py",
        "src/*/__main__.py",
        "src/*/chassis",
        "src/*/probe.py",
        "src/*/py.typed",
        "tests/system",
    ],
    "seed": [
        ".editorconfig",
        ".gitattributes",
        ".pre-commit-config.yaml",
        "README.md",
        "ops/checklists",
        "ops/service.yaml",
        "src/*/domain.py",
        "src/*/resources.py",
        "src/*/routes.py",
        "src/*/settings.py",
        "src/*/web.py",
        "tests/conftest.py",
        "tests/test_*.py",
    ],
    "shared": [
        ".env.example",
        ".gitignore",
        "AGENTS.md",
        "CODEOWNERS",
        "Dockerfile",
        "pyproject.toml",
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
