"""
Logs: one JSON object a line on stdout, whoever speaks; readable on a terminal.

structlog, standard-library loggers, warnings, the canonical request line and what other code
prints all end in one `Sink`, which masks the values of secret settings.
"""

import base64
import io
import json
import logging
import os
import sys
import threading
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote, quote_plus

import orjson
import structlog
from structlog.processors import ExceptionRenderer, TimeStamper, add_log_level
from structlog.tracebacks import ExceptionDictTransformer
from structlog.typing import EventDict, Processor

from .flood import Flood

__all__ = ["LEVELS", "Logs", "Sink", "get_logger"]

BATCH_SECONDS, BATCH_BYTES = 0.02, 65_536
LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40, "critical": 50}
get_logger = structlog.get_logger


class Sink:
    """
    Writes whole lines to stdout; never raises, never shows a secret.
    """

    def __init__(self, secrets: Iterable[str]) -> None:
        self.dropped = 0
        # Reentrant: a finaliser may log while its own thread writes.
        self._lock = threading.RLock()
        self._waiting: list[bytes] = []
        self._size, self._begun = 0, b""
        self.some = threading.Event()
        # At most so much waits: nothing, as long as nobody comes back for it.
        self.most = 0
        # A child process would write what waits once more.
        os.register_at_fork(before=self.flush)
        # A shorter one would garble ordinary words; the longest first, or it leaves its tail.
        lines = {line for secret in secrets for line in (secret, *secret.splitlines())}
        forms = {form for line in lines if len(line) >= 6 for form in _forms(line)}
        self._forms = sorted(forms, key=len, reverse=True)

    def msg(self, line: bytes, *, now: bool = True) -> None:
        """
        Write *line* after those that wait: now, or soon and together with others.
        """
        line = self.mask(line) + b"\n"
        with self._lock:
            self._waiting.append(line)
            self._size += len(line)
            if now or self._size >= self.most:
                self.flush()
            elif len(self._waiting) == 1:
                self.some.set()

    def flush(self) -> None:
        """
        Write what waits, from any thread; what can't be written is counted.
        """
        with self._lock:
            lines, self._waiting, self._size = self._waiting, [], 0
            data, written = self._begun + b"".join(lines), 0
            try:
                while written < len(data):
                    written += os.write(1, memoryview(data)[written:])
                self._begun = b""
            except OSError:
                # A line that has begun goes on before the next, or neither could be read.
                end = data.index(b"\n", written - 1) + 1 if written else len(self._begun)
                self._begun = data[written:end]
                self.dropped += data.count(b"\n", end)

    debug = info = warning = error = critical = msg

    def mask(self, line: bytes) -> bytes:
        """
        Hide every secret in *line*, in each form that `_forms` knows.
        """
        for form in self._forms:
            line = line.replace(form, b"**********")
        return line


class Logs:
    """
    The pipeline of this process: whatever speaks in it, speaks through this.
    """

    def __init__(
        self, identity: dict[str, str], *, console: bool, level: str, secrets: Iterable[str]
    ) -> None:
        self.identity, self.console = identity, console
        self.sink = Sink(secrets)
        self.flood = Flood(self.line, _dumps)
        if not console:
            sys.stdout, sys.stderr = _Printed("stdout", 1), _Printed("stderr", 2)
        structlog.configure(
            processors=self._processors(),
            wrapper_class=structlog.make_filtering_bound_logger(0),
            logger_factory=lambda *_: self.sink,
            cache_logger_on_first_use=True,
        )
        logging.captureWarnings(capture=True)
        logging.basicConfig(handlers=[_Bridge()], force=True)
        # The envelope reports what uvicorn would say again, without a request id.
        logging.getLogger("uvicorn").setLevel(logging.ERROR)
        # At DEBUG it would log each step of each call to another service.
        logging.getLogger("httpcore2").setLevel(logging.INFO)
        self.set_level(level)

    def set_level(self, level: str) -> None:
        """
        Show events of at least *level* from now on, also those of third parties.
        """
        self.level, self._least = level, LEVELS[level]
        logging.getLogger().setLevel(self._least)

    def line(self, event: str, level: str, fields: Mapping[str, Any]) -> None:
        """
        The short way for the one line that each request writes: same sink, same shape.
        """
        if self.console:
            get_logger().log(LEVELS[level], event, **fields)
        elif LEVELS[level] >= self._least:
            head = {"timestamp": datetime.now(UTC), "level": level, "event": event}
            self.sink.msg(_dumps({**head, **self.identity, **fields}), now=False)

    def run(self) -> None:
        """
        Write batches for ever; in a thread of its own, for a handler may hold the event loop.
        """
        self.sink.most = BATCH_BYTES
        while True:
            self.sink.some.wait(1)
            time.sleep(BATCH_SECONDS)
            self.sink.some.clear()
            self.flood.tell(until=time.monotonic())
            self.sink.flush()

    def close(self) -> None:
        """
        Write and tell all that waits; from now on nothing does.
        """
        self.sink.most = 0
        self.flood.tell()
        self.sink.flush()

    def _processors(self) -> list[Processor]:
        def threshold(_: object, method: str, event: EventDict) -> EventDict:
            # Here and not in the wrapper, so that cached loggers follow a change.
            if LEVELS[method] < self._least:
                raise structlog.DropEvent
            return event

        def arrange(_: object, __: str, event: EventDict) -> EventDict:
            head = {key: event.pop(key) for key in ("timestamp", "level", "event")}
            return {**head, **self.identity, **event}

        merge, stamp = structlog.contextvars.merge_contextvars, TimeStamper(fmt="iso", utc=True)
        # Who tries again at a terminal wants to see it again.
        limit: list[Processor] = [] if self.console else [self.flood.limit]
        first: list[Processor] = [threshold, *limit, merge, add_log_level, stamp]
        if self.console:
            plain = structlog.dev.plain_traceback
            pretty = structlog.dev.ConsoleRenderer(os.isatty(1), exception_formatter=plain)
            return [*first, lambda *args: pretty(*args).encode(errors="backslashreplace")]
        # Local variables stay out of tracebacks: they hold secrets.
        frames = ExceptionDictTransformer(show_locals=False, max_frames=20)
        return [*first, arrange, ExceptionRenderer(frames), lambda *args: _dumps(args[2])]


class _Bridge(logging.Handler):
    """
    Hands the records of standard-library loggers to structlog.
    """

    def emit(self, record: logging.LogRecord) -> None:
        try:
            event = record.getMessage()
        except Exception:  # noqa: BLE001  # a third party's mistake must not end a request
            event = str(record.msg)
        level = max(min(record.levelno // 10 * 10, 50), 10)
        get_logger().log(level, event, logger=record.name, exc_info=record.exc_info)


class _Printed(io.TextIOBase):
    """
    Turns what code prints into events, so that every line stays JSON.
    """

    def __init__(self, stream: str, descriptor: int) -> None:
        self._stream, self._descriptor, self._rest = stream, descriptor, ""

    def write(self, text: str) -> int:
        *lines, self._rest = (self._rest + text).split("\n")
        if len(self._rest) > 8192:
            lines, self._rest = [*lines, self._rest], ""
        for line in filter(str.strip, lines):
            get_logger().info("printed", stream=self._stream, text=line)
        return len(text)

    def fileno(self) -> int:
        return self._descriptor


def _dumps(event: Mapping[str, Any]) -> bytes:
    try:
        return orjson.dumps(event, repr, orjson.OPT_NON_STR_KEYS | orjson.OPT_UTC_Z)
    except Exception:  # noqa: BLE001  # lone surrogates, large integers, a broken repr
        return orjson.dumps({str(key): _plain(value) for key, value in event.items()})


def _plain(value: object) -> str:
    with suppress(Exception):
        return value if isinstance(value, str) and value.isascii() else ascii(value)
    return f"<{type(value).__name__}>"


def _forms(secret: str) -> set[bytes]:
    """
    A secret as it may appear in a line: raw, JSON-escaped, URL-encoded, base64.
    """
    texts = [secret, repr(secret)[1:-1], ascii(secret)[1:-1], quote(secret), quote_plus(secret)]
    texts += [json.dumps(text, ensure_ascii=False)[1:-1] for text in texts]
    texts += [json.dumps(secret)[1:-1], quote(secret, safe="")]
    codes = [base64.b64encode(secret.encode()), base64.urlsafe_b64encode(secret.encode())]
    return {text.encode() for text in texts} | {code.rstrip(b"=") for code in codes}
