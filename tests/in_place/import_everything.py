"""
Import every module of the service and print what that did besides, as JSON.

Third parties are imported first: what they do is theirs.
"""

import importlib
import json
import os
import pkgutil
import signal
import sys
import threading
import traceback
from collections.abc import Iterator, MutableMapping

THIRD_PARTIES = [
    *("argparse", "asyncio", "errno", "faulthandler", "http.client", "importlib.metadata"),
    *("logging.handlers", "signal", "socket", "sqlite3", "urllib.parse", "uuid"),
    *("fastapi.exceptions", "fastapi.routing", "orjson", "prometheus_client.core", "pydantic"),
    *("pydantic_settings", "starlette.exceptions", "structlog.tracebacks", "uvicorn"),
    *(
        "uvicorn.protocols.http.httptools_impl",
        "sentry_sdk.utils",
        "opentelemetry.sdk.trace.export",
    ),
    "opentelemetry.exporter.otlp.json.common.trace_encoder",
]

FORBIDDEN = ("socket.", "subprocess.", "os.exec", "os.fork", "os.posix_spawn", "os.putenv")


class Watched(MutableMapping[str, str]):
    """
    An environment that remembers who reads it.
    """

    def __getitem__(self, name: str) -> str:
        self.note(f"read {name}")
        raise KeyError(name)

    def __setitem__(self, name: str, value: str) -> None:
        self.note(f"set {name}")

    def __delitem__(self, name: str) -> None:
        self.note(f"deleted {name}")

    def __iter__(self) -> Iterator[str]:
        self.note("listed the environment")
        return iter(())

    def __len__(self) -> int:
        return 0

    @staticmethod
    def note(what: str) -> None:
        """
        Only if it was our own code that asked.
        """
        for frame, _ in traceback.walk_stack(None):
            module = frame.f_globals["__name__"]
            if module not in {__name__, "os", "_collections_abc", "posixpath"}:
                impure.extend([f"{module} {what}"] if module.startswith("demo_service") else [])
                return


impure: list[str] = []


def audit(event: str, arguments: tuple[object, ...]) -> None:
    """
    A hook of sys.addaudithook.
    """
    if event.startswith(FORBIDDEN):
        impure.append(event)
    if event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+"):
        impure.append(f"opened {arguments[0]!r}")


for name in THIRD_PARTIES:
    importlib.import_module(name)
threads = threading.enumerate()
handlers = {number: signal.getsignal(number) for number in signal.valid_signals()}
os.environ = Watched()  # type: ignore[assignment]  # noqa: B003  # meant
sys.addaudithook(audit)

package = importlib.import_module("demo_service")
modules = [package.__name__]
for found in pkgutil.walk_packages(package.__path__, "demo_service."):
    modules.append(found.name)
    importlib.import_module(found.name)

impure += [f"started {thread.name}" for thread in set(threading.enumerate()) - set(threads)]
impure += [
    f"handles {number.name}"
    for number, handler in handlers.items()
    if signal.getsignal(number) is not handler and isinstance(number, signal.Signals)
]
print(json.dumps({"modules": modules, "impure": impure}))
