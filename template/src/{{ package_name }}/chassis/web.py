"""
The web process from start to end; its composition root says what it is made of.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from socket import socket
from typing import Any

from . import watchdog
from .admin import Admin
from .asgi import App
from .envelope import Envelope
from .exits import Exit
from .health import Check, Health
from .logs import get_logger
from .process import Process
from .server import Server, behind_proxies, bind
from .ticker import Ticker

__all__ = ["Compose", "Web", "run"]

# Enough for probes and scrapes, and out of reach for the crowd at the public port.
ADMIN_CONNECTIONS_MAX = 64
log = get_logger()


@dataclass(frozen=True, kw_only=True)
class Web:
    """
    The parts of a web process.

    *tasks* and *threads* run beside it by name; an exception in one of them ends the process.
    """

    app: App
    checks: Sequence[Check] = ()
    tasks: Mapping[str, Callable[[], Awaitable[None]]] = field(default_factory=dict)
    threads: Mapping[str, Callable[[], None]] = field(default_factory=dict)


Compose = Callable[[Any], AbstractAsyncContextManager[Web]]


def run(compose: Compose, process: Process) -> None:
    """
    Serve until told to stop; ends the process itself, with an exit code of `Exit`.
    """
    sockets = bind(process, "port"), bind(process, "admin_port")

    async def supervised() -> None:
        process.attach()
        await process.supervise("main", lambda: _main(compose, process, *sockets))

    asyncio.run(supervised())


async def _main(compose: Compose, process: Process, public: socket, private: socket) -> None:
    settings = process.settings
    if not process.is_dev:
        watchdog.start(process, limit_seconds=settings.watchdog_seconds)
    health, ticker = Health(process), Ticker(process)
    admin = Admin(process=process, health=health, ticker=ticker)
    private_server = Server(admin, process, connections_max=ADMIN_CONNECTIONS_MAX)
    process.supervise("admin", lambda: private_server.serve([private]))

    # Open what the service holds open.
    async with compose(settings) as web:
        health.watch(web.checks)
        for name, work in web.tasks.items():
            process.supervise(name, work)
        for name, thread in web.threads.items():
            process.supervise_thread(name, thread)

        # Serve.
        probes = {path: admin for path in health.probes if settings.probes_on_public_port}
        envelope = Envelope(web.app, beside=probes, process=process, ticker=ticker)
        app = behind_proxies(envelope, settings)
        for receiver in process.telemetry:
            app = receiver.wrap(app, probes)
        server = Server(app, process, connections_max=settings.connections_max)
        serving = process.supervise("public", lambda: server.serve([public]))
        while not server.started:  # noqa: ASYNC110  # uvicorn sets a flag, no event
            await asyncio.sleep(0.01)
        process.ready = True
        listens = settings.model_dump(mode="json", include={"host", "port", "admin_port"})
        log.info("started", **listens)
        await process.stop.wait()

        # Unready since the signal: go on until the load balancers have noticed.
        await asyncio.sleep(settings.drain_seconds)

        # Close the listener; finish what is in flight within the time of grace, streams too.
        process.closing.set()
        server.should_exit = True
        await serving
        if server.server_state.tasks or process.errors["grace"]:
            log.warning("grace_exceeded", **process.stacks())
        if server.server_state.tasks:
            await asyncio.wait(server.server_state.tasks, timeout=0.3)

    # Not through the interpreter's own shutdown: it waits for threads.
    process.exit(Exit.OK, "stopped")
