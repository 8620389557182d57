"""
Who is told of errors and requests besides the log: nobody, unless the service chose to.
"""

from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec

from .asgi import App
from .logs import Logs, get_logger
from .rules import SWITCHES, variable
from .settings import Settings

__all__ = ["Telemetry", "start"]

log = get_logger()


@dataclass(frozen=True, kw_only=True)
class Telemetry:
    """
    One receiver; what it has no use for does nothing.

    *report* hears of an unexpected error, or of one that left no exception; *wrap* watches the
    requests to an application, but those to the paths beside it; *flush* sends what is left at the
    end of the process, where nobody waits for it for ever.
    """

    report: Callable[[BaseException | None, Mapping[str, str]], None] = lambda *_: None
    wrap: Callable[[App, Container[str]], App] = lambda app, _: app
    flush: Callable[[], None]


def start(settings: Settings, logs: Logs) -> list[Telemetry]:
    """
    What the service chose and was told where to send to; nothing else is imported.
    """
    started = []
    for name, switch in SWITCHES.items():
        if getattr(settings, switch):
            started.append(import_module(f".{name}", __package__).start(settings, logs))
        elif find_spec(f".{name}", __package__):
            log.info("telemetry_off", module=name, setting=variable(switch))
    return started
