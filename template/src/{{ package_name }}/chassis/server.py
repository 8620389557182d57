"""
uvicorn, embedded, with our own sockets and signals; each listener has an event loop of its own.
"""

import asyncio
import contextlib
import errno
import math
import resource
import socket
import sys
from functools import partial

import uvicorn

from .asgi import App
from .exits import Exit
from .process import Process
from .protocol import Connection
from .rules import variable

__all__ = ["Server", "bind"]


# More makes a flood of errors when file descriptors run out: asyncio tries that often at once.
BACKLOG = 256
# How often connections are looked at; their limits are exact to that.
LOOK_SECONDS = 0.25
# Of file descriptors: for files, outbound connections and the admin port.
OTHER_DESCRIPTORS = 1024


def bind(process: Process, name: str) -> socket.socket:
    """
    Bind the port that setting *name* holds, before anything is opened; or say why not, and end.
    """
    settings = process.settings
    host, port = str(settings.host), getattr(settings, name)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        # It listens at once: two processes may bind one port as long as neither listens.
        bound = socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        cause, own = str(error), variable(name)
        if error.errno == errno.EADDRINUSE:
            action = f"stop who holds it (`ss -ltnp` tells), or set {own}"
            process.exit(Exit.UNAVAILABLE, "port_in_use", cause=cause, action=action)
        action = f"use a port above 1023 and an address of this machine: {own}, APP_HOST"
        process.exit(Exit.CONFIGURATION, "port_not_bindable", cause=cause, action=action)
    # asyncio does it only for sockets that name their protocol. Without it, an answer in two parts
    # waits 40 ms for the client's acknowledgement of the first.
    bound.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if sys.platform == "linux":
        # Connections inherit it: the kernel cuts those whose peer takes nothing for so long.
        limit = math.ceil(settings.write_stall_seconds * 1000)
        bound.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, limit)
    return bound


class Server(uvicorn.Server):
    """
    A uvicorn server that leaves signals to us; `should_exit` ends it within the time of grace.
    """

    def __init__(self, app: App, process: Process, *, connections_max: int) -> None:
        http = partial(Connection, process=process, connections_max=connections_max)
        proxies = [str(network) for network in process.settings.trusted_proxies]
        # Each connection takes one, and the usual limit of 1024 may be raised by anybody.
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = max(soft, min(hard, 2 * connections_max + OTHER_DESCRIPTORS))
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        super().__init__(
            uvicorn.Config(
                app,
                http=http,  # type: ignore[arg-type]  # it is only called
                ws="none",
                backlog=BACKLOG,
                log_config=None,
                access_log=False,
                server_header=False,
                # X-Forwarded-For and X-Forwarded-Proto count if a declared proxy sends them.
                proxy_headers=bool(proxies),
                forwarded_allow_ips=proxies,
                # Context variables of one request must not reach the next on its connection.
                reset_contextvars=True,
                timeout_graceful_shutdown=process.settings.grace_seconds,  # type: ignore[arg-type]  # a float works
            )
        )

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._look()

    def _look(self) -> None:
        """
        One timer for all connections, until the process ends.
        """
        loop = asyncio.get_running_loop()
        for connection in tuple(self.server_state.connections):
            connection.look(loop.time())  # type: ignore[union-attr]  # each is one of ours
        loop.call_later(LOOK_SECONDS, self._look)

    def capture_signals(self) -> contextlib.AbstractContextManager[None]:  # type: ignore[override]
        """
        Nothing: `Process` owns the signals.
        """
        return contextlib.nullcontext()
