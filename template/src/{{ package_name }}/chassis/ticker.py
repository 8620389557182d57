"""
How late the event loop is: the shedder and the probes ask for it.
"""

import asyncio

from .process import Process

__all__ = ["Ticker"]

TICK_SECONDS = 0.02


class Ticker:
    """
    A timer on the event loop, which ends requests at their deadline.
    """

    def __init__(self, process: Process) -> None:
        self._process = process
        self._loop = asyncio.get_running_loop()
        # The largest lateness, which fades within seconds: for the metric.
        self.lag = 0.0
        self._due = self._loop.time()
        self._tick()

    def late(self) -> float:
        """
        Seconds by which the next tick is overdue at this moment. Any thread may ask.

        A smoothed lag would go on shedding after the loop is free: half the goodput, measured.
        """
        return self._loop.time() - self._due

    def _tick(self) -> None:
        now = self._loop.time()
        self.lag = max(now - self._due, self.lag * 0.99)
        for request in tuple(self._process.requests):
            if now >= request.expires:
                request.expire()
        self._due = now + TICK_SECONDS
        self._loop.call_at(self._due, self._tick)
