"""
What tells, or should not tell, error tracker and collector.
"""

import sys

from opentelemetry import trace

from .chassis.fastapi import Router

__all__ = ["router"]

router = Router(prefix="/faults")
_same = RuntimeError("the same again, with half a character \udcff")


@router.get("/raise-the-same")
async def raise_the_same() -> None:
    raise _same


@router.get("/span")
async def span(text: str, times: int = 1) -> dict[str, str]:
    """
    What a team may do: a span of its own, with too much in it.
    """
    text *= times
    with trace.get_tracer(__name__).start_as_current_span(text, attributes={"text": [text]}) as own:
        own.add_event(text, {"text": text})
    return {}


@router.get("/modules")
async def modules() -> list[str]:
    names = ("sentry_sdk", "opentelemetry.sdk")
    return [name for name in names if name in sys.modules]
