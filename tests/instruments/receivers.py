"""
An error tracker, a collector and a dead man's switch on this machine: they speak the protocols,
or misbehave.
"""

import gzip
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

__all__ = ["Receiver", "receiver"]


class Receiver:
    """
    What was sent to one port, taken apart.
    """

    def __init__(self, port: int) -> None:
        self.port = port
        self.received: list[tuple[str, dict[str, str], bytes]] = []

    @property
    def dsn(self) -> str:
        return f"http://canary4711key@127.0.0.1:{self.port}/7"

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def paths(self) -> list[str]:
        """
        What was asked for, without the query.
        """
        return [path.partition("?")[0] for path, _, _ in self.received]

    @property
    def bodies(self) -> bytes:
        return b"\n".join(body for _, _, body in self.received)

    @property
    def events(self) -> list[dict[str, Any]]:
        """
        The events in Sentry's envelopes: a line of headers, then a line and a payload an item.
        """
        found = []
        for path, _, body in self.received:
            assert path == "/api/7/envelope/"
            _, rest = body.split(b"\n", 1)
            while rest.strip():
                line, rest = rest.split(b"\n", 1)
                head = json.loads(line)
                size = head.get("length", rest.find(b"\n"))
                payload, rest = rest[:size], rest[size + 1 :]
                assert head["type"] == "event"
                found.append(json.loads(payload))
        return found

    @property
    def spans(self) -> list[dict[str, Any]]:
        """
        The spans in requests by OTLP/HTTP, each with its attributes as a mapping.
        """
        found = []
        for path, headers, body in self.received:
            assert path == "/v1/traces"
            assert headers["content-type"] == "application/json"
            for resource in json.loads(body)["resourceSpans"]:
                for scope in resource["scopeSpans"]:
                    for span in scope["spans"]:
                        attributes = {
                            one["key"]: next(iter(one["value"].values()))
                            for one in span.get("attributes", [])
                        }
                        found.append(span | {"attributes": attributes})
        return found


@contextmanager
def receiver(behaviour: str = "healthy") -> Iterator[Receiver]:
    """
    A receiver that is healthy, hanging (takes everything, never answers), dripping (answers a byte
    at a time), unreachable (a full backlog, so that the kernel drops each SYN), refusing, or
    answers with a status such as 429.
    """
    with ExitStack() as stack:
        if behaviour == "unreachable":
            full = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
            for _ in range(3):
                waiting = stack.enter_context(socket.socket())
                waiting.settimeout(0)
                waiting.connect_ex(full.getsockname())
            yield Receiver(full.getsockname()[1])
            return
        server = stack.enter_context(_Server(("127.0.0.1", 0), _Handler))
        server.behaviour = behaviour
        server.receiver = Receiver(server.server_address[1])
        if behaviour == "refusing":
            server.server_close()
            yield server.receiver
            return
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        yield server.receiver
        server.closed.set()
        server.shutdown()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    receiver: Receiver
    behaviour: str

    def __init__(self, *arguments: Any) -> None:
        self.closed = threading.Event()
        super().__init__(*arguments)

    def handle_error(self, *_: object) -> None:
        """
        A client that is killed is part of the test.
        """


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_GET(self) -> None:
        self.do_POST()

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        if self.headers.get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.server.receiver.received.append((self.path, headers, body))
        if self.server.behaviour == "hanging":
            self.server.closed.wait()
            return
        if self.server.behaviour == "dripping":
            self.wfile.write(b"HTTP/1.1 200 OK\r\nx: ")
            while not self.server.closed.wait(0.1):
                self.wfile.write(b"x")
            return
        is_healthy = self.server.behaviour == "healthy"
        self.send_response(200 if is_healthy else int(self.server.behaviour))
        self.send_header("content-length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_: object) -> None:
        """
        Silent.
        """
