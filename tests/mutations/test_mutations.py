"""
A safeguard whose test stays green without it does not exist: each is taken out in turn.
"""

import json
import os
import subprocess
import sys

import pytest
from harness import ROOT

# Promise, file, what is there, what is there instead, the test that must go red.
MUTATIONS = [
    ("C2 logs", "chassis/logs.py", "line = line.replace(form, ", "line = line.replace(b'', ", "logs::test_no_secret_leaves"),
    ("C2 locals", "chassis/logs.py", "show_locals=False", "show_locals=True", "logs::test_no_secret_leaves"),
    ("C2 errors", "chassis/environment.py", "mask(value)", "value", "logs::test_no_secret_in_configuration_errors"),
    ("C9", "chassis/server.py", "except OSError as error:", "except ZeroDivisionError as error:", "lifecycle::test_address_of_another_machine"),
    ("L2 drain", "chassis/web.py", "await asyncio.sleep(settings.drain_seconds)", "pass", "lifecycle::test_unready_at_once"),
    ("L2 unready", "chassis/health.py", "or self._process.stopping ", "", "lifecycle::test_unready_at_once"),
    ("L2 in flight", "chassis/web.py", "await serving", "pass", "lifecycle::test_request_in_flight_is_answered"),
    ("L4", "chassis/process.py", 'self.supervise_thread("reaper", self._reap)', "pass", "lifecycle::test_grace_is_a_bound"),
    ("L4 second signal", "chassis/process.py", "if self.stopping:", "if False:", "lifecycle::test_second_signal_with_a_stuck_loop"),
    ("L6 task", "chassis/process.py", 'with self._guard(f"task {name}"):', "if True:", "lifecycle::test_crashes_loudly"),
    ("L6 thread", "chassis/process.py", 'with self._guard(f"thread {name}"):', "if True:", "lifecycle::test_crashes_loudly"),
    ("L6 callback", "chassis/process.py", "self._loop.set_exception_handler(self._on_loop_exception)", "pass", "lifecycle::test_crashes_loudly"),
    ("L6 strangers", "chassis/process.py", 'self.report("loop", ', 'self.crash("loop") if error else self.report("loop", ', "lifecycle::test_out_of_files_is_not_fatal"),
    ("L6 stray threads", "chassis/process.py", 'threading.excepthook = lambda hook: self.report("thread", hook.exc_value)', "pass", "lifecycle::test_strays_are_counted"),
    ("L7", "chassis/watchdog.py", "if missed * interval >= limit_seconds:", "if False:", "lifecycle::test_stuck_loop_dies"),
    ("L7 last resort", "chassis/watchdog.py", "faulthandler.dump_traceback_later(limit_seconds + 5, exit=True, file=2)", "pass", "lifecycle::test_held_gil_dies"),
    ("L8", "__main__.py", "signal.signal(signal.SIGTERM, lambda *_: os._exit(Exit.OK))", "pass", "lifecycle::test_as_pid_1"),
    ("H2", "chassis/health.py", 'return "fail" if self.check.critical or not self._answered else "warn"', 'return "warn"', "health::test_waits_for_the_first_success"),
    ("H2 limit", "chassis/health.py", "asyncio.wait({probe}, timeout=limit)", "asyncio.wait({probe})", "health::test_waits_for_the_first_success"),
    ("H3", "chassis/health.py", "DOWN_AFTER, UP_AFTER = 3, 2", "DOWN_AFTER, UP_AFTER = 1, 1", "health::test_hysteresis"),
    ("M1 print", "chassis/logs.py", 'sys.stdout, sys.stderr = _Printed("stdout", 1), _Printed("stderr", 2)', "pass", "logs::test_whoever_speaks_speaks_json"),
    ("M1 loggers", "chassis/logs.py", "logging.basicConfig(handlers=[_Bridge()], force=True)", "pass", "logs::test_whoever_speaks_speaks_json"),
    ("M1 warnings", "chassis/logs.py", "logging.captureWarnings(capture=True)", "pass", "logs::test_whoever_speaks_speaks_json"),
    ("M1 odd values", "chassis/logs.py", "except TypeError:", "except ZeroDivisionError:", "logs::test_whoever_speaks_speaks_json"),
    ("M2", "chassis/envelope.py", "bind_contextvars(**self._context)", "pass", "logs::test_request_id_is_in_every_line"),
    ("E2 500", "chassis/fastapi.py", "Exception: _bug,", "", "logs::test_errors_are_problems"),
    ("E2 422", "chassis/fastapi.py", "RequestValidationError: _not_valid,", "", "logs::test_errors_are_problems"),
    ("E2 404", "chassis/fastapi.py", "HTTPException: _http_error,", "", "logs::test_errors_are_problems"),
    ("E2 echo", "chassis/fastapi.py", 'if item["type"] == "extra_forbidden":', "if False:", "logs::test_errors_are_problems"),
    ("strict route", "chassis/fastapi.py", "Router = partial(APIRouter, route_class=StrictRoute)", "Router = APIRouter", "logs::test_valid_json_is_accepted"),
    ("deadline", "chassis/envelope.py", "asyncio.timeout(limit)", "asyncio.timeout(None)", "http::test_request_deadline"),
    ("body limit", "chassis/envelope.py", "raise _BodyTooLarge", "pass", "http::test_body_limit"),
]  # fmt: skip


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation[0])
def test_goes_red(mutation: tuple[str, str, str, str, str]) -> None:
    """
    Without the safeguard its test fails; with it, it passes elsewhere in this run.
    """
    _, name, old, new, test = mutation
    module, _, function = test.partition("::")
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider"]
    path = ROOT / "tests" / "faults" / f"test_{module}.py"

    ended = subprocess.run(
        [*command, f"{path}::{function}"],
        cwd=ROOT,
        env=os.environ | {"FIVEWEEKS_MUTATION": json.dumps([name, old, new])},
        capture_output=True,
        text=True,
        check=False,
    )

    assert ended.returncode == 1, ended.stdout
    assert "1 failed" in ended.stdout, ended.stdout
