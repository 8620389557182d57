"""
What a commit tries of what would take too long for each: others for each, `nightly` all.
"""

import functools
import hashlib
import math
import os
import re
import subprocess
from collections.abc import Iterable
from typing import TypeVar

import pytest
from harness import ROOT

__all__ = ["IS_NIGHTLY", "in_turn", "is_turn", "sampled"]

IS_NIGHTLY = bool(os.environ.get("FIVEWEEKS_NIGHTLY"))
Item = TypeVar("Item")


def sampled(items: Iterable[Item], one_in: int) -> list[Item]:
    """
    One in so many of them, and one at least, by their text and the commit; in their order.
    """
    found = list(items)
    if IS_NIGHTLY:
        return found
    ranks = sorted(range(len(found)), key=lambda index: _number(_text(found[index])))
    return [found[index] for index in sorted(ranks[: math.ceil(len(found) / one_in)])]


def is_turn(name: str, one_in: int) -> bool:
    """
    Whether it is this commit's turn to try it, which comes once in so many.
    """
    return IS_NIGHTLY or _number(name) % one_in == 0


def in_turn(name: str, one_in: int) -> pytest.MarkDecorator:
    """
    Skip the test where it is another commit's turn.
    """
    reason = "another commit's turn, and nightly"
    return pytest.mark.skipif(not is_turn(name, one_in), reason=reason)


def _text(item: object) -> str:
    # Every process of a run must choose the same, and a function is elsewhere in each.
    return re.sub(r" at 0x[0-9a-f]+", "", repr(item))


def _number(text: str) -> int:
    return int.from_bytes(hashlib.sha256((_commit() + text).encode()).digest()[:8])


@functools.cache
def _commit() -> str:
    command = ["git", "rev-parse", "HEAD"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
