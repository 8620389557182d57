"""
Rendered projects, made once a session, without trust.
"""

import contextlib
import hashlib
import os
import re
import shutil
import subprocess
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import copier
import pytest
import warm
from environments import compile_modules, duplicate, environment
from harness import ROOT, clean, system
from releases import NEXT, make_repository
from selection import left_out

Render = Callable[..., Path]
# How many tests were left out, by reason; a process of xdist hands it to the one that reports.
LEFT_OUT = pytest.StashKey[dict[str, int]]()
OUTCOMES = ("passed", "failed", "error", "skipped")
# The file of the test command for what it says at its end. Not for tests that run pytest.
SUMMARY = pytest.StashKey[str | None]()


def pytest_configure(config: pytest.Config) -> None:
    """
    Take what is meant for this process only.
    """
    config.stash[SUMMARY] = os.environ.pop("FIVEWEEKS_SUMMARY", None)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """
    Leave out what the change does not concern, but nothing that was asked for by name.
    """
    config.stash[LEFT_OUT] = counts = dict[str, int]()
    if config.option.keyword or any("::" in argument for argument in config.args):
        return
    reasons = [(item, left_out(item)) for item in items]
    for reason in filter(None, (reason for _, reason in reasons)):
        counts[reason] = counts.get(reason, 0) + 1
    config.hook.pytest_deselected(items=[item for item, reason in reasons if reason])
    items[:] = [item for item, reason in reasons if not reason]


def pytest_sessionfinish(session: pytest.Session) -> None:
    """
    Tell the reporting process, if there is another one.
    """
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["left_out"] = session.config.stash.get(LEFT_OUT, {})


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """
    Keep what a process of xdist told: all collect the same.
    """
    node.config.stash[LEFT_OUT] = getattr(node, "workeroutput", {}).get("left_out", {})


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """
    Say of a failure at once where and what it is; the whole of it comes at the end.
    """
    if report.failed and "PYTEST_XDIST_WORKER" not in os.environ:
        what = getattr(getattr(report.longrepr, "reprcrash", None), "message", "").partition("\n")
        print(f"\nFAILED {report.nodeid} ({report.when}): {what[0]}", flush=True)


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """
    Say what did not run, and why; for the test command, in a file too.
    """
    told = [
        f"{count} tests left out: {reason}"
        for reason, count in config.stash.get(LEFT_OUT, {}).items()
    ]
    for line in told:
        terminalreporter.write_line(line)
    if path := config.stash[SUMMARY]:
        stats = terminalreporter.stats
        ran = ", ".join(f"{len(stats[name])} {name}" for name in OUTCOMES if name in stats)
        red = [f"FAILED {one.nodeid}" for name in OUTCOMES[1:3] for one in stats.get(name, ())]
        with Path(path).open("a") as file:
            file.write("\n  ".join([f":{ran or 'nothing to run'}", *told, *red]) + "\n")


def exclude_newer() -> str:
    """
    The date of pyproject.toml, for the projects that the tests generate, too; `nightly` leaves
    them their own, so that what was released since is tried.
    """
    line = next(
        line
        for line in (ROOT / "pyproject.toml").read_text().splitlines()
        if "exclude-newer" in line
    )
    return line.split('"')[1]


@pytest.fixture(scope="session", autouse=True)
def _surroundings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """
    Nothing of this machine's git, copier or uv settings, and no other project's environment.
    """
    home = tmp_path_factory.mktemp("home")
    config = home / "gitconfig"
    config.write_text(
        "[user]\n name = test\n email = test@example.com\n[init]\n defaultBranch = main\n"
    )
    (home / "copier.yml").write_text("{}\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GIT_CONFIG_GLOBAL", str(config))
        patch.setenv("COPIER_CACHE_DIR", str(home / "copier"))
        patch.setenv("COPIER_SETTINGS_PATH", str(home / "copier.yml"))
        if not os.environ.get("FIVEWEEKS_NIGHTLY"):
            patch.setenv("UV_EXCLUDE_NEWER", exclude_newer())
        patch.setenv("UV_PYTHON_DOWNLOADS", "never")
        patch.delenv("VIRTUAL_ENV", raising=False)
        # No server of a project's tests outlives them.
        patch.setenv("TEST_SERVER_SECONDS", "0")
        yield


@pytest.fixture(name="run_folder", scope="session")
def _run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """
    A folder for what the processes of this run have in common.
    """
    base = tmp_path_factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


@pytest.fixture(name="repository", scope="session")
def _repository(run_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """
    The template with its releases, and as the next one what is in the working tree. Not for tests
    that change it: they make their own.
    """
    folder = run_folder / "fiveweeks.git"
    if not folder.exists():
        made = make_repository(tmp_path_factory.mktemp("repository") / "fiveweeks.git")
        # Another process may have been first.
        with contextlib.suppress(OSError):
            made.rename(folder)
    return folder


@pytest.fixture(name="render", scope="session")
def _render(run_folder: Path, repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Render:
    """
    Render the template as it is in the working tree, as if it were released; the same answers give
    the same folder, also to the other processes of this run.
    """

    def render(**answers: Any) -> Path:
        key = hashlib.sha256(repr(sorted(answers.items())).encode()).hexdigest()
        folder = run_folder / f"rendered-{key[:16]}"
        if not folder.exists():
            made = tmp_path_factory.mktemp("render")
            copier.run_copy(
                repository.as_uri(),
                made / "order-desk",
                data=answers,
                defaults=True,
                quiet=True,
                vcs_ref=f"v{NEXT}",
            )
            # Another process may have been first.
            with contextlib.suppress(OSError):
                made.rename(folder)
        return folder / "order-desk"

    return render


@pytest.fixture(name="copy", scope="session")
def _copy(render: Render, tmp_path_factory: pytest.TempPathFactory) -> Render:
    """
    A rendered project that the test may change, with its environment made.
    """

    def copy(*, sync: bool = True, **answers: Any) -> Path:
        folder = tmp_path_factory.mktemp("copy") / "order-desk"
        # What linters leave there may vanish meanwhile.
        shutil.copytree(render(**answers), folder, ignore=shutil.ignore_patterns(".*_cache"))
        if sync:
            _leave_index(folder / "pyproject.toml")
            uv("sync", "--quiet", cwd=folder)
        return folder

    return copy


def _leave_index(path: Path) -> None:
    """
    Take packages from where this machine does: nobody serves the index that the tests answer with.
    """
    text = re.sub(r"\[\[tool\.uv\.index\]\]\n.*?\n\n", "", path.read_text(), flags=re.DOTALL)
    path.write_text(text)


@pytest.fixture(name="linked", scope="session")
def _linked(render: Render, run_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Render:
    """
    A rendered project that the test may change, with installed packages that it shares with others:
    not for tests that install something.
    """

    def install(project: Path) -> None:
        _leave_index(project / "pyproject.toml")
        uv("sync", "--quiet", cwd=project)
        compile_modules(project)

    def linked(**answers: Any) -> Path:
        rendered = render(**answers)
        installed = environment(rendered, run_folder, install)
        return duplicate(rendered, tmp_path_factory.mktemp("linked"), installed)

    return linked


@pytest.fixture(name="faulty_with", scope="session")
def _faulty_with(linked: Render) -> Render:
    """
    A service with a composition root full of faults laid over its own; one for each answers.
    """
    cache: dict[str, Path] = {}

    def faulty_with(**answers: Any) -> Path:
        key = repr(sorted(answers.items()))
        if key not in cache:
            cache[key] = linked(**answers)
            for path in (ROOT / "tests" / "faults" / "overlay").glob("*.py"):
                shutil.copy(path, cache[key] / "src" / "order_desk")
            compile_modules(cache[key])
        return cache[key]

    return faulty_with


def uv(*arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """
    Run uv in a project; raises AssertionError with its output when it fails.
    """
    ended = subprocess.run(
        ["uv", *arguments],
        cwd=cwd,
        env=clean(dict(os.environ)) | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended


@pytest.fixture(name="uv", scope="session")
def _uv() -> Callable[..., subprocess.CompletedProcess[str]]:
    return uv


class Service(system.Service):  # type: ignore[misc, name-defined]  # loaded from a file
    """
    A service that a process has been kept warm for.
    """

    begin = staticmethod(warm.begin)


@pytest.fixture(name="start_in")
def _start_in(tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """
    Start the service of a project with settings; what still runs at the end is killed.
    """
    started: list[Any] = []

    def start_in(
        project: Path,
        *arguments: str,
        ready: bool = True,
        prefix: tuple[str, ...] = (),
        **settings: Any,
    ) -> Any:
        folder = tmp_path / f"process-{len(started)}"
        folder.mkdir()
        named = {f"APP_{name.upper()}": str(value) for name, value in settings.items()}
        scripts = tomllib.loads((project / "pyproject.toml").read_text())["project"]["scripts"]
        command = project / ".venv" / "bin" / next(iter(scripts))
        service = Service([*prefix, str(command), *(arguments or ["web"])], named, folder)
        started.append(service)
        if ready:
            service.wait_until_ready()
        return service

    yield start_in
    for service in started:
        service.process.kill()
        service.process.wait()
