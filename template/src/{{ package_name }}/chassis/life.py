"""
The life of a process that serves, whatever its type: open, serve, drain, close.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any

from . import watchdog
from .admin import Admin
from .arguments import Checked, Name
from .exits import Exit
from .health import Check, Health
from .logs import get_logger
from .process import Process
from .server import Server, bind
from .ticker import Ticker

__all__ = ["Compose", "Parts", "Running", "live"]

# Enough for probes and scrapes, and out of reach for the crowd at the public port.
ADMIN_CONNECTIONS_MAX = 64
log = get_logger()


@dataclass(frozen=True, kw_only=True)
class Parts(Checked):
    """
    What every process type may have.

    *tasks* and *threads* run beside it by name; an exception in one of them ends the process.
    """

    checks: Sequence[Check] = ()
    tasks: Mapping[Name, Callable[[], Awaitable[None]]] = field(default_factory=dict)
    threads: Mapping[Name, Callable[[], None]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Running:
    """
    What watches over a process that runs.
    """

    process: Process
    health: Health
    admin: Admin
    ticker: Ticker


Compose = Callable[[Any], AbstractAsyncContextManager[Any]]
# Starts to serve the parts; what it returns drains and finishes, after a signal.
Serve = Callable[[Any, Running], Awaitable[Callable[[], Awaitable[None]]]]


def live(compose: Compose, serve: Serve, process: Process) -> None:
    """
    Serve until told to stop; ends the process itself, with an exit code of `Exit`.
    """
    private = bind(process, "admin_port")

    async def supervised() -> None:
        process.attach()
        await process.supervise("main", main)

    async def main() -> None:
        settings = process.settings
        if not process.is_dev:
            watchdog.start(process, limit_seconds=settings.watchdog_seconds)
        ticker = Ticker(process)
        health = Health(process, ticker)
        admin = Admin(process=process, health=health, ticker=ticker)
        running = Running(process=process, health=health, admin=admin, ticker=ticker)
        private_server = Server(admin, process, connections_max=ADMIN_CONNECTIONS_MAX)
        # Probes have a thread and an event loop of their own: what blocks this loop fails no probe.
        process.supervise_thread("admin", lambda: asyncio.run(private_server.serve([private])))

        # Open what the service holds open.
        async with compose(settings) as parts:
            health.watch(parts.checks)
            for name, work in parts.tasks.items():
                process.supervise(name, work)
            for name, thread in parts.threads.items():
                process.supervise_thread(name, thread)

            finish = await serve(parts, running)
            process.ready = True
            # Only `web` serves the public port.
            ports = {"port"} if process.logs.identity["process_type"] == "web" else set()
            listens = settings.model_dump(mode="json", include={"host", "admin_port"} | ports)
            log.info("started", **listens)
            await process.stop.wait()
            await finish()

        # Not through the interpreter's own shutdown: it waits for threads.
        process.exit(Exit.OK, "stopped")

    asyncio.run(supervised())
