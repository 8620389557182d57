"""
The instant by which the current unit of work must end; whoever waits on its behalf asks here.
"""

import math
import time
from contextvars import ContextVar

__all__ = ["DEADLINE", "remaining"]

# In the seconds of `time.monotonic`, which is also the clock of asyncio's loop.
DEADLINE: ContextVar[float] = ContextVar("deadline", default=math.inf)


def remaining() -> float:
    """
    Seconds until the deadline, at least 0; infinite where there is none.
    """
    return max(DEADLINE.get() - time.monotonic(), 0)
