"""
Glue between FastAPI and the chassis; only seeds import it.
"""

from collections.abc import Callable, Coroutine
from functools import partial
from importlib.metadata import metadata
from inspect import iscoroutinefunction
from typing import Annotated, Any

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError
from starlette.exceptions import HTTPException

from . import problem
from .limits import CURRENT, Limits

__all__ = ["RequestModel", "Router", "create_api"]

_CONTENT = {problem.MEDIA_TYPE: {"schema": problem.SCHEMA}}
_PROBLEM = {"description": "Problem details (RFC 9457).", "content": _CONTENT}


class RequestModel(BaseModel):
    """
    Base of request bodies: no unknown field, no type guessed ("5" is not 5), no NaN.
    """

    model_config = ConfigDict(
        strict=True, extra="forbid", frozen=True, allow_inf_nan=False, hide_input_in_errors=True
    )


class StrictRoute(APIRoute):
    """
    Validates a JSON body from its bytes.

    FastAPI validates Python objects, where strict models refuse valid datetimes, UUIDs and enums.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """
        Parse the body first; FastAPI then takes the finished model as it is.
        """
        handle, field = super().get_route_handler(), self.body_field
        limits = getattr(self.endpoint, "limits", Limits())
        in_thread = not iscoroutinefunction(self.endpoint)
        if field is None or getattr(field.field_info, "media_type", None) != "application/json":

            async def limit_and_handle(request: Request) -> Response:
                current = CURRENT.get()
                current.is_cancellable = not in_thread
                current.limit(limits)
                return await handle(request)

            return limit_and_handle
        info = field.field_info
        adapter: TypeAdapter[Any] = TypeAdapter(Annotated[info.annotation, info])  # type: ignore[arg-type]  # known at run time

        async def parse_and_handle(request: Request) -> Response:
            CURRENT.get().limit(limits)
            if body := await request.body():
                try:
                    parsed = adapter.validate_json(body)
                except ValidationError as error:
                    found = error.errors(include_url=False, include_input=False)
                    located = [{**item, "loc": ("body", *item["loc"])} for item in found]
                    raise RequestValidationError(located) from None
                # Starlette keeps the parsed body here; `Request.json` then returns it.
                request._json = vars(parsed) if self._embed_body_fields else parsed  # noqa: SLF001
            return await handle(request)

        return parse_and_handle


# FastAPI's router with `StrictRoute`.
Router = partial(APIRouter, route_class=StrictRoute)


def create_api(*routers: APIRouter, docs: bool = False) -> FastAPI:
    """
    A FastAPI application with the distribution's name and version, problem details for errors,
    and its document and pages only if *docs*.
    """
    build = metadata((__package__ or "").partition(".")[0])
    app = FastAPI(
        title=build["Name"],
        version=build["Version"],
        description=build["Summary"],
        openapi_url="/openapi.json" if docs else None,
        # Its own telemetry costs 12 % of a GET and reports to nobody here.
        telemetry={"tracing": False, "metrics": False, "logs": False, "operation_spans": False},
        responses={422: _PROBLEM, "default": _PROBLEM},
        exception_handlers={
            HTTPException: _http_error,
            RequestValidationError: _not_valid,
            problem.Unavailable: _unavailable,
            Exception: _bug,
        },
    )
    app.router.route_class = StrictRoute
    for router in routers:
        app.include_router(router)
    return app


async def _http_error(_: Request, error: HTTPException) -> Response:
    response = _problem(error.status_code, detail=error.detail)
    response.headers.update(error.headers or {})
    return response


async def _unavailable(_: Request, error: problem.Unavailable) -> Response:
    CURRENT.get().reason = "unavailable"
    response = _problem(error.status)
    response.headers["retry-after"] = "1"
    return response


async def _bug(_: Request, __: Exception) -> Response:
    """
    FastAPI raises it again after this answer; the envelope reports it.
    """
    return _problem(500)


async def _not_valid(_: Request, error: RequestValidationError) -> Response:
    return _problem(422, errors=[_located(item) for item in error.errors()])


def _problem(status: int, **members: Any) -> Response:
    body = b"" if status in {204, 304} else problem.body(status, **members)
    return Response(body, status, media_type=problem.MEDIA_TYPE)


def _located(item: dict[str, Any]) -> dict[str, str]:
    """
    What is wrong and where; what the client made up, such as an unknown name, is not repeated.
    """
    told, (source, *place) = item["msg"], item["loc"]
    if item["type"] == "union_tag_invalid":
        told = f"Input tag should be one of {item['ctx']['expected_tags']}"
    if item["type"] == "extra_forbidden":
        place = place[:-1]
    return {"detail": told, "in": source, "pointer": "".join(f"/{part}" for part in place)}
