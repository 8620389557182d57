"""
The trace that the current unit of work belongs to, as its caller named it.
"""

from contextvars import ContextVar

__all__ = ["TRACEPARENT"]

# The whole header of W3C Trace Context, once it is known to be valid; empty where there is none.
TRACEPARENT: ContextVar[str] = ContextVar("traceparent", default="")
