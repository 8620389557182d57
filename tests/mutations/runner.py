"""
Runs tests of tests/faults, each in a process of its own that has everything imported already.

Starting pytest takes several times as long as most tests. This program imports all tests once and
then forks for each test that it is asked for. It reads one order a line, `Order` as JSON, from its
standard input, and writes one line with the exit code of pytest for each test that has ended.
"""

import contextlib
import json
import os
import selectors
import signal
import sys
from pathlib import Path
from typing import NoReturn, TypedDict

import pytest
import warm
from faulty_postgresql import Tables, install

__all__ = ["Ended", "Order"]

FAULTS = Path(__file__).parents[1] / "faults"
# Of the plugins only the one that ends a test that hangs. Many tests run at once, so that none
# may write to the cache.
OPTIONS = ("--disable-plugin-autoload", "-p", "pytest_timeout", "-p", "no:cacheprovider", "-q")


class Order(TypedDict):
    """
    A test such as `test_logs.py::test_levels`, and the service that it is about. *folder* gets
    the output and the files of the test. *unchanged* is the service without the mutation, if it has
    a database.
    """

    name: str
    test: str
    project: str
    unchanged: str
    folder: str


class Ended(TypedDict):
    """
    The exit code of pytest, negative where a signal ended it.
    """

    name: str
    code: int


def main() -> None:
    """
    Serve orders until the standard input is closed.
    """
    # It is for this program, not for the services.
    os.environ.pop("PYTHONPATH", None)
    with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stdout(nowhere):
        pytest.main([*OPTIONS, "--collect-only", str(FAULTS)])
    running: dict[int, tuple[int, str]] = {}
    with selectors.DefaultSelector() as selector:
        selector.register(0, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fd in running:
                    selector.unregister(key.fd)
                    os.close(key.fd)
                    pid, name = running.pop(key.fd)
                    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
                    print(json.dumps(Ended(name=name, code=code)), flush=True)
                    continue
                orders = os.read(0, 65536).splitlines()
                for order in map(json.loads, orders):
                    pid = _begin(order)
                    watched = os.pidfd_open(pid)
                    running[watched] = pid, order["name"]
                    selector.register(watched, selectors.EVENT_READ)
                if not orders:
                    _end(running)
                    return


def _begin(order: Order) -> int:
    """
    Fork a process that runs the test; its id.
    """
    if unchanged := order["unchanged"]:
        # Once, and not in each process.
        install(prepare=Tables(Path(unchanged)))
    warm.prepare(Path(order["project"], ".venv", "bin", "python"))
    return os.fork() or _run(order)


def _run(order: Order) -> NoReturn:
    folder = order["folder"]
    with Path(folder, "output").open("wb") as output, Path(os.devnull).open("rb") as nothing:
        os.dup2(nothing.fileno(), 0)
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
    # It may be ignored, as in the background of a shell.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ["FIVEWEEKS_PROJECT"] = order["project"]
    if order["unchanged"]:
        os.environ["FIVEWEEKS_UNCHANGED"] = order["unchanged"]
    code = pytest.main([*OPTIONS, "-x", f"--basetemp={folder}/pytest", f"{FAULTS}/{order['test']}"])
    sys.stdout.flush()
    os._exit(code)


def _end(running: dict[int, tuple[int, str]]) -> None:
    """
    Interrupt what still runs, so that each test ends the services that it has started.
    """
    for pid, _ in running.values():
        os.kill(pid, signal.SIGINT)
    for pid, _ in running.values():
        os.waitpid(pid, 0)


if __name__ == "__main__":
    main()
