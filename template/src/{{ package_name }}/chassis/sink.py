"""
The way of log lines out of the process: whole, in order, without secrets, and without waiting.
"""

import base64
import json
import os
import select
import stat
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from urllib.parse import quote, quote_plus

__all__ = ["LINE_BYTES", "Sink", "own_descriptor"]

# No line is longer, its end included.
LINE_BYTES = 65_536
# What waits for a reader that stalls, or for a disk that is full.
BACKLOG_BYTES = 1_048_576
MASK = b"**********"


class Sink:
    """
    Writes lines to a file descriptor; never raises, never waits unless asked to.

    A line that can't be written waits in a backlog. If the backlog is full, a new line is dropped
    and counted. A line that has begun goes on before the next one.
    """

    def __init__(self, secrets: Iterable[str], descriptor: int = 1) -> None:
        self.dropped = 0
        self._descriptor = own_descriptor(descriptor)
        mode = os.fstat(self._descriptor).st_mode
        # A write of more would wait for the reader in the middle of a line.
        self._takes_long = not os.get_blocking(self._descriptor) or stat.S_ISREG(mode)
        # A shorter secret would garble ordinary words. The longest form comes first, because a
        # shorter one would leave its tail.
        lines = {line for secret in secrets for line in (secret, *secret.splitlines())}
        forms = {form for line in lines if len(line) >= 6 for form in _forms(line)}
        self._forms = sorted(forms, key=len, reverse=True)
        self._longest = max(map(len, forms), default=0)
        self._begin()
        # A child process would write what waits once more, and may have been forked in a write.
        os.register_at_fork(after_in_child=self._begin)

    def _begin(self) -> None:
        # Each use is one atomic step, because a finalizer may log between any two.
        self.waiting = bytearray()
        # Nobody waits for it but `flush`: whoever does not get it leaves its line to the holder.
        self._writing = threading.Lock()
        self._poll = select.poll()
        self._poll.register(self._descriptor, select.POLLOUT)

    def msg(self, line: bytes) -> None:
        """
        Write *line* after those that wait, or keep or drop it if the reader stalls.
        """
        line = self.mask(line) + b"\n"
        if len(self.waiting) + len(line) > BACKLOG_BYTES:
            self.dropped += 1
        else:
            self.waiting += line
        self.flush()

    debug = info = warning = error = critical = msg

    def flush(self, *, seconds: float = 0) -> None:
        """
        Write what waits, as far as the reader takes it within *seconds*.
        """
        end = time.monotonic() + seconds
        while self.waiting and self._writing.acquire(timeout=max(end - time.monotonic(), 0)):
            try:
                while self.waiting:
                    if not self._poll.poll(max(end - time.monotonic(), 0) * 1000):
                        return
                    # Whole lines where possible: a write of PIPE_BUF bytes is all or nothing, so
                    # that no other process writes into the middle of one.
                    size = self.waiting.rfind(b"\n", 0, select.PIPE_BUF) + 1
                    if not size and self._takes_long:
                        size = self.waiting.find(b"\n") + 1
                    part = self.waiting[: size or select.PIPE_BUF]
                    del self.waiting[: os.write(self._descriptor, part)]
            except OSError:
                # The disk is full or the reader is gone: a later call tries again.
                return
            finally:
                self._writing.release()

    def mask(self, line: bytes) -> bytes:
        """
        Hide every secret in *line*, in each form that `_forms` knows.
        """
        for form in self._forms:
            line = line.replace(form, MASK)
        return line

    def cut(self, text: str, most: int) -> str:
        """
        At most so many characters of *text*, with no part of a secret at their end.
        """
        if len(text) <= most:
            return text
        part = text[: most + self._longest]
        shown, end = self.split(part)
        return (shown if len(part) < len(text) else shown + end)[:most] + "…"

    def split(self, text: str) -> tuple[str, str]:
        """
        A text without secrets, and its end, which may be the first part of one.
        """
        shown = self.mask(text.encode(errors="backslashreplace")).decode(errors="replace")
        size = max(len(shown) - self._longest, 0)
        return shown[:size], shown[size:]


def own_descriptor(number: int) -> int:
    """
    The descriptor, or one of our own for the same pipe, which does not block.

    Whoever else has the pipe keeps a blocking one. If the system does not let us open it, or it is
    no pipe, the given descriptor remains.
    """
    if stat.S_ISFIFO(os.fstat(number).st_mode):
        with suppress(OSError):
            return os.open(f"/proc/self/fd/{number}", os.O_WRONLY | os.O_NONBLOCK)
    return number


def _forms(secret: str) -> set[bytes]:
    """
    A secret as it may appear in a line: raw, JSON-escaped, URL-encoded, base64.
    """
    texts = [secret, repr(secret)[1:-1], ascii(secret)[1:-1], quote(secret), quote_plus(secret)]
    texts += [quote(secret, safe="")]
    texts += [json.dumps(text, ensure_ascii=flag)[1:-1] for text in texts for flag in (True, False)]
    codes = [base64.b64encode(secret.encode()), base64.urlsafe_b64encode(secret.encode())]
    return {text.encode() for text in texts} | {code.rstrip(b"=") for code in codes}
