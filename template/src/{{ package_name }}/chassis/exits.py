"""
How a process ends; the numbers are an interface.

Source: sysexits.h, as systemd units and Kubernetes Jobs read them (docs of the template).
"""

from enum import IntEnum

__all__ = ["Exit"]


class Exit(IntEnum):
    """
    Exit codes of every command.
    """

    OK = 0  # Done, or stopped by SIGTERM.
    USAGE = 64
    UNAVAILABLE = 69  # A port or a backing service can't be had.
    BUG = 70
    TEMPORARY = 75  # Of a job or migration: others are at it, or it was told to stop; try again.
    CONFIGURATION = 78
