"""
What `chassis/protocol.py` and `chassis/server.py` rely on inside uvicorn, httptools and asyncio:
when a release moves it, this says what.
"""

import asyncio
import inspect
import re
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import httptools
import pytest
import uvicorn
from demo_service.chassis.protocol import Connection
from harness import ROOT
from uvicorn.protocols.http import httptools_impl
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

# Each is overridden, or called with just these parameters.
SIGNATURES: dict[Callable[..., Any], str] = {
    HttpToolsProtocol.__init__: "self config server_state app_state _loop",
    HttpToolsProtocol.connection_made: "self transport",
    HttpToolsProtocol.connection_lost: "self exc",
    HttpToolsProtocol.data_received: "self data",
    HttpToolsProtocol.on_message_begin: "self",
    HttpToolsProtocol.on_url: "self url",
    HttpToolsProtocol.on_header: "self name value",
    HttpToolsProtocol.on_headers_complete: "self",
    HttpToolsProtocol.on_body: "self body",
    HttpToolsProtocol.on_message_complete: "self",
    HttpToolsProtocol.on_response_complete: "self",
    HttpToolsProtocol._start_asgi_task: "self cycle app",  # noqa: SLF001
    HttpToolsProtocol.shutdown: "self",
    FlowControl.pause_reading: "self",
    FlowControl.resume_reading: "self",
    RequestResponseCycle.run_asgi: "self app",
    RequestResponseCycle.send: "self message",
    uvicorn.Server.startup: "self sockets",
    uvicorn.Server.shutdown: "self sockets",
    uvicorn.Server.capture_signals: "self",
}
# Every attribute of `self` that uvicorn's protocol has; ours must not take one of these names.
PROTOCOL = {
    "access_log", "access_logger", "app", "app_state", "asgi_version", "client", "config",
    "connections", "cycle", "expect_100_continue", "flow", "headers", "limit_concurrency",
    "logger", "loop", "parser", "pipeline", "root_path", "scheme", "scope", "server",
    "server_state", "tasks", "timeout_keep_alive", "timeout_keep_alive_task", "transport",
    "ws_protocol_class",
}  # fmt: skip
CYCLE = {
    "access_log", "access_logger", "body", "chunked_encoding", "default_headers", "disconnected",
    "expected_content_length", "flow", "keep_alive", "logger", "message_event", "more_body",
    "on_response", "response_complete", "response_started", "scope", "transport",
    "waiting_for_100_continue",
}  # fmt: skip


@pytest.mark.parametrize("function", SIGNATURES, ids=lambda function: function.__qualname__)
def test_signatures(function: Callable[..., Any]) -> None:
    """
    What is overridden or called takes what it took.
    """
    assert list(inspect.signature(function).parameters) == SIGNATURES[function].split()


def test_attributes() -> None:
    """
    The state of a connection and of a response has the names that we read and set, and no new one
    that we would take or miss; only the parser is replaced on purpose.
    """
    assert _assigned(HttpToolsProtocol.__init__) == PROTOCOL
    assert _assigned(RequestResponseCycle.__init__) == CYCLE
    assert {*vars(ServerState())} == {"total_requests", "connections", "tasks", "default_headers"}
    assert _assigned(Connection.__init__) & PROTOCOL == {"parser"}


def test_no_new_methods() -> None:
    """
    A method that uvicorn adds to its protocol may be a way around ours.
    """
    inherited = {name for name in vars(HttpToolsProtocol) if not name.startswith("__")}
    overridden = inherited & set(vars(Connection))

    assert inherited - overridden == {
        "_get_upgrade", "_should_upgrade", "_should_upgrade_to_ws", "_start_asgi_task",
        "_unset_keepalive_if_required", "_unsupported_upgrade_warning", "eof_received",
        "handle_websocket_upgrade", "pause_writing", "resume_writing", "send_400_response",
        "shutdown", "timeout_keep_alive_handler",
    }  # fmt: skip


def test_uses_of_the_transport() -> None:
    """
    A response takes the connection for its transport: it calls nothing that this does not have,
    writes an interim answer, then a head at once, which begins with the default fields, then pieces
    of body; the pipeline is a deque of arguments of `_start_asgi_task`.
    """
    source = inspect.getsource(RequestResponseCycle)
    used = set(re.findall(r"self\.transport\.(\w+)", source))
    assert used == {"write", "close", "is_closing"}
    assert used <= set(vars(Connection))
    assert source.count("self.transport.write(") == 4
    assert "self.pipeline.appendleft((self.cycle, app))" in inspect.getsource(httptools_impl)

    writes: list[bytes] = []
    transport = SimpleNamespace(write=writes.append, close=lambda: None, is_closing=lambda: False)
    asyncio.run(_respond(transport))
    assert writes[0] == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert writes[1].startswith(b"HTTP/1.1 200 OK\r\nvary: Origin\r\n")
    assert writes[1].endswith(b"\r\n\r\n")
    assert writes[2:] == [b"body"]


async def _respond(transport: Any) -> None:
    cycle = RequestResponseCycle(
        scope={"method": "GET", "headers": [], "http_version": "1.1"},  # type: ignore[typeddict-item]
        transport=transport,
        flow=FlowControl(transport),
        logger=None,  # type: ignore[arg-type]
        access_logger=None,  # type: ignore[arg-type]
        access_log=False,
        default_headers=[(b"vary", b"Origin")],
        message_event=asyncio.Event(),
        expect_100_continue=True,
        keep_alive=True,
        on_response=lambda: None,
    )

    async def app(_: Any, receive: Any, send: Any) -> None:
        cycle.message_event.set()
        await receive()
        headers = [(b"content-length", b"4")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"body"})

    await cycle.run_asgi(app)


def test_parser() -> None:
    """
    An exception of a callback is the context of the parser's; an upgrade says where it began, and
    a request with one is reported as complete; trailers are reported as headers.
    """
    called: list[object] = []

    class Callbacks:
        def on_header(self, name: bytes, value: bytes) -> None:
            called.append((name, value))
            if name == b"bad":
                raise LookupError

        def on_message_complete(self) -> None:
            called.append("complete")

    with pytest.raises(httptools.HttpParserError) as caught:
        httptools.HttpRequestParser(Callbacks()).feed_data(b"GET / HTTP/1.1\r\nbad: 1\r\n\r\n")
    assert isinstance(caught.value.__context__, LookupError)

    called.clear()
    head = b"POST / HTTP/1.1\r\nConnection: upgrade\r\nUpgrade: x\r\nContent-Length: 4\r\n\r\n"
    with pytest.raises(httptools.HttpParserUpgrade) as upgrade:
        httptools.HttpRequestParser(Callbacks()).feed_data(memoryview(head + b"body"))
    assert upgrade.value.args == (len(head),)
    assert called[-1] == "complete"

    called.clear()
    chunked = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nTrailer: 1\r\n\r\n"
    httptools.HttpRequestParser(Callbacks()).feed_data(chunked)
    assert called == [(b"Transfer-Encoding", b"chunked"), (b"Trailer", b"1"), "complete"]


def test_leniencies() -> None:
    """
    The parser of uvicorn is lenient about what comes behind `Connection: close`, and about nothing
    else. Ours reports that as an error, after it has reported the request as complete.
    """
    source = inspect.getsource(HttpToolsProtocol.__init__)
    called: list[object] = []

    class Callbacks:
        def on_message_complete(self) -> None:
            called.append("complete")

    parser = httptools.HttpRequestParser(Callbacks())
    with pytest.raises(httptools.HttpParserError):
        parser.feed_data(b"GET / HTTP/1.1\r\nConnection: close\r\n\r\nGET / HTTP/1.1\r\n\r\n")

    assert called == ["complete"]
    assert re.findall(r"lenient_\w+", source) == ["lenient_data_after_close"]


def test_pinned() -> None:
    """
    The minor version is pinned, here and in what is generated.
    """
    for name in ("pyproject.toml", "template/pyproject.toml.jinja"):
        assert '"uvicorn>=0.54,<0.55"' in (ROOT / name).read_text()


def _assigned(function: Callable[..., Any]) -> set[str]:
    code = function.__code__
    source = inspect.getsource(code)
    return set(re.findall(r"(?<=self\.)(\w+)(?=(?:, self\.\w+)*(?:: [^=\n]+)? = )", source))
