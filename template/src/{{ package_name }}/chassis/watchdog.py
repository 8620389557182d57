"""
A stuck event loop dies: a process that answers nobody must not look alive.
"""

import asyncio
import faulthandler
import signal
import sys
import threading
import time
import traceback

from .exits import Exit
from .process import Process

__all__ = ["start"]


def start(process: Process, *, limit_seconds: float) -> None:
    """
    End the process with every thread's stack when the loop stands still for *limit_seconds*.
    """
    interval = min(1.0, limit_seconds / 5)
    loop = asyncio.get_running_loop()
    beats = 0

    def beat() -> None:
        nonlocal beats
        beats += 1
        # What holds the GIL stops the watching thread too; the kernel counts its CPU time.
        signal.setitimer(signal.ITIMER_PROF, limit_seconds + 5)
        loop.call_later(interval, beat)

    def watch() -> None:
        # Counts intervals instead of reading a clock: a process that was paused and goes on
        # has seen none of them.
        seen, missed = beats, 0
        while True:
            time.sleep(interval)
            stuck = seen == beats and not _is_debugged()
            seen, missed = beats, missed + 1 if stuck else 0
            if missed * interval > limit_seconds:
                process.exit(Exit.BUG, "loop_stuck", stacks=True, limit_seconds=limit_seconds)

    faulthandler.register(signal.SIGPROF, file=process.stderr, chain=True)
    beat()
    threading.Thread(target=watch, name="watchdog", daemon=True).start()


def _is_debugged() -> bool:
    """
    Whether the main thread stands in a debugger.
    """
    frames = sys._current_frames()  # noqa: SLF001  # documented
    walk = traceback.walk_stack(frames.get(threading.main_thread().ident or 0))
    modules = {frame.f_globals.get("__name__", "").partition(".")[0] for frame, _ in walk}
    return bool(modules & {"bdb", "pdb", "pydevd", "debugpy"})
