"""
The commands of this service, owned by the template; each imports what it needs.
"""

# Ours keeps its form, whatever yours is: an update is merged into what we wrote.
# fmt: off

import argparse
import json
import os
import signal
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from datetime import UTC, datetime
from functools import partial
from importlib import import_module
from importlib.metadata import metadata
from importlib.util import find_spec
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, NoReturn

from .chassis.exits import Exit

if TYPE_CHECKING:
    from .chassis.environment import Loaded

__all__ = ["main"]

PACKAGE = (__package__ or "").partition(".")[0]


EPILOG = """\
Settings are environment variables: `config doc` lists them, `config show` tells what is in force.
Signals: SIGTERM drains and stops, a second one stops at once; SIGUSR1 logs every stack; SIGUSR2
logs at DEBUG for ten minutes.
Exit codes: 0 done or stopped, 64 usage, 69 port or backing service unavailable, 70 bug,
75 try again later, 78 configuration.
"""


def job(arguments: argparse.Namespace) -> Exit:
    """
    Run a job once, or list all.
    """
    name, names = arguments.name, sorted(_module("tasks").JOBS)
    if arguments.list:
        print(*names, sep="\n")
        return Exit.OK
    if name not in names:
        told = "which job?" if name is None else f"there is no job {name!r}."
        print(f"{told} There are: {', '.join(names)}", file=sys.stderr)
        return Exit.USAGE
    _run("job", "tasks", name)
    return Exit.OK


def dev(arguments: argparse.Namespace) -> Exit:
    """
    Run all process types for a developer, with what they need; or one of them in this process.
    """
    from .chassis.dev import DATABASE_FILE, ENV_FILE, database, develop, environment

    given = dict(os.environ)
    os.environ.update(environment())
    if kind := arguments.process_type:
        _run(kind, kind, dev=arguments)
    # What is not chosen any more may have left its seed behind.
    kinds = [kind for kind in ("web", "worker") if _has(kind) and _has(f"chassis.{kind}")]
    files = [ENV_FILE] if ENV_FILE.is_file() else []
    with ExitStack() as stack:
        if _has("migrations") and not {"APP_DATABASE_URL", "APP_SECRETS_DIR"} & {*os.environ}:
            given["APP_DATABASE_URL"] = stack.enter_context(database(PACKAGE))
            os.environ.update(given)
            files.append(DATABASE_FILE)
            if code := migrate(_parser().parse_args(["migrate", "up"])):
                return code
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: sys.exit(Exit.OK))
        settings, name = _load().settings, metadata(PACKAGE)["Name"]
        command = " --env-file ".join(["uv run", *map(str, files)])
        what = "job NAME" if _has("chassis.job") else "status"
        print(f"dev     other commands, in another terminal: {command} {name} {what}", flush=True)
        if _has("web"):
            print(f"dev     API pages: http://{settings.host}:{settings.port}/docs", flush=True)
        # Jobs run when they are called. Without a database for them, there is nothing to wait for.
        if not kinds:
            job(_parser().parse_args(["job", "--list"]))
        if kinds or DATABASE_FILE in files:
            develop(PACKAGE, kinds, given, settings.admin_port)
    return Exit.OK


def preflight() -> Exit:
    """
    Look at everything once; name every failure, with evidence of what is right.
    """
    import asyncio

    import structlog

    from .chassis.environment import ConfigurationError
    from .chassis.health import CheckState
    from .chassis.logs import Sink

    loaded = _load()
    # What is found is told once.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    limit = loaded.settings.check_timeout_seconds
    # The composition roots. Each opens the same resources.
    roots = [name for name in ("web", "worker", "tasks") if _has(name)]
    told = "nothing reads this variable; unset it"
    found = [(Exit.CONFIGURATION, f"{name}: {told}") for name in loaded.unknown]

    async def look() -> None:
        has_database = _has("chassis.preflight")
        if has_database:
            examined = _module("chassis.preflight").examine(loaded.settings, len(roots))
            async for name, code, told in examined:
                found.append((code, f"{name}: {told}"))
        try:
            async with _module(roots[0]).compose(loaded.settings) as parts:
                for check in parts.checks:
                    if not (has_database and check.name == "database"):
                        error = await CheckState(check).run(timeout_seconds=limit)
                        code = Exit.UNAVAILABLE if error else Exit.OK
                        found.append((code, f"check {check.name}: {error or 'passes'}"))
        except ConfigurationError as error:
            found.extend((Exit.CONFIGURATION, f"{name} {told}") for name, told in error.faults)
        except Exception as error:  # noqa: BLE001  # told like the others
            found.append((Exit.UNAVAILABLE, f"start: {type(error).__name__}: {error}"))
        told = f"settings that differ from their defaults: {len(loaded.origins)}"
        found.append((Exit.OK, f"configuration: {told}"))
        lines = [f"{'fail' if code else 'pass'}  {told}" for code, told in sorted(found)]
        sink = Sink(_secrets_in(loaded.settings))
        sink.msg("\n".join(lines).encode())
        sink.flush(seconds=1)
        # A probe that hangs must not hold back the end.
        os._exit(max(code for code, _ in found))

    asyncio.run(look())
    return Exit.OK


def migrate(arguments: argparse.Namespace) -> Exit:
    """
    Bring the database's schema to that of this version, or back.
    """
    import asyncio

    # Whoever stops it must not read that it is done.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: os._exit(Exit.TEMPORARY))
    settings = _load("migrate").settings
    migrations = _module("chassis.migrations")
    if arguments.steps == "status":
        work = migrations.status(settings, _tell)
    else:
        back = getattr(arguments, "back", 0)
        removes = None if arguments.dry_run else arguments.yes_remove
        work = migrations.migrate(settings, _tell, back=back, removes=removes)
    try:
        asyncio.run(work)
    except migrations.Refused as refused:
        _tell_of_database(settings, refused.event, refused, refused.action)
        return Exit(refused.code)
    return Exit.OK


def dead(arguments: argparse.Namespace) -> Exit:
    """
    List, retry or drop the messages that failed too often.
    """
    import structlog

    from .chassis.problem import Unavailable

    settings = _load().settings
    # What goes wrong is told once.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    given = vars(arguments)
    which = {name: given[name] for name in ("ids", "all", "name", "count") if name in given}
    try:
        done: bool = _module("chassis.dead").run(settings, arguments.act, **which)
    except Unavailable as error:
        action = "check that the database is there and migrated: `migrate status`"
        _tell_of_database(settings, "queue_unavailable", error, action)
        return Exit.UNAVAILABLE
    return Exit.OK if done else Exit.USAGE


def status(arguments: argparse.Namespace) -> Exit:
    """
    Show what the process on this machine knows of itself; this reads no settings.
    """
    import http.client
    import time

    from prometheus_client.parser import text_string_to_metric_families

    host, port, wanted = str(arguments.host), arguments.admin_port, arguments.process_type
    where, own, samples, wrong = f"{host} port {port}", metadata(PACKAGE)["Name"], list[Any](), ""
    connection = http.client.HTTPConnection(host, port, timeout=2)
    try:
        connection.request("GET", "/metrics")
        families = text_string_to_metric_families(connection.getresponse().read().decode())
        samples = [sample for family in families for sample in family.samples]
    except (TimeoutError, ConnectionResetError) as error:
        wrong = f"no_answer: a process listens on {where} but does not answer ({error}).\n"
        wrong += "It is stopped or stuck: send it SIGUSR1, and read the stacks in its log."
    except OSError as error:
        wrong = f"nothing_listens: no process listens on {where} ({error}).\n"
        wrong += "It has ended, or its address differs: give --host and --admin-port."
    except (ValueError, http.client.HTTPException):
        samples = []
    build: Any = next((one.labels for one in samples if one.name == "app_build_info"), {})
    service, kind = build.get("service"), build.get("process_type")
    if not wrong and (service, wanted or kind) != (own, kind):
        answers = f"{kind} of {service}" if build else "something else"
        wrong = f"another_process: {answers} answers on {where}, not "
        wrong += f"{wanted or 'a process'} of {own}.\nGive its port with --admin-port."
    if wrong:
        print(wrong, file=sys.stderr)
        return Exit.UNAVAILABLE
    for name in ("service", "process_type", "version", "revision", "template"):
        print(f"{name:<36} {build.get(name, 'unknown')}")
    first, hidden = ("process_start_time_seconds", "app_ready"), ("_bucket", "_created", "_info")
    for sample in sorted(samples, key=lambda sample: sample.name not in first):
        labels = " ".join(f"{name}={value}" for name, value in sample.labels.items())
        if sample.name == first[0]:
            print(f"{'uptime_seconds':<36} {time.time() - sample.value:.0f}")
        elif sample.name.startswith("app_") and not sample.name.endswith(hidden):
            print(f"{sample.name.removeprefix('app_'):<36} {sample.value:g} {labels}")
    return Exit.OK


def openapi() -> Exit:
    """
    Print the API document.
    """
    print(json.dumps(_module("web").api().openapi(), indent=2, ensure_ascii=False))
    return Exit.OK


def show(arguments: argparse.Namespace) -> Exit:
    """
    Print the settings that differ from their defaults, or all, with their origin; and what routes
    declare for themselves.
    """
    from .chassis.rules import variable

    settings, origins, _ = _load()
    for name in type(settings).model_fields:
        origin = origins.get(name, "default")
        if arguments.all or origin != "default":
            print(f"{variable(name)}={_text(getattr(settings, name))}  # {origin}")
    if not arguments.all and not origins:
        print("Everything is as by default; `--all` shows it.")
    paths = _module("web").api().openapi()["paths"] if _has("web") else {}
    for path, operations in paths.items():
        for method, operation in operations.items():
            for name, limit in operation.get("x-limits", {}).items():
                print(f"# {method.upper()} {path}: {name}={limit}")
    return Exit.OK


def doc() -> Exit:
    """
    Print every setting as a commented assignment: the chassis' own, then the service's.
    """
    from .chassis.rules import variable
    from .chassis.settings import Settings as Chassis
    from .chassis.settings import expected
    from .settings import Settings

    own = [name for name in Settings.model_fields if name not in Chassis.model_fields]
    for title, names in (("the chassis", Chassis.model_fields), ("this service", own)):
        print(f"# Settings of {title}, which `config doc` prints.")
        for name in names:
            field = Settings.model_fields[name]
            default = None if field.is_required() else field.get_default(call_default_factory=True)
            print(f"#\n# {field.description} [{expected(Settings, name)}]")
            print(f"# {variable(name)}={_text(default)}")
        print()
    return Exit.OK


def main() -> NoReturn:
    """
    The console script and `python -m`.
    """
    # The kernel ignores a SIGTERM for PID 1 that has no handler, and imports take a while.
    code = Exit.TEMPORARY if sys.argv[1:2] == ["job"] else Exit.OK
    signal.signal(signal.SIGTERM, lambda *_: os._exit(code))
    signal.signal(signal.SIGINT, lambda *_: os._exit(code))
    # What `web` reacts to ends no other command.
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    # A socket must not take the place of a closed stdin, stdout or stderr.
    while os.open(os.devnull, os.O_RDWR) <= 2:  # noqa: PLR2004  # the number of stderr
        pass
    arguments = _parser().parse_args()
    try:
        sys.exit(arguments.run(arguments))
    except BrokenPipeError:
        # The reader, such as `head`, has seen enough.
        os._exit(Exit.OK)
    except Exception as error:  # noqa: BLE001  # told, and the process ends
        _tell("critical", "crash", error, cause="command")
        sys.exit(Exit.BUG)


def _run(kind: str, root: str, *arguments: object, dev: Any = None) -> None:
    """
    Compose the process type from the module *root*, and run it to its end; *dev* has its parent.
    """
    from .chassis.logs import Logs, get_logger
    from .chassis.process import Process

    loaded = _load(kind)
    # Nobody at a keyboard waits for a request in flight, and nobody sends a job anything.
    own = {"grace_seconds": 0.5} if dev else {"drain_seconds": 0} if kind == "job" else {}
    settings = loaded.settings.model_copy(update=own)
    on_terminal = settings.log_format == "auto" and sys.stdout.isatty()
    logs = Logs(
        _identity(settings.revision) | {"process_type": kind},
        console=on_terminal or settings.log_format == "console",
        level=settings.log_level,
        secrets=_secrets_in(settings),
    )
    loaded = loaded._replace(settings=settings)
    process = Process(loaded, package=PACKAGE, logs=logs, is_dev=bool(dev))
    process.stop_code = Exit.TEMPORARY if kind == "job" else Exit.OK
    process.install()
    log = get_logger()
    for name in loaded.unknown:
        log.warning("setting_unknown", variable=name, action="unset it: nothing reads it")
    if dev and dev.parent:
        # Ctrl-C reaches this process and `dev`, which then sends SIGTERM. One of them is enough.
        from .chassis.dev import follow

        signal.signal(signal.SIGINT, signal.SIG_IGN)
        process.supervise_thread("parent", partial(follow, dev.parent))
    try:
        _module(f"chassis.{kind}").run(_module(root).compose, process, *arguments)
    except Exception as error:  # noqa: BLE001  # the process ends
        process.crash("start", error)


def _module(name: str) -> Any:
    """
    A module of this service that not every one has.
    """
    return import_module(f".{name}", __package__)


def _has(name: str) -> bool:
    return find_spec(f".{name}", __package__) is not None


def _identity(revision: str) -> dict[str, str]:
    build = metadata(PACKAGE)
    return {"service": build["Name"], "version": build["Version"], "revision": revision}


def _load(kind: str = "") -> "Loaded[Any]":
    """
    Read the settings of a kind of process; log or print everything that is wrong, and exit.
    """
    from pydantic_settings import SettingsError

    from .chassis.environment import ConfigurationError, load
    from .settings import Settings

    try:
        return load(Settings, kind)
    except ConfigurationError as error:
        faults = error.faults
    except (OSError, SettingsError, UnicodeDecodeError) as error:
        faults = (("APP_SECRETS_DIR", f"can't be read as text: {error}"),)
    if sys.stderr.isatty():
        print(*(f"{name} {problem}" for name, problem in faults), sep="\n", file=sys.stderr)
    else:
        for name, problem in faults:
            _tell("error", "configuration_invalid", variable=name, problem=problem)
    sys.exit(Exit.CONFIGURATION)


def _tell_of_database(settings: Any, event: str, error: Exception, action: str) -> None:
    """
    An error of the database, with its place and without secrets.
    """
    from .chassis.settings import place_of
    from .chassis.sink import Sink

    cause = Sink(_secrets_in(settings)).mask(str(error).encode()).decode()
    place = place_of(settings.database_url.get_secret_value())
    _tell("error", event, cause=cause, action=action, **place)


def _tell(level: str, event: str, error: Exception | None = None, **fields: object) -> None:
    """
    One line, before there are logs or without: for a machine in their shape, for a person as text.
    """
    from .chassis.excerpt import Excerpt, dumps, fit, traceback_text
    from .chassis.sink import Sink

    stream = sys.stdout if level == "info" else sys.stderr
    head = {"timestamp": datetime.now(UTC), "level": level, "event": event}
    head |= _identity(os.environ.get("APP_REVISION", "unknown"))
    # Which of them is a secret is unknown before there are settings.
    values = [value for name, value in os.environ.items() if name.startswith("APP_")]
    sink = Sink(values if error else (), stream.fileno())
    if stream.isatty() and error:
        sink.msg(traceback_text(Excerpt(sink.cut).exceptions(error)).encode())
    elif stream.isatty():
        told = [f"{name}={value}" for name, value in fields.items() if name != "sql"]
        told += [f"\n{fields['sql']}"] if "sql" in fields else []
        print(f"{event:<20}", *told, file=stream)
    elif level == "info":
        # What the command was asked for is written whole, whatever its length.
        print(dumps({**head, **fields}).decode(), flush=True)
    else:
        sink.msg(fit({**head, **fields}, sink.cut, error))
    # A reader that stalls must not hold back the end.
    sink.flush(seconds=1)


def _text(value: object) -> str:
    """
    As one writes it into the environment; secrets masked.
    """
    from .chassis.settings import hide, mask

    if value is None or isinstance(value, str):
        return mask(value or "")
    if secrets := _secrets_in(value):
        return next(map(hide, filter(None, secrets)), "")
    plain = list(value) if isinstance(value, (tuple, set, frozenset)) else value
    return mask(json.dumps(plain, default=str, ensure_ascii=False).strip('"'))


def _secrets_in(value: object) -> list[str]:
    """
    The plain values of all secrets, at any depth: to mask them here and in the logs.
    """
    from pydantic import BaseModel, Secret, SecretBytes, SecretStr

    if isinstance(value, (Secret, SecretBytes, SecretStr)):
        plain = value.get_secret_value()
        return [plain.decode(errors="replace") if isinstance(plain, bytes) else str(plain)]
    parts = vars(value) if isinstance(value, BaseModel) else value
    parts = list(parts.values()) if isinstance(parts, Mapping) else parts
    if isinstance(parts, (list, tuple, set, frozenset)):
        return [secret for part in parts for secret in _secrets_in(part)]
    return []


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """
        Usage errors have their own exit code.
        """
        self.print_usage(sys.stderr)
        self.exit(Exit.USAGE, f"{self.prog}: error: {message}; see `{self.prog} --help`\n")


def _positive(text: str, *, most: int = 1000) -> int:
    """
    The number of a command line, or of the environment.
    """
    if not text.isdecimal() or not 0 < int(text) <= most:
        raise argparse.ArgumentTypeError(f"must be a number from 1 to {most}, got {text!r}")
    return int(text)


def _parser() -> argparse.ArgumentParser:
    build, raw = metadata(PACKAGE), argparse.RawDescriptionHelpFormatter
    parser = _Parser(build["Name"], None, build["Summary"], EPILOG, formatter_class=raw)
    parser.add_argument("--version", action="version", version=f"%(prog)s {build['Version']}")
    commands, parsers = parser.add_subparsers(required=True, metavar="COMMAND"), dict[str, Any]()
    # Its name, the module it needs, what it runs, and what it is for.
    for name, needs, run, told in (
        ("web", "web", lambda _: _run("web", "web"), "serve until SIGTERM"),
        ("worker", "worker", lambda _: _run("worker", "worker"), "handle messages until SIGTERM"),
        ("dev", "", dev, "run all process types with reload, .env and what they need"),
        ("preflight", "", lambda _: preflight(), "check settings and backing services at once"),
        ("openapi", "web", lambda _: openapi(), "print the API document"),
        ("status", "", status, "show the process that runs on this machine, or exit 69"),
        ("job", "tasks", job, "run a job once"),
        ("migrate", "migrations", migrate, "apply, take back or show migrations of the database"),
        ("dead", "chassis.dead", dead, "list, retry or drop the messages that failed too often"),
    ):
        if not needs or _has(needs):
            parsers[name] = commands.add_parser(name, help=told, description=told)
            parsers[name].set_defaults(run=run)
    one = parsers["status"]
    kinds = [kind for kind in ("web", "worker") if _has(kind)]
    told = "of which process type it must be"
    one.add_argument("process_type", nargs="?", choices=kinds, metavar="TYPE", help=told)
    host, port = os.environ.get("APP_HOST", "127.0.0.1"), os.environ.get("APP_ADMIN_PORT", "8001")
    one.add_argument("--host", type=ip_address, default=host, help="if not that of APP_HOST")
    told, valid = "if not that of APP_ADMIN_PORT", partial(_positive, most=65535)
    one.add_argument("--admin-port", "--port", type=valid, default=port, help=told)
    one = parsers["dev"]
    told = "only this one, in this process and without reload, as for a debugger"
    one.add_argument("process_type", nargs="?", choices=kinds, metavar="TYPE", help=told)
    one.add_argument("--parent", type=int, help=argparse.SUPPRESS)
    if one := parsers.get("job"):
        one.add_argument("name", nargs="?", metavar="NAME", help="which; --list tells them")
        one.add_argument("--list", action="store_true", help="print the names of all jobs")
    if one := parsers.get("migrate"):
        steps = one.add_subparsers(dest="steps", required=True, metavar="up|down|status")
        up = steps.add_parser("up", help="apply what is missing")
        up.add_argument("--dry-run", action="store_true", help="only print what would be done")
        down = steps.add_parser("down", help="take back the last N steps; without a count, print")
        down.add_argument("back", type=_positive, metavar="N", help="so many")
        for step, default in ((up, 0), (down, None)):
            told = "do it although, and only if, so many rows are removed"
            step.add_argument("--yes-remove", type=int, default=default, metavar="ROWS", help=told)
        down.set_defaults(dry_run=False)
        steps.add_parser("status", help="print which are applied, missing or unknown here")
    if one := parsers.get("dead"):
        acts = one.add_subparsers(dest="act", required=True, metavar="list|retry|drop")
        for act, does in (
            ("list", "show what is dead; with ids, its payload and traceback too"),
            ("retry", "handle messages again, as if they were new"),
            ("drop", "delete messages for good"),
        ):
            which = acts.add_parser(act, help=does, description=does)
            which.add_argument("ids", nargs="*", type=int, metavar="ID")
            which.add_argument("--name", help="those of this name")
            if act != "list":
                which.add_argument("--all", action="store_true", help="those of every name")
                told = "how many these are: without it, nothing is done"
                which.add_argument("--count", type=int, help=told)
    config = commands.add_parser("config", help="show or document the settings")
    what = config.add_subparsers(required=True, metavar="show|doc")
    shown = what.add_parser("show", help="print what differs from the defaults, and its origin")
    shown.add_argument("--all", action="store_true", help="print the defaults too")
    shown.set_defaults(run=show)
    printed = what.add_parser("doc", help="print the configuration reference, in the form of .env")
    printed.set_defaults(run=lambda _: doc())
    return parser


if __name__ == "__main__":
    main()
