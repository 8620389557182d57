"""
Around every request: an id, limits, one log line, an answer to what escapes.
"""

import asyncio
from collections.abc import Callable, Mapping

from prometheus_client import Counter, Histogram

from . import problem
from .asgi import App, Receive, Scope, Send
from .cors import answer_preflight, is_preflight
from .excerpt import brief
from .logs import get_logger
from .process import Process
from .request import Request
from .ticker import Ticker

__all__ = ["Envelope"]

log = get_logger()


class Envelope:
    """
    A pure ASGI wrapper around any ASGI application; the paths *beside* it go past it.
    """

    def __init__(
        self, app: App, *, beside: Mapping[str, App], process: Process, ticker: Ticker
    ) -> None:
        self.process, self.settings = process, process.settings
        self._app, self._beside, self._ticker = app, beside, ticker
        labels = ["method", "route", "status"]
        self._seconds = Histogram("app_request_duration_seconds", "Answered requests.", labels)
        self._shed = Counter("app_requests_shed", "Requests refused under overload.", ["by"])
        self._observers: dict[tuple[str, str, int], Callable[[float], None]] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """
        Run the application, and answer in its place where it does not.
        """
        app = self._beside.get(scope.get("path", ""), self._app)
        if scope["type"] != "http" or app is not self._app:
            await app(scope, receive, send)
            return
        request = Request(self, scope, receive, send)
        if self.settings.cors_origins and is_preflight(scope):
            # Not shed: the request that it is for could then not even be refused.
            app = answer_preflight
        elif by := self._overloaded():
            self._shed.labels(by).inc()
            await request.answer("shed")
            request.end()
            return
        try:
            await request.run(app)
        except BaseException as error:  # noqa: BLE001  # answered and told
            await self._failed(request, error)
        finally:
            request.end()

    def observe(self, method: str, route: str, status: int, seconds: float) -> None:
        """
        Measure an answer; labels are looked up once.
        """
        key = (method, route, status)
        if key not in self._observers:
            self._observers[key] = self._seconds.labels(method, route, str(status)).observe
        self._observers[key](seconds)

    def _overloaded(self) -> str | None:
        """
        What there is too much of: CPU work, told by the loop's lateness, or requests that wait.
        """
        if self._ticker.late() > self.settings.shed_lag_seconds:
            return "lag"
        waiting = len(self.process.requests) + len(self.process.abandoned)
        return "in_flight" if waiting > self.settings.in_flight_max else None

    async def _failed(self, request: Request, error: BaseException) -> None:
        if request.is_over:
            # Answered at the deadline; what became of the rest is only counted.
            if not isinstance(error, asyncio.CancelledError):
                self.process.errors["after_deadline"] += 1
            return
        if request.is_too_large:
            await request.answer("body_too_large")
            return
        request.error = brief(error)
        if isinstance(error, problem.Unavailable):
            request.dependency = error.dependency
            await request.answer("unavailable", error.status)
        elif isinstance(error, asyncio.CancelledError) and self.process.stopping:
            # The time is over: uvicorn cancels what is still running.
            await request.answer("grace")
        else:
            log.error("request_failed", exc_info=error)
            self.process.tell(error, event="request_failed", kind="bug", route=request.route)
            await request.answer("bug")
