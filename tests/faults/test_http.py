"""
Limits of a request, and any application inside the envelope.
"""

from collections.abc import Callable
from typing import Any

import pytest

Start = Callable[..., Any]


@pytest.mark.parametrize(("docs", "status"), [("false", 404), ("true", 200)])
def test_api_docs_by_setting(start: Start, docs: str, status: int) -> None:
    """
    The API document and its pages are served when asked for, not by default.
    """
    service = start(api_docs=docs)

    assert service.get("/openapi.json").status == status
    assert service.get("/docs").status == status


def test_body_limit_behind_middleware(start: Start) -> None:
    """
    A body over the limit is 413 also where a middleware of the framework stands between, which
    wraps exceptions in groups.
    """
    service = start(app="middleware", body_max_bytes=1000)

    large = service.get(
        "/faults/everything",
        method="POST",
        body=iter([b"x" * 1001]),
        headers={"content-type": "application/json"},
    )

    assert large.status == 413


def test_exit_in_a_handler(start: Start) -> None:
    """
    A handler that calls sys.exit is a bug like any other: 500, told, and the process goes on.
    """
    service = start()

    answer = service.get("/faults/exit")

    assert answer.status == 500
    assert answer.headers["content-type"] == "application/problem+json"
    assert service.events("request_failed")
    assert service.get("/faults/ok").status == 200


@pytest.mark.promise("C9")
@pytest.mark.parametrize(
    ("app", "path"),
    [
        ("included", "/included/talk"),
        ("nested", "/outer/inner/talk"),
        ("mounted", "/mounted/talk"),
        ("added at last", "/late"),
    ],
)
def test_websocket_routes_end_the_start(start: Start, app: str, path: str) -> None:
    """
    A route that would never be served ends the process before it serves, with its path and what to
    use in its place, wherever the route was declared.
    """
    service = start(ready=False, app=app)

    assert service.wait(seconds=20) == 70
    (event,) = service.events("application_refused")
    assert f"{path} is a WebSocket route" in event["cause"]
    assert "server-sent events" in event["cause"]
    assert not {"exception", "threads"} & event.keys()
    assert not service.events("started")
    assert not service.events("crash")


@pytest.mark.promise("C9")
def test_all_that_is_wrong_with_the_routes(start: Start) -> None:
    """
    So do limits that nothing would enforce; everything is named at once.
    """
    service = start(ready=False, app="stock limits")

    assert service.wait(seconds=20) == 70
    (event,) = service.events("application_refused")
    first, second = event["cause"].split("; ")
    assert first == "/stock/limited declares limits: its router must be chassis.fastapi.Router"
    assert second.startswith("/talk is a WebSocket route")


@pytest.mark.parametrize("app", ["raw", "starlette"])
def test_any_asgi_application(start: Start, app: str) -> None:
    """
    The chassis serves what is no FastAPI just as well: ids, problems, limits, drain.
    """
    service = start(app=app, body_max_bytes=10)

    answer = service.get("/faults/ok", headers={"X-Request-ID": "request-id"})
    broken = service.get("/raise")
    large = service.get("/faults/ok", method="POST", body=iter([b"x" * 11]))

    assert (answer.status, answer.body) == (200, app.encode())
    assert answer.headers["x-request-id"] == "request-id"
    assert broken.status == 500
    assert large.status == 413
    assert b"app_requests_abandoned 0.0" in service.get("/metrics", admin=True).body
    assert len(service.events("request_failed")) == 1
    assert service.stop() == 0
