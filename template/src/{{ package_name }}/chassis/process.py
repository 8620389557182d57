"""
The running process: stops when told to, crashes loudly when broken, lets one look inside.
"""

import asyncio
import faulthandler
import os
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from functools import partial
from itertools import islice
from traceback import walk_stack
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn

from . import telemetry
from .environment import ConfigurationError, Loaded
from .excerpt import place
from .exits import Exit
from .logs import LEVELS, Logs, get_logger
from .settings import Settings
from .sink import own_descriptor

if TYPE_CHECKING:
    from .request import Request

__all__ = ["Process"]

DEBUG_SECONDS = 600
# How many threads and tasks a line of stacks shows, and how many of the innermost calls of each.
STACKS_MAX, CALLS_MAX = 40, 40
log = get_logger()


class Process:
    """
    State of this process, and its reaction to signals and to errors that nobody caught.
    """

    def __init__(self, loaded: Loaded[Settings], *, package: str, logs: Logs, is_dev: bool) -> None:
        self.settings, self.unknown = loaded.settings, loaded.unknown
        self.logs, self.is_dev = logs, is_dev
        self.telemetry = telemetry.start(self.settings, logs)
        # What is still to be sent takes at most this at the end.
        self.flush_seconds = self.settings.telemetry_flush_seconds if self.telemetry else 0
        self.errors: Counter[str] = Counter()
        # Connections and requests that were answered or cut before the application saw them.
        self.refused: Counter[str] = Counter()
        # Those that are being answered.
        self.requests: set[Request] = set()
        self.ready = self.stopping = False
        # What it means to be told to stop, and what is still said before any end but a forced one.
        self.stop_code = Exit.OK
        self.last_words: Callable[[int], None] = lambda _: None
        self.stop, self.closing = asyncio.Event(), asyncio.Event()
        self.abandoned: set[asyncio.Task[Any]] = set()
        # The last resort must not wait for a reader that stalls, either.
        self.stderr = own_descriptor(2)
        self._package, self._started = package, time.monotonic()
        self._loop: asyncio.AbstractEventLoop | None = None
        # asyncio itself keeps no task from being collected.
        self._tasks: list[asyncio.Task[None]] = []

    def install(self) -> None:
        """
        Take over signals and hooks; call from the main thread, before the loop runs.
        """
        faulthandler.enable(file=self.stderr)
        self.supervise_thread("log", self.logs.run)
        sys.unraisablehook = lambda hook: self.report("unraisable", hook.exc_value)
        threading.excepthook = lambda hook: self.report("thread", hook.exc_value)
        signal.signal(signal.SIGTERM, self._on_stop)
        signal.signal(signal.SIGINT, self._on_stop)
        signal.signal(signal.SIGUSR1, lambda *_: self.supervise_thread("stacks", self._show))
        signal.signal(signal.SIGUSR2, lambda *_: self.supervise_thread("debug", self._debug))

    def attach(self) -> None:
        """
        Watch the running event loop too.
        """
        self._loop = asyncio.get_running_loop()
        self._loop.set_exception_handler(self._on_loop_exception)

    def supervise(self, name: str, work: Callable[[], Awaitable[object]]) -> "asyncio.Task[None]":
        """
        Run *work* as a task whose exception ends the process.
        """

        async def run() -> None:
            with self._guard(f"task {name}"):
                await work()

        task = asyncio.create_task(run(), name=name)
        self._tasks.append(task)
        return task

    def supervise_thread(self, name: str, work: Callable[[], object]) -> None:
        """
        Run *work* in a thread whose exception ends the process.
        """
        guarded = self._guard(f"thread {name}")(work)
        threading.Thread(target=guarded, name=name, daemon=True).start()

    def crash(self, cause: str, error: BaseException | None = None) -> NoReturn:
        """
        Log what is known and end, because a restart mends more than limping on does.

        A `ConfigurationError` is not a bug: it ends the process as if it was found at the start.
        """
        if isinstance(error, ConfigurationError):
            for name, problem in error.faults:
                log.error("configuration_invalid", variable=name, problem=problem)
            self.exit(Exit.CONFIGURATION)
        self.exit(Exit.BUG, "crash", stacks=True, cause=cause, exc_info=error)

    def exit(self, code: int, event: str = "", *, stacks: bool = False, **fields: Any) -> NoReturn:
        """
        Log a last event, if there is one, and end at once, past threads that would not.
        """
        try:
            # Whatever hangs must not hold back the end.
            threading.Timer(1 + self.flush_seconds, os._exit, [code]).start()
            self.logs.flood.tell()
            fields |= self.stacks() if stacks else {}
            level = "critical" if code == Exit.BUG else "error" if fields else "info"
            fields |= {"uptime_seconds": time.monotonic() - self._started, "exit_code": int(code)}
            if event:
                log.log(LEVELS[level], event, **fields)
            if event and code == Exit.BUG:
                self.tell(fields.get("exc_info"), event=event, kind=fields.get("cause", event))
            if code < 128:
                # What a second signal forces ends at once.
                self.last_words(code)
                # What is still on its way to telemetry, to all receivers at the same time.
                pool = ThreadPoolExecutor(max_workers=8)
                wait([pool.submit(one.flush) for one in self.telemetry], self.flush_seconds)
            self.logs.flush(seconds=1)
        finally:
            os._exit(code)

    def report(self, kind: str, error: BaseException | None, **fields: Any) -> None:
        """
        Tell and count what went wrong in code that is not worth the process.
        """
        self.errors[kind] += 1
        log.error("stray_error", kind=kind, exc_info=error, **fields)
        # While stopping, what code works with may be closed already: no news for the tracker.
        if not self.stopping:
            self.tell(error, event="stray_error", kind=kind)

    def tell(self, error: BaseException | None, **context: str) -> None:
        """
        Hand an unexpected error to the error tracker, if there is one.
        """
        for receiver in self.telemetry:
            with suppress(Exception):
                receiver.report(error, context)

    def stacks(self) -> dict[str, Any]:
        """
        Where every thread and asyncio task is, innermost call first.
        """
        names = {thread.ident: thread.name for thread in threading.enumerate()}
        frames = sys._current_frames()  # noqa: SLF001  # documented
        tasks = asyncio.all_tasks(self._loop) if self._loop else set()
        # The main thread comes first.
        keys = sorted(frames, key=lambda key: key != threading.main_thread().ident)[:STACKS_MAX]
        threads = {f"{names.get(key)} {key}": _calls(walk_stack(frames[key])) for key in keys}
        waits = [(one, [*_awaits(one.get_coro())][::-1]) for one in list(tasks)[:STACKS_MAX]]
        return {
            "in_flight": len(self.requests),
            "thread_count": len(frames),
            "threads": threads,
            "task_count": len(tasks),
            "tasks": [f"{one.get_name()}: {', '.join(_calls(calls))}" for one, calls in waits],
        }

    @contextmanager
    def _guard(self, cause: str) -> Generator[None]:
        try:
            yield
        except BaseException as error:  # noqa: BLE001  # the process ends
            # While stopping, what it works with may be closed already.
            if not self.stopping or cause == "task main":
                self.crash(cause, error)
            self.report(cause, error)

    def _on_stop(self, number: int, _: FrameType | None) -> None:
        """
        A signal handler only decides: the main thread may be in the middle of a log line.
        """
        react = self._end
        if self.stopping:
            react = partial(self.exit, 128 + number, "stopped_by_force")
        elif not self.ready:
            # Nothing is in flight yet, and what is being opened may hang.
            react = partial(self.exit, self.stop_code, "stopped")
        self.stopping = True
        self.supervise_thread(signal.Signals(number).name, react)

    def _end(self) -> None:
        # From the first SIGTERM to the end, whatever hangs.
        seconds = self.settings.drain_seconds + self.settings.grace_seconds + 1
        ending = [self.stop_code, "grace_exceeded"]
        threading.Timer(seconds, self.exit, ending, {"stacks": True}).start()
        # First, as a process with nothing to do may end before this thread goes on.
        log.info("stopping", in_flight=len(self.requests))
        self._loop.call_soon_threadsafe(self.stop.set)  # type: ignore[union-attr]  # it is ready

    def _show(self) -> None:
        # Not through flood control: who asks often wants to see how it goes on.
        self.logs.line("stacks", "critical", self.stacks())

    def _debug(self) -> None:
        """
        Log at DEBUG for a while.
        """
        usual = self.logs.level
        if usual != "debug":
            self.logs.set_level("debug")
            log.warning("log_level_changed", level_now="debug", seconds=DEBUG_SECONDS)
            time.sleep(DEBUG_SECONDS)
            self.logs.set_level(usual)

    def _on_loop_exception(self, _: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """
        A callback of ours that raises is a bug; what strangers can provoke is not fatal.
        """
        callback = getattr(context.get("handle"), "_callback", None)
        # Of a `partial`, its function.
        module = getattr(getattr(callback, "func", callback), "__module__", None) or ""
        if module.partition(".")[0] == self._package:
            self.crash("loop callback", context.get("exception"))
        self.report("loop", context.get("exception"), message=context["message"])


def _calls(walk: Iterable[tuple[FrameType, int]]) -> list[str]:
    some = islice(walk, CALLS_MAX)
    return [f"{place(one.f_code.co_filename, line)} {one.f_code.co_name}" for one, line in some]


def _awaits(waiting: Any) -> Iterator[tuple[FrameType, int]]:
    """
    Where a coroutine is, and what it awaits: `Task.get_stack` knows the outermost call only.
    """
    while waiting is not None:
        # Each may have ended meanwhile, as the event loop goes on.
        if frame := getattr(waiting, "cr_frame", None) or getattr(waiting, "gi_frame", None):
            yield frame, frame.f_lineno
        waiting = getattr(waiting, "cr_await", None) or getattr(waiting, "gi_yieldfrom", None)
