"""
A safeguard whose test stays green without it does not exist: each is taken out in turn.
"""

import json
import os
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from environments import duplicate
from harness import ROOT
from mutations import MUTATIONS, affected, file_of, proof_of
from runner import Ended, Order
from selection import IS_NIGHTLY, before, changed

# Most of their time the tests wait for what does not come, which costs no processor.
AT_ONCE = 4 * (os.cpu_count() or 1)
Ran = Callable[[str], tuple[int, str]]


def chosen(config: pytest.Config) -> list[str]:
    """
    The mutations to try: those that the change concerns, and with `-k` or at night all.
    """
    if IS_NIGHTLY or config.option.keyword:
        return list(MUTATIONS)
    return affected({Path(path) for path in changed()}, before=before)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """
    A test for each of them.
    """
    if "name" in metafunc.fixturenames:
        metafunc.parametrize("name", chosen(metafunc.config))


class Mutants:
    """
    Runs the test of each mutation on a copy of the service of its own, several at the same time.
    """

    def __init__(self, names: list[str], project_of: Callable[[str], Path], folder: Path) -> None:
        self._waiting = deque(names)
        self._running: set[str] = set()
        self._codes: dict[str, int] = {}
        self._project_of, self._folder = project_of, folder
        # It runs another pytest, which is not a worker of this one.
        own = {name: text for name, text in os.environ.items() if not name.startswith("PYTEST_")}
        own["PYTHONPATH"] = os.pathsep.join(sys.path)
        self._runner = subprocess.Popen(
            [sys.executable, Path(__file__).with_name("runner.py")],
            cwd=ROOT,
            env=own,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def wait_for(self, name: str) -> tuple[int, str]:
        """
        The exit code of pytest and its output.
        """
        assert self._runner.stdout
        if name not in self._codes | dict.fromkeys([*self._waiting, *self._running]):
            self._waiting.append(name)
        while name not in self._codes:
            while self._waiting and len(self._running) < AT_ONCE:
                self._try_to_begin(self._waiting.popleft())
            if name in self._codes:
                break
            ended: Ended = json.loads(self._runner.stdout.readline())
            self._running.remove(ended["name"])
            self._codes[ended["name"]] = ended["code"]
        return self._codes[name], (self._folder / name / "output").read_text()

    def close(self) -> None:
        """
        End the runner and what it still runs.
        """
        with self._runner:
            self._runner.communicate()

    def _try_to_begin(self, name: str) -> None:
        try:
            self._begin(name)
        except (AssertionError, OSError) as error:
            # It is the fault of this mutation, not of the one that is waited for.
            self._codes[name] = pytest.ExitCode.INTERNAL_ERROR
            (self._folder / name / "output").write_text(f"it can't be tried: {error!r}")

    def _begin(self, name: str) -> None:
        assert self._runner.stdin
        mutation, folder = MUTATIONS[name], self._folder / name
        unchanged = self._project_of(name)
        project = duplicate(unchanged, folder)
        path = project / "src" / "order_desk" / mutation["file"]
        text = path.read_text()
        assert mutation["old"] in text, name
        path.write_text(text.replace(mutation["old"], mutation["new"]))
        module, function = proof_of(mutation)
        test = f"{module.name}::{function}"
        order = Order(
            name=name,
            test=test,
            project=str(project),
            unchanged=str(unchanged) if "database" in mutation.get("answers", {}) else "",
            folder=str(folder),
        )
        self._runner.stdin.write(json.dumps(order) + "\n")
        self._runner.stdin.flush()
        self._running.add(name)


@pytest.fixture(name="mutants", scope="session")
def _mutants(
    request: pytest.FixtureRequest,
    linked: Callable[..., Path],
    faulty_with: Callable[..., Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Mutants]:
    seeds: dict[str, Path] = {}

    def project_of(name: str) -> Path:
        mutation = MUTATIONS[name]
        answers = mutation.get("answers", {})
        if not mutation.get("seeds"):
            return faulty_with(**answers)
        # Some tests are of the seeds, too, which the faults would replace.
        key = repr(sorted(answers.items()))
        if key not in seeds:
            seeds[key] = linked(**answers)
        return seeds[key]

    items = [
        item
        for item in request.session.items
        if isinstance(item, pytest.Function) and item.originalname == "test_goes_red"
    ]
    # With `--dist loadgroup` one process has them all, as it says at the end of their names. Where
    # several share them out one by one, none can know which are its own.
    knows = "PYTEST_XDIST_WORKER" not in os.environ or items[0].nodeid.endswith("@mutations")
    ahead = [str(item.callspec.params["name"]) for item in items if knows]
    mutants = Mutants(ahead, project_of, tmp_path_factory.mktemp("mutants"))
    yield mutants
    mutants.close()


def test_every_text_is_there() -> None:
    """
    What a mutation replaces stands once in its file, and its test exists.
    """
    for name, mutation in MUTATIONS.items():
        module, function = proof_of(mutation)

        assert file_of(mutation).read_text().count(mutation["old"]) == 1, name
        assert f"def {function.partition('[')[0]}(" in module.read_text(), name


@pytest.mark.xdist_group("mutations")
def test_goes_red(mutants: Mutants, name: str) -> None:
    """
    Without the safeguard its test fails; tests/faults shows that it passes with it.
    """
    code, output = mutants.wait_for(name)

    assert code == pytest.ExitCode.TESTS_FAILED, output
    assert "1 failed" in output, output
    # A test that hangs proves nothing of what it asserts.
    assert "Failed: Timeout" not in output, output
