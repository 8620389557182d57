"""
What is not exactly right on the wire is refused, and the refusal is a problem.
"""

import gzip
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from harness import wait_until
from jsonschema import Draft202012Validator

Start = Callable[..., Any]
JSON = {"content-type": "application/json"}


@pytest.fixture(name="service")
def _service(share: Start) -> Any:
    """
    One service for all requests of this module: none of them may harm it.
    """
    return share()


def _refused(answer: Any, *statuses: int) -> None:
    """
    Raises AssertionError if *answer* is no problem with one of *statuses*, or repeats the input.
    """
    assert answer.status in statuses, answer.body
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json["status"] == answer.status
    assert answer.json["instance"] == answer.headers["x-request-id"]
    assert b"canary" not in answer.body


NAMED = {"name": "canary"}
NO_JSON = {
    "a name twice": b'{"text": "canary", "text": "b"}',
    "an escaped name twice": rb'{"text": "canary", "\u0074ext": "b"}',
    "a name twice, further down": b'{"parts": [{"name": "a"}, {"name": "b", "name": "canary"}]}',
    "a name twice in anything": b'{"anything": {"a": [{"b": {"canary": 1, "canary": 1}}]}}',
    "a name twice, hidden by an escaped colon": rb'{"text": "\u003a", "count": 1, "count": 1}',
    "NaN": b'{"anything": NaN}',
    "NaN as a number": b'{"share": NaN}',
    "Infinity": b'{"anything": [Infinity]}',
    "minus Infinity": b'{"share": -Infinity}',
    "a number beyond all numbers": b'{"anything": 1e999}',
    "a number beyond all numbers, as a number": b'{"share": -1e999}',
    "too deep": b"[" * 100_000,
    "too deep, within": b'{"anything": ' + b"[" * 1000 + b"]" * 1000 + b"}",
    "no UTF-8": b'{"text": "canary\xff"}',
    "UTF-16": '{"text": "canary"}'.encode("utf-16"),
    "a byte order mark": b'\xef\xbb\xbf{"text": "canary"}',
    "half a character": rb'{"text": "\ud800"}',
    "half a character in anything": rb'{"anything": {"\udfff": 1}}',
    "5,000 digits": b'{"anything": ' + b"9" * 5000 + b"}",
    "a comma too much": b'{"text": "canary",}',
    "something behind": b'{"text": "canary"} {}',
    "a comment": b'{"text": "canary"} // canary',
    "single quotes": b"{'text': 'canary'}",
    "a control character": b'{"text": "canary\x01"}',
    "a blank": b" ",
    "text": b"canary",
}
WRONG = {
    "an unknown field": {"canary": 1},
    "an unknown field further down": {"parts": [NAMED | {"canary": 1}]},
    "an unknown field in a mapping": {"by_name": {"canary": NAMED | {"canary": 1}}},
    "a wrong value in a mapping": {"by_name": {"canary": {"name": 5}}},
    "text for a number": {"count": "5"},
    "a whole float for a number": {"count": 5.0},
    "a truth for a number": {"count": True},
    "a number for text": {"text": 5},
    "null": {"text": None},
    "a number for a time": {"when": 5},
    "no time": {"when": "canary"},
    "no id": {"who": "canary"},
    "a list": [],
    "an object for a list": {"parts": {}},
}


@pytest.mark.promise("E1")
@pytest.mark.parametrize("path", ["body", "thread", "optional"])
@pytest.mark.parametrize("sent", [*NO_JSON, *WRONG])
def test_body(service: Any, path: str, sent: str) -> None:
    """
    A body that is no JSON, leaves something open, or is not what is asked for, is refused.
    """
    content = NO_JSON[sent] if sent in NO_JSON else json.dumps(WRONG[sent]).encode()

    answer = service.get(f"/wire/{path}", method="POST", body=content, headers=JSON)

    _refused(answer, 422)
    assert all(error["in"] == "body" for error in answer.json["errors"])


@pytest.mark.parametrize(
    ("sent", "pointer"),
    [
        ({"parts": [NAMED, {"name": 5}]}, "/parts/1/name"),
        ({"parts": [NAMED, {}]}, "/parts/1/name"),
        ({"parts": [{"name": "a", "canary": 1}]}, "/parts/0"),
    ],
)
def test_pointer(service: Any, sent: Any, pointer: str) -> None:
    """
    The pointer of an error leads to it, and holds no name that the client made up.
    """
    answer = service.post_json("/wire/body", sent)
    nested = service.post_json("/wire/two", {"one": {}, "other": sent})

    assert [error["pointer"] for error in answer.json["errors"]] == [pointer]
    assert [error["pointer"] for error in nested.json["errors"]] == [f"/other{pointer}"]


@pytest.mark.parametrize(
    "sent",
    [
        b'{"text": "a:b", "anything": {"a": {"a": ":"}, "b": {"a": "\\\\u003a"}}}',
        b'{"text": "\\u003a\\u003A", "anything": "\\ud83d\\ude00 \\u0000"}',
        b'{"anything": [1.5, 123456789012345678901234567890, -0.0, 1e300, true, null, "NaN"]}',
        b' {"count" : 5 , "when":"2026-01-01T00:00:00Z"}\n',
    ],
)
def test_strange_but_right(service: Any, sent: bytes) -> None:
    """
    What JSON allows is taken as it is.
    """
    answer = service.get("/wire/body", method="POST", body=sent, headers=JSON)

    assert answer.status == 200
    for name, value in json.loads(sent).items():
        if name != "when":
            assert answer.json[name] == value


def test_missing_body(service: Any) -> None:
    """
    Where a body is required, an empty one is missing, whatever its type; where not, it is none.
    """
    for headers in ({}, JSON):
        missing = service.get("/wire/body", method="POST", headers=headers)
        optional = service.get("/wire/optional", method="POST", headers=headers)

        _refused(missing, 422)
        assert (optional.status, optional.json) == (200, True)


@pytest.mark.promise("E1")
@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 415),
        ({"content-type": "text/plain"}, 415),
        ({"content-type": "application/jsonp"}, 415),
        ({"content-type": "application/x-www-form-urlencoded"}, 415),
        ({"content-type": "application/json; charset=latin-1"}, 415),
        ({"content-type": "application/json; charset=utf-16"}, 415),
        ({"content-type": "canary"}, 415),
        (JSON | {"content-encoding": "gzip"}, 415),
        (JSON | {"content-encoding": "canary"}, 415),
        (JSON, 200),
        ({"content-type": "Application/JSON;charset=UTF-8"}, 200),
        ({"content-type": 'application/json; charset="utf-8"'}, 200),
        ({"content-type": "application/merge-patch+json"}, 200),
    ],
)
def test_content_type(service: Any, headers: dict[str, str], status: int) -> None:
    """
    Only JSON in UTF-8 without a content coding is taken for JSON.
    """
    content = b'{"text": "canary"}'
    content = gzip.compress(content) if headers.get("content-encoding") == "gzip" else content

    answer = service.get("/wire/body", method="POST", body=content, headers=headers)

    assert answer.status == status
    if status != 200:
        _refused(answer, 415)


@pytest.mark.promise("E1")
@pytest.mark.parametrize(
    "path",
    [
        "query?canary=1",
        "query?limit=1&limit=2",
        "query?page-size=1&page-size=1",
        "query?key=1&key=2",
        "query?size=1",
        "query?ids=1&canary",
        "query?Limit=1",
        "filters?canary=1",
        "filters?size=1&size=2",
        "filters?tags=a",
        "lenient?size=1&size=2&canary=1",
        "lenient/filters?canary=1",
    ],
)
def test_query(service: Any, path: str) -> None:
    """
    Unknown query parameters are refused, and repeated ones that are no list.
    """
    answer = service.get(f"/wire/{path}")

    _refused(answer, 422)
    assert all(error["in"] == "query" for error in answer.json["errors"])


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("query?page-size=3&limit=4&key=k&ids=1&ids=2", ["4", "k", 3, [1, 2]]),
        ("query", ["10", None, 1, []]),
        ("query?", ["10", None, 1, []]),
        ("filters?size=2&tag=a&tag=b", {"size": 2, "tag": ["a", "b"]}),
        ("lenient?size=3&canary=1&canary=2", 3),
        ("path/%C3%A9%20a?also=%F0%9F%98%80", "é a😀"),
    ],
)
def test_known_query(service: Any, path: str, expected: Any) -> None:
    """
    Known ones are taken: by alias, of dependencies, models and API keys, lists more than once;
    a router may take any.
    """
    answer = service.get(f"/wire/{path}")

    assert (answer.status, answer.json) == (200, expected)


@pytest.mark.parametrize(
    "bad", ["%zz", "%", "%4", "%00", "%ff", "%c3%28", "%ed%a0%80", "%F4%90%80%80"]
)
@pytest.mark.parametrize("path", ["/wire/path/canary", "/wire/path/x?also=canary", "/canary"])
def test_target(service: Any, path: str, bad: str) -> None:
    """
    A path or query that is no percent-encoded UTF-8, or holds NUL, is 400.
    """
    answer = service.get(f"{path}{bad}")

    _refused(answer, 400)


@pytest.mark.parametrize("place", ["/wire/path/\xe9", "/wire/path/x?also=\xe9", "/\xe9"])
def test_raw_bytes_in_the_target(service: Any, place: str) -> None:
    """
    Bytes beyond ASCII that are not encoded are never a 500.
    """
    with service.connect() as connection:
        head = f"GET {place} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        connection.sendall(head.encode("latin-1"))
        answer = connection.makefile("rb").readline()

    assert answer.split()[1] in {b"400", b"404"}


def test_allowed_methods(service: Any) -> None:
    """
    A 405 names all methods of the resource, not only those of one operation.
    """
    answer = service.get("/wire/path/x", method="DELETE")

    _refused(answer, 405)
    assert answer.headers["allow"] == "GET, PUT"


@pytest.mark.parametrize(("status", "retry_after"), [(503, "1"), (504, None)])
def test_unavailable(service: Any, status: int, retry_after: str | None) -> None:
    """
    An expected failure is a problem with its status, and when to try again; no word of the cause.
    """
    answer = service.get(f"/wire/unavailable/{status}")

    _refused(answer, status)
    assert answer.headers.get("retry-after") == retry_after


def test_client_that_leaves(start: Start) -> None:
    """
    A body that ends before its time is nobody's bug.
    """
    service = start()
    with service.connect() as connection:
        head = "POST /wire/body HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        connection.sendall(f'{head}Content-Length: 100\r\n\r\n{{"text":'.encode())
        wait_until(lambda: b"app_requests_in_flight 1" in service.get("/metrics", admin=True).body)

    service.wait_for("request", path="/wire/body", status=400)
    assert not service.events("request_failed")


DETAILS = ["none", "text", "no text", "number", "object", "empty object"]
DETAILS += ["objects", "tuple", "texts", "mixed", "empty"]
RAISED = {
    **{f"detail/{name.replace(' ', '%20')}": 409 for name in DETAILS},
    **{f"invalid/{name}": 422 for name in ("model", "field", "item")},
    "sold": 409,
    "detail/unknown": 500,
}


@pytest.mark.promise("E2")
@pytest.mark.parametrize("name", RAISED)
def test_problem_is_as_declared(name: str, service: Any, project: Path) -> None:
    """
    However a team raises a problem, the answer is what the printed API document declares.
    """
    command: list[str | Path] = [project / ".venv" / "bin" / "order-desk", "openapi"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True)
    document = json.loads(printed.stdout)
    operation = document["paths"]["/wire/raised/sold"]["get"]["responses"]["default"]
    schema = operation["content"]["application/problem+json"]["schema"]

    answer = service.get(f"/wire/raised/{name}")

    _refused(answer, RAISED[name])
    told = Draft202012Validator(schema | {"components": document["components"]})
    assert [error.message for error in told.iter_errors(answer.json)] == []


@pytest.mark.parametrize(
    ("name", "told"),
    {
        "detail/text": {"detail": "Sold out."},
        "detail/object": {"code": "sold_out", "left": 0, "detail": "5"},
        "detail/texts": [{"detail": "Sold out."}, {"detail": "Closed."}],
        "invalid/model": [
            {"detail": "The end is before the beginning.", "in": "body", "pointer": ""}
        ],
    }.items(),
)
def test_what_a_team_raises_is_in_the_problem(name: str, told: Any, service: Any) -> None:
    """
    What a team gives as the detail is in the answer: a text as `detail`, all else in `errors`.
    """
    found = service.get(f"/wire/raised/{name}").json

    wanted = told if "detail" in found else {"errors": told if isinstance(told, list) else [told]}
    assert found | wanted == found
