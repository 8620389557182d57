"""
Hostile answers: each is refused with a sentence, or yields a service that works.

A failing example is printed as the call that repeats it; put it into the lists below.
"""

import ast
import json
import keyword
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import copier
import hcl2
import jinja2.sandbox
import pytest
import yaml
from copier.errors import CopierError
from harness import ROOT
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from selection import IS_NIGHTLY, others_nightly

from questions import QUESTIONS

pytestmark = pytest.mark.covers(
    "copier.yml",
    "questions/*",
    "template/*.jinja",
)

Render = Callable[..., Path]
Ask = Callable[..., dict[str, Any] | str]

LOADED: dict[str, Any] = yaml.safe_load((ROOT / "copier.yml").read_text())
FREE = ["service_name", "description", "owner", "package_index_url"]
CHOSEN = [name for name in QUESTIONS if name not in FREE]
MANY = [name for name in CHOSEN if LOADED[name].get("multiselect")]

# Text that means something to what reads it, but must be taken as it is.
NASTY = [
    *("yes", "no", "on", "off", "true", "null", "none", "nan", "~", "1e3", "0x1", "010", "1_000"),
    *("2026-01-01", "12:30:45", "- a", "a: b", "# x", "? x", "| x", "> x", "%YAML 1.1", "@x", "&a"),
    *("*a", "!!python/object:os.system", "[a]", "{a: b}", "[[a]]", "---", "...", "===", "<<", "="),
    *("{{ 7*7 }}", "{{ undefined }}", "{% raw %}", "{% endraw %}", "{# comment", "#}", "}}"),
    *("$VAR", "${VAR}", "$(id)", "`id`", "%n %i %%", "%(name)s", "${var.x}", "%{ if x }", "$${x}"),
    *("'", "it's", "'''", "a;b", "a && b", "a | b", "!x", "~root", "*.py", "a\\b", 'a"b', '"""'),
    *("<!-- x", "<b>x", "</details>", "```", "~~~", "[x]: http://a", "![x](y)", "_x_", "**x**"),
    *("1. x", "1) x", "+ x", "&amp; &copy; &#0;", "a  b", " a", "a ", "a\nb", "a\rb", "a\tb"),
    *("a\x00b", "a\x1bb", "a\x7fb", "a\x85b", "a\u2028b", "a\u2029b", "a\xa0b", "a\u200bb"),
    *("a\u202eb", "a\u2066b", "\ufeffa", "a\xadb", "\ud800", "\ufffe", "\ue000", "a\u0301", "ﷺ"),
    *(
        "🌴",
        "👨‍👩‍👧",
        "ünïcödé",
        "日本語",
        "العربية",
        "x" * 52,
        "x" * 53,
        "x" * 63,
        "x" * 201,
        "",
        " ",
    ),
    *("acme/payments_2", "acme/a.", "acme/a_._b_", "a/b/c", "-a", "a-", "a--b", "a/", "/a", ".."),
    *("https://a.example/%zz", "https://a.example/%20/", "https://a:99999/", "https://[::1]/"),
    *("https://a.example/'", "https://me:x@a.example/", "https://a.example/{{x}}", "HTTPS://A/"),
    *("orders-stubs", "pyyaml", "sentry-sdk", "colorama", "stubgen", "class", "json", "con"),
]
WRONG_TYPES = [None, True, False, 0, 5, -1, 1.5, 1e300, [], ["web"], ["web", "web"], {}, {"a": 1}]
# What copier says where a type is wrong, before it asks our rules; it names the value alone.
TYPES = (
    r"Could not convert .* to string|Not a YAML list: .*|'\w+' object is not iterable|"
    r"Invalid answer .* to question .*|(while|could not|expected|found|mapping|unacceptable) .*"
)

TEXT = st.one_of(
    st.sampled_from(NASTY),
    st.text(max_size=210),
    st.text(alphabet="abz019-_./:%@'\"\\{}[]#$`<>&*~ \n\u200b\u202e\x85é🌴", max_size=60),
    st.from_regex(r"\A[a-z][a-z0-9]{0,30}(-[a-z0-9]{1,20}){0,2}\Z"),
    st.from_regex(r"\A[A-Za-z0-9-]{1,9}/[A-Za-z0-9_.-]{1,9}\Z"),
    st.from_regex(r"\Ahttps://[a-z0-9.-]{1,20}(:[0-9]{1,6})?(/[A-Za-z0-9._~/+%-]{0,20})?\Z"),
)
VALUES = st.one_of(TEXT, st.sampled_from(WRONG_TYPES), st.lists(TEXT, max_size=3))


def tried(examples: int, *, nightly: int) -> settings:
    """
    So many examples: the same ones for each commit, others each night.
    """
    return settings(
        max_examples=nightly if IS_NIGHTLY else examples,
        derandomize=not IS_NIGHTLY,
        database=None,
        deadline=None,
        print_blob=True,
        phases=[Phase.explicit, Phase.generate, Phase.shrink],
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
    )


@pytest.fixture(name="validate", scope="session")
def _validate() -> Callable[[str, str], str]:
    """
    What the rule of a question says of a text, or nothing: as copier asks it, but a hundred times
    as fast; `test_rules_are_asked_as_copier_does` compares the two.
    """
    environment = jinja2.sandbox.SandboxedEnvironment(
        loader=jinja2.FileSystemLoader(ROOT),
        extensions=["jinja2_ansible_filters.AnsibleCoreFiltersExtension"],
        undefined=jinja2.StrictUndefined,
    )
    rules = {name: environment.from_string(LOADED[name]["validator"]) for name in FREE}

    def validate(name: str, value: str) -> str:
        return rules[name].render({name: value}).strip()

    return validate


@pytest.fixture(name="ask", scope="session")
def _ask(tmp_path_factory: pytest.TempPathFactory) -> Ask:
    """
    The questions alone, without the files of a service: the recorded answers, or the refusal.
    """
    folder = tmp_path_factory.mktemp("questions")
    answers = "{{_copier_conf.answers_file}}.jinja"
    for name in ("copier.yml", *(f"questions/{path.name}" for path in ROOT.glob("questions/*"))):
        (folder / "template" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "template" / name).write_bytes((ROOT / name).read_bytes())
    files = folder / "template" / "template"
    files.mkdir()
    (files / answers).write_bytes((ROOT / "template" / answers).read_bytes())

    def ask(**given: Any) -> dict[str, Any] | str:
        made = tmp_path_factory.mktemp("asked") / "service"
        try:
            copier.run_copy(str(folder / "template"), made, data=given, defaults=True, quiet=True)
        except (ValueError, TypeError, CopierError, yaml.YAMLError) as error:
            assert not made.exists(), "something was written"
            return str(error)
        loaded: dict[str, Any] = yaml.safe_load((made / ".copier-answers.yml").read_text())
        return loaded

    return ask


def is_told(said: str, name: str) -> bool:
    """
    Whether a refusal names the question and the rule.
    """
    return (
        re.match(rf"Validation error for question '{name}': {name} must ", said) is not None
        or re.match(rf"Invalid choice for '{name}': .* is not in \[", said, re.DOTALL) is not None
    )


@tried(400, nightly=20000)
@given(name=st.sampled_from(FREE), value=TEXT)
def test_rules_name_the_question(
    validate: Callable[[str, str], str], name: str, value: str
) -> None:
    """
    Whatever text is given, the rule says nothing, or one line that begins with the question's name.
    """
    said = validate(name, value)

    assert not said or re.fullmatch(rf"{name} must [ -~]+", said), (name, value, said)


@pytest.mark.parametrize("name", FREE)
def test_nasty_text_is_refused_in_words(validate: Callable[[str, str], str], name: str) -> None:
    """
    The same, of each text in the list.
    """
    for value in NASTY:
        said = validate(name, value)
        assert not said or re.fullmatch(rf"{name} must [ -~]+", said), (value, said)


@tried(15, nightly=1000)
@given(name=st.sampled_from(FREE), value=TEXT)
def test_rules_are_asked_as_copier_does(
    ask: Ask, validate: Callable[[str, str], str], name: str, value: str
) -> None:
    """
    Copier refuses what the rule refuses, in its words, and writes nothing; what it takes it records
    as it was given.
    """
    said = ask(**{name: value})
    expected = validate(name, value)

    if expected:
        assert isinstance(said, str), (name, value)
        assert said.endswith(expected), (name, value)
        assert is_told(said, name), (name, value)
    else:
        assert isinstance(said, dict), (name, value, said)
        assert said[name] == value


@tried(25, nightly=1000)
@given(name=st.sampled_from(list(QUESTIONS)), value=VALUES)
def test_wrong_types_and_choices(ask: Ask, name: str, value: Any) -> None:
    """
    Whatever is given for any question, of any type: it is refused in a sentence and nothing is
    written, or what is recorded is text, or a list of choices without a second of one.
    """
    said = ask(**{name: value})

    if isinstance(said, str):
        is_of_type = isinstance(value, str) and name not in MANY
        assert is_told(said, name) or (not is_of_type and re.match(TYPES, said, re.DOTALL)), said
    elif name in MANY:
        assert len({*said[name]}) == len(said[name])
        assert {*said[name]} <= {*LOADED[name]["choices"].values()}
    else:
        assert isinstance(said[name], str)


@pytest.mark.parametrize("name", MANY)
def test_twice_is_once(ask: Ask, name: str) -> None:
    """
    A choice that is given twice counts once.
    """
    choice = next(iter(LOADED[name]["choices"].values()))

    said = ask(**{name: [choice, choice]})

    assert isinstance(said, dict)
    assert said[name] == [choice]


def test_words_of_python_are_refused(validate: Callable[[str, str], str]) -> None:
    """
    No module of the standard library, keyword or soft keyword can be a service's name.
    """
    words = {*sys.stdlib_module_names, *keyword.kwlist, *keyword.softkwlist}

    for word in words:
        if word == word.lower():
            name = word.replace("_", "-")
            assert "service_name must " in validate("service_name", name), word


@pytest.mark.parametrize(
    ("given_answers", "told"),
    [
        ({"service_name": "orders-stubs"}, "must not end in -stubs"),
        ({"service_name": "pyyaml"}, "name of a dependency"),
        ({"service_name": "python-dotenv"}, "name of a dependency"),
        ({"service_name": "stubgen"}, "name of a dependency"),
        ({"service_name": "sentry-sdk", "telemetry": ["sentry"]}, "telemetry must not hold sentry"),
        ({"service_name": "opentelemetry-api"}, "processes must not hold web"),
        (
            {"service_name": "opentelemetry-sdk", "telemetry": ["opentelemetry"]},
            "telemetry must not hold opentelemetry",
        ),
        (
            {"service_name": "mako-render", "database": "postgresql"},
            "database must not hold postgresql",
        ),
        ({"service_name": "test-notes"}, "processes must not hold web"),
        ({"package_index_url": "https://a.example:65536/"}, "a port of at most 65535"),
        ({"description": "a\u200bb"}, "control or invisible characters"),
        ({"description": "a\u202eb"}, "control or invisible characters"),
    ],
    ids=repr,
)
def test_what_was_found(ask: Ask, given_answers: dict[str, Any], told: str) -> None:
    """
    What made no working service in 0.1.0 is refused with the reason.
    """
    said = ask(**given_answers)

    assert isinstance(said, str)
    assert told in said


@pytest.mark.parametrize(
    "given_answers",
    [
        {"service_name": "sentry-sdk"},
        {"service_name": "opentelemetry-sdk", "telemetry": ["sentry"]},
        {"service_name": "opentelemetry-api", "processes": ["job"]},
        {"service_name": "mako-render"},
        {"package_index_url": "https://a.example:65535/%7Eteam/simple"},
    ],
    ids=repr,
)
def test_what_worked_is_taken(ask: Ask, given_answers: dict[str, Any]) -> None:
    """
    A rule never gets stricter where 0.1.0 made a working service: an update would silently put the
    default in the place of the recorded answer.
    """
    assert isinstance(ask(**given_answers), dict)


# Answers that are as plain as can be, and can be found again in each file.
PLAIN = {"service_name": "zq-name", "description": "zqdescription", "owner": "zqowner"}
EVERYTHING: dict[str, Any] = {
    name: QUESTIONS[name][-1] for name in ("processes", "database", "telemetry", "deploy")
}
# Each with each other at least once somewhere; found ones go to the end.
COMBINED = [
    ("null", "{{ 7*7 }} {% raw %} {# x", "acme/payments_2"),
    ("yes", "- a: b # c", "no"),
    ("true", "%n ${VAR} $(id) `id` %{ if x }", "1e3"),
    ("x" * 52, "<!-- 👋 ``` it's", "a" * 100),
    ("off", "[x]: http://a", "acme/a_._b_"),
    ("e1", "1. <b> &amp; *x* _y_ ~~z~~", "2026-01-01"),
    ("no-1", "~~~", "null"),
    ("on", "!!python/object:os.system", "0x1"),
    ("y", "'''", "acme/a."),
    ("deploy", "=====", "a-"),
]


def meaning(path: Path) -> Any:
    """
    What a file says to the program that reads it; raises where it says nothing.
    """
    if path.suffix == ".sh":
        subprocess.run(["bash", "-n", path], check=True)
    return _PARSERS.get(path.suffix, str)(path.read_text())


_PARSERS: dict[str, Callable[[str], Any]] = {
    ".hcl": hcl2.loads,
    ".json": json.loads,
    ".md": lambda text: [token.type for token in MarkdownIt().parse(text)],
    ".py": lambda text: [ast.dump(node) for node in ast.parse(text).body],
    ".toml": tomllib.loads,
    ".yaml": lambda text: list(yaml.safe_load_all(text)),
    ".yml": lambda text: list(yaml.safe_load_all(text)),
}


def replaced(value: Any, words: dict[str, str]) -> Any:
    match value:
        case str():
            return re.sub("|".join(words), lambda found: words[found[0]], value)
        case list() | tuple():
            return type(value)(replaced(one, words) for one in value)
        case dict():
            return {replaced(key, words): replaced(one, words) for key, one in value.items()}
    return value


def said_by(readme: str) -> str:
    """
    The first paragraph below the heading, as it is shown.
    """
    tokens = MarkdownIt().parse(readme)
    kinds = [token.type for token in tokens[:5]]
    assert kinds[:2] == ["heading_open", "inline"]
    assert kinds[3:] == ["paragraph_open", "inline"], kinds
    return "".join(
        "\n" if one.type == "softbreak" else one.content for one in tokens[4].children or []
    )


def differences(plain: Path, nasty: Path, words: dict[str, str]) -> Iterator[str]:
    """
    The files in which an answer changed more than itself.
    """
    for path in sorted(plain.rglob("*")):
        name = str(path.relative_to(plain))
        if not path.is_file() or name == ".copier-answers.yml":
            continue
        other = nasty / replaced(name, words)
        if not other.is_file():
            yield f"{name}: is missing"
            continue
        before, after = replaced(meaning(path), words), meaning(other)
        if path.parent.name == "dashboards":
            # Grafana takes forty characters.
            before["uid"] = f"{words[PLAIN['service_name']][:31]}-{path.stem}"
        if path.suffix == ".py":
            # The order of imports depends on names.
            before, after = sorted(before), sorted(after)
        if before != after:
            yield f"{name}: says something else"


def compare(render: Render, name: str, description: str, owner: str, **more: Any) -> None:
    plain = render(**EVERYTHING, **more, **PLAIN)
    given_answers = {"service_name": name, "description": description, "owner": owner}
    nasty = render(**EVERYTHING, **more, **given_answers)
    words = dict(zip(PLAIN.values(), given_answers.values(), strict=True))
    words["zq_name"] = name.replace("-", "_")

    # On GitHub, addresses of runbooks have the organisation of a team.
    words[f"example.com/{PLAIN['owner']}/"] = f"example.com/{owner.partition('/')[0]}/"

    assert (list(differences(plain, nasty, words)), given_answers) == ([], given_answers)
    assert said_by((nasty / "README.md").read_text()) == description


@pytest.mark.parametrize("texts", others_nightly(COMBINED, 3), ids=lambda texts: texts[0])
def test_text_changes_nothing_but_itself(render: Render, texts: tuple[str, str, str]) -> None:
    """
    Whatever a service is called, its files parse, and mean the same as those of any other, but for
    the texts; the README shows them as they are.
    """
    compare(render, *texts)


DESCRIPTIONS = st.one_of(
    st.sampled_from(NASTY), st.text(alphabet=st.characters(codec="utf-8"), min_size=1, max_size=40)
).filter(lambda text: text.isprintable() and text == text.strip() != "" and not {*'"\\'} & {*text})


@tried(3, nightly=100)
@given(
    name=st.from_regex(r"\A[a-z][a-z0-9]{1,12}(-[a-z0-9]{1,9}){1,3}\Z"),
    description=DESCRIPTIONS,
    owner=st.from_regex(r"\A[A-Za-z0-9][A-Za-z0-9-]{0,9}(/[A-Za-z0-9][A-Za-z0-9_.-]{0,9})?\Z"),
)
def test_any_text_changes_nothing_but_itself(
    render: Render, validate: Callable[[str, str], str], name: str, description: str, owner: str
) -> None:
    """
    The same, of any texts that the rules take.
    """
    if validate("service_name", name):
        return
    compare(render, name, description, owner)


@pytest.mark.parametrize("description", [text for text in NASTY if text.isprintable()])
def test_readme_shows_the_description(
    validate: Callable[[str, str], str], description: str
) -> None:
    """
    No description hides what follows it in README.md, or looks like something else.
    """
    if validate("description", description):
        return
    environment = jinja2.sandbox.SandboxedEnvironment(
        loader=jinja2.FileSystemLoader(ROOT),
        extensions=["jinja2_ansible_filters.AnsibleCoreFiltersExtension"],
    )
    call = "{% from 'questions/markdown.jinja' import plain %}# x\n\n{{ plain(text) }}\n\n## y\n"

    made = environment.from_string(call).render(text=description)

    assert said_by(made) == description
    assert MarkdownIt().parse(made)[-2].content == "y"


@pytest.mark.parametrize("texts", others_nightly(COMBINED), ids=lambda texts: texts[0])
def test_runs_whatever_it_is_called(
    copy: Render, start_in: Callable[..., Any], tmp_path: Path, texts: tuple[str, str, str]
) -> None:
    """
    Such a service is formatted, lints, type-checks, starts, and tells its name and description.
    """
    name, description, owner = texts
    project = copy(service_name=name, description=description, owner=owner)
    python = ["--cache-dir", str(tmp_path), "--python-executable", ".venv/bin/python"]
    for command in (["ruff", "format", "--check"], ["ruff", "check"], ["mypy", *python]):
        ended = subprocess.run(command, cwd=project, capture_output=True, text=True, check=False)
        assert ended.returncode == 0, ended.stdout + ended.stderr
    service = start_in(project)
    told = subprocess.run(
        [project / ".venv" / "bin" / name, "openapi"], capture_output=True, text=True, check=True
    )

    assert service.get("/v1/notes").status == 200
    info = json.loads(told.stdout)["info"]
    assert (info["title"], info["description"]) == (name, description)
