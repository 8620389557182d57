"""
Health: liveness is local, readiness is declared, and no probe waits for a check or for a handler.

Shape: `application/health+json` (draft-inadarei-api-health-check), its status only.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

from .arguments import Checked, Name
from .logs import LEVELS, get_logger
from .process import Process
from .settings import Seconds
from .ticker import Ticker

__all__ = ["Check", "CheckState", "Health"]

# Three failures to go down, two successes to come back: one lost packet changes nothing.
DOWN_AFTER, UP_AFTER = 3, 2

Status = Literal["pass", "warn", "fail"]
log = get_logger()


@dataclass(frozen=True, kw_only=True)
class Check(Checked):
    """
    One named test of one backing service; *probe* raises when it fails.

    Readiness waits for its first success. A later failure is a warning, so that a hiccup of
    something shared does not take every replica out of the load balancer, unless it is *critical*.
    *place* are fields of its log line: where the backing service is.
    """

    name: Name
    probe: Callable[[], Awaitable[object]]
    critical: bool = False
    timeout_seconds: Seconds | None = None
    place: Mapping[str, object] = field(default_factory=dict)


class CheckState:
    """
    What is known of a check: it changes only after several equal results.
    """

    def __init__(self, check: Check) -> None:
        self.check = check
        self._is_up: bool | None = None
        self._answered, self._streak = False, 0
        self._probe: asyncio.Future[object] | None = None

    @property
    def status(self) -> Status:
        if self._is_up:
            return "pass"
        return "fail" if self.check.critical or not self._answered else "warn"

    async def run(self, *, timeout_seconds: float) -> str | None:
        """
        Run once within the limit; what went wrong, or None.

        A probe that ignores its cancellation is left behind, and none is piled on top of it.
        """
        if self._probe is None or self._probe.done():
            self._probe = asyncio.ensure_future(self.check.probe())
            # What it ends with after it was left behind is nobody's business.
            self._probe.add_done_callback(lambda probe: probe.cancelled() or probe.exception())
        await asyncio.wait({self._probe}, timeout=self.check.timeout_seconds or timeout_seconds)
        self._probe.cancel()
        if not self._probe.done():
            return "TimeoutError"
        (end,) = await asyncio.gather(self._probe, return_exceptions=True)
        return f"{type(end).__name__}: {end}" if isinstance(end, BaseException) else None

    def note(self, error: str | None) -> None:
        is_up = error is None
        self._streak = self._streak + 1 if is_up != self._is_up else 0
        if self._streak >= (1 if not self._answered else UP_AFTER if is_up else DOWN_AFTER):
            # A healthy start is not a warning; a recovery is, as the other end of an outage.
            level = "info" if is_up and self._is_up is None else "warning"
            self._is_up, self._answered, self._streak = is_up, self._answered or is_up, 0
            told = {"check": self.check.name, "is_up": is_up, "error": error}
            log.log(LEVELS[level], "check_changed", **told, **self.check.place)


class Health:
    """
    The answers of /livez, /readyz and /startupz.
    """

    def __init__(self, process: Process, ticker: Ticker) -> None:
        self._process, self._ticker = process, ticker
        self._states: list[CheckState] = []

    @property
    def probes(self) -> dict[str, Status]:
        """
        The answer of each probe by its path.

        The watchdog ends a process whose loop is stuck. Liveness fails only after twice that time,
        so that the platform replaces a process whose watchdog has failed, too.
        """
        limit = 2 * self._process.settings.watchdog_seconds
        live: Status = "fail" if self._ticker.late() > limit else "pass"
        started: Status = "pass" if self._process.ready else "fail"
        return {"/livez": live, "/readyz": self.ready(), "/startupz": started}

    @property
    def checks(self) -> dict[str, Status]:
        return {state.check.name: state.status for state in self._states}

    def ready(self) -> Status:
        """
        Whether to send work: not before the start is over, not while stopping, and not while the
        event loop is blocked for longer than a probe would wait for it.
        """
        results = set(self.checks.values())
        if self._ticker.late() > self._process.settings.probe_timeout_seconds:
            results.add("fail")
        if "fail" in results or self._process.stopping or not self._process.ready:
            return "fail"
        return "warn" if "warn" in results else "pass"

    def watch(self, checks: Sequence[Check]) -> None:
        """
        Run each check again and again, off the request path, until the process ends.
        """
        self._states = [CheckState(check) for check in checks]
        if len(self.checks) < len(checks):
            raise ValueError(f"Health: checks {[*self.checks]} must not share a name")
        for state in self._states:
            self._process.supervise(f"check {state.check.name}", partial(self._repeat, state))

    async def _repeat(self, state: CheckState) -> None:
        settings = self._process.settings
        while True:
            state.note(await state.run(timeout_seconds=settings.check_timeout_seconds))
            await asyncio.sleep(settings.check_interval_seconds)
