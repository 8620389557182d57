"""
Logs: one JSON object a line on stdout, whoever speaks; readable on a terminal.

structlog, standard-library loggers, warnings, the canonical request line and what other code
prints all end in one `Sink`, which masks the values of secret settings.
"""

import io
import logging
import os
import sys
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import structlog
from structlog.contextvars import get_contextvars
from structlog.typing import EventDict

from .excerpt import FIT_BYTES, brief, dumps, fit
from .flood import Flood
from .sink import Sink

__all__ = ["LEVELS", "Logs", "Sink", "get_logger"]

# Between two looks whether the reader of the log is back.
RETRY_SECONDS = 0.05
PRINTED_CHARACTERS = 4_096
LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40, "critical": 50}
get_logger = structlog.get_logger


class Logs:
    """
    The pipeline of this process: whatever speaks in it, speaks through this.
    """

    def __init__(
        self, identity: dict[str, str], *, console: bool, level: str, secrets: Iterable[str]
    ) -> None:
        self.identity, self.console = identity, console
        self.sink, self._told = Sink(secrets), 0
        self.flood = Flood(self.line, self.sink.cut)
        plain, colors = structlog.dev.plain_traceback, os.isatty(1)
        self._pretty = structlog.dev.ConsoleRenderer(colors=colors, exception_formatter=plain)
        if not console:
            sys.stdout = _Printed("stdout", 1, self.sink)
            sys.stderr = _Printed("stderr", 2, self.sink)
        structlog.configure(
            processors=[self._render],
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
            whole, line = {**self._head(event, level), **fields}, b""
            with suppress(TypeError):
                line = dumps(whole)
            is_whole = 0 < len(line) <= FIT_BYTES
            self.sink.msg(line if is_whole else fit(whole, self.sink.cut))

    def run(self) -> None:
        """
        Write what waits for the reader, and tell what was left out, for ever; in a thread.
        """
        while True:
            time.sleep(RETRY_SECONDS if self.sink.waiting else 1)
            self.flood.tell(until=time.monotonic())
            self.flush()

    def flush(self, *, seconds: float = 0) -> None:
        """
        Write what waits, within *seconds*, and how many lines were dropped if the reader is back.
        """
        self.sink.flush(seconds=seconds)
        if not self.sink.waiting and (lines := self.sink.dropped - self._told):
            self._told += lines
            self.line("log_lines_dropped", "warning", {"lines": lines})

    def _head(self, event: object, level: str) -> dict[str, Any]:
        now = datetime.now(UTC)
        return {"timestamp": now, "level": level, "event": event, **self.identity}

    def _render(self, _: object, level: str, fields: EventDict) -> bytes:
        # Here and not in the wrapper, so that cached loggers follow a change.
        if LEVELS[level] < self._least:
            raise structlog.DropEvent
        error = fields.pop("exc_info", None)
        if error is True or isinstance(error, tuple):
            error = sys.exc_info()[1] if error is True else error[1]
        error = error if isinstance(error, BaseException) else None
        # A person who tries again at a terminal wants to see it again.
        if not self.console:
            self.flood.limit(level, fields, error)
        # Ids come first: they are needed most if not everything fits.
        whole = {**self._head(fields.pop("event"), level), **get_contextvars(), **fields}
        if self.console:
            own = {key: value for key, value in whole.items() if key not in self.identity}
            own |= {"timestamp": f"{whole['timestamp']:%FT%TZ}", "exc_info": error}
            told = f"{self.identity['process_type']:<7} {self._pretty(None, level, own)}"
            text = self.sink.cut(told, FIT_BYTES)
            return text.encode(errors="backslashreplace")
        if error is not None:
            whole.setdefault("error", brief(error))
        return fit(whole, self.sink.cut, error)


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

    def __init__(self, stream: str, descriptor: int, sink: Sink) -> None:
        self._stream, self._descriptor, self._sink, self._rest = stream, descriptor, sink, ""

    def write(self, text: str) -> int:
        *lines, self._rest = (self._rest + text).split("\n")
        if len(self._rest) > PRINTED_CHARACTERS:
            # What may be the first half of a secret waits for the second.
            told, self._rest = self._sink.split(self._rest)
            lines.append(told)
        for line in filter(str.strip, lines):
            get_logger().info("printed", stream=self._stream, text=line)
        return len(text)

    def fileno(self) -> int:
        return self._descriptor
