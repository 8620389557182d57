"""
Settings in place: every near miss, every rule.
"""

import json
import re
import string
from collections.abc import Iterator, Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Any

import pytest
from demo_service.chassis.environment import ConfigurationError, check_outbound, load
from demo_service.chassis.outbound import Dependency
from demo_service.chassis.rules import RENAMED, RULES, Rule, variable
from demo_service.chassis.settings import Settings, expected, hide, place_of
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, Field, Secret, SecretStr

NAMES = [variable(name) for name in Settings.model_fields]


@pytest.fixture(name="environment")
def _environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    # In place the chassis has every module, so that of the database, too.
    monkeypatch.setenv("APP_DATABASE_URL", "postgresql://user@localhost/orders")
    return monkeypatch


def near_misses(name: str) -> Iterator[str]:
    """
    One letter changed, missing or added, or two neighbours swapped, behind the prefix; any case.
    """
    for i in range(len("APP_"), len(name)):
        yield name[:i] + name[i + 1 :]
        yield name[:i] + name[i + 1 : i + 2] + name[i] + name[i + 2 :]
        for letter in (*string.ascii_uppercase, "_"):
            yield name[:i] + letter + name[i + 1 :]
            yield name[:i] + letter + name[i:]
            yield name + letter
    yield name.lower()


def faults(cls: type[Settings] = Settings, kind: str = "") -> Mapping[str, str]:
    """
    The faults that `load` finds; none if it succeeds.
    """
    return dict(all_faults(cls, kind))


def all_faults(cls: type[Settings] = Settings, kind: str = "") -> Sequence[tuple[str, str]]:
    """
    The same, also where one variable has several.
    """
    try:
        load(cls, kind)
    except ConfigurationError as error:
        return error.faults
    return ()


def outbound_faults(kind: str = "") -> Sequence[tuple[str, str]]:
    """
    The faults that opening a `Dependency` finds.
    """
    try:
        check_outbound(load(Settings, kind).settings)
    except ConfigurationError as error:
        return error.faults
    return ()


@pytest.mark.promise("C3")
@pytest.mark.parametrize("name", NAMES)
def test_every_near_miss(environment: pytest.MonkeyPatch, name: str) -> None:
    """
    Each mutation of each known name is fatal, and a known name is suggested.
    """
    mutations = set(near_misses(name)) - set(NAMES)
    for mutation in mutations:
        environment.setenv(mutation, "1")

    found = faults()

    assert mutations <= found.keys()
    assert all("did you mean APP_" in found[mutation] for mutation in mutations)
    right = [mutation for mutation in mutations if f"did you mean {name}?" in found[mutation]]
    assert len(right) >= 0.95 * len(mutations)


@pytest.mark.promise("C3")
def test_prefix_of_others(environment: pytest.MonkeyPatch) -> None:
    """
    Variables without the prefix are nobody's business.
    """
    for name in ("PORT", "AP_PORT", "APPPORT", "XAPP_PORT", "app", "APP"):
        environment.setenv(name, "1")

    assert faults() == {}


@pytest.mark.promise("C3")
def test_old_names(environment: pytest.MonkeyPatch) -> None:
    """
    Each name that a setting had before is fatal, all at once and beside other faults, with the new
    one and since when; beside the new one it is so only where the two differ.
    """
    environment.setenv("APP_PORT", "x")
    for old in RENAMED:
        environment.setenv(variable(old), "0.5")

    assert faults().keys() == {"APP_PORT", *map(variable, RENAMED)}
    for old, (new, since) in RENAMED.items():
        told = f"is {variable(new)} since template {since}: set that, unset this"
        assert faults()[variable(old)] == told
        environment.setenv(variable(new), "0.5")
        assert variable(old) not in faults()
        environment.setenv(variable(new), "0.6")
        assert faults()[variable(old)] == f"{told}; both are set, and differ"


@pytest.mark.promise("C3")
def test_old_names_beside_the_new(environment: pytest.MonkeyPatch) -> None:
    """
    Both names with the same value only warn, so that an environment can be made ready for a release
    and for the way back.
    """
    for old, (new, _) in RENAMED.items():
        for name in (old, new):
            environment.setenv(variable(name), str(Settings.model_fields[new].default))

    loaded = load(Settings)

    assert loaded.unknown == sorted(map(variable, RENAMED))


@pytest.mark.promise("C3")
def test_old_names_in_files(environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """
    The same if they are files of secrets.
    """
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    environment.setenv("APP_SECRETS_DIR", str(secrets))
    (secrets / "APP_DB_LOCK_SECONDS").write_text("0.5\n")

    with pytest.raises(ConfigurationError) as raised:
        load(Settings)
    (secrets / "APP_DATABASE_LOCK_SECONDS").write_text("0.5\n")
    loaded = load(Settings)

    assert [name for name, _ in raised.value.faults] == ["APP_DB_LOCK_SECONDS"]
    assert loaded.unknown == ["APP_DB_LOCK_SECONDS"]


@pytest.mark.promise("C3")
def test_old_names_of_the_team(environment: pytest.MonkeyPatch) -> None:
    """
    A service may give a name that the chassis gave up to a setting of its own.
    """

    class Service(Settings):
        db_lock_seconds: float = 1

    environment.setenv("APP_DB_LOCK_SECONDS", "2")

    assert load(Service).settings.db_lock_seconds == 2


def suggested(found: Sequence[tuple[str, str]]) -> dict[str, str]:
    """
    The values that the faults of broken rules suggest: each fault suggests the same ones.
    """
    sets = {problem.partition("; try ")[2] for _, problem in found if " must be " in problem}
    assert len(sets) <= 1
    return dict(pair.split("=") for pair in "".join(sets).split())


@pytest.mark.promise("C4")
@pytest.mark.parametrize("rule", RULES, ids=lambda rule: "-".join(rule.fields))
def test_every_rule(environment: pytest.MonkeyPatch, rule: Rule) -> None:
    """
    Each rule, broken alone, is reported with its text, its variables and their values. The values
    that the message suggests satisfy all rules, and leave alone what was set.
    """
    environment.setenv("APP_SENTRY_DSN", "https://key@sentry.example/1")
    numbers = {name: field.default for name, field in Settings.model_fields.items()}
    # Lower the right side, or of outbound calls raise the left one, until just this rule breaks.
    limit = rule.total(numbers) - (0.1 if rule.sign == "<=" else 0)
    name, value = rule.limit, limit
    if rule.is_outbound:
        name, value = rule.fields[0], numbers[rule.limit]
    numbers[name] = value
    environment.setenv(variable(name), str(value))

    found = outbound_faults() if rule.is_outbound else all_faults()

    told = [problem for _, problem in found if rule.why in problem]
    assert len(told) == 1
    for field in rule.fields:
        assert f"{variable(field)}={numbers[field]:g}" in told[0]
    mends = suggested(found)
    assert mends
    assert variable(name) not in mends
    for mend in mends.items():
        environment.setenv(*mend)
    assert (outbound_faults() if rule.is_outbound else all_faults()) == ()


def test_rules_are_in_order() -> None:
    """
    A rule that limits a setting comes before the rules that have this setting on their left.
    """
    for number, rule in enumerate(RULES):
        later = {each.limit for each in RULES[number:]}
        assert not later & {*rule.fields[:-1]}


FIELDS = sorted({name for rule in RULES for name in rule.fields} - {"readiness_failures"})
KINDS = ["", "web", "worker", "job", "migrate"]
VALUES = st.sampled_from([0.01, 0.5, 1.0, 2.5, 7.0, 10.0, 26.0, 45.0, 300.0, 5000.0, 86400.0])


@pytest.mark.promise("C1", "C4")
@settings(
    max_examples=100,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.dictionaries(st.sampled_from(FIELDS), VALUES, max_size=8), st.sampled_from(KINDS))
def test_suggestion_is_whole(
    environment: pytest.MonkeyPatch, values: dict[str, float], kind: str
) -> None:
    """
    Whatever is set, all that a message suggests, pasted at once, makes the configuration valid. It
    changes what was set only if nothing else can help, and needs every change that it asks for.
    """
    with environment.context() as patch:
        for name, value in values.items():
            patch.setenv(variable(name), f"{value:g}")
        found = all_faults(kind=kind)
        mends = suggested(found)
        for mend in mends.items():
            patch.setenv(*mend)
        left = all_faults(kind=kind)

    assert left == ()
    assert bool(mends) == bool(found)
    before = {name: field.default for name, field in Settings.model_fields.items()} | values
    new = {name.removeprefix("APP_").lower(): float(value) for name, value in mends.items()}
    after = before | new
    for name in new:
        assert broken(after, kind) < broken(after | {name: before[name]}, kind), name
    assert not new.keys() & values or not can_be_kept(values, kind)


def broken(values: Mapping[str, Any], kind: str) -> set[Rule]:
    """
    The rules that these settings break in this kind of process, or in any; without telemetry.
    """
    everything = {"web", "worker", "job", "migrate", "database"}
    rules = [rule.where({"database", kind}) for rule in RULES]
    rules += [rule.where(everything) for rule in RULES]
    return {rule for rule in rules if rule and not rule.holds(values)}


def can_be_kept(values: dict[str, float], kind: str) -> bool:
    """
    Whether some values of all other settings satisfy the rules of this kind of process.

    The smallest ones that can: each limit is just above what must be smaller.
    """
    there = {"database", *([kind] if kind else ["web", "worker", "job", "migrate"])}
    numbers = {"readiness_failures": 2, **dict.fromkeys(FIELDS, 0.002), **values}
    for rule in filter(None, (rule.where(there) for rule in RULES if not rule.is_outbound)):
        if rule.limit not in values:
            numbers[rule.limit] = max(numbers[rule.limit], rule.total(numbers) + 0.002)
        most = 31_622_400 if rule.limit == "job_interval_seconds" else 86_400
        if not rule.holds(numbers) or numbers[rule.limit] > most:
            return False
    return True


@pytest.mark.promise("C4")
@pytest.mark.parametrize(
    ("kind", "name", "value"),
    [
        ("web", "job_interval", 60),
        ("web", "message_stall", 1),
        ("web", "migration_statement", 1),
        ("worker", "request_deadline", 20),
        ("worker", "lb_idle", 600),
        ("worker", "header_receive", 60),
        ("worker", "drain", 0),
        ("job", "drain", 40),
        ("job", "watchdog", 60),
        ("job", "request_deadline", 100),
        ("job", "check_timeout", 2),
        ("migrate", "grace", 100),
        ("migrate", "request_deadline", 1),
    ],
)
def test_rules_of_other_processes(
    environment: pytest.MonkeyPatch, kind: str, name: str, value: float
) -> None:
    """
    A process does not start by the rules of settings that it does not read; `config` and
    `preflight`, which look at the service as a whole, still know them.
    """
    environment.setenv(variable(f"{name}_seconds"), str(value))

    assert all_faults(kind=kind) == ()
    assert all_faults() != ()


@pytest.mark.promise("C4")
def test_worker_and_web_have_ports_of_their_own(environment: pytest.MonkeyPatch) -> None:
    """
    A worker has one listener, so the port of the other kind of process may be the same.
    """
    environment.setenv("APP_ADMIN_PORT", "8000")

    assert faults(kind="worker") == {}
    assert faults(kind="web") == {"APP_ADMIN_PORT": "must differ from APP_PORT=8000"}


@pytest.mark.promise("C4")
def test_flush_counts_only_with_telemetry(environment: pytest.MonkeyPatch) -> None:
    """
    The time to flush telemetry counts only if there is telemetry.
    """
    environment.setenv("APP_TELEMETRY_FLUSH_SECONDS", "60")
    assert faults() == {}

    environment.setenv("APP_SENTRY_DSN", "https://key@sentry.example/1")

    assert "APP_TELEMETRY_FLUSH_SECONDS=60 + 1 must be less" in str(faults())


@pytest.mark.promise("C4")
def test_rules_of_outbound_calls(environment: pytest.MonkeyPatch) -> None:
    """
    They count once a `Dependency` is opened, with its own limits, and without those of requests
    in a process that serves none.
    """
    environment.setenv("APP_OUT_TOTAL_SECONDS", "12")
    assert all_faults() == ()

    assert "APP_OUT_TOTAL_SECONDS=12 must be less" in str(outbound_faults(kind="web"))
    assert suggested(outbound_faults(kind="web")).keys() == {"APP_REQUEST_DEADLINE_SECONDS"}
    assert outbound_faults(kind="worker") == ()

    own = load(Settings, "worker").settings.model_copy(update={"out_attempt_seconds": 60})
    with pytest.raises(ConfigurationError, match="APP_OUT_ATTEMPT_SECONDS=60 must be less"):
        Dependency("search", "http://search.example", own)


@pytest.mark.promise("C1")
def test_rules_beside_other_faults(environment: pytest.MonkeyPatch) -> None:
    """
    A broken rule is told even when another variable is malformed or missing.
    """

    class Service(Settings):
        needed: str = Field(description="What it is for")
        unexplained: str

    environment.setenv("APP_PORT", "x")
    environment.setenv("APP_GRACE_SECONDS", "44")

    told = faults(Service)
    assert told.keys() == {"APP_PORT", "APP_NEEDED", "APP_UNEXPLAINED", "APP_GRACE_SECONDS"}
    assert "is missing: see settings.py" in told["APP_UNEXPLAINED"]


@pytest.mark.promise("C1")
def test_rules_beside_a_wider_type(environment: pytest.MonkeyPatch) -> None:
    """
    A service that takes more than the chassis for one variable is told the faults of others.
    """

    class Service(Settings):
        host: Any = "localhost"

    environment.setenv("APP_HOST", "service.internal")
    environment.setenv("APP_PORT", "x")

    assert faults(Service).keys() == {"APP_PORT"}


@pytest.mark.promise("C2")
@pytest.mark.parametrize("value", ["canary-4711", "canary\n4711", "postgresql://u:canary-4711@h/d"])
def test_no_secret_in_faults(environment: pytest.MonkeyPatch, value: str) -> None:
    """
    Neither a secret that is not valid nor the password of a URL is quoted.
    """

    class Service(Settings):
        token: SecretStr = Field(max_length=3)
        number: Secret[int]
        optional: SecretStr | None = Field(default=None, max_length=3)
        logins: list[Login] = Field(default_factory=list)

    environment.setenv("APP_LOGINS", '[{"user": 5, "password": "canary-4711"}]')
    for name in ("TOKEN", "NUMBER", "OPTIONAL"):
        environment.setenv(f"APP_{name}", value)
    if "://" in value:
        environment.setenv("APP_PORT", value)

    found = faults(Service)

    assert {"APP_TOKEN", "APP_NUMBER", "APP_OPTIONAL", "APP_LOGINS"} <= found.keys()
    assert "canary" not in str(found)


PLACES = [
    ("postgresql://user:canary@db.internal:6432/orders", "db.internal:6432/orders"),
    ("postgresql://user:canary@db.internal/orders?sslmode=require", "db.internal:5432/orders"),
    ("postgres://user:%40canary%2F@db.internal/orders%20old", "db.internal:5432/orders old"),
    ("postgresql://user@db.internal/orders?password=canary", "db.internal:5432/orders"),
    ("postgresql://user:canary@[fd00::1]:6432/orders", "[fd00::1]:6432/orders"),
    ("postgresql://user:canary@a:6432,b:6433/orders", "a:6432,b:6433/orders"),
    ("postgresql://user:canary@/orders?host=/run/pg&port=6432", "/run/pg:6432/orders"),
    ("postgresql://user:canary@%2Frun%2Fpg/orders", "/run/pg:5432/orders"),
    ("postgresql://user:canary@canary.internal/orders", "canary.internal:5432/orders"),
]


@pytest.mark.promise("C2", "C6", "M10")
@pytest.mark.parametrize(("url", "place"), PLACES, ids=[place for _, place in PLACES])
def test_place_of_a_database(environment: pytest.MonkeyPatch, url: str, place: str) -> None:
    """
    Host, port and name of a database may be shown, its user, password and query may not.
    """
    environment.setenv("APP_DATABASE_URL", url)

    assert faults() == {}
    assert hide(url) == f"postgresql://**********@{place}"
    assert "{host}:{port}/{database}".format_map(place_of(url)) == place
    assert isinstance(place_of(url)["port"], int)


@pytest.mark.promise("C2")
@pytest.mark.parametrize(
    "url",
    [
        "postgresql://user:47/11canary@db.internal",
        "postgresql://user:4711/canary@db.internal",
        "postgresql://user:canary/x@db.internal",
        "postgresql://user:x@canary@db.internal/orders",
        "postgresql://user:canary?x@db.internal/orders",
        "postgresql://user:canary#x@db.internal/orders",
        "https://canary/hook",
        "canary",
    ],
)
def test_what_is_no_place(environment: pytest.MonkeyPatch, url: str) -> None:
    """
    A URL in which the credentials have no clear end is refused and not quoted, and neither shown.
    """
    environment.setenv("APP_DATABASE_URL", url)

    found = faults()

    assert found.keys() == {"APP_DATABASE_URL"}
    assert hide(url) == "**********"
    assert not re.search("canary|4711", str(found))


def test_lists_are_json(environment: pytest.MonkeyPatch) -> None:
    """
    A list is written as JSON, and what is no JSON is a fault like any other.
    """

    class Service(Settings):
        names: tuple[str, ...] = ()
        numbers: dict[str, int] = Field(default_factory=dict)

    environment.setenv("APP_NAMES", '["a", "b"]')
    environment.setenv("APP_NUMBERS", '{"a": 1}')
    assert load(Service).settings.names == ("a", "b")

    environment.setenv("APP_NAMES", "[a")
    environment.setenv("APP_NUMBERS", "3")
    assert faults(Service).keys() == {"APP_NAMES", "APP_NUMBERS"}


def test_first_origin_wins(environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """
    Environment, then files.
    """
    environment.setenv("APP_SECRETS_DIR", str(tmp_path))
    (tmp_path / "APP_PORT").write_text("9001\n")
    (tmp_path / "APP_ADMIN_PORT").write_text("9002\n")
    environment.setenv("APP_ADMIN_PORT", "9003")

    loaded = load(Settings)

    assert (loaded.settings.port, loaded.settings.admin_port) == (9001, 9003)
    assert loaded.origins["port"] == f"file in {tmp_path}"
    assert loaded.origins["admin_port"] == "environment"


def test_json_in_a_text_stays_text(environment: pytest.MonkeyPatch) -> None:
    """
    A service account is a secret text that happens to be JSON.
    """

    class Service(Settings):
        account: SecretStr
        origins: list[str] = Field(default_factory=list)
        unknown: str = ""

    environment.setenv("APP_ACCOUNT", '{"type": "service_account"}')
    environment.setenv("APP_ORIGINS", '["https://example.com"]')
    environment.setenv("APP_UNKNOWN", "[not json")

    settings = load(Service).settings

    assert settings.account.get_secret_value() == '{"type": "service_account"}'
    assert settings.origins == ["https://example.com"]
    assert settings.unknown == "[not json"


def test_any_type_is_described(environment: pytest.MonkeyPatch) -> None:
    """
    A wrong value of any type is explained, and every type has words in the reference.
    """

    class Service(Settings):
        colour: Colour | None = None
        place: Place | None = None
        anything: object = None

    environment.setenv("APP_COLOUR", "blue")
    environment.setenv("APP_PLACE", "here")

    found = faults(Service)

    assert "[expected: one of red, green]" in found["APP_COLOUR"]
    assert "[expected: JSON object]" in found["APP_PLACE"]
    assert expected(Service, "anything") == "any"


def test_rules_know_the_defaults_of_the_service(environment: pytest.MonkeyPatch) -> None:
    """
    A default that the service changed counts, also while another variable is wrong.
    """

    class Service(Settings):
        platform_grace_seconds: float = 90

    environment.setenv("APP_GRACE_SECONDS", "60")
    environment.setenv("APP_PORT", "x")

    assert faults(Service).keys() == {"APP_PORT"}


class Login(BaseModel):
    user: str
    password: SecretStr


class Colour(Enum):
    RED = "red"
    GREEN = "green"


class Place(BaseModel):
    street: str


ORIGINS = [
    "https://app.example.com",
    "http://localhost:5173",
    "https://app_1.internal:8443",
    "http://10.0.0.1:8080",
    "http://[::1]:3000",
    "http://app.example.com:443",
    "capacitor://localhost",
]
NO_ORIGINS = [
    "",
    "*",
    "null",
    "app.example.com",
    "https://",
    "https://app.example.com/",
    "https://app.example.com/path",
    "https://app.example.com?x",
    "https://app.example.com#x",
    "https://app.example.com:443",
    "http://app.example.com:80",
    "https://app.example.com:0443",
    "https://app.example.com:",
    "https://App.example.com",
    "HTTPS://app.example.com",
    "https://*.example.com",
    "https://user:canary@app.example.com",
    "https://b\u00fccher.example",
    "https://a b",
    "https://a\n",
    " https://a",
]


@pytest.mark.promise("E6")
def test_origins(environment: pytest.MonkeyPatch) -> None:
    """
    An origin is taken if it is written as a browser sends it; any other value is fatal, and the
    message shows the one that is wrong, without a password in it.
    """
    environment.setenv("APP_CORS_ORIGINS", json.dumps(ORIGINS))
    assert load(Settings).settings.cors_origins == tuple(ORIGINS)
    for wrong in NO_ORIGINS:
        environment.setenv("APP_CORS_ORIGINS", json.dumps([ORIGINS[0], wrong]))
        told = faults()["APP_CORS_ORIGINS"]
        shown = wrong.replace("user:canary", "**********")
        assert f"{shown!r} is not an origin, such as https://app.example.com:8443" in told
        assert "canary" not in told
    for wrong in ("https://app.example.com", "*", '{"a": 1}', "[1]"):
        environment.setenv("APP_CORS_ORIGINS", wrong)
        assert "JSON array" in faults()["APP_CORS_ORIGINS"]
