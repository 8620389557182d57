"""
Calls to other services over HTTP: each ends in time, whatever the other side does.
"""

import asyncio
import random
import time
from contextlib import aclosing, suppress
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

from prometheus_client import Counter, Gauge, Histogram
from structlog.contextvars import get_contextvars

from .arguments import Name, check
from .deadline import remaining
from .environment import check_outbound
from .limits import using
from .logs import get_logger
from .problem import Unavailable
from .settings import Settings, Url
from .traceparent import TRACEPARENT

if TYPE_CHECKING:
    from httpx2 import Request, Response

__all__ = ["Dependency"]

# RFC 9110, 9.2.2.
IDEMPOTENT = {"DELETE", "GET", "HEAD", "OPTIONS", "PUT", "TRACE"}
PORTS = {"http": 80, "https": 443}
TRANSIENT = {429, 502, 503, 504}
# With less time left, the answer would come too late.
LEAST_SECONDS = 0.05
BACKOFF_SECONDS = 0.05
# Retries that are free, and the most that can be saved up.
BUDGET = 10.0

REQUESTS = Counter("app_outbound_requests", "Calls.", ["dependency", "outcome"])
ATTEMPTS = Counter("app_outbound_attempts", "Calls and their retries.", ["dependency"])
SECONDS = Histogram("app_outbound_duration_seconds", "Calls, with retries.", ["dependency"])
IN_FLIGHT = Gauge("app_outbound_in_flight", "Calls.", ["dependency"])
RETRIES = Gauge("app_outbound_retry_budget", "Retries it may make now.", ["dependency"])
log = get_logger()


class _Failure(Unavailable):
    """
    An attempt after *retry_after* seconds may succeed, or none if that is None.
    """

    def __init__(self, outcome: str, cause: str, retry_after: float | None = None) -> None:
        super().__init__(cause, status=504 if outcome in {"late", "timeout"} else 503)
        self.outcome, self.retry_after = outcome, retry_after


class Dependency:
    """
    Another service; *name* is its label in metrics and logs. Open it once, in `resources.py`.

    For limits of its own, hand in `settings.model_copy(update=...)`. Raises ValueError, before
    anything is opened, if an argument or such a limit is wrong, and `ConfigurationError`, which
    ends the process with 78, if the limits contradict each other.
    """

    def __init__(self, name: Name, url: Url, settings: Settings) -> None:
        # A service that calls no other does not pay for it.
        import httpx2

        check(Dependency.__init__, name=name, url=url, settings=settings)
        check(Settings, **{key: value for key, value in settings if key.startswith("out_")})
        check_outbound(settings)
        # uvicorn and Node close an idle connection after 5 s: don't write into one that goes.
        limits = httpx2.Limits(max_connections=settings.out_in_flight_max, keepalive_expiry=4)
        # A transport without its client: no redirects, no cookies, no proxy from the environment.
        self._transport = httpx2.AsyncHTTPTransport(limits=limits)
        self.aclose = self._transport.aclose
        self._name, self._url, self._settings = name, url.rstrip("/"), settings
        self._calls: set[asyncio.Task[Response]] = set()
        self._budget = BUDGET
        IN_FLIGHT.labels(name).set_function(lambda: len(self._calls))
        RETRIES.labels(name).set_function(lambda: self._budget)

    async def request(
        self, method: str, path: str, *, is_idempotent: bool | None = None, **parts: Any
    ) -> "Response":
        """
        The answer, read whole, if its status is neither 429 nor 500 and more.

        Raises `Unavailable` otherwise. *parts* are those of `httpx2.Request`: json, params,
        headers, content. What is idempotent, by its method or by your word, is tried again.
        """
        import httpx2

        check(Dependency.request, method=method, path=path, is_idempotent=is_idempotent)
        request = httpx2.Request(method, f"{self._url}/{path.lstrip('/')}", **parts)
        own_id, trace = get_contextvars().get("request_id"), TRACEPARENT.get()
        request.headers.update({"x-request-id": own_id} if own_id else {})
        request.headers.update({"traceparent": trace} if trace else {})
        is_safe = request.method in IDEMPOTENT if is_idempotent is None else is_idempotent
        attempts = self._settings.out_attempts if is_safe else 1
        name, outcome = self._name, "abandoned"
        try:
            with SECONDS.labels(name).time(), using(name):
                response = await self._bounded(request, attempts)
            outcome = f"{response.status_code // 100}xx"
        except _Failure as failure:
            outcome, url = failure.outcome, request.url
            told = {"dependency": name, "outcome": outcome, "cause": str(failure), "host": url.host}
            log.warning("outbound_failed", **told, port=url.port or PORTS[url.scheme])
            failure.dependency, failure.args = name, (f"{name}: {failure}",)
            raise
        finally:
            REQUESTS.labels(name, outcome).inc()
        return response

    async def _bounded(self, request: "Request", attempts: int) -> "Response":
        """
        Within the total time, also if something swallows the cancellation; at most so many at once.
        """
        seconds = min(self._settings.out_total_seconds, remaining())
        if seconds < LEAST_SECONDS:
            raise _Failure("late", "too little time is left to ask")
        if len(self._calls) >= self._settings.out_in_flight_max:
            raise _Failure("full", "too many calls wait for it")
        call = asyncio.create_task(self._retried(request, attempts, time.monotonic() + seconds))
        self._calls.add(call)
        call.add_done_callback(self._calls.discard)
        # What a call ends with after it was left behind is nobody's business.
        call.add_done_callback(lambda call: call.cancelled() or call.exception())
        try:
            await asyncio.wait({call}, timeout=seconds)
            if not call.done():
                raise _Failure("timeout", "the time of the call is over")
            return call.result()
        finally:
            call.cancel()

    async def _retried(self, request: "Request", attempts: int, ends: float) -> "Response":
        """
        Attempts until one succeeds, or another may not be made or would come too late.
        """
        self._budget = min(self._budget + self._settings.out_retry_ratio, BUDGET)
        for number in range(1, attempts + 1):
            try:
                return await self._attempt(request, ends - time.monotonic())
            except _Failure as failure:
                # Full jitter: calls that failed together come back spread from 0 on.
                jitter = random.uniform(0, BACKOFF_SECONDS * 2**number)  # noqa: S311  # no secret
                pause = jitter + (failure.retry_after or 0)
                if failure.retry_after is None or number == attempts or self._budget < 1:
                    raise
                if time.monotonic() + pause + LEAST_SECONDS > ends:
                    raise
            self._budget -= 1
            await asyncio.sleep(pause)
        raise AssertionError

    async def _attempt(self, request: "Request", seconds: float) -> "Response":
        import httpx2

        seconds = min(seconds, self._settings.out_attempt_seconds)
        request.extensions["timeout"] = {"connect": self._settings.out_connect_seconds}
        request.headers["x-request-timeout-ms"] = str(int(seconds * 1000))
        ATTEMPTS.labels(self._name).inc()
        body = bytearray()
        try:
            async with (
                asyncio.timeout(seconds),
                aclosing(await self._transport.handle_async_request(request)) as response,
            ):
                async for part in response.aiter_bytes():
                    body += part
                    if len(body) > self._settings.out_body_max_bytes:
                        raise _Failure("body", "its answer is too long")
        except (TimeoutError, httpx2.TimeoutException) as error:
            raise _Failure("timeout", repr(error), 0) from error
        except httpx2.RequestError as error:
            raise _Failure("error", repr(error), 0) from error
        status, headers = response.status_code, response.headers
        if status == 429 or status >= 500:
            after = _parse(headers.get("retry-after", "")) if status in TRANSIENT else None
            raise _Failure("status", f"it answered {status}", after)
        headers.pop("content-encoding", None)
        return httpx2.Response(status, headers=headers, content=bytes(body), request=request)


def _parse(retry_after: str) -> float:
    """
    Seconds until then: it is a number or a date (RFC 9110, 10.2.3); what is neither is now.
    """
    if retry_after.isdecimal():
        return float(retry_after)
    with suppress(ValueError, OverflowError):
        return max(parsedate_to_datetime(retry_after).timestamp() - time.time(), 0)
    return 0
