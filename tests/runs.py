"""
A job that was started: its beginning and its end.
"""

from typing import Any

from harness import wait_until

__all__ = ["begun", "ended"]


def begun(service: Any) -> Any:
    """
    Wait until the job itself runs.
    """
    wait_until((service.stdout.parent / "begun").exists)
    return service


def ended(service: Any, *, seconds: float = 20) -> dict[str, Any]:
    """
    Wait for the end; the one line of the run, whose exit code is that of the process.
    """
    code = service.wait(seconds=seconds)
    (line,) = service.events("run")
    assert line["exit_code"] == code
    return dict(line)
