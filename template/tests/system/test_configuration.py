"""
Configuration: strict, complete, explained, and never a secret in it.
"""

import json
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

PROJECT = Path(__file__).parents[2]
Run = Callable[..., subprocess.CompletedProcess[str]]


def faults(ended: subprocess.CompletedProcess[str]) -> dict[str, str]:
    """
    The problems by variable, as a machine reads them.
    """
    lines = [json.loads(line) for line in (ended.stdout + ended.stderr).splitlines()]
    return {line["variable"]: line["problem"] for line in lines}


def test_settings_of_these_tests(run: Run) -> None:
    """
    First of all: tests/conftest.py names every required setting. `--all` shows defaults, too.
    """
    ended = run("config", "show", "--all")

    assert ended.returncode == 0, f"set it in `environment` of tests/conftest.py: {ended.stderr}"
    assert "APP_HOST=127.0.0.1  # default" in ended.stdout.splitlines()


def test_required_settings_are_everywhere(command: list[str]) -> None:
    """
    A required setting is in each file of this project that starts the service, or describes how.
    """
    ended = subprocess.run(  # noqa: S603  # the service under test, without a setting
        [*command, "config", "show"],
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=False,
    )
    wrong = faults(ended) if ended.returncode else {}
    required = [name for name, problem in wrong.items() if "missing" in problem]

    lacking = [
        f"{where} lacks {name}"
        for where, known in places()
        for name in required
        if name not in known
    ]
    assert not lacking, f"a required setting is a line of its own there: {lacking}"


def places() -> Iterator[tuple[str, str]]:
    """
    Each such file or part of it, with the text that has to name the settings.
    """
    yield ".env.example", (PROJECT / ".env.example").read_text(encoding="utf-8")
    # `.ci/run image` gives the image a database of its own; a job only lists its jobs there.
    image, serves = PROJECT / ".ci" / "image.env", {"web.py", "worker.py"}
    if any((PROJECT / path).exists() for path in (".github", ".ci/gitlab.yml")) and any(
        path.name in serves for path in PROJECT.glob("src/*/*.py")
    ):
        text = image.read_text(encoding="utf-8") if image.exists() else ""
        yield ".ci/image.env, which `.ci/run image` reads,", f"{text} APP_DATABASE_URL"
    if (PROJECT / "compose.yaml").exists():
        text = (PROJECT / "compose.yaml").read_text(encoding="utf-8")
        services: dict[str, dict[str, Any]] = yaml.safe_load(text)["services"]
        for name in ("web", "worker", "job"):
            service = services.get(name, {})
            # What a file outside of the repository holds can't be seen.
            if service and "env_file" not in service:
                given = f"{service.get('environment')} {service.get('secrets')}"
                yield f"compose.yaml, services.{name}.environment,", given.upper()


@pytest.mark.promise("C1")
def test_all_errors_at_once(run: Run, kind: str) -> None:
    """
    Independent faults are all named in one go, a line each, with what is wrong, and the process
    exits 78.
    """
    ended = run(
        kind,
        port="0",
        admin_port="many",
        log_level="loud",
        body_max_bytes="",
        keep_alive_seconds="nan",
        api_docs="yess",
        drain_secondss="1",
        grace_seconds="60",
    )

    assert ended.returncode == 78
    assert len((ended.stdout + ended.stderr).splitlines()) == 8
    assert {
        "APP_PORT",
        "APP_ADMIN_PORT",
        "APP_LOG_LEVEL",
        "APP_BODY_MAX_BYTES",
        "APP_KEEP_ALIVE_SECONDS",
        "APP_API_DOCS",
        "APP_DRAIN_SECONDSS",
        "APP_GRACE_SECONDS",
    } == faults(ended).keys()
    for name in ("APP_PORT", "APP_ADMIN_PORT", "APP_LOG_LEVEL", "APP_KEEP_ALIVE_SECONDS"):
        assert "[expected: " in faults(ended)[name]
    assert "; try APP_" in faults(ended)["APP_GRACE_SECONDS"]


@pytest.mark.promise("C2", "C3")
def test_near_misses_are_fatal(run: Run, kind: str) -> None:
    """
    A near miss of a known variable stops the start, and the right name is suggested: a letter too
    many, one too few, two swapped, a wrong one. Its value may be a secret, and is not repeated.
    APP_PORT=tcp://… comes from a Kubernetes Service named `app`, and the message says so.
    """
    names, value = ("APP_PORTT", "APP_POR", "APP_PROT", "APP_POET"), "canary-4711"

    ended = run(kind, port="tcp://10.0.0.1:80", portt=value, por=value, prot=value, poet=value)

    assert value not in ended.stdout + ended.stderr
    assert ended.returncode == 78
    wrong = faults(ended)
    assert "enableServiceLinks" in wrong.pop("APP_PORT")
    assert wrong == dict.fromkeys(names, "is unknown; did you mean APP_PORT?")


@pytest.mark.promise("C3")
def test_preflight_objects_to_unknown_variables(run: Run) -> None:
    """
    What nothing reads is an error before a release; without it, nothing is in the way of serving.
    """
    passed = run("preflight")

    assert passed.returncode == 0, passed.stdout
    assert run("preflight", from_the_next_release="1").returncode == 78


@pytest.mark.promise("C5")
def test_env_example_is_the_reference(run: Run) -> None:
    """
    `.env.example` says what `config doc` says: the chassis' settings, and below them yours.
    """
    example = (PROJECT / ".env.example").read_text(encoding="utf-8")
    ours, yours = run("config", "doc").stdout.split("# Settings of this service")

    told = "your settings go below 'Yours below.': what is above it is the template's"
    assert ours.strip() in example.partition("# Yours below.")[0], told
    missing = [
        name
        for name in re.findall(r"^# (APP_\w+)=", yours, re.MULTILINE)
        if not re.search(rf"^#? ?{name}=", example, re.MULTILINE)
    ]
    assert not missing, f"add to .env.example, below 'Yours below.': {' '.join(missing)}"


@pytest.mark.promise("C6", "C7")
def test_settings_from_files(run: Run, kind: str, tmp_path: Path) -> None:
    """
    A folder of files sets what the environment does not; a missing folder is an error. `config
    show` prints what differs from the defaults and where it came from.
    """
    (tmp_path / "APP_PORT").write_text("9001\n", encoding="utf-8")
    (tmp_path / "APP_ADMIN_PORT").write_text("9002\n", encoding="utf-8")

    given = {"secrets_dir": tmp_path, "port": 9000, "log_level": "WarNing"}
    shown = run("config", "show", **given).stdout.splitlines()
    missing = run("config", "show", secrets_dir=tmp_path / "nowhere")

    assert "APP_PORT=9000  # environment" in shown
    # A log level is one, however it is written.
    assert "APP_LOG_LEVEL=warning  # environment" in shown
    assert not [line for line in shown if line.startswith("APP_HOST")]
    assert f"APP_ADMIN_PORT=9002  # file in {tmp_path}" in shown
    assert missing.returncode == 78
    assert "APP_SECRETS_DIR" in faults(missing)
    (tmp_path / "APP_PROT").touch()
    assert "did you mean" in faults(run(kind, secrets_dir=tmp_path))["APP_PROT"]


def test_usage_error(run: Run) -> None:
    """
    An unknown command exits 64 and says where to look.
    """
    ended = run("wobble")

    assert ended.returncode == 64
    assert "--help" in ended.stderr
