"""
Error bodies: problem details for HTTP APIs (RFC 9457), without a word of the input.
"""

from http.client import responses
from typing import Any

import orjson
from structlog.contextvars import get_contextvars

__all__ = ["MEDIA_TYPE", "SCHEMA", "Refused", "Unavailable", "body"]

MEDIA_TYPE = "application/problem+json"
TEXTS = {name: {"type": "string"} for name in ("type", "title", "detail", "instance", "reason")}
# The chassis' own errors have all three; a route may add members of its own.
ERROR = {name: {"type": "string"} for name in ("detail", "in", "pointer")}
ERRORS = {"type": "array", "items": {"type": "object", "properties": ERROR}}
SCHEMA = {
    "type": "object",
    "required": ["type", "title", "status", "instance"],
    "properties": {**TEXTS, "status": {"type": "integer"}, "errors": ERRORS},
}


class Unavailable(Exception):  # noqa: N818  # what it says to its reader
    """
    What a request needs does not answer, with 503, or not within the time that is left, with 504.

    This is an expected failure: raise it from anywhere in a request, message or job. *dependency*
    names what does not answer, in the log and to the caller.
    """

    def __init__(self, cause: str, *, status: int = 503, dependency: str | None = None) -> None:
        super().__init__(cause)
        if status not in {503, 504}:
            raise ValueError(f"Unavailable: status is {status!r}, but it must be 503 or 504")
        self.status, self.dependency = status, dependency or ""


class Refused(Exception):  # noqa: N818  # as above
    """
    The request can't be fulfilled as it is, with 422; the client reads why, without its input.
    """


def _listed(errors: Any) -> list[dict[str, Any]]:
    """
    What a route gave as errors, as SCHEMA declares them: many of them, each an object.
    """
    many = errors if isinstance(errors, (list, tuple)) else [errors]
    told = [one if isinstance(one, dict) else {"detail": one} for one in many]
    return [{name: str(one[name]) if name in ERROR else one[name] for name in one} for one in told]


def body(status: int, *, dependency: str = "", **members: Any) -> bytes:
    """
    A problem as JSON; `instance` is the request id, and *members* add to it. If the answer is not
    the application's, the first word of `reason` is that of the log, and a heading of the runbooks.
    """
    if dependency:
        members["reason"] += f": {dependency}"
    if "errors" in members:
        members["errors"] = _listed(members["errors"])
    problem = {"type": "about:blank", "title": responses.get(status, "Error"), "status": status}
    return orjson.dumps({**problem, "instance": get_contextvars().get("request_id", ""), **members})
