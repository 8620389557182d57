"""
A run of a job: never two at once, never for ever, never unnoticed.
"""

import asyncio
import faulthandler
import random
import signal
import threading
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from http.client import HTTPException
from typing import Any, NoReturn
from urllib.request import urlopen
from uuid import uuid4

from prometheus_client import Gauge, write_to_textfile
from structlog.contextvars import bind_contextvars

from .arguments import Checked, FileName
from .excerpt import brief
from .exits import Exit
from .health import Check
from .lock import Lost, Overlap, hold
from .logs import get_logger
from .problem import Unavailable
from .process import Process

__all__ = ["Failed", "Jobs", "run"]

# Of one ping; the last one lets the first have as much: they must come in order.
PING_SECONDS = 0.8
# Why a run ends before its job has, and with what.
CODES = {"stopped": Exit.TEMPORARY, "lock_lost": Exit.UNAVAILABLE, "too_long": Exit.BUG}
ACTION = "mend what the cause names; the next run tries again"
LEVELS = {Exit.OK: "info", Exit.TEMPORARY: "warning", Exit.BUG: "critical"}
# Each is a file of its own, so that a failure does not erase the last success.
LABELS = ("service", "job")
STARTED = Gauge("app_job_last_start_timestamp_seconds", "Of a run.", LABELS, registry=None)
SUCCEEDED = Gauge("app_job_last_success_timestamp_seconds", "Of a run.", LABELS, registry=None)
FAILED = Gauge("app_job_last_failure_timestamp_seconds", "Of a run.", LABELS, registry=None)
log = get_logger()


class Failed(Exception):  # noqa: N818  # what it says to its reader
    """
    The job could not do its work, for a reason that says what to do; no traceback is told.
    """

    def __init__(self, cause: str, *, code: Exit = Exit.BUG) -> None:
        super().__init__(cause)
        if code not in {*Exit} - {Exit.OK}:
            raise ValueError(f"Failed: code is {code!r}, but it must be one of Exit, and not OK")
        self.code = code


@dataclass(frozen=True, kw_only=True)
class Jobs(Checked):
    """
    The jobs by name; what one returns becomes fields of the line of its run.
    """

    jobs: Mapping[FileName, Callable[[], Awaitable[Mapping[str, object]]]]
    checks: Sequence[Check] = ()


Compose = Callable[[Any], AbstractAsyncContextManager[Jobs]]


def run(compose: Compose, process: Process, name: str) -> None:
    """
    Run a job once; ends the process itself, with an exit code of `Exit`.
    """
    one = _Run(compose, process, name)

    async def supervised() -> None:
        process.attach()
        await process.supervise("main", one.main)

    asyncio.run(supervised())


class _Run:
    """
    One run, and what it leaves behind however it ends: a line, a ping, the time of a success.
    """

    def __init__(self, compose: Compose, process: Process, name: str) -> None:
        self._compose, self._process, self._name = compose, process, name
        self._settings, self._service = process.settings, process.logs.identity["service"]
        self._id, self._began = str(uuid4()), time.monotonic()
        self._outcome, self._fields = "", dict[str, object]()
        self._pinging: threading.Thread | None = None

    async def main(self) -> None:
        process, settings = self._process, self._settings
        # SIGTERM ends the process here: nothing has begun.
        await asyncio.sleep(random.uniform(0, settings.job_jitter_seconds))  # noqa: S311  # no secret
        bind_contextvars(job=self._name, run_id=self._id)
        self._began = time.monotonic()
        process.flush_seconds += 2 * PING_SECONDS
        process.last_words = self._tell
        try:
            async with hold(settings, f"{self._service}-{self._name}") as lost:
                await self._work(lost)
        except Overlap:
            self._end(Exit.TEMPORARY, "overlap", cause="another run of it has the lock")
        except OSError as error:
            told = f"lock file: {error}; set APP_JOB_LOCK_DIR"
            self._fail(Failed(told, code=Exit.CONFIGURATION))
        except Unavailable as error:
            self._fail(error)

    async def _work(self, lost: Lost) -> None:
        """
        The job, until it ends, is told to, takes too long, or another run may begin.
        """
        process, settings = self._process, self._settings
        limit, grace = settings.job_max_runtime_seconds, settings.grace_seconds
        # Also if the event loop stands still; and if not even Python runs any more.
        late = threading.Timer(limit + grace + 1, self._stop_late)
        late.daemon = True
        late.start()
        faulthandler.register(signal.SIGALRM, file=process.stderr, chain=True)
        signal.setitimer(signal.ITIMER_REAL, limit + grace + 5)
        self._ping("/start")
        self._measure(STARTED, ".start")
        process.ready = True
        work = asyncio.create_task(self._execute(), name=f"job {self._name}")
        stop = asyncio.create_task(process.stop.wait())
        loss = asyncio.ensure_future(lost())
        first = asyncio.FIRST_COMPLETED
        await asyncio.wait({work, stop, loss}, timeout=limit, return_when=first)
        if not work.done():
            outcome = "stopped" if stop.done() else "lock_lost" if loss.done() else "too_long"
            self._outcome = outcome
            if outcome == "too_long":
                log.error("run_too_long", limit_seconds=limit, **process.stacks())
                process.tell(None, event="run_too_long", kind=f"job {self._name}")
            work.cancel()
            await asyncio.wait({work}, timeout=grace)
            if not work.done():
                log.warning("grace_exceeded", **process.stacks())
            error = work.exception() if work.done() and not work.cancelled() else None
            # Who was told to stop and is done all the same, is done.
            if outcome != "stopped" or work.cancelled() or not work.done() or error:
                self._end(
                    CODES[outcome], outcome, cause=brief(error) if error else "it was cut off"
                )
        try:
            self._fields = dict(work.result())
        except BaseException as error:  # noqa: BLE001  # the process ends
            self._fail(error)
        self._end(Exit.OK, "success")

    async def _execute(self) -> Mapping[str, object]:
        async with self._compose(self._settings) as parts:
            return await parts.jobs[self._name]()

    def _fail(self, error: BaseException) -> NoReturn:
        if isinstance(error, Unavailable):
            told = {"cause": str(error), "dependency": error.dependency, "action": ACTION}
            self._end(Exit.UNAVAILABLE, "unavailable", **told)
        self._fields["error"] = brief(error)
        if not isinstance(error, Failed):
            self._process.crash(f"job {self._name}", error)
        if error.code == Exit.BUG:
            self._process.tell(error, event="run", kind=f"job {self._name}")
        self._end(error.code, "failed", cause=str(error))

    def _end(self, code: Exit, outcome: str, **fields: object) -> NoReturn:
        self._outcome, self._fields = outcome, self._fields | fields
        self._process.exit(code)

    def _stop_late(self) -> None:
        self._outcome = self._outcome or "too_long"
        self._process.exit(Exit.BUG, "run_too_long", stacks=True)

    def _tell(self, code: int) -> None:
        """
        The last words of the process, from whichever thread ends it.
        """
        outcome = self._outcome or ("stopped" if code == Exit.TEMPORARY else "failed")
        own = {"job": self._name, "run_id": self._id, "outcome": outcome, "exit_code": int(code)}
        own["duration_ms"] = round((time.monotonic() - self._began) * 1000)
        whole = {**own, **self._fields, **own}
        self._process.logs.line("run", LEVELS.get(Exit(code), "error"), whole)
        if outcome == "overlap":
            return
        self._ping("" if code == Exit.OK else f"/{int(code)}")
        if code == Exit.OK:
            self._measure(SUCCEEDED)
        elif code != Exit.TEMPORARY:
            self._measure(FAILED, ".failure")
        if self._pinging:
            self._pinging.join(2 * PING_SECONDS)
            if self._pinging.is_alive():
                log.warning("ping_failed", cause="no whole answer in time")

    def _ping(self, suffix: str) -> None:
        """
        As healthchecks.io has it: URL/start, URL, URL/EXITCODE; beside the run, which never waits.
        """
        if self._settings.job_ping_url is None:
            return
        before, url = self._pinging, self._settings.job_ping_url.get_secret_value()
        whole = f"{url.replace('{job}', self._name).rstrip('/')}{suffix}?rid={self._id}"

        def send() -> None:
            if before:
                before.join(PING_SECONDS)
            try:
                # Its limit is for each step; that of the whole has whoever waits for this thread.
                with urlopen(whole, timeout=PING_SECONDS):  # noqa: S310  # http or https
                    pass
            except (OSError, HTTPException) as error:
                log.warning("ping_failed", cause=str(error))

        self._pinging = threading.Thread(target=send, name=f"ping {suffix}", daemon=True)
        self._pinging.start()

    def _measure(self, gauge: Gauge, suffix: str = "") -> None:
        """
        Write the time for node_exporter's textfile collector: a run that has ended has no port.
        """
        if folder := self._settings.job_metrics_dir:
            gauge.labels(self._service, self._name).set_to_current_time()
            try:
                write_to_textfile(f"{folder}/{self._service}_{self._name}{suffix}.prom", gauge)
            except OSError as error:
                log.warning("job_metrics_failed", cause=str(error))
