"""
The only reader of the environment: strict, and every problem is named at once.
"""

import math
import os
from collections.abc import Collection, Container, Iterable, Iterator, Mapping
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

from pydantic import ValidationError
from pydantic_settings import EnvSettingsSource, SecretsSettingsSource

from .remedy import remedy
from .rules import MODULES, PREFIX, RENAMED, RULES, SWITCHES, assignment, variable
from .settings import Settings, expected, mask

__all__ = ["ConfigurationError", "Loaded", "check_outbound", "load"]

S = TypeVar("S", bound=Settings)
Values = Mapping[str, Any]


class ConfigurationError(Exception):
    """
    Everything that is wrong with the environment: pairs of a variable and its problem.
    """

    def __init__(self, faults: Iterable[tuple[str, str]]) -> None:
        self.faults = tuple(faults)
        super().__init__("; ".join(f"{name} {problem}" for name, problem in self.faults))


class Loaded(NamedTuple, Generic[S]):
    """
    Settings, the origin of each value that is no default, and the variables that nothing reads.
    """

    settings: S
    origins: Mapping[str, str]
    unknown: list[str]


def load(cls: type[S], kind: str = "") -> Loaded[S]:
    """
    Read *cls* from the environment, then from APP_SECRETS_DIR.

    Raises `ConfigurationError` with every fault that matters to this *kind* of process: `web`,
    `worker`, `job` or `migrate`; without a kind, to any process of the service.
    """
    there: dict[str, Any] = dict(os.environ)
    layers = [("environment", EnvSettingsSource(cls)())]
    directory = Path(os.environ.get(variable("secrets_dir")) or os.devnull)
    if directory.is_dir():
        there = {path.name: path for path in directory.iterdir() if path.is_file()} | there
        layers.append((f"file in {directory}", SecretsSettingsSource(cls, directory)()))
    # The first layer that has a name wins.
    origins = {name: origin for origin, layer in reversed(layers) for name in layer}
    raw = {name: value for _, layer in reversed(layers) for name, value in layer.items()}

    near, unknown = _unknown(cls, {*there})
    near += _renamed(cls, there, raw)
    settings, faults = _validate(cls, raw, kind)
    if settings is None or near or faults:
        raise ConfigurationError([*near, *faults])
    return Loaded(settings, origins, unknown)


def _unknown(cls: type[Settings], names: set[str]) -> tuple[list[tuple[str, str]], list[str]]:
    """
    Near misses are faults; other unknown variables are left for a warning.
    """
    known = {variable(name) for name in cls.model_fields}
    faults, unknown = [], []
    for name in sorted(names - known):
        like = [other for other in sorted(known) if _is_near(name.upper(), other)]
        if like:
            faults.append((name, f"is unknown; did you mean {like[0]}?"))
        elif name.startswith(PREFIX):
            unknown.append(name)
    return faults, unknown


def _renamed(
    cls: type[Settings], there: Mapping[str, Any], raw: Mapping[str, Any]
) -> Iterator[tuple[str, str]]:
    """
    Old names are faults, but beside the new one with the same value: that prepares an update.
    """
    for old, (new, since) in RENAMED.items():
        name, value = variable(old), there.get(variable(old))
        value = value.read_text(encoding="utf-8").strip() if isinstance(value, Path) else value
        if name in there and old not in cls.model_fields and value != raw.get(new):
            both = "; both are set, and differ" if new in raw else ""
            yield name, f"is {variable(new)} since template {since}: set that, unset this{both}"


def _is_near(name: str, known: str) -> bool:
    """
    Equal, or behind the prefix one letter changed, missing or added, or two neighbours swapped.
    """
    start = len(os.path.commonprefix([name, known]))  # noqa: RUF071  # letter by letter
    short, long = sorted((name[start:], known[start:]), key=len)
    swapped = short[1::-1] == long[:2] and short[2:] == long[2:]
    same_rest = short[1:] == long[1:] if len(short) == len(long) else short == long[1:]
    return start >= len(PREFIX) and (same_rest or swapped)


def check_outbound(settings: Settings) -> None:
    """
    Raises `ConfigurationError` if *settings* break a rule of outbound calls.

    Only a process that makes such calls asks this, so the rules count for no other.
    """
    given, kind = settings.model_fields_set, settings._kind  # noqa: SLF001  # `load` sets it
    if faults := [*_broken_rules(type(settings), dict(settings), given, kind, is_outbound=True)]:
        raise ConfigurationError(faults)


def _validate(cls: type[S], raw: Values, kind: str) -> tuple[S | None, list[tuple[str, str]]]:
    """
    Check each value, then whether those that are well-formed fit together.
    """
    settings = None
    bad = {name: "is empty; unset it or give it a value" for name in raw if raw[name] == ""}
    values = {name: value for name, value in raw.items() if name not in bad}
    try:
        settings = cls(**values)
    except ValidationError as error:
        for detail in error.errors(include_url=False, include_input=False):
            name = str(detail["loc"][0]) if detail["loc"] else "*"
            bad.setdefault(name, _problem(cls, name, detail, values))
    else:
        settings._kind = kind
    faults = [(variable(name), problem) for name, problem in bad.items()]
    defaults = {name: field.default for name, field in cls.model_fields.items()}
    sound = {name: value for name, value in {**defaults, **raw}.items() if name not in bad}
    faults += _contradictions(cls, sound, bad, kind)
    return settings, [*faults, *_broken_rules(cls, sound, raw, kind, is_outbound=False)]


def _problem(cls: type[Settings], name: str, detail: Any, values: Mapping[str, Any]) -> str:
    told = str(detail["msg"])
    if name not in cls.model_fields:
        return told
    field, wanted = cls.model_fields[name], expected(cls, name)
    value = str(values.get(name))
    if detail["type"] == "missing":
        return f"is missing: {field.description or 'see settings.py'} [expected: {wanted}]"
    # `password` is the format of a secret text whose type has another name.
    is_secret = "Secret" in str(field.annotation) or wanted.startswith("password")
    if is_secret or value[:1] in {"[", "{"}:
        return f"{told.replace(value, '**********')} [expected: {wanted}]"
    if value.startswith("tcp://"):
        told += "; this is a Kubernetes service link, set enableServiceLinks: false in the pod"
    return f"{told}, got {mask(value)[:200]!r} [expected: {wanted}]"


def _contradictions(
    cls: type[Settings], values: Values, bad: Container[str], kind: str
) -> Iterator[tuple[str, str]]:
    """
    Parts that are set but not there, or there but not set, and two listeners on one port.
    """
    telemetry = {part for part in SWITCHES if _has(part)}
    for part, name in {**SWITCHES, "database": "database_url"}.items():
        if values.get(name) and not _has(part):
            chosen = ",".join(sorted({*telemetry, part}))
            answer = f"'telemetry=[{chosen}]'" if part in SWITCHES else "database=postgresql"
            mend = f"copier update --defaults --vcs-ref :current: --data {answer}"
            yield variable(name), f"is set, but this service has no {part}; unset it, or {mend}"
    if _has("database") and not values.get("database_url") and "database_url" not in bad:
        described = cls.model_fields["database_url"].description
        yield variable("database_url"), f"is missing: {described}"
    port, admin_port = (str(values.get(name, name)) for name in ("port", "admin_port"))
    if kind in {"", "web"} and _has(".web") and port == admin_port:
        yield variable("admin_port"), f"must differ from {variable('port')}={port}"


def _broken_rules(
    cls: type[Settings], values: Values, keep: Collection[str], kind: str, *, is_outbound: bool
) -> Iterator[tuple[str, str]]:
    """
    The rules that *values* break in a process of this *kind*, of outbound calls or all others.

    Each comes with the same set of values, which satisfies all of them together. It changes what
    to *keep* only if nothing else helps.
    """
    numbers: dict[str, float] = {}
    for name, value in values.items():
        with suppress(TypeError, ValueError):
            numbers[name] = float(value)
    service = {name for name, module in MODULES.items() if _has(module)}
    service |= {"telemetry"} if any(map(values.get, SWITCHES.values())) else set()
    there = service & {kind, "database", "telemetry"} if kind else service
    # A rule that holds must hold with the suggestion too, whichever process type reads it.
    broken, rules = [], []
    for rule in (rule for rule in RULES if numbers.keys() >= {*rule.fields}):
        here, anywhere = rule.where(there), rule.where(service)
        if here and rule.is_outbound == is_outbound and not here.holds(numbers):
            broken.append(here)
            rules.append(here)
        elif anywhere and anywhere.holds(numbers):
            rules.append(anywhere)
    mends = remedy(rules, numbers, _bounds(cls), keep) if broken else {}
    mend = " ".join(["; try", *(assignment(name, mends) for name in mends)]) if mends else ""
    for rule in broken:
        names = rule.fields[::-1]
        named = [name for name in names if name in keep]
        yield variable((named or names)[0]), rule.explain(numbers) + mend


def _bounds(cls: type[Settings]) -> Mapping[str, tuple[float, float]]:
    """
    The smallest and the largest value of each setting that is a number, but need not be whole.
    """
    fields = cls.model_json_schema()["properties"].items()
    floats = {name: field for name, field in fields if field.get("type") == "number"}
    ends = ("minimum", 0.001), ("maximum", math.inf)
    return {name: tuple(field.get(*end) for end in ends) for name, field in floats.items()}


def _has(module: str) -> bool:
    """
    Whether this service's chassis has *module*, which its answers brought or not.
    """
    return find_spec(f".{module}", __package__) is not None
