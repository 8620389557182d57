"""
CORS: which pages of other origins may read what this service answers (Fetch Standard, 3.2).
"""

from collections.abc import Collection

from .asgi import Receive, Scope, Send, respond

__all__ = ["Fields", "answer_preflight", "fields", "is_preflight"]

Fields = list[tuple[bytes, bytes]]
_METHOD, _HEADERS = b"access-control-request-method", b"access-control-request-headers"


def fields(headers: Fields, origins: Collection[str]) -> Fields:
    """
    The header fields that CORS adds to every answer to a request with these *headers*.

    The service may refuse a request before it has read the Origin header. If only one origin is
    allowed, the answer is then for that one: another origin's browser finds that it is not its own.
    """
    # Several, joined, are none of them.
    given = {b"origin": ",".join(origins).encode()} | dict(headers)
    added = [(b"vary", b"Origin")]
    if given[b"origin"].decode("latin-1") in origins:
        added.append((b"access-control-allow-origin", given[b"origin"]))
        added.append((b"access-control-expose-headers", b"X-Request-ID, Retry-After"))
        if _METHOD in given:
            added.append((b"access-control-allow-methods", given[_METHOD]))
            added.append((b"access-control-allow-headers", given.get(_HEADERS, b"")))
            added.append((b"access-control-max-age", b"600"))
    return added


def is_preflight(scope: Scope) -> bool:
    """
    Whether a browser asks what another request may hold.
    """
    return scope["method"] == "OPTIONS" and _METHOD in dict(scope["headers"])


async def answer_preflight(_: Scope, __: Receive, send: Send) -> None:
    """
    Answer a preflight request; the connection adds the `fields`.
    """
    await respond(send, 200, b"", "text/plain")
