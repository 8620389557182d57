"""
What a route of the chassis takes, it answers as FastAPI's own route would.
"""

from collections.abc import AsyncIterator, Iterator
from datetime import datetime
from email.message import Message
from typing import Annotated, Any, Literal

import pytest
from demo_service.chassis import fastapi as chassis
from fastapi import (
    APIRouter,
    BackgroundTasks,
    Body,
    Cookie,
    Depends,
    FastAPI,
    Header,
    HTTPException,
    Query,
    Request,
    Response,
    Security,
)
from fastapi.responses import PlainTextResponse
from fastapi.security import APIKeyQuery, HTTPBearer, SecurityScopes
from fastapi.testclient import TestClient
from pydantic import BaseModel, Field

JSON = {"content-type": "application/json"}
EVENTS: list[str] = []


class Item(BaseModel):
    name: str = Field(alias="Name")
    when: datetime | None = None
    size: int = 0


class Cat(BaseModel):
    kind: Literal["cat"]
    lives: int


class Dog(BaseModel):
    kind: Literal["dog"]


class Filters(BaseModel):
    tags: list[str] = []
    least: int = 0


Pet = Annotated[Cat | Dog, Field(discriminator="kind")]


def first(request: Request, depth: int = 0) -> str:
    EVENTS.append(f"first {depth}")
    return request.method


async def second(one: Annotated[str, Depends(first)], x_token: Annotated[str, Header()]) -> str:
    EVENTS.append("second")
    return one + x_token


async def plain(request: Request, limit: int = 5) -> int:
    EVENTS.append(f"plain {limit}")
    return limit + len(request.method)


async def nested(
    one: Annotated[int, Depends(plain)], session: Annotated[str, Cookie()] = ""
) -> str:
    EVENTS.append("nested")
    return f"{one}{session}"


async def refusing() -> None:
    raise HTTPException(401, headers={"www-authenticate": "Bearer"})


async def opened() -> AsyncIterator[str]:
    EVENTS.append("open")
    try:
        yield "open"
    finally:
        EVENTS.append("close")


def scoped(scopes: SecurityScopes) -> list[str]:
    return scopes.scopes


def declare(new: Any) -> list[APIRouter]:  # noqa: C901  # many operations, each short
    """
    Every way to ask and to answer, on routers that *new* makes.
    """
    router: APIRouter = new(prefix="/v1", tags=["one"])
    inner: APIRouter = new(prefix="/inner", dependencies=[Depends(plain)])

    @router.get("/items/{item_id}", response_model=Item, response_model_exclude_unset=True)
    async def get_item(item_id: int, q: Annotated[int, Query(alias="Q", ge=1)] = 3) -> Any:
        return {"Name": f"{item_id} {q}", "hidden": 1}

    @router.post("/items", status_code=201)
    async def add_item(item: Item, nested: Annotated[str, Depends(nested)]) -> Item:
        return item.model_copy(update={"name": item.name + nested})

    @router.post("/embedded")
    async def embedded(item: Annotated[Item, Body(embed=True)]) -> Item:
        return item

    @router.post("/several")
    async def several(one: Item, other: Item, more: Annotated[int, Body()] = 1) -> list[Item]:
        return [one, other] * more

    @router.post("/mapping")
    async def mapping(body: dict[str, int]) -> dict[str, int]:
        return body

    @router.post("/anything")
    async def anything(body: Annotated[Any, Body()]) -> Any:
        return body

    @router.post("/list")
    async def in_list(body: list[Item]) -> list[Item]:
        return body

    @router.post("/optional")
    async def optional(body: Item | None = None) -> bool:
        return body is None

    @router.post("/pet")
    async def pet(pet: Pet) -> Pet:
        return pet

    @router.post("/number")
    async def number(number: Annotated[int, Body(le=10)]) -> int:
        return number

    @router.post("/raw")
    async def raw(item: Item, request: Request) -> list[Any]:
        return [item.name, await request.json(), (await request.body()).decode()]

    @router.post("/refusing", dependencies=[Depends(refusing)])
    async def refuses(item: Item) -> Item:
        return item

    @router.put("/text")
    async def text(body: Annotated[str, Body(media_type="text/plain")]) -> str:
        return body

    @router.delete("/items/{item_id}", status_code=204)
    async def delete_item(item_id: int) -> None:
        EVENTS.append(f"deleted {item_id}")

    @router.get("/response", response_model=int)
    async def response() -> Any:
        return PlainTextResponse("teapot", 418, headers={"x-more": "1"})

    @router.get("/headers")
    async def headers(response: Response) -> int:
        response.status_code, response.headers["x-more"] = 202, "1"
        return 1

    @router.get("/background")
    async def background(tasks: BackgroundTasks) -> int:
        tasks.add_task(EVENTS.append, "background")
        return 1

    @router.get("/yield")
    async def with_yield(value: Annotated[str, Depends(opened)]) -> str:
        EVENTS.append("handler")
        return value

    @router.get("/thread")
    def thread(value: Annotated[str, Depends(second)]) -> str:
        return value

    @router.get("/threaded-dependency")
    async def threaded(value: Annotated[str, Depends(second)]) -> str:
        return value

    @router.get("/fresh")
    async def fresh(
        one: Annotated[int, Depends(plain)],
        other: Annotated[int, Depends(plain, use_cache=False)],
        again: Annotated[int, Depends(plain)],
    ) -> int:
        return one + other + again

    @router.get("/cached")
    async def cached(
        one: Annotated[int, Depends(plain)], two: Annotated[str, Depends(nested)], limit: int = 7
    ) -> list[Any]:
        return [one, two, limit]

    @router.get("/filters")
    async def filters(filters: Annotated[Filters, Query()]) -> Filters:
        return filters

    @router.get("/lists")
    async def lists(ids: Annotated[list[int] | None, Query()] = None) -> list[int] | None:
        return ids

    @router.get("/key")
    async def key(key: Annotated[str, Security(APIKeyQuery(name="api-key"))]) -> str:
        return key

    @router.get("/bearer")
    async def bearer(token: Annotated[Any, Security(HTTPBearer())]) -> str:
        return str(token.credentials)

    @router.get("/scopes")
    async def scopes(found: Annotated[list[str], Security(scoped, scopes=["a", "b"])]) -> list[str]:
        return found

    @router.get("/wrong")
    async def wrong() -> Item:
        return {"size": 1}  # type: ignore[return-value]  # the fault

    @router.get("/file.{ending:path}", response_class=PlainTextResponse)
    async def file(ending: str) -> str:
        return ending

    @inner.post("/both")
    @inner.get("/both")
    async def both(limit: int) -> int:
        return limit

    router.include_router(inner, prefix="/outer", dependencies=[Depends(nested)])
    return [router, inner]


def _request(method: str, path: str, body: Any = None, **more: Any) -> Any:
    name = f"{method} {path} {body if body is not None else ''}"[:60]
    return pytest.param(method, path, {"json": body, **more}, id=name)


ITEM = {"Name": "a", "when": "2026-01-01T00:00:00Z"}
ANIMALS: list[Any] = [{"kind": "cat", "lives": 9}, {"kind": "dog"}, {"kind": "bat"}, {}]
ANYTHING: list[Any] = [1.5, "a", [None], {"a": {"b": []}}]
LISTS: list[Any] = [[ITEM], [ITEM, {}], ITEM]
MAPPINGS: list[Any] = [{"a": 1}, {}, None, []]
EMBEDDED: list[Any] = [{"item": ITEM}, ITEM, [], None]
REQUESTS = [
    *(_request("GET", f"/v1/items/{path}") for path in ("1", "x", "1?Q=2", "1?Q=0", "x?Q=y", "")),
    _request("POST", "/v1/items", ITEM),
    _request("POST", "/v1/items?limit=9", ITEM, cookies={"session": "s"}),
    _request("POST", "/v1/items?limit=x", {"Name": 1, "size": "x"}),
    _request("POST", "/v1/items", {"size": 2**100, "Name": "ü\u2028😀"}),
    _request("POST", "/v1/items"),
    _request("POST", "/v1/items", []),
    *(_request("POST", "/v1/embedded", body) for body in EMBEDDED),
    _request("POST", "/v1/several", {"one": ITEM, "other": ITEM, "more": 2}),
    _request("POST", "/v1/several", {"one": {}, "more": "x"}),
    *(_request("POST", "/v1/mapping", body) for body in MAPPINGS),
    *(_request("POST", "/v1/anything", body) for body in ANYTHING),
    *(_request("POST", "/v1/list", body) for body in LISTS),
    *(_request("POST", "/v1/optional", body) for body in (None, ITEM, {})),
    *(_request("POST", "/v1/pet", body) for body in ANIMALS),
    *(_request("POST", "/v1/number", body) for body in (7, 11, "7", "x")),
    _request("POST", "/v1/raw", ITEM),
    *(_request("POST", "/v1/refusing", body) for body in (ITEM, {})),
    _request("PUT", "/v1/text", content=b"plain", headers={"content-type": "text/plain"}),
    _request("DELETE", "/v1/items/3"),
    _request("DELETE", "/v1/items/x"),
    *(_request("GET", f"/v1/{path}") for path in ("response", "headers", "background", "yield")),
    _request("GET", "/v1/thread", headers={"x-token": "t"}),
    _request("GET", "/v1/thread?depth=x"),
    _request("GET", "/v1/threaded-dependency?depth=2", headers={"x-token": "t"}),
    *(_request("GET", f"/v1/{path}") for path in ("fresh", "cached", "cached?limit=8", "lists")),
    *(_request("GET", f"/v1/{path}") for path in ("cached?limit=x", "lists?ids=1&ids=2")),
    *(_request("GET", f"/v1/filters{query}") for query in ("", "?tags=a&tags=b&least=2")),
    _request("GET", "/v1/filters?least=x"),
    *(_request("GET", f"/v1/key{query}") for query in ("", "?api-key=k")),
    *(
        _request("GET", "/v1/bearer", headers=headers)
        for headers in ({}, {"Authorization": "Bearer t"})
    ),
    *(_request("GET", f"/v1/{path}") for path in ("scopes", "wrong", "file.a/b%20c", "none", "")),
    *(_request("GET", f"/v1/outer/inner/both{query}") for query in ("", "?limit=2", "?limit=x")),
    _request("POST", "/v1/outer/inner/both?limit=2"),
    *(_request("GET", f"/inner/both{query}") for query in ("", "?limit=2")),
    _request("PATCH", "/v1/outer/inner/both"),
    _request("OPTIONS", "/v1/items"),
    _request("GET", "/v1/number"),
    _request("POST", "/v1/items/", ITEM, follow_redirects=False),
]


@pytest.fixture(name="apps", scope="module")
def _apps() -> Iterator[list[FastAPI]]:
    """
    The same operations on FastAPI's routers and on ours.
    """
    build = Message()
    for name in ("Name", "Version", "Summary"):
        build[name] = name
    problem = chassis._PROBLEM  # noqa: SLF001  # what the chassis adds to the document
    responses: dict[int | str, dict[str, Any]] = {422: problem, "default": problem}
    stock = FastAPI(title="Name", version="Version", description="Summary", responses=responses)
    for router in declare(APIRouter):
        stock.include_router(router)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chassis, "metadata", lambda _: build)
        yield [stock, chassis.create_api(*declare(chassis.Router))]


def _places(answer: Any) -> Any:
    """
    Where an error is, in FastAPI's form and in ours.
    """
    told = answer.json()
    if isinstance(told.get("detail"), list):
        labels = {"cat", "dog"}
        places = [
            [str(part) for part in item["loc"] if part not in labels] for item in told["detail"]
        ]
        return sorted("/".join(place) for place in places)
    return sorted(item["in"] + item["pointer"] for item in told.get("errors", []))


@pytest.mark.parametrize(("method", "path", "options"), REQUESTS)
def test_answers_are_the_same(
    apps: list[FastAPI], method: str, path: str, options: dict[str, Any]
) -> None:
    """
    Status, headers, body, side effects and their order; of an error status and places.
    """
    answers, events = [], []
    for app in apps:
        client = TestClient(app, raise_server_exceptions=False, cookies=options.get("cookies"))
        rest = {name: value for name, value in options.items() if name != "cookies"}
        EVENTS.clear()
        answers.append(client.request(method, path, **rest))
        events.append(list(EVENTS))

    stock, ours = answers
    assert ours.status_code == stock.status_code
    assert events[1] == events[0]
    if stock.status_code < 400 or stock.status_code == 418:
        assert ours.content == stock.content
        assert ours.headers == stock.headers
    elif stock.status_code == 422:
        assert _places(ours) == _places(stock)
    else:
        added = {"content-type", "content-length", "allow"}
        kept = {name: value for name, value in stock.headers.items() if name not in added}
        assert kept.items() <= dict(ours.headers).items()
        assert set(stock.headers.get("allow", "").split(", ")) <= set(
            ours.headers.get("allow", "").split(", ")
        )


def test_document_is_the_same(apps: list[FastAPI]) -> None:
    """
    The OpenAPI document is the one that FastAPI makes of the same operations, and declares the
    server, that no credentials are asked for, and the schema of problems.
    """
    stock, ours = (app.openapi() for app in apps)

    assert (ours.pop("servers"), ours.pop("security")) == ([{"url": "/"}], [])
    problem = ours["components"]["schemas"].pop("Problem")
    assert set(problem["properties"]["errors"]["items"]["properties"]) == {
        "detail",
        "in",
        "pointer",
    }
    assert ours == stock


def test_overridden_dependency(apps: list[FastAPI]) -> None:
    """
    `dependency_overrides` work, also on a route that has been used without.
    """
    for app in apps:
        client = TestClient(app)
        before = client.get("/v1/cached").json()
        app.dependency_overrides[plain] = lambda: 40
        during = client.get("/v1/cached").json()
        app.dependency_overrides.clear()

        assert before == client.get("/v1/cached").json() == [8, "8", 7]
        assert during == [40, "40", 7]


def test_most_go_the_short_way(apps: list[FastAPI], monkeypatch: pytest.MonkeyPatch) -> None:
    """
    These tests compare the short way, too: without FastAPI's own solving.
    """

    def never(*_: Any, **__: Any) -> None:
        raise AssertionError

    monkeypatch.setattr("fastapi.routing.solve_dependencies", never)
    client = TestClient(apps[1])

    assert client.get("/v1/cached").status_code == 200
    assert client.get("/v1/items/1").status_code == 200
    assert client.post("/v1/several", json={"one": ITEM, "other": ITEM}).status_code == 200
    assert client.get("/v1/outer/inner/both?limit=2").status_code == 200


def test_router_included_later(apps: list[FastAPI]) -> None:
    """
    A router that is included after `create_api` is found, and as strict.
    """
    later: APIRouter = chassis.Router(prefix="/later")
    later.add_api_route("/one", lambda: 1)
    client = TestClient(apps[1])
    apps[1].include_router(later)

    assert client.get("/later/one").json() == 1
    assert client.get("/later/one?unknown=1").status_code == 422
