"""
The repository as its users find it: a clone, a README, two commands.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import ROOT, WITHOUT_DATABASE, clean, free_ports, wait_until


@pytest.fixture(name="clone", scope="module")
def _clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """
    A clone with the changes of the working tree, and nothing that was installed by hand.
    """
    clone = tmp_path_factory.mktemp("clone") / "fiveweeks"
    subprocess.run(["git", "clone", "--quiet", ROOT, clone], check=True)
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, names.split("\0")):
        if (ROOT / name).is_file() and not (ROOT / name).is_symlink():
            (clone / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, clone / name)
    return clone


def environment() -> dict[str, str]:
    """
    Without the virtual environment that runs these tests, and without uv on the PATH.
    """
    path = os.pathsep.join(
        folder
        for folder in os.environ["PATH"].split(os.pathsep)
        if not (Path(folder) / "uv").exists() and ".venv" not in folder
    )
    own: dict[str, str] = clean(os.environ)
    return own | {"PATH": path}


@pytest.fixture(name="trial")
def _trial(clone: Path, tmp_path: Path) -> Iterator[tuple[subprocess.Popen[bytes], str, Path]]:
    port, admin_port = free_ports()
    ports = {"APP_PORT": str(port), "APP_ADMIN_PORT": str(admin_port)}
    folder = tmp_path / "hello-service"
    with (tmp_path / "said").open("wb") as said:
        process = subprocess.Popen(
            ["scripts/try", folder],
            cwd=clone,
            env=environment() | ports,
            stdout=said,
            stderr=said,
            start_new_session=True,
        )
    yield process, f"http://127.0.0.1:{port}/v1/notes", folder
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def test_first_command_of_the_readme(trial: tuple[subprocess.Popen[bytes], str, Path]) -> None:
    """
    In a fresh clone, `scripts/try` alone makes a service that answers curl.
    """
    process, url, folder = trial

    def answer() -> str:
        assert process.poll() is None, (folder.parent / "said").read_text()
        with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=5) as response:  # noqa: S310
            text: str = response.read().decode()
            return text
        return ""

    wait_until(lambda: '"items"' in answer(), seconds=240)
    os.killpg(process.pid, signal.SIGINT)

    # uv, between the shell and the service, may tell the shell of the Ctrl-C.
    assert process.wait(20) in {0, 130}
    assert f"curl {url}" in (folder.parent / "said").read_text()


def test_try_overwrites_nothing(clone: Path, tmp_path: Path) -> None:
    """
    A folder that is not empty is refused with 64, and left as it is.
    """
    (tmp_path / "mine").touch()

    ended = subprocess.run(
        ["scripts/try", tmp_path], cwd=clone, capture_output=True, text=True, check=False
    )

    assert ended.returncode == 64
    assert "name another folder" in ended.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_commands_of_the_readme_and_the_tutorial(clone: Path, tmp_path: Path) -> None:
    """
    What the documents tell to paste works when it is pasted.
    """
    readme = (clone / "README.md").read_text()
    tutorial = (clone / "docs" / "tutorial.md").read_text()
    pasted = tutorial.partition("## Make a service")[2].partition("Leave out")[0]
    lines = [line.strip() for line in pasted.splitlines() if line.startswith("    ")]
    for command in ("scripts/try", "scripts/test", 'export PATH="$(scripts/bootstrap):$PATH"'):
        assert command in readme
    script = "\n".join(["set -eu", *lines, "uv run order-desk --version"])

    ended = subprocess.run(
        ["bash", "-c", script.replace("../order-desk", str(tmp_path / "order-desk"))],
        cwd=clone,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )

    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert ended.stdout.endswith("order-desk 0.1.0\n")
    answers = (tmp_path / "order-desk" / ".copier-answers.yml").read_text()
    assert f"_src_path: {clone}" in answers


def test_the_endpoint_of_the_tutorial(clone: Path) -> None:
    """
    What the tutorial adds to routes.py uses only names that are there.
    """
    tutorial = (clone / "docs" / "tutorial.md").read_text()
    code = tutorial.partition("restarts by itself:\n\n")[2].partition("\n\n`opened`")[0]
    routes = (clone / WITHOUT_DATABASE.relative_to(ROOT) / "routes.py").read_text()
    added = "\n".join(line[4:] for line in code.splitlines())

    ended = subprocess.run(
        ["ruff", "check", "--isolated", "--select", "F", "-"],
        input=f"{routes}\n\n{added}\n",
        capture_output=True,
        text=True,
        check=False,
    )

    assert "delete_note" in added
    assert ended.returncode == 0, ended.stdout


@pytest.mark.parametrize(
    "command",
    [
        ["actionlint"],
        ["zizmor", "--offline", "--no-progress", "--persona=pedantic", ".github"],
        [
            "shellcheck",
            ".ci/run",
            "scripts/bootstrap",
            "scripts/renovate",
            "scripts/tags",
            "scripts/test",
            "scripts/try",
        ],
        ["shellcheck", *sorted(map(str, (ROOT / "tests" / "image" / "standins").glob("*.sh")))],
        ["yamllint", "--strict", "-d", "{extends: relaxed, rules: {line-length: disable}}", "."],
        ["ruff", "format", "--check"],
        ["ruff", "check", "--extend-ignore", "N999"],
        ["mypy"],
    ],
    ids=lambda command: command[0],
)
def test_linters(command: list[str]) -> None:
    """
    The repository pleases the linters of its kinds.
    """
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_no_conflict_is_left() -> None:
    """
    Nothing is tracked that a merge left: the guard of generated projects finds nothing here.
    """
    guard = (ROOT / "template" / ".ci" / "run").read_text()
    functions = guard.partition("\nfail() {")[2].partition("\nsteps() {")[0]

    ended = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", f"fail() {{{functions}\nguard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )

    assert ended.returncode == 0, ended.stdout + ended.stderr
