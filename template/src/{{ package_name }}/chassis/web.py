"""
The web process from start to end; its composition root says what it is made of.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any

from . import watchdog
from .admin import Admin
from .asgi import App
from .envelope import Envelope
from .exits import Exit
from .health import Check, Health
from .logs import get_logger
from .process import Process
from .server import Server, bind
from .settings import Settings

__all__ = ["Compose", "Web", "run"]

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


def run(compose: Compose, settings: Settings, process: Process) -> None:
    """
    Serve until told to stop; ends the process itself, with an exit code of `Exit`.

    Raises `StartupError` when a port can't be had.
    """
    public_socket = bind(settings, "port")
    admin_socket = bind(settings, "admin_port")

    async def main() -> None:
        process.attach()
        if not process.is_dev:
            watchdog.start(process, limit_seconds=settings.watchdog_seconds)
        health = Health(process, settings)
        admin = Admin(process=process, health=health, unknown=len(settings.unknown))
        admin_server = Server(admin, settings)
        admin_task = process.supervise("admin", lambda: admin_server.serve([admin_socket]))

        # Open what the service holds open.
        async with compose(settings) as web:
            health.watch(web.checks)
            for name, work in web.tasks.items():
                process.supervise(name, work)
            for name, thread in web.threads.items():
                process.supervise_thread(name, thread)

            # Serve.
            probes = {path: admin for path in health.probes if settings.probes_on_public_port}
            envelope = Envelope(app=web.app, beside=probes, process=process, settings=settings)
            server = Server(envelope, settings)
            serving = process.supervise("public", lambda: server.serve([public_socket]))
            await _until(lambda: server.started)
            process.ready = True
            log.info("started", **settings.model_dump(include={"host", "port", "admin_port"}))
            await process.stop.wait()

            # Unready since the signal: go on until the load balancers have noticed.
            await asyncio.sleep(settings.drain_seconds)

            # Close the listener; finish what is in flight within the grace period.
            server.should_exit = True
            await serving
            if server.server_state.tasks:
                log.warning("grace_exceeded", **process.stacks())
                await _until(lambda: not server.server_state.tasks, seconds=0.3)

        admin_server.should_exit = True
        await _until(admin_task.done, seconds=0.3)
        # Not through the interpreter's own shutdown: it waits for threads.
        process.exit(Exit.OK, "stopped")

    asyncio.run(main())


async def _until(condition: Callable[[], bool], *, seconds: float = 60.0) -> None:
    for _ in range(int(seconds * 100)):
        if condition():
            return
        await asyncio.sleep(0.01)
