"""
Operations that take what the tests of the wire send.
"""

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from fastapi import Body, Depends, Header, HTTPException, Query, Request, Response, Security
from fastapi.exceptions import RequestValidationError
from fastapi.security import APIKeyQuery
from pydantic import BaseModel, ConfigDict, Field

from .chassis import problem
from .chassis.fastapi import AnyQueryRoute, RequestModel, Router

__all__ = ["Sold", "lenient", "router", "sold"]

router = Router(prefix="/wire")
lenient = Router(prefix="/wire/lenient", route_class=AnyQueryRoute)


class Part(RequestModel):
    name: str


class Whole(RequestModel):
    text: str = ""
    count: int = 0
    share: float = 0
    when: datetime | None = None
    who: UUID | None = None
    parts: tuple[Part, ...] = ()
    by_name: dict[str, Part] | None = None
    anything: Any = None


class Filters(BaseModel):
    size: int = 1
    tags: tuple[str, ...] = Field(default=(), alias="tag")


class OnlyFilters(BaseModel):
    model_config = ConfigDict(extra="forbid")
    size: int = 1


async def paging(limit: int = 10) -> int:
    return limit


async def nested(
    limit: Annotated[int, Depends(paging)], x_trace: Annotated[str, Header()] = ""
) -> str:
    return f"{limit}{x_trace}"


@router.post("/body")
async def body(whole: Whole) -> Whole:
    return whole


@router.post("/two")
async def two(one: Whole, other: Whole) -> list[Whole]:
    return [one, other]


@router.post("/optional")
async def optional(whole: Whole | None = None) -> bool:
    return whole is None


@router.post("/thread")
def in_thread(whole: Whole) -> Whole:
    return whole


@router.get("/query")
async def query(
    nested: Annotated[str, Depends(nested)],
    key: Annotated[str | None, Security(APIKeyQuery(name="key", auto_error=False))],
    size: Annotated[int, Query(alias="page-size")] = 1,
    ids: Annotated[tuple[int, ...], Query()] = (),
) -> list[Any]:
    return [nested, key, size, ids]


@router.get("/filters")
async def filters(filters: Annotated[Filters, Query()]) -> Filters:
    return filters


@router.get("/path/{text}")
async def path(text: str, also: str = "") -> str:
    return text + also


@router.put("/path/{text}")
async def put_path(text: str, number: Annotated[int, Body()]) -> str:
    return text * number


@lenient.get("")
async def any_query(size: int = 1) -> int:
    return size


@lenient.get("/filters")
async def only_filters(filters: Annotated[OnlyFilters, Query()]) -> int:
    return filters.size


@router.get("/unavailable/{status}")
async def unavailable(status: int) -> None:
    raise problem.Unavailable("the canary does not sing", status=status)


# What teams give as details, by the name of the operation that raises it.
DETAILS: dict[str, Any] = {
    "none": None,
    "text": "Sold out.",
    "no text": "",
    "number": 5,
    "object": {"code": "sold_out", "left": 0, "detail": 5},
    "empty object": {},
    "objects": [{"detail": "Too late.", "in": "body", "pointer": "/when"}, {"code": 7}],
    "tuple": ({"code": 7},),
    "texts": ["Sold out.", "Closed."],
    "mixed": ["Sold out.", {"code": 7}, [1, 2], None],
    "empty": [],
}
# As pydantic tells them of a model, of one of its fields, and of an item of a list.
INVALID: dict[str, Any] = {
    "model": {"type": "value_error", "loc": (), "msg": "The end is before the beginning."},
    "field": {"type": "value_error", "loc": ("end",), "msg": "The end is missing."},
    "item": {"type": "value_error", "loc": (0, "end"), "msg": "The end is missing."},
}


class Sold(Exception):  # noqa: N818  # as in a service
    """
    For a handler of the team's own, which answers with a problem of the chassis.
    """


async def sold(_: Request, error: Exception) -> Response:
    told = problem.body(409, errors={"code": "sold", "detail": error})
    return Response(told, 409, media_type=problem.MEDIA_TYPE)


@router.get("/raised/detail/{name}")
async def raised_detail(name: str) -> None:
    raise HTTPException(409, DETAILS[name])


@router.get("/raised/invalid/{name}")
async def raised_invalid(name: str) -> None:
    raise RequestValidationError([INVALID[name]])


@router.get("/raised/sold")
async def raised_sold() -> None:
    raise Sold("It is gone.")
