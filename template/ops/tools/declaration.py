"""
The service declaration, `ops/service.yaml`: read, validated and asked for what it says.
"""

import difflib
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError

from ops.tools.finding import hide

__all__ = ["PATH", "Declaration", "Malformed", "Waiver", "did_you_mean", "read"]

PATH = "ops/service.yaml"
_SCHEMA = Path(__file__).with_name("service.schema.json")


class Malformed(Exception):  # noqa: N818  # what is wrong with the file, not with us
    """
    What people wrote can't be used; each problem begins with its file and line.
    """

    def __init__(self, problems: Iterable[str]) -> None:
        super().__init__(hide("\n".join(problems)))


@dataclass(frozen=True, kw_only=True)
class Waiver:
    """
    A check that may fail until the end of that day, or a file that it is about.
    """

    check: str
    file: str | None = None
    reason: str
    by: str
    until: date
    where: str


@dataclass(frozen=True)
class Declaration:
    """
    *values* is the whole document; *lines* has the line of each path, such as `spec.people.owner`,
    and *placeholders* the paths that nobody has filled in yet.
    """

    values: dict[str, Any]
    lines: dict[str, int]
    placeholders: list[str]

    def get(self, path: str) -> Any:
        """
        What stands at *path* below `spec`, such as `people.owner`; None for nothing or `<…>`.
        """
        value: Any = self.values["spec"]
        for key in path.split("."):
            value = value.get(key) if isinstance(value, dict) else None
        return None if _is_placeholder(value) else value

    def where(self, path: str) -> str:
        """
        File and line of *path* below `spec`, or of the closest that is there.
        """
        return f"{PATH}:{_line(self.lines, f'spec.{path}')}"

    @property
    def tier(self) -> str | None:
        tier: str | None = self.get("tier")
        return tier

    @property
    def waivers(self) -> list[Waiver]:
        return [
            Waiver(
                check=waiver["check"],
                file=waiver.get("file"),
                reason=waiver["reason"],
                by=waiver["by"],
                until=date.fromisoformat(waiver["until"]),
                where=self.where(f"waivers[{index}]"),
            )
            for index, waiver in enumerate(self.get("waivers") or [])
        ]


class _Loader(yaml.SafeLoader):
    """
    Plain values as in YAML 1.2, as Backstage reads them: `yes`, 010, 1:30 and dates are text.
    """

    yaml_implicit_resolvers = {}  # noqa: RUF012  # as PyYAML has it

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]  # as stubbed
            raise yaml.MarkedYAMLError(None, None, "write aliases (`*`) out", mark)
        return super().compose_node(parent, index)


for _tag, _pattern, _first in (
    ("null", r"(?:~|null|)\Z", ["~", "n", ""]),
    ("bool", r"(?:true|false)\Z", ["t", "f"]),
    ("int", r"-?(?:0|[1-9][0-9]*)\Z", list("-0123456789")),
    ("float", r"-?(?:0|[1-9][0-9]*)\.[0-9]+\Z", list("-0123456789")),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(_pattern), _first)


def read(path: Path) -> Declaration:
    """
    Raises Malformed with everything that is wrong.
    """
    lines: dict[str, int] = {}
    placeholders: list[str] = []
    try:
        loader = _Loader(path.read_bytes())
        root = loader.get_single_node()
        if root is None:
            raise Malformed([f"{PATH}:1: is empty: bring it back with git"])
        if problems := _walk(root, "", lines, placeholders):
            raise Malformed(problems)
        values = loader.construct_document(root)
    except OSError as error:
        raise Malformed([f"{PATH}:1: can't be read: {error.strerror}"]) from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        raise Malformed([f"{PATH}:{line}: can't be read as YAML: {error.problem}"]) from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        said = " ".join(str(error).split())
        raise Malformed([f"{PATH}:1: can't be read as YAML: {said}"]) from error
    validator = Draft202012Validator(
        json.loads(_SCHEMA.read_text(encoding="utf-8")),
        format_checker=Draft202012Validator.FORMAT_CHECKER,
    )
    # One value breaks a rule once, whatever its schema says of it.
    found = {said for error in validator.iter_errors(values) for said in _say(error, lines)}
    if found:
        raise Malformed(f"{PATH}:{line}: {said}" for line, said in sorted(found))
    return Declaration(values, lines, placeholders)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """
    The end of a sentence about an unknown *name*.
    """
    close = difflib.get_close_matches(name, known, n=1)
    return f", did you mean {close[0]!r}?" if close else f", known are {', '.join(sorted(known))}"


def _walk(node: yaml.Node, path: str, lines: dict[str, int], placeholders: list[str]) -> list[str]:
    """
    Notes the line of every path; what YAML passes over in silence is a problem.
    """
    if isinstance(node, yaml.ScalarNode):
        if _is_placeholder(node.value):
            placeholders.append(path)
        return []
    problems = []
    if isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            lines[f"{path}[{index}]"] = item.start_mark.line + 1
            problems += _walk(item, f"{path}[{index}]", lines, placeholders)
        return problems
    for key, value in node.value:
        name = f"{path}.{key.value}" if path else f"{key.value}"
        line = key.start_mark.line + 1
        if key.tag != "tag:yaml.org,2002:str":
            problems.append(f"{PATH}:{line}: the key {key.value!r} must be text: quote it")
        elif name in lines:
            problems.append(f"{PATH}:{line}: {name} is there twice, first in line {lines[name]}")
        else:
            lines[name] = line
            problems += _walk(value, name, lines, placeholders)
    return problems


def _say(error: ValidationError, lines: dict[str, int]) -> list[tuple[int, str]]:
    path = ""
    for part in error.absolute_path:
        path += f"[{part}]" if isinstance(part, int) else f".{part}"
    path = path.removeprefix(".")
    schema: Any = error.schema
    instance: Any = error.instance
    prefix = f"{path}." if path else ""
    if error.validator == "additionalProperties":
        known = schema["properties"]
        return [
            (_line(lines, prefix + key), f"{prefix}{key} is unknown{did_you_mean(key, known)}")
            for key in instance
            if key not in known
        ]
    if error.validator == "required":
        return [
            (_line(lines, path), f"{prefix}{key} is missing")
            for key in schema["required"]
            if key not in instance
        ]
    wanted = f"{path or 'the file'} must be {schema['description']}"
    got = f", got {instance!r}" if isinstance(instance, str | int | float) else ""
    return [(_line(lines, path), wanted + got)]


def _line(lines: dict[str, int], path: str) -> int:
    """
    Of *path*, or of the closest above that is there.
    """
    while path and path not in lines:
        path = path[: max(path.rfind("."), path.rfind("["), 0)]
    return lines.get(path, 1)


def _is_placeholder(value: object) -> bool:
    return isinstance(value, str) and value.startswith("<") and value.endswith(">")
