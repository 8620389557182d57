"""
The answers that tests try: choices are read from copier.yml, so that a new one is tested at once.
"""

import itertools
from collections.abc import Iterator
from typing import Any

import yaml
from harness import ROOT

__all__ = ["QUESTIONS", "is_allowed", "pairwise"]

Answers = dict[str, Any]

# Text has no choices; these are the awkward ones among those that are allowed.
SAMPLES: dict[str, list[str]] = {
    "service_name": ["order-desk", "a", "null", "x" * 52],
    "description": ["Does one thing well.", "It's #1: {{ 7*7 }} & more — ünïcödé 🌴", "- yes"],
    "owner": ["your-team", "acme/payments_2", "1e3", "no"],
    "package_index_url": ["", "https://packages.example.com:8443/My%20Team/simple/"],
}


def _questions() -> dict[str, list[Any]]:
    loaded = yaml.safe_load((ROOT / "copier.yml").read_text())
    found: dict[str, list[Any]] = {}
    for name, question in loaded.items():
        if name.startswith("_") or question.get("when") is False:
            continue
        choices = question.get("choices")
        values = list(choices.values()) if isinstance(choices, dict) else choices
        if question.get("multiselect"):
            # Nothing is an answer too, but where it is refused; of many choices, each and all.
            least = 1 if "at least one" in question.get("validator", "") else 0
            sizes = [*range(least, len(values) + 1)] if len(values) < 4 else [least, 1, len(values)]
            values = [list(some) for size in sizes for some in itertools.combinations(values, size)]
        found[name] = values or SAMPLES[name]
    return found


QUESTIONS = _questions()


def is_allowed(row: Answers) -> bool:
    """
    Whether the questions' own validators take these answers together, so far as they are given.
    """
    return not ("worker" in row.get("processes", ()) and row.get("database") == "none")


def pairwise(questions: dict[str, list[Any]] = QUESTIONS) -> Iterator[Answers]:
    """
    Answers in which every two answers to two questions occur together at least once.

    Greedy and deterministic: each row takes, question by question, what covers most new pairs.
    """
    names = sorted(questions, key=lambda name: -len(questions[name]))
    pairs = {
        ((one, i), (two, j))
        for one, two in itertools.combinations(names, 2)
        for i in range(len(questions[one]))
        for j in range(len(questions[two]))
        if is_allowed({one: questions[one][i], two: questions[two][j]})
    }
    while pairs:
        row: list[tuple[str, int]] = list(min(pairs))
        for name in names:
            if name in dict(row):
                continue
            given = {other: questions[other][i] for other, i in row}
            gains = [
                sum(_pair(other, (name, i), names) in pairs for other in row)
                if is_allowed({**given, name: answer})
                else -1
                for i, answer in enumerate(questions[name])
            ]
            row.append((name, gains.index(max(gains))))
        pairs -= {_pair(one, two, names) for one, two in itertools.combinations(row, 2)}
        yield {name: questions[name][i] for name, i in sorted(row)}


def _pair(
    one: tuple[str, int], two: tuple[str, int], names: list[str]
) -> tuple[tuple[str, int], tuple[str, int]]:
    return (one, two) if names.index(one[0]) < names.index(two[0]) else (two, one)
