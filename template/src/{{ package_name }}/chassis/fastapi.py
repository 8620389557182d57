"""
Glue between FastAPI and the chassis; only seeds import it.
"""

import json
import re
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator, Sequence
from functools import cached_property, partial
from importlib.metadata import metadata
from inspect import isasyncgenfunction, iscoroutinefunction, unwrap
from typing import Any

import orjson
from fastapi import APIRouter, FastAPI, Request, Response, routing
from fastapi._compat import ModelField, field_annotation_is_sequence
from fastapi.dependencies import models, utils
from fastapi.exceptions import RequestValidationError
from fastapi.security import APIKeyQuery
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import PydanticUndefined, from_json, to_json
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import BaseRoute, Match, WebSocketRoute

from . import problem
from .asgi import Receive, Scope, Send
from .excerpt import brief
from .limits import CURRENT, Limits

__all__ = ["AnyQueryRoute", "RequestModel", "Router", "create_api"]

_CONTENT = {problem.MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
_PROBLEM = {"description": "Problem details (RFC 9457).", "content": _CONTENT}
_JSON = re.compile(rb'application/([\w.-]+\+)?json( *; *charset=("utf-8"|utf-8))?', re.IGNORECASE)
# What an operation takes, and where it is in a request.
_GIVEN = [(f"{name}_params", f"{name}_params") for name in ("path", "query")]
_GIVEN += [("header_params", "headers"), ("cookie_params", "cookies")]
_PLAIN = {"request_param_name", "dependencies", "name", "call", "path", "scope", "use_cache"}
# What a function may ask of FastAPI that the short way doesn't know.
_MORE = set(models.Dependant.__slots__) - _PLAIN - {*dict(_GIVEN), "body_params"}


class RequestModel(BaseModel):
    """
    Base of request bodies: no unknown field, no type guessed ("5" is not 5), no NaN.
    """

    model_config = ConfigDict(
        strict=True, extra="forbid", frozen=True, allow_inf_nan=False, hide_input_in_errors=True
    )


class StrictRoute(routing.APIRoute):
    """
    Refuses a request that is not exactly right, and answers the usual operation by a short way.

    Usual is an `async def` that answers in JSON, with dependencies that are `async def` and take
    parameters, bodies, the request and each other. The rest goes through FastAPI's own handler.
    """

    takes_any_query = False

    def __init__(self, path: str, endpoint: Callable[..., Any], **given: Any) -> None:
        if limits := getattr(endpoint, "limits", None):
            # For clients, and for `config show`.
            extra = {"x-limits": limits.declared(), **(given.get("openapi_extra") or {})}
            given["openapi_extra"] = extra
        super().__init__(path, endpoint, **given)

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """
        FastAPI asks for one more handler where a router is included.
        """
        route: Any = routing._effective_route_context_var.get() or self  # noqa: SLF001
        parts = list(_walk(route.dependant))
        body = route.body_field and route.body_field.field_info
        takes_json = getattr(body, "media_type", "").endswith("json")
        for part in parts if takes_json else ():
            part.body_params[:] = map(_JSONField.of, part.body_params)
        known = _query_names(parts)
        handle, provider = super().get_route_handler(), route.dependency_overrides_provider
        start = "response_model_"
        options = {key[len(start) :]: one for key, one in vars(route).items() if start in key}
        is_usual = (takes_json or body is None) and _is_usual(route, parts)

        limits = getattr(route.endpoint, "limits", Limits())
        in_thread = not all(_is_async(part.call) for part in parts)

        async def check_and_handle(request: Request) -> Response:
            current = CURRENT.get()
            current.route, current.is_cancellable = route.path_format, not in_thread
            current.limit(limits)
            _check_query(request, known, is_open=self.takes_any_query)
            if takes_json:
                await _read_json(request)
            if is_usual and not (provider and provider.dependency_overrides):
                return await _answer(route, options, request)
            return await handle(request)

        # For `_shortcut`: the usual needs none of what FastAPI puts round a handler.
        route.usual = check_and_handle if is_usual else None
        return check_and_handle


class AnyQueryRoute(StrictRoute):
    """
    Takes query parameters that it doesn't know: `Router(route_class=AnyQueryRoute)`.
    """

    takes_any_query = True


# FastAPI's router with `StrictRoute`.
Router = partial(APIRouter, route_class=StrictRoute)


class _Api(FastAPI):
    def openapi(self) -> dict[str, Any]:
        """
        The document, with the schema of problems, which FastAPI takes from no response.
        """
        document = super().openapi()
        schemas = document.setdefault("components", {}).setdefault("schemas", {})
        schemas.setdefault("Problem", problem.SCHEMA)
        # Operations that ask for credentials declare so themselves.
        document.setdefault("security", [])
        return document

    def faults(self) -> Iterator[str]:
        """
        What of its routes can't be served as declared; asked before the process serves.
        """
        return _faults(self.routes)


def _faults(routes: Sequence[BaseRoute], prefix: str = "") -> Iterator[str]:
    for route in routing.iter_route_contexts(routes):
        path, original = f"{prefix}{route.path}", route.original_route
        if isinstance(original, WebSocketRoute):
            yield f"{path} is a WebSocket route, which is never served: stream server-sent events"
        if hasattr(route.endpoint, "limits") and not isinstance(original, StrictRoute):
            yield f"{path} declares limits: its router must be chassis.fastapi.Router"
        # Those of an application that is mounted there.
        yield from _faults(getattr(original, "routes", ()), path)


def create_api(*routers: APIRouter, docs: bool = False) -> FastAPI:
    """
    A FastAPI application with the distribution's name and version, problem details for errors,
    and its document and pages only if *docs*.
    """
    build = metadata((__package__ or "").partition(".")[0])
    app = _Api(
        title=build["Name"],
        version=build["Version"],
        description=build["Summary"],
        openapi_url="/openapi.json" if docs else None,
        servers=[{"url": "/"}],
        # Its own telemetry costs 12 % of a GET and reports to nobody here.
        telemetry={"tracing": False, "metrics": False, "logs": False, "operation_spans": False},
        responses={422: _PROBLEM, "default": _PROBLEM},
        exception_handlers={
            HTTPException: _http_error,
            RequestValidationError: _not_valid,
            problem.Refused: _refused,
            problem.Unavailable: _unavailable,
            Exception: _bug,
        },
    )
    app.router.route_class = StrictRoute
    for router in routers:
        app.include_router(router)
    app.router.middleware_stack = _shortcut(app)
    return app


def _shortcut(app: FastAPI) -> Any:
    """
    Find at once what the router would find, too, but only by matching each route twice; and leave
    out the two stacks for `yield` and the inner handling of errors, where there is nothing to do.
    """
    router, search = app.router, app.router.middleware_stack
    routes: list[Any] = []
    for route in routing.iter_route_contexts(router.routes):
        if not isinstance(route.original_route, StrictRoute):
            break
        routes.append((route.matches, route.usual, route.app, route.original_route))

    async def find(scope: Scope, receive: Receive, send: Send) -> None:
        for matches, usual, handle, route in routes:
            match, found = matches(scope)
            if match is Match.FULL:
                scope.update(found, router=router, route=route)
                if usual and not app.dependency_overrides:
                    response = await usual(Request(scope, receive, send))
                    await response(scope, receive, send)
                else:
                    await handle(scope, receive, send)
                return
        await search(scope, receive, send)

    return find


class _JSONField(ModelField):
    """
    Validates as JSON: there, strict models take a datetime, a UUID or an enumeration as text.
    """

    @classmethod
    def of(cls, field: ModelField) -> "_JSONField":
        return cls(field.field_info, field.name, field.mode, field.config)

    def validate(self, value: Any, _: Any = None, *, loc: tuple[Any, ...] = ()) -> tuple[Any, Any]:
        """
        The value, or what is wrong with it; names that the client made up are not repeated.
        """
        try:
            return self._type_adapter.validate_json(to_json(value)), []
        except ValidationError as error:
            errors = error.errors(include_url=False, include_input=False)
        for item in errors:
            place = [part for part in item["loc"] if isinstance(part, int) or part in self._names]
            item["loc"] = (*loc, *place)
        return None, errors

    @cached_property
    def _names(self) -> set[str]:
        return set(re.findall(r'"([^"]+)": {', json.dumps(self._type_adapter.json_schema())))


async def _answer(route: Any, options: dict[str, Any], request: Request) -> Response:
    """
    What FastAPI's handler does, in its order, for usual operations.
    """
    body, errors = getattr(request, "_json", PydanticUndefined), list[Any]()
    values = await _solve(route.dependant, route, request, body, errors, {})
    if errors:
        raise RequestValidationError(errors, body=body)
    answer = await route.endpoint(**values)
    if isinstance(answer, Response):
        return answer
    content = await routing.serialize_response(
        field=route.response_field, response_content=answer, dump_json=True, **options
    )
    return Response(content, route.status_code or 200, media_type="application/json")


async def _solve(  # noqa: PLR0917  # it calls itself
    part: Any, route: Any, request: Request, body: Any, errors: list[Any], solved: dict[Any, Any]
) -> dict[str, Any]:
    """
    The arguments of a function; each dependency is asked once.
    """
    values = {part.request_param_name: request} if part.request_param_name else {}
    for sub in part.dependencies:
        before = len(errors)
        arguments = await _solve(sub, route, request, body, errors, solved)
        if len(errors) == before:
            if sub.call not in solved:
                solved[sub.call] = await sub.call(**arguments)
            # Where there is no name, nobody asked for it.
            if sub.name:
                values[sub.name] = solved[sub.call]
    for kind, given in _GIVEN:
        if fields := getattr(part, kind):
            found, wrong = utils.request_params_to_args(fields, getattr(request, given))
            values |= found
            errors += wrong
    if fields := part.body_params:
        found, wrong = await utils.request_body_to_args(fields, body, route._embed_body_fields)  # noqa: SLF001
        values |= found
        errors += wrong
    return values


def _is_usual(route: Any, parts: list[models.Dependant]) -> bool:
    """
    Whether the short way knows all that an operation asks for.
    """
    return (
        route.response_field is not None
        # Newer than our oldest FastAPI.
        and getattr(route, "max_body_size", None) is None
        and not isinstance(route.response_class, type)
        and all(iscoroutinefunction(part.call) and unwrap(part.call) is part.call for part in parts)
        and all(part.use_cache and not any(getattr(part, name) for name in _MORE) for part in parts)
    )


def _is_async(call: Any) -> bool:
    """
    Whether it runs on the event loop: FastAPI gives all else to a thread.
    """
    forms = (unwrap(call), getattr(call, "__call__", None))  # noqa: B004  # objects that are called
    return any(iscoroutinefunction(form) or isasyncgenfunction(form) for form in forms)


def _walk(part: models.Dependant) -> Iterator[models.Dependant]:
    yield part
    for sub in part.dependencies:
        yield from _walk(sub)


def _query_names(parts: list[models.Dependant]) -> dict[str, bool]:
    """
    The query parameters of an operation, and whether each may be repeated.
    """
    known = {part.call.model.name: False for part in parts if isinstance(part.call, APIKeyQuery)}
    for part in parts:
        for field in utils._get_flat_fields_from_params(part.query_params):  # noqa: SLF001
            is_list = field_annotation_is_sequence(field.field_info.annotation)
            known |= {name: is_list for _, name in utils._get_param_aliases(field)}  # noqa: SLF001
    return known


def _check_query(request: Request, known: dict[str, bool], *, is_open: bool) -> None:
    """
    Refuse unknown or repeated query parameters.
    """
    query = request.scope["query_string"]
    counts = Counter(name for name, _ in request.query_params.multi_items()) if query else {}
    for name, count in counts.items():
        if name not in known and not is_open:
            names = ", ".join(sorted(known)) or "none"
            raise _invalid("unknown", f"There is an unknown parameter; known: {names}", "query")
        if count > 1 and not known.get(name, True):
            raise _invalid("repeated", "Give this parameter once", "query", name)


async def _read_json(request: Request) -> None:
    """
    Leave the parsed body where Starlette would, so that FastAPI and `Request.json` find it.
    """
    try:
        body = await request.body()
    except ClientDisconnect:
        CURRENT.get().reason = "client_gone"
        raise HTTPException(400, "The body is not complete.") from None
    headers = dict(request.scope["headers"])
    is_json = _JSON.fullmatch(headers.get(b"content-type", b""))
    if body and (not is_json or b"content-encoding" in headers):
        raise HTTPException(415, "Send JSON in UTF-8, without a content coding.")
    try:
        if body:
            request._json = _parse(body)  # noqa: SLF001
    except ValueError as error:
        raise _invalid("json_invalid", f"Invalid JSON: {error}", "body") from None


def _invalid(kind: str, told: str, *place: str) -> RequestValidationError:
    return RequestValidationError([{"type": kind, "loc": place, "msg": told}])


def _parse(body: bytes) -> Any:
    """
    JSON without NaN, infinity and names that occur twice in an object; raises ValueError.
    """
    parsed = from_json(body)
    # A name that is lost takes its colon along; where colons are escaped, look at each name.
    kept = orjson.dumps(orjson.loads(body)).count(b":")
    if kept != body.count(b":") or b"\\u003" in body:
        json.loads(body, object_pairs_hook=_only_once)
    return parsed


def _only_once(pairs: list[tuple[str, Any]]) -> None:
    if len(dict(pairs)) < len(pairs):
        raise ValueError("a name occurs twice in an object")


async def _http_error(request: Request, error: HTTPException) -> Response:
    headers = dict(error.headers or {})
    if error.status_code == 405:
        # Starlette names the methods of one route; others may have the same path.
        routes = routing.iter_route_contexts(request.app.routes)
        same = [route for route in routes if route.matches(request.scope)[0] is not Match.NONE]
        CURRENT.get().route = same[0].path or ""
        headers["Allow"] = ", ".join(sorted({name for one in same for name in one.methods or ()}))
    told = {"detail" if isinstance(error.detail, str) else "errors": error.detail}
    return _problem(error.status_code, headers, **told)


async def _refused(_: Request, error: problem.Refused) -> Response:
    return _problem(422, detail=str(error))


async def _unavailable(_: Request, error: problem.Unavailable) -> Response:
    CURRENT.get().error = brief(error)
    later = {"Retry-After": "1"} if error.status == 503 else None
    return _problem(error.status, later, reason="unavailable", dependency=error.dependency)


async def _bug(_: Request, error: Exception) -> Response:
    """
    FastAPI raises it again after this answer, and the envelope reports it.
    """
    CURRENT.get().error = brief(error)
    return _problem(500, reason="bug")


async def _not_valid(_: Request, error: RequestValidationError) -> Response:
    return _problem(422, errors=[_located(item) for item in error.errors()])


def _problem(status: int, headers: dict[str, str] | None = None, **members: Any) -> Response:
    current = CURRENT.get()
    current.reason = members.get("reason", current.reason)
    current.dependency = members.get("dependency", current.dependency)
    body = b"" if status in {204, 304} else problem.body(status, **members)
    return Response(body, status, headers, problem.MEDIA_TYPE)


def _located(item: dict[str, Any]) -> dict[str, str]:
    """
    What is wrong and where; what the client made up, such as an unknown name, is not repeated.
    """
    told, (source, *place) = item["msg"], item["loc"] or ("body",)
    if item["type"] == "union_tag_invalid":
        told = f"Input tag should be one of {item['ctx']['expected_tags']}"
    # Where `_JSONField` speaks, there is no input, and the unknown name is gone.
    if item["type"] == "extra_forbidden" and "input" in item:
        place = place[:-1]
    return {"detail": told, "in": str(source), "pointer": "".join(f"/{part}" for part in place)}
