"""
Settings: typed values of the environment, one field per variable, the docstring its meaning.

A service subclasses `Settings` and adds its own; `environment.load` reads them.
"""

import os
import re
from ipaddress import IPv4Address
from typing import Annotated, Any, Literal
from urllib.parse import parse_qsl, unquote, urlsplit

from pydantic import Field, ValidationError
from pydantic.functional_validators import AfterValidator, BeforeValidator, field_validator
from pydantic.networks import IPvAnyAddress, IPvAnyNetwork
from pydantic.types import DirectoryPath, FilePath, Secret
from pydantic_core import from_json
from pydantic_core.core_schema import ValidatorFunctionWrapHandler
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from .rules import PREFIX

__all__ = ["Port", "Seconds", "Settings", "Url", "expected", "hide", "mask", "place_of"]

WORDS = {"array": "JSON array", "boolean": "true/false", "object": "JSON object", "string": "text"}

Port = Annotated[int, Field(ge=1, le=65535)]
Seconds = Annotated[float, Field(gt=0, le=86400)]
_DSN = r"^https?://\w+@[^/?#\s@]+(/[^?#\s]*)?/\d+$"
# An @ ends the credentials: one that belongs to a name or password is percent-encoded.
_DATABASE = r"^postgres(ql)?://([^/?#\s@]*@[^/?#\s@]*|[^/?#\s@]+)/[^/?#\s@]+(\?[^#\s]*)?$"
_TLS = {"disable", "allow", "prefer", "require", "verify-ca", "verify-full"}
Url = Annotated[str, Field(pattern=r"^https?://[^/?#\s@]+(/[^?#\s]*)?$")]
# A browser never sends a default port.
_ORIGIN = r"(?!http:.*:80$|https:.*:443$)[a-z-]+://([a-z0-9_.-]+|\[[0-9a-f:.]+\])(:[1-9][0-9]*)?"
_AnyCase = BeforeValidator(lambda value: value.lower() if isinstance(value, str) else value)


def _check_url(url: str) -> str:
    """
    Raises ValueError where the driver would find out only when it connects.
    """
    parts = urlsplit(url)
    for host in parts.netloc.rpartition("@")[2].split(","):
        # `port` raises ValueError if it is not a number.
        _ = urlsplit(f"//{host}").port
    told = dict(parse_qsl(parts.query, keep_blank_values=True))
    if (mode := told.get("sslmode", "prefer")) not in _TLS:
        raise ValueError(f"sslmode must be one of {', '.join(sorted(_TLS))}, got {mode!r}")
    if mode.startswith("verify") and "sslrootcert" not in told:
        raise ValueError(f"sslmode={mode} needs sslrootcert=FILE, with whom to trust")
    for name in ("sslrootcert", "sslcert", "sslkey", "sslcrl"):
        if name in told and not os.access(told[name], os.R_OK):
            raise ValueError(f"{name} names {told[name]!r}, a file that can't be read")
    return url


def _check_origin(origin: str) -> str:
    """
    Raises ValueError for what no browser sends: nothing would be equal to it.
    """
    if not re.fullmatch(_ORIGIN, origin):
        raise ValueError(f"{mask(origin)!r} is not an origin, such as https://app.example.com:8443")
    return origin


_DatabaseUrl = Annotated[str, Field(pattern=_DATABASE), AfterValidator(_check_url)]


class Settings(BaseSettings):
    """
    What every process of a service needs to know; the defaults suit production.
    """

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        frozen=True,
        extra="forbid",
        allow_inf_nan=False,
        enable_decoding=False,
        hide_input_in_errors=True,
        use_attribute_docstrings=True,
        validate_default=True,
    )
    # The kind of process that these are for; empty for any.
    _kind: str = ""
    host: IPvAnyAddress = IPv4Address("127.0.0.1")
    """IP address that both listeners bind."""
    port: Port = 8000
    """TCP port of the service."""
    admin_port: Port = 8001
    """TCP port of the probes and metrics."""
    probes_on_public_port: bool = False
    """Serve the probes on the public port too, for platforms that know only one."""
    api_docs: bool = False
    """Serve the API document at /openapi.json and its pages at /docs."""
    log_level: Annotated[Literal["debug", "info", "warning", "error"], _AnyCase] = "info"
    """Least level that is logged."""
    log_format: Annotated[Literal["auto", "json", "console"], _AnyCase] = "auto"
    """auto means console on a terminal and json elsewhere."""
    request_deadline_seconds: Seconds = 10
    """A request that takes longer is answered with 504."""
    in_flight_max: Annotated[int, Field(ge=1)] = 1000
    """More requests at once are answered with 503."""
    shed_lag_seconds: Seconds = 0.1
    """While the event loop is later than this, requests are answered with 503."""
    trusted_proxies: tuple[IPvAnyNetwork, ...] = ()
    """Networks whose X-Forwarded-For and X-Forwarded-Proto count, such as ["10.0.0.0/8"]."""
    cors_origins: tuple[Annotated[str, AfterValidator(_check_origin)], ...] = ()
    """Origins whose pages may read every answer (CORS), such as ["https://app.example.com"]."""
    header_receive_seconds: Seconds = 5
    """A client that takes longer to send the head of a request is answered with 408."""
    write_stall_seconds: Seconds = 10
    """A client that reads nothing of its answer for this long is disconnected."""
    header_max_bytes: Annotated[int, Field(ge=1024)] = 16_384
    """A larger head of a request is answered with 431, and so are more than 100 fields."""
    connections_max: Annotated[int, Field(ge=1)] = 4096
    """A connection beyond this number is answered with 503."""
    body_max_bytes: Annotated[int, Field(ge=0)] = 1_048_576
    """A larger request body is answered with 413."""
    keep_alive_seconds: Seconds = 75
    """An idle connection is closed after this time."""
    drain_seconds: Annotated[float, Field(ge=0, le=86400)] = 5
    """After SIGTERM, time to go on serving while load balancers notice."""
    grace_seconds: Seconds = 25
    """After the drain, time for requests in flight to finish."""
    watchdog_seconds: Seconds = 15
    """An event loop that is blocked for longer ends the process."""
    out_connect_seconds: Seconds = 1
    """Limit of connecting to another service."""
    out_attempt_seconds: Seconds = 2
    """Limit of one attempt to call another service."""
    out_total_seconds: Seconds = 5
    """Limit of a call to another service, with its retries and their pauses."""
    out_attempts: Annotated[int, Field(ge=1, le=10)] = 3
    """Most attempts of one call; only what is idempotent is repeated."""
    out_retry_ratio: Annotated[float, Field(ge=0, le=1)] = 0.1
    """Most retries as a share of the calls to one service, after the first ten."""
    out_in_flight_max: Annotated[int, Field(ge=1, le=10_000)] = 64
    """Most calls at once to one service; a further one fails at once."""
    out_body_max_bytes: Annotated[int, Field(ge=0)] = 1_048_576
    """A larger answer of another service is an error."""
    database_url: Secret[_DatabaseUrl] | None = None
    """PostgreSQL, as postgresql://USER:PASSWORD@HOST/NAME?sslmode=verify-full&sslrootcert=FILE."""
    database_password_file: FilePath | None = None
    """File with the password, read at each connect; the one in the URL does not count then."""
    pool_size_max: Annotated[int, Field(ge=1, le=1000)] = 10
    """Most connections of one process to the database."""
    pool_waiting_max: Annotated[int, Field(ge=1, le=10_000)] = 100
    """Most who wait for a connection; a further one fails at once."""
    pool_checkout_seconds: Seconds = 2
    """Limit of the wait for a connection."""
    database_connect_seconds: Seconds = 3
    """Limit of opening a connection."""
    database_statement_seconds: Seconds = 5
    """Limit of one SQL statement."""
    database_lock_seconds: Seconds = 1
    """Limit of the wait for a lock in the database."""
    database_idle_in_transaction_seconds: Seconds = 15
    """A transaction in which nothing happens for longer is ended by the database."""
    database_client_check_seconds: Seconds = 2
    """How often the database looks whether who asked is still there."""
    migration_lock_seconds: Seconds = 3
    """Limit of the wait of a migration for a lock; it is tried five times."""
    migration_statement_seconds: Seconds = 600
    """Limit of one statement of a migration."""
    message_concurrency: Annotated[int, Field(ge=1, le=1000)] = 10
    """Most messages that one worker handles at once."""
    message_deadline_seconds: Seconds = 20
    """Limit of handling a message; then it has failed."""
    message_attempts: Annotated[int, Field(ge=1, le=100)] = 5
    """A message that fails so often is dead: it waits for a person."""
    message_backoff_seconds: Seconds = 1
    """Pause after the first failure of a message; it doubles each time, up to an hour."""
    message_poll_seconds: Seconds = 1
    """How often an idle worker looks for messages: what it adds to the time until one is begun."""
    message_dead_days: Annotated[int, Field(ge=1, le=3650)] = 90
    """A dead message is forgotten after so many days."""
    heartbeat_seconds: Seconds = 10
    """How often a worker says of its messages that it is alive."""
    message_stall_seconds: Seconds = 30
    """A message whose worker has not been heard of for so long is handled by another."""
    job_max_runtime_seconds: Seconds = 3000
    """Limit of one run of a job."""
    job_interval_seconds: Annotated[float, Field(gt=0, le=31_622_400)] = 86_400
    """Declared: time between two starts of a job."""
    job_jitter_seconds: Annotated[float, Field(ge=0, le=86400)] = 0
    """Jitter: before it starts, a job waits for a random time of at most this."""
    job_lock_dir: DirectoryPath | None = None
    """Folder for the locks of jobs where no database is; that of temporary files if unset."""
    job_ping_url: Secret[Url] | None = None
    """Dead man's switch: gets URL/start, URL and URL/EXITCODE; {job} in it becomes the name."""
    job_metrics_dir: DirectoryPath | None = None
    """Folder of node_exporter's textfile collector, for the time of a job's last success."""
    backup_dir: DirectoryPath | None = None
    """Folder that backups are in."""
    backup_keep: Annotated[int, Field(ge=1, le=10_000)] = 14
    """Most backups that are kept there."""
    backup_scratch_url: Secret[_DatabaseUrl] | None = None
    """PostgreSQL where a backup is restored to prove it, if not the service's own."""
    backup_restore: FilePath | None = None
    """Backup that the job `restore` puts into an empty database; without it, it only looks."""
    check_interval_seconds: Seconds = 1
    """Time between two runs of a readiness check."""
    check_timeout_seconds: Seconds = 0.5
    """Limit of one run of a readiness check."""
    environment: str = "production"
    """Where this runs, for error tracker and traces."""
    sentry_dsn: Secret[Annotated[str, Field(pattern=_DSN)]] | None = None
    """Where unexpected errors are reported: https://KEY@HOST/PROJECT; only with `sentry`."""
    otlp_endpoint: Url | None = None
    """OTLP/HTTP collector, such as http://localhost:4318; only with `opentelemetry`."""
    trace_sample_ratio: Annotated[float, Field(ge=0, le=1)] = 1
    """Share of requests that are traced, where the caller did not decide."""
    telemetry_flush_seconds: Seconds = 2
    """Limit of what is still sent to tracker and collector when the process ends."""
    platform_grace_seconds: Seconds = 45
    """Declared: time the platform waits before SIGKILL, from the start of its pause if any."""
    pre_stop_seconds: Annotated[float, Field(ge=0, le=86400)] = 0
    """Declared: pause of the platform before SIGTERM."""
    probe_timeout_seconds: Seconds = 1
    """Declared: limit of one startup or readiness probe."""
    readiness_period_seconds: Annotated[float, Field(ge=0, le=86400)] = 2
    """Declared: time between two readiness probes; 0 if nothing balances."""
    readiness_failures: Annotated[int, Field(ge=1)] = 2
    """Declared: failed readiness probes after which no more requests are sent."""
    liveness_period_seconds: Seconds = 10
    """Declared: time between two liveness probes."""
    liveness_timeout_seconds: Seconds = 25
    """Declared: limit of one liveness probe; longer than the watchdog takes."""
    liveness_failures: Annotated[int, Field(ge=1)] = 3
    """Declared: failed liveness probes after which the process is replaced."""
    lb_idle_seconds: Seconds = 60
    """Declared: idle time after which the load balancer disconnects."""
    lb_response_seconds: Seconds = 30
    """Declared: time the load balancer waits for an answer."""
    replicas: Annotated[int, Field(ge=1)] = 2
    """Declared: processes of each type that run at once."""
    surge: Annotated[int, Field(ge=0)] = 1
    """Declared: processes of each type that run besides, while a new version is rolled out."""
    revision: str = "unknown"
    """Commit that the image was built from; set by the image."""
    secrets_dir: DirectoryPath | None = None
    """Folder with a file per secret, named like its variable."""

    @classmethod
    def settings_customise_sources(  # type: ignore[override]  # the other sources are not asked
        cls, _: type[BaseSettings], init_settings: PydanticBaseSettingsSource, **__: object
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """
        Only what `environment.load` hands over, so that each value's origin is known.
        """
        return (init_settings,)

    @field_validator("*", mode="wrap")
    @classmethod
    def _parse_json(cls, value: object, validate: ValidatorFunctionWrapHandler) -> object:
        """
        Lists and mappings are written as JSON; what is text by its type stays text.
        """
        try:
            return validate(value)
        except ValidationError:
            if not isinstance(value, str) or value[:1] not in {"[", "{"}:
                raise
            return validate(from_json(value))


def expected(cls: type[Settings], name: str) -> str:
    """
    Type and limits of a field in words, such as "integer, minimum 1, maximum 65535".
    """
    whole = cls.model_json_schema()
    schema: dict[str, Any] = whole["properties"].get(name, {})
    # Without the alternative null, and without a reference.
    schema |= next((part for part in schema.get("anyOf", ()) if part.get("type") != "null"), {})
    schema |= whole.get("$defs", {}).get(schema.get("$ref", "").removeprefix("#/$defs/"), {})
    if "enum" in schema:
        return "one of " + ", ".join(map(str, schema["enum"]))
    kind = schema.get("format", schema.get("type", "any")).replace("ipvany", "IP ")
    kind = WORDS.get(kind, kind)
    limits = [f"{key} {value}" for key, value in schema.items() if "imum" in key or "Length" in key]
    return ", ".join([kind, *limits])


def place_of(url: str) -> dict[str, Any]:
    """
    What may be shown of the URL of a database. Of several hosts, all but the last keep their port.

    asyncpg reads a host in the query if there is none before the path.
    """
    parts, given = urlsplit(url), dict(parse_qsl(urlsplit(url).query))
    hosts = unquote(parts.netloc.rpartition("@")[2])
    hosts = hosts or f"{given.get('host', '')}:{given.get('port', 5432)}"
    [(host, port)] = re.findall(r"^(.*?)(?::(\d+))?$", hosts)
    return {"host": host, "port": int(port or 5432), "database": unquote(parts.path[1:])}


def hide(secret: str) -> str:
    """
    Stars; of the URL of a database, its place is left.
    """
    url = "postgresql://**********@{host}:{port}/{database}"
    return url.format_map(place_of(secret)) if re.match(_DATABASE, secret) else "**********"


def mask(text: str) -> str:
    """
    Hide the credentials of URLs in *text*.
    """
    return re.sub(r"://[^/?#\s]*@", "://**********@", text)
