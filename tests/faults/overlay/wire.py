"""
Operations that take what the tests of the wire send.
"""

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from fastapi import Body, Depends, Header, Query, Security
from fastapi.security import APIKeyQuery
from pydantic import BaseModel, ConfigDict, Field

from .chassis import problem
from .chassis.fastapi import AnyQueryRoute, RequestModel, Router

__all__ = ["lenient", "router"]

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
