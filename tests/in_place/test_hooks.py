"""
What of the template may run on somebody's machine, ever: versioned migrations.
"""

import ast
import json
import re
import sys
from typing import Any

import pytest
import yaml
from demo_service.chassis.rules import RENAMED
from harness import ROOT
from releases import NEXT, RELEASES, crosses_migration, git

HOOKS = ROOT / "hooks"


def configuration(text: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(text)
    return found


CURRENT = configuration((ROOT / "copier.yml").read_text())


@pytest.mark.parametrize("version", [*RELEASES, NEXT])
def test_nothing_else_needs_trust(version: str) -> None:
    """
    No release has tasks or extensions, which would make the next update of every project need
    trust, nor a migration without a version, which would make all of them.
    """
    there = CURRENT
    if version != NEXT:
        there = configuration(git("show", f"{RELEASES[version]}:copier.yml", cwd=ROOT))

    assert not {"_tasks", "_jinja_extensions"} & there.keys()
    for migration in there.get("_migrations", []):
        assert re.fullmatch(r"\d+\.\d+\.\d+", migration["version"])
        # An older form, which knows neither `when` nor lists of words.
        assert not {"before", "after"} & migration.keys()


def test_migrations_can_be_read() -> None:
    """
    Each runs one script of hooks/ for its version, without a shell, whose first line says what it
    does; hooks/README.md names it.
    """
    for migration in CURRENT["_migrations"]:
        python, alone, script, version = migration["command"]
        path = HOOKS / script.removeprefix("{{ _copier_conf.src_path }}/hooks/")
        told = ast.get_docstring(ast.parse(path.read_text())) or ""
        assert (python, alone) == ("{{ _copier_python }}", "-B")
        assert version == "{{ _version_current }}"
        assert re.match(r"[A-Z].*\.$", told.splitlines()[0])
        assert f"| {migration['version']} | `{path.name}` |" in (HOOKS / "README.md").read_text()


def test_migrations_need_only_python() -> None:
    """
    A script imports nothing but the standard library and what is beside it.
    """
    allowed = {*sys.stdlib_module_names, *(path.stem for path in HOOKS.glob("*.py"))}
    for path in HOOKS.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(), feature_version=(3, 10))):
            if isinstance(node, ast.Import):
                assert {alias.name.partition(".")[0] for alias in node.names} <= allowed
            if isinstance(node, ast.ImportFrom):
                assert (node.module or "").partition(".")[0] in allowed


def test_names_are_in_both_tables() -> None:
    """
    What a service knows by another name, the migration of that version renames.
    """
    table = json.loads((HOOKS / "settings.json").read_text())

    assert {old: (new, version) for version in table for old, new in table[version].items()} == (
        RENAMED
    )
    versions = [each["version"] for each in CURRENT["_migrations"] if "rename" in str(each)]
    assert versions == [*table]


def test_what_crosses_a_migration() -> None:
    """
    An update needs trust only from before the version of a migration to it or past it.
    """
    assert crosses_migration("0.1.0", "0.3.0")
    assert crosses_migration("0.2.0", NEXT)
    assert not crosses_migration("0.1.0", "0.2.0")
    assert not crosses_migration("0.3.0", "0.3.0")
