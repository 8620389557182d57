"""
Shared files are laid out so that what the team writes and what the template changes don't meet.
"""

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from harness import TEMPLATE
from ownership import OWNERS
from selection import others_nightly

from questions import pairwise

MARKER = re.compile(r"^ *(# Yours below[.:].*|<!-- Yours below. -->)$")
# What follows the team's lines: nothing of ours, or what is the same in every version.
BEHIND = re.compile(r"^( *#|\]| *|services:|volumes:)$")
BEFORE = re.compile(r'^( *#| *"\$\(python3 -c .*)$')


@pytest.mark.parametrize("answers", [{}, *others_nightly(pairwise(), 2)])
def test_a_line_parts_yours_from_ours(answers: dict[str, Any], render: Callable[..., Path]) -> None:
    """
    Between what we change and what is below "Yours below" there is a line that never changes, on
    both sides: a merge needs one.
    """
    folder = render(**answers)
    count = 0
    for name in OWNERS["shared"]:
        if not (folder / name).exists():
            continue
        lines = ["", *(folder / name).read_text().splitlines(), ""]
        for index, line in enumerate(lines):
            if MARKER.match(line):
                count += 1
                # Markdown would make a paragraph of it with what is above.
                is_parted = name == "AGENTS.md" and not lines[index - 1]
                assert is_parted or BEFORE.match(lines[index - 1]), f"{name}: {lines[index - 1]!r}"
                assert BEHIND.match(lines[index + 1]), f"{name}: {lines[index + 1]!r}"

    assert count >= 6


@pytest.mark.parametrize("answers", [{}, *others_nightly(pairwise(), 2)])
def test_our_dependencies_are_not_sorted(
    answers: dict[str, Any], render: Callable[..., Path]
) -> None:
    """
    To a sorted list uv adds in its order, among our lines; to ours it appends.
    """
    text = (render(**answers) / "pyproject.toml").read_text()
    for block in re.findall(r"# Ours[^\n]*\n(.*?)    #\n    # Yours below", text, re.DOTALL):
        # As uv may compare them: by name, or as they are written.
        for pattern in (r'(?m)^    "([a-z0-9-]+)', r'(?m)^    "(.*)"'):
            lines = re.findall(pattern, block)

            assert lines != sorted(lines)


def test_what_no_width_reaches_is_in_form() -> None:
    """
    Modules that a team's formatter would rewrite are left alone by it, and are as ours writes them.
    """
    for path in (
        TEMPLATE / "src" / "{{ package_name }}" / "__main__.py",
        TEMPLATE / "tests/postgresql.py",
    ):
        text = path.read_text()
        assert text.count("# fmt: off\n") == 1
        ruff: list[str | Path] = [Path(sys.executable).parent / "ruff", "format"]
        ruff += ["--line-length=100", "--quiet", "-"]
        told = text.replace("# fmt: off\n", "")
        formed = subprocess.run(ruff, input=told, capture_output=True, text=True, check=True)

        assert formed.stdout == told
