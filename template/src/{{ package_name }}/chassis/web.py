"""
The web process; its composition root says what it is made of.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from .asgi import App
from .envelope import Envelope
from .exits import Exit
from .life import Compose, Parts, Running, live
from .logs import get_logger
from .process import Process
from .server import Server, bind

__all__ = ["Web", "run"]

log = get_logger()


@dataclass(frozen=True, kw_only=True)
class Web(Parts):
    """
    The parts of a web process.

    *around* wraps the application together with its envelope. Middleware there sees every answer,
    those of the envelope too, but has no limit, request id or log line.
    """

    app: App
    around: Callable[[App], App] = lambda app: app


def run(compose: Compose, process: Process) -> None:
    """
    Serve until told to stop; ends the process itself, with an exit code of `Exit`.
    """
    public = bind(process, "port")

    async def serve(web: Web, running: Running) -> Callable[[], Awaitable[None]]:
        settings = process.settings
        # An application of `create_api` knows what of its routes can't be served.
        if faults := [*getattr(web.app, "faults", tuple[str, ...])()]:
            process.exit(Exit.BUG, "application_refused", cause="; ".join(faults))
        probes = running.health.probes if settings.probes_on_public_port else ()
        beside = dict.fromkeys(probes, running.admin)
        envelope = Envelope(web.app, beside=beside, process=process, ticker=running.ticker)
        app = web.around(envelope)
        for receiver in process.telemetry:
            app = receiver.wrap(app, beside)
        server = Server(app, process, connections_max=settings.connections_max)
        serving = process.supervise("public", lambda: server.serve([public]))
        while not server.started:  # noqa: ASYNC110  # uvicorn sets a flag, no event
            await asyncio.sleep(0.01)

        async def finish() -> None:
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

        return finish

    live(compose, serve, process)
