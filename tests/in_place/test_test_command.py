"""
`scripts/test`, with stand-ins for the commands that it calls: they write down how.
"""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from harness import ROOT

RECORDER = '#!/bin/sh\necho "${0##*/} $*" >>"$CALLS"\n'
COMMANDS = {
    "apt-get": RECORDER,
    "dpkg-query": "#!/bin/sh\nexit 1\n",
    "flock": RECORDER + 'shift 3\nexec "$@"\n',
    "uv": RECORDER
    + 'case "$*" in *pytest*) echo ":1 passed" >>"$FIVEWEEKS_SUMMARY" ;; esac\n'
    + 'case "$*" in *"$RED"*) exit 1 ;; esac\n',
}
FAULTS = "tests/render tests/faults"


def run(
    folder: Path, *arguments: str, user: int, red: str = "nothing"
) -> tuple[subprocess.CompletedProcess[str], list[str]]:
    """
    The command on a machine without the packages; what it said, and what it called.
    """
    scripts, stubs = folder / "scripts", folder / "stubs"
    scripts.mkdir()
    stubs.mkdir()
    for name in ("packages", "test"):
        shutil.copy(ROOT / "scripts" / name, scripts / name)
    given = {
        **COMMANDS,
        "id": f"#!/bin/sh\necho {user}\n",
        # It would ask for a password.
        "sudo": "#!/bin/sh\nexit 1\n",
    }
    for name, text in given.items():
        (stubs / name).write_text(text)
        (stubs / name).chmod(0o755)
    (scripts / "bootstrap").write_text(f"#!/bin/sh\necho {stubs}\n")
    (scripts / "bootstrap").chmod(0o755)
    calls = folder / "calls"
    calls.touch()
    ended = subprocess.run(
        [scripts / "test", *arguments],
        env={"PATH": f"{stubs}:/usr/bin:/bin", "CALLS": str(calls), "RED": red},
        capture_output=True,
        text=True,
        check=False,
    )
    return ended, calls.read_text().splitlines()


def test_it_installs_what_is_missing(tmp_path: Path) -> None:
    """
    Root gets the packages that are missing, told first; then the tests run, the fastest first, and
    what measures runs alone, at the end.
    """
    ended, calls = run(tmp_path, user=0)

    assert ended.returncode == 0, ended.stderr
    assert ended.stderr.startswith("Installing Debian packages: ")
    assert "apt-get update -qq" in calls
    assert any(call.startswith("apt-get install") and " podman" in call for call in calls)
    parts = re.findall(r"^(.+): green after \d+ s: 1 passed$", ended.stdout, re.MULTILINE)
    assert parts == ["in place", "services", "mutations", "measurements"]
    tests = [call for call in calls if call.startswith("uv run pytest")]
    assert tests[0].endswith("tests/in_place")
    assert tests[1].endswith(FAULTS)
    assert tests[2:] == ["uv run pytest tests/mutations", "uv run pytest -m alone tests/faults"]


def test_it_names_what_it_may_not_install(tmp_path: Path) -> None:
    """
    Whoever is not root, with a sudo that wants a password, reads before the first test and after
    the last one what to install; the tests run without it.
    """
    ended, calls = run(tmp_path, user=1000)

    assert ended.returncode == 0
    assert ended.stderr.count("sudo apt-get install ") == 2
    assert not any(call.startswith("apt-get") for call in calls)
    assert any(call.endswith(FAULTS) for call in calls)


def test_fast_needs_no_package(tmp_path: Path) -> None:
    """
    The tests in place need nothing of the machine but Python.
    """
    ended, calls = run(tmp_path, "fast", user=0)

    assert (ended.returncode, ended.stderr) == (0, "")
    assert calls == ["uv sync --quiet", "uv run pytest -n 3 tests/in_place"]


@pytest.mark.parametrize("red", ["in_place", FAULTS, "mutations", "-m alone"])
def test_red_is_red(tmp_path: Path, red: str) -> None:
    """
    Whichever tests fail, the command does; only the fast ones keep the others from running.
    """
    ended, calls = run(tmp_path, user=0, red=red)

    assert ended.returncode == 1
    assert len(re.findall(r": red after \d+ s: 1 passed$", ended.stdout, re.MULTILINE)) == 1
    assert (calls[-1] == "uv run pytest -m alone tests/faults") is (red != "in_place")


def test_unknown_tier(tmp_path: Path) -> None:
    """
    A tier that does not exist ends with 64, and nothing runs.
    """
    ended, calls = run(tmp_path, "everything", user=0)

    assert (ended.returncode, calls) == (64, [])
    assert ended.stderr == "usage: scripts/test [fast|all|nightly]\n"
