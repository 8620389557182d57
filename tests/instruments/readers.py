"""
Readers of a service's output that stall, as container runtimes do.
"""

import sys

__all__ = ["stalled"]

# The reader begins to read when there is a file `go`, or when the service has ended.
_SCRIPT = """
import os, socket, sys, time
kind, full, pause = sys.argv[1], sys.argv[2] == "full", float(sys.argv[3])
if kind == "pipe":
    out, into = os.pipe()
else:
    out, into = (one.detach() for one in socket.socketpair())
service = os.getpid()
if not os.fork():
    os.close(into)
    while not os.path.exists("go") and os.getppid() == service:
        time.sleep(0.01)
    time.sleep(pause)
    while said := os.read(out, 65536):
        os.write(1, said)
    os._exit(0)
os.close(out)
if full:
    os.set_blocking(into, False)
    try:
        while True:
            os.write(into, b"{}" + b" " * 4093 + b"\\n")
    except BlockingIOError:
        os.set_blocking(into, True)
os.dup2(into, 1)
os.dup2(into, 2)
os.execvp(sys.argv[4], sys.argv[4:])
"""


def stalled(kind: str = "pipe", *, full: bool = False, pause: float = 0) -> tuple[str, ...]:
    """
    A prefix for a command whose stdout and stderr are one pipe or socket, which blocks, and which
    is full from the start or not. The reader begins *pause* seconds after it may.
    """
    return sys.executable, "-c", _SCRIPT, kind, "full" if full else "empty", str(pause)
