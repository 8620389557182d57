"""
Each check of `python -m ops` has a world in which it passes, and a fault with which it fails.
"""

import functools
import http.server
import json
import re
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dns.message
import dns.rdatatype
import dns.rrset
import pytest
from harness import ROOT
from ops.tools import envelope
from ops.tools.checks import CHECKS
from ops.tools.finding import Finding, Result
from ops.tools.project import Project

pytestmark = pytest.mark.covers(
    "template/ops/*",
)

Copy = Callable[..., Path]
Edit = Callable[["World"], None]

EVERYTHING: dict[str, Any] = {
    "processes": ["web", "worker", "job"],
    "database": "postgresql",
    "deploy": ["compose", "kubernetes", "systemd", "nomad"],
    "owner": "payments",
}
FRESH: list[dict[str, Any]] = [
    {},
    {"processes": ["job"], "deploy": [], "ci": "none"},
    {"processes": ["web", "job"], "deploy": ["compose", "systemd"], "ci": "gitlab"},
    EVERYTHING,
]
ALERTS = """
groups:
  - name: all
    rules:
      - record: job:slow
        expr: rate(app_request_duration_seconds_bucket{le="1.0"}[5m])
"""
ALERT = """\
      - alert: {name}
        expr: {expr}
        labels: {{severity: page, objective: {objective}}}
        annotations: {{summary: s, description: d, runbook_url: "ops/runbooks/a.md#{anchor}"}}
"""
EXPRESSIONS = {
    "availability": "rate(app_requests_shed_total[1h]) > (14.4 * 0.001)",
    "latency": "job:slow > 6 * 0.01 and job:slow > (6 * 0.01)",
    "queue_age": "app_messages_oldest_seconds > 300",
    "job_age": "time() - app_job_last_success_timestamp_seconds > 26 * 3600",
}
POSTMORTEM = """
| action | owner | due | done |
| --- | --- | --- | --- |
| mend it | Ada | 2999-01-31 | |
"""


class World:
    """
    A project, and what surrounds it.
    """

    def __init__(self, root: Path, patch: pytest.MonkeyPatch) -> None:
        self.root, self.patch = root, patch
        self.names: dict[str, str] = {}
        self.samples: dict[str, float] = {}

    def replace(self, name: str, old: str, new: str) -> None:
        path = self.root / name
        text = path.read_text()
        assert old in text, f"{name} does not hold {old!r}"
        path.write_text(text.replace(old, new))

    def write(self, name: str, text: str) -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def find(self, name: str) -> Finding:
        return CHECKS[name](Project(self.root))


def _replace(name: str, old: str, new: str) -> Edit:
    return lambda world: world.replace(name, old, new)


def _declare(old: str, new: str) -> Edit:
    return _replace("ops/service.yaml", old, new)


def _set(name: str, text: str) -> Edit:
    return lambda world: world.patch.setenv(name, text)


def _serve_dns(world: World) -> int:
    """
    Name servers by domain, over UDP; for another there is no such name.
    """
    listener = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    listener.bind(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                data, sender = listener.recvfrom(4096)
            except OSError:
                return
            query = dns.message.from_wire(data)
            answer = dns.message.make_response(query)
            name = query.question[0].name
            if target := world.names.get(str(name).rstrip(".")):
                answer.answer.append(dns.rrset.from_text(name, 60, "IN", "NS", target))
            else:
                answer.set_rcode(dns.rcode.NXDOMAIN)
            listener.sendto(answer.to_wire(), sender)

    threading.Thread(target=serve, daemon=True).start()
    port: int = listener.getsockname()[1]
    return port


def _certificate(folder: Path, days: int) -> Path:
    path = folder / "server.pem"
    command = ["openssl", "req", "-x509", "-nodes", "-newkey", "rsa:2048", "-subj", "/CN=localhost"]
    command += ["-addext", "subjectAltName=DNS:localhost", "-days", str(days)]
    command += ["-keyout", str(folder / "key.pem"), "-out", str(path)]
    subprocess.run(command, check=True, capture_output=True)
    return path


def _serve_tls(folder: Path, days: int) -> int:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(_certificate(folder, days), folder / "key.pem")

    class Plain(http.server.BaseHTTPRequestHandler):
        pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Plain)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    # A client that goes after the handshake is no news.
    server.handle_error = lambda *_: None  # type: ignore[method-assign]
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return int(server.server_port)


def _serve_prometheus(world: World) -> int:
    """
    Answers as Prometheus' HTTP API does, with the samples of the first metric that is named.
    """

    class Api(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = [
                {"metric": {}, "value": [time.time(), str(value)]}
                for name, value in world.samples.items()
                if name in self.path
            ]
            body = {"status": "success", "data": {"resultType": "vector", "result": found}}
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(json.dumps(body).encode())

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Api)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server.server_port


@pytest.fixture(name="rendered", scope="module")
def _rendered(copy: Copy) -> Path:
    """
    Everything that can be chosen, with its environment.
    """
    return copy(**EVERYTHING)


@pytest.fixture(name="release", scope="module")
def _release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """
    A repository with releases of a template.
    """
    folder = tmp_path_factory.mktemp("release")
    for command in (
        ["init", "--quiet"],
        ["commit", "--quiet", "--allow-empty", "--message=one"],
        ["tag", "v1.2.0"],
        ["tag", "v1.10.0"],
    ):
        subprocess.run(["git", *command], cwd=folder, check=True)
    return folder


@pytest.fixture(name="world")
def _world(rendered: Path, release: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """
    A service with everything as it should be.
    """
    root = tmp_path / "order-desk"
    shutil.copytree(rendered, root, ignore=shutil.ignore_patterns(".venv"))
    monkeypatch.setattr(sys, "executable", str(rendered / ".venv" / "bin" / "python"))
    world = World(root, monkeypatch)
    monkeypatch.setenv("APP_DATABASE_URL", "postgresql://desk@localhost/desk")
    monkeypatch.setenv("OPS_RESOLVER", f"127.0.0.1:{_serve_dns(world)}")
    world.names = {"example.com": "a.ns.example.net.", "example.org": "b.hoster.example."}
    world.samples = {"up": 1, "app_job_last_success": time.time() - 3600}
    text = (root / "ops" / "service.yaml").read_text()
    for old, new in {
        "<A, B or C>": "B",
        "<the person who knows it best>": "Ada Lovelace",
        "<another person who can deploy and roll back>": "Grace Hopper",
        "<channel or address that somebody reads>": "desk@example.com",
        "<who is called when nobody answers>": "on-call",
        "<https address of the service>": "https://desk.example.com",
        "<https address of the status page>": "https://status.example.org",
        "<address of the Prometheus that scrapes it>": (
            f"http://127.0.0.1:{_serve_prometheus(world)}"
        ),
    }.items():
        assert old in text
        text = text.replace(old, new)
    world.write("ops/service.yaml", text)
    _humans(world)
    world.write("ops/postmortems/2026-01-31-oops.md", POSTMORTEM)
    answers = (root / ".copier-answers.yml").read_text().splitlines()
    kept = [line for line in answers if not line.startswith(("_commit", "_src_path"))]
    world.write(
        ".copier-answers.yml",
        "\n".join([*kept, "_commit: v1.10.0", f"_src_path: {release}", ""]),
    )
    base = "docker.io/library/python:3.13-slim-trixie"
    world.replace("Dockerfile", f"={base}", f"={base}@sha256:{'0' * 64}")
    overlay = "deploy/kubernetes/overlays/production/kustomization.yaml"
    world.replace(overlay, "registry.example.com", "registry.desk.example")
    return world


@pytest.fixture(name="made", scope="module")
def _made(copy: Copy) -> Copy:
    """
    A service with its environment, for tests that don't change it.
    """
    return functools.lru_cache(lambda answers: copy(**json.loads(answers)))


@pytest.fixture(name="small")
def _small(
    made: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., World]:
    """
    A service that has just been made.
    """

    def small(**answers: Any) -> World:
        folder = made(json.dumps(answers))
        monkeypatch.setattr(sys, "executable", str(folder / ".venv" / "bin" / "python"))
        shutil.copytree(folder, tmp_path / "made", ignore=shutil.ignore_patterns(".venv"))
        return World(tmp_path / "made", monkeypatch)

    return small


def _humans(world: World) -> None:
    """
    Small alerts, runbooks and a dashboard: each check is about one trait of them.
    """
    for name in ("alerts", "runbooks", "dashboards"):
        shutil.rmtree(world.root / "ops" / name, ignore_errors=True)
    names = {objective: objective.replace("_", "").capitalize() for objective in EXPRESSIONS}
    world.write(
        "ops/alerts/all.yaml",
        ALERTS
        + "".join(
            ALERT.format(name=names[key], expr=expr, objective=key, anchor=names[key].lower())
            for key, expr in EXPRESSIONS.items()
        ),
    )
    cases = [{"alertname": name, "exp_alerts": [{}]} for name in names.values()]
    world.write("ops/alerts/tests/all.yaml", json.dumps({"tests": [{"alert_rule_test": cases}]}))
    sections = [*names.values(), *(f"exit-{code}" for code in (64, 69, 70, 75, 78))]
    world.write("ops/runbooks/a.md", "\n".join(f"## {name}" for name in sections))
    panels = {"panels": [{"targets": [{"expr": "sum by (job) (rate(app_errors_total[5m]))"}]}]}
    world.write("ops/dashboards/all.json", json.dumps(panels))


def _expire(world: World) -> None:
    _reach(world, 20)


def _reach(world: World, days: int) -> None:
    """
    The service is on this machine, with a certificate for that long.
    """
    port = _serve_tls(world.root.parent, days)
    world.patch.setenv("OPS_CA_FILE", str(world.root.parent / "server.pem"))
    world.replace("ops/service.yaml", "https://desk.example.com", f"https://localhost:{port}")


def _track(world: World) -> None:
    world.write(".env", "APP_SENTRY_DSN=x")
    subprocess.run(["git", "init", "--quiet"], cwd=world.root, check=True)
    subprocess.run(["git", "add", "--force", ".env"], cwd=world.root, check=True)


def _same_provider(world: World) -> None:
    world.names["example.org"] = "z.ns.example.net."


def _down(world: World) -> None:
    world.samples["up"] = 0


def _old_backup(world: World) -> None:
    world.samples["app_job_last_success"] = time.time() - 27 * 3600


def _edit(world: World) -> None:
    path = world.root / "src" / "order_desk" / "chassis" / "limits.py"
    path.write_text(path.read_text() + "# ours\n")


def _stop_pipelines(world: World) -> None:
    shutil.rmtree(world.root / ".github")


def _write_envelope(world: World) -> None:
    world.write(envelope.PATH, envelope.envelope(Project(world.root)))


def _promise_more(world: World) -> None:
    _write_envelope(world)
    world.replace("ops/service.yaml", "percent: 99.9", "percent: 99.95")


ALL, RUNBOOK = "ops/alerts/all.yaml", "ops/runbooks/a.md"
DEPLOYMENT = "deploy/kubernetes/base/deployment.yaml"
WORKER = "deploy/kubernetes/base/worker.yaml"
UNIT = "deploy/systemd/order-desk.service"
NOMAD = "deploy/nomad/order-desk.nomad.hcl"
OVERLAY = "deploy/kubernetes/overlays/production/kustomization.yaml"
MIGRATION = "src/order_desk/migrations/versions/0002_messages.py"
DROP = "capabilities:\n              drop: [ALL]"

FAULTS: list[tuple[str, Edit]] = [
    ("admin_port_private", _replace("compose.yaml", "127.0.0.1:8001:8001", "8001:8001")),
    (
        "admin_port_private",
        _replace("deploy/kubernetes/base/service.yaml", "targetPort: http", "targetPort: admin"),
    ),
    (
        "admin_port_private",
        _replace("deploy/kubernetes/base/network.yaml", "port: 8000", "port: 8001"),
    ),
    ("admin_port_private", _set("APP_PROBES_ON_PUBLIC_PORT", "true")),
    ("alert_actions", _replace(ALL, "severity: page", "severity: warning")),
    ("alert_actions", _replace(ALL, "description: d, ", "")),
    ("alert_metrics", _replace(ALL, "app_requests_shed_total", "app_requests_shed")),
    ("alert_runbooks", _replace(RUNBOOK, "## Latency", "## Slowness")),
    ("alert_tests", _replace("ops/alerts/tests/all.yaml", "Latency", "Availability")),
    ("alerts_for_objectives", _declare("percent: 99.9", "percent: 99.95")),
    ("alerts_for_objectives", _declare("seconds: 1,", "seconds: 2,")),
    ("alerts_for_objectives", _declare("seconds: 300", "seconds: 200")),
    ("alerts_for_objectives", _declare("hours: 26", "hours: 2")),
    ("alerts_for_objectives", _replace(ALL, "objective: latency", "objective: other")),
    ("audit_scheduled", _replace(".github/workflows/audit.yml", "schedule:", "release:")),
    ("backups_recent", _old_backup),
    ("base_image_pinned", _replace("Dockerfile", "@sha256:", ":")),
    ("base_image_pinned", _replace(OVERLAY, "registry.desk.example", "registry.example.com")),
    ("certificate", _expire),
    ("ci_present", _stop_pipelines),
    ("configuration", _set("APP_PORT", "0")),
    ("configuration", lambda world: world.patch.delenv("APP_DATABASE_URL")),
    ("containers_hardened", _replace(DEPLOYMENT, DROP, "capabilities: {}")),
    ("containers_hardened", _replace("compose.yaml", "    read_only: true\n", "")),
    ("containers_hardened", _replace(UNIT, "NoNewPrivileges=yes", "NoNewPrivileges=no")),
    ("containers_hardened", _replace(NOMAD, "readonly_rootfs = true", "readonly_rootfs = false")),
    ("dashboard_metrics", _replace("ops/dashboards/all.json", "app_errors", "app_mistakes")),
    ("declaration_complete", _declare("on-call", "<who>")),
    ("dependencies_declared", _declare("name: postgresql", "name: mysql")),
    ("dependencies_declared", _declare("APP_DATABASE_STATEMENT_SECONDS", "APP_DB_SECONDS")),
    ("dependencies_declared", _set("APP_ANNOUNCE_URL", "https://announce.example.com")),
    (
        "disruption_budget",
        _replace(
            "deploy/kubernetes/base/disruption.yaml", "maxUnavailable: 1", "maxUnavailable: 0"
        ),
    ),
    ("image_hardened", _replace("Dockerfile", "USER 10001:10001", "USER root")),
    (
        "image_hardened",
        _replace("Dockerfile", 'ENTRYPOINT ["/app/bin/order-desk"]', "ENTRYPOINT x"),
    ),
    ("image_hardened", _replace("Dockerfile", "ARG REVISION=unknown", "ARG API_KEY=x")),
    ("job_runtime", _set("APP_JOB_INTERVAL_SECONDS", "3000")),
    (
        "job_runtime",
        _replace("deploy/systemd/order-desk-job@.service", "MaxSec=3600", "MaxSec=3000"),
    ),
    (
        "job_runtime",
        _replace("deploy/kubernetes/base/job.yaml", "DeadlineSeconds: 3600", "DeadlineSeconds: 60"),
    ),
    ("lock_file", _replace("pyproject.toml", '"orjson>=3.13,<4"', '"orjson>=3.14,<4"')),
    ("memory_limited", _replace(WORKER, "limits:", "other:")),
    ("memory_limited", _replace("compose.yaml", "mem_limit: 512m", "init: true")),
    ("memory_limited", _replace(UNIT, "MemoryMax=512M", "")),
    ("metrics_scraped", _down),
    ("migrations_reversible", _replace(MIGRATION, "def downgrade()", "def undo()")),
    ("name_servers", _same_provider),
    ("owner_named", _replace("CODEOWNERS", "@payments", "@your-team")),
    ("replicas", _replace(DEPLOYMENT, "replicas: 2", "replicas: 1")),
    ("replicas", lambda world: world.write(OVERLAY, "replicas: [{name: web, count: 1}]")),
    ("replicas", _replace(NOMAD, "default = 2", "default = 1")),
    ("replicas", _declare("tier: B", "tier: A")),
    ("replicas_spread", _replace(WORKER, "kubernetes.io/hostname", "rack")),
    ("replicas_spread", _replace(NOMAD, "node.unique.id", "node.class")),
    ("restart_policy", _replace(UNIT, "RestartPreventExitStatus=64 78", "")),
    (
        "restart_policy",
        _replace("deploy/kubernetes/base/job.yaml", "values: [64, 78]", "values: [64]"),
    ),
    ("runbook_sections", _replace(RUNBOOK, "## exit-78", "## other")),
    ("runbook_sections", _replace(RUNBOOK, "## exit-64", "## exit-64\n[x](b.md#gone)")),
    ("envelope_current", _promise_more),
    (
        "postmortem_actions",
        _replace("ops/postmortems/2026-01-31-oops.md", "2999-01-31", "2026-01-31"),
    ),
    ("postmortem_actions", _replace("ops/postmortems/2026-01-31-oops.md", "Ada", "")),
    ("secrets_ignored", _replace(".gitignore", ".env", ".other")),
    ("secrets_ignored", lambda world: world.write(".dockerignore", "")),
    ("secrets_ignored", _track),
    ("status_page", _declare("status.example.org", "status.example.com")),
    ("status_page", _declare("https://status", "http://status")),
    ("template_files", _edit),
    ("template_version", _replace(".copier-answers.yml", "v1.10.0", "v1.2.0")),
    ("times_consistent", _replace(DEPLOYMENT, "PeriodSeconds: 45", "PeriodSeconds: 30")),
    ("times_consistent", _replace(UNIT, "TimeoutStopSec=45", "TimeoutStopSec=44")),
    ("times_consistent", _replace(NOMAD, '"45s"', '"30s"')),
    ("times_consistent", _replace("compose.yaml", "period: 45s", "period: 10s")),
    ("times_consistent", _set("APP_DRAIN_SECONDS", "60")),
    ("two_people", _declare("Grace Hopper", "ada  LOVELACE")),
]

# Of these, what is wrong may be what nobody had the time for yet.
NOT_YET = {
    *("audit_scheduled", "base_image_pinned", "ci_present", "configuration"),
    *("declaration_complete", "owner_named"),
}


def test_every_check_has_a_fault() -> None:
    """
    A check that can not fail is decoration.
    """
    assert {name for name, _ in FAULTS} == {*CHECKS}
    assert len(CHECKS) >= 28


@pytest.mark.promise("P1", "P5")
def test_passes(world: World) -> None:
    """
    Each check passes where everything is as it should be, and says what it saw.
    """
    _write_envelope(world)
    project = Project(world.root)
    found = {name: check(project) for name, check in CHECKS.items() if name != "certificate"}
    _reach(world, 30)
    found["certificate"] = world.find("certificate")

    assert found.keys() == CHECKS.keys()
    assert {name: each for name, each in found.items() if each.result != Result.PASS} == {}
    assert all(each.evidence for each in found.values())


@pytest.mark.promise("P1", "P5")
@pytest.mark.parametrize(
    ("name", "break_it"), FAULTS, ids=[f"{name}-{index}" for index, (name, _) in enumerate(FAULTS)]
)
def test_fails(world: World, name: str, break_it: Edit) -> None:
    """
    Each check finds its fault, and says where to go; once there is a tier, "not yet" is one.
    """
    break_it(world)

    found = world.find(name)

    wanted = {Result.FAIL, Result.NOT_YET} if name in NOT_YET else {Result.FAIL}
    assert found.result in wanted, found
    assert found.evidence
    assert found.next


def _forget(world: World, key: str) -> None:
    text = (world.root / "ops/service.yaml").read_text()
    world.write("ops/service.yaml", re.sub(rf"(?m)^  {key}:.*\n(?:    .*\n|\n)*", "", text))


def _empty_dashboards(world: World) -> None:
    for path in (world.root / "ops/dashboards").iterdir():
        path.write_text('{"panels": []}')


BARE: dict[str, Any] = {"processes": ["job"], "deploy": [], "ci": "none"}
NOTHING: list[tuple[str, dict[str, Any], Edit]] = [
    ("admin_port_private", BARE, lambda _: None),
    ("admin_port_private", {"deploy": ["nomad"]}, lambda _: None),
    ("alerts_for_objectives", {}, lambda world: _forget(world, "objectives")),
    ("backups_recent", {}, lambda _: None),
    ("base_image_pinned", {}, lambda world: (world.root / "Dockerfile").unlink()),
    ("certificate", BARE, lambda _: None),
    ("containers_hardened", BARE, lambda _: None),
    ("dashboard_metrics", {}, _empty_dashboards),
    ("dependencies_declared", {}, lambda world: _forget(world, "dependencies")),
    ("disruption_budget", {}, lambda _: None),
    ("image_hardened", {}, lambda world: (world.root / "Dockerfile").unlink()),
    ("job_runtime", {}, lambda _: None),
    ("memory_limited", BARE, lambda _: None),
    ("metrics_scraped", BARE, lambda _: None),
    ("migrations_reversible", {}, lambda _: None),
    ("name_servers", BARE, lambda _: None),
    ("postmortem_actions", {}, lambda _: None),
    ("replicas", BARE, lambda _: None),
    ("replicas_spread", BARE, lambda _: None),
    ("restart_policy", {"deploy": ["compose"]}, lambda _: None),
    ("status_page", BARE, lambda _: None),
]
# These always have something to look at, or what they look for must be there.
ALWAYS = {
    *("alert_actions", "alert_metrics", "alert_runbooks", "alert_tests", "audit_scheduled"),
    *("ci_present", "configuration", "declaration_complete", "envelope_current", "lock_file"),
    *("owner_named", "runbook_sections", "secrets_ignored", "template_files"),
    *("template_version", "times_consistent", "two_people"),
}


def test_every_check_says_what_it_does_with_nothing() -> None:
    """
    Of each check it is known what it says where there is nothing to look at.
    """
    assert {name for name, _, _ in NOTHING} | ALWAYS == {*CHECKS}
    assert {name for name, _, _ in NOTHING} & ALWAYS == set()


@pytest.mark.promise("P1")
@pytest.mark.parametrize(
    ("name", "answers", "empty"),
    NOTHING,
    ids=[f"{name}-{index}" for index, (name, _, _) in enumerate(NOTHING)],
)
def test_does_not_apply(
    small: Callable[..., World], name: str, answers: dict[str, Any], empty: Edit
) -> None:
    """
    A check that has nothing to look at neither passes nor fails, and says what there is none of.
    """
    world = small(**answers)
    empty(world)

    found = world.find(name)

    assert found.result == Result.NOTHING, found
    assert found.evidence


@pytest.mark.parametrize("answers", FRESH, ids=repr)
def test_fresh(copy: Copy, answers: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """
    On the first day nothing fails and nothing is unknown, and nobody is asked.
    """
    project = copy(**answers)
    monkeypatch.setattr(sys, "executable", str(project / ".venv" / "bin" / "python"))

    def refuse(*_: object, **__: object) -> None:
        pytest.fail("asked the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    found = {name: check(Project(project)) for name, check in CHECKS.items()}

    dark = {"fail", "unknown", "slow"}
    assert {name: each for name, each in found.items() if each.result in dark} == {}
    assert found.keys() == CHECKS.keys()


@pytest.mark.parametrize("name", ["backups_recent", "certificate", "metrics_scraped"])
def test_nobody_answers(world: World, name: str) -> None:
    """
    What could not be asked is unknown, with the reason.
    """
    path = world.root / "ops" / "service.yaml"
    text = path.read_text().replace("https://desk.example.com", "https://localhost:9")
    lines = [
        "    prometheus: http://127.0.0.1:9" if "prometheus: " in line else line
        for line in text.splitlines()
    ]
    path.write_text("\n".join(lines))

    found = world.find(name)

    assert found.result == Result.UNKNOWN
    assert ":" in found.evidence


def test_unknown_names(world: World) -> None:
    """
    Name servers that can not be asked are unknown, as is a template that is gone.
    """
    world.names.clear()
    world.replace(".copier-answers.yml", "_src_path: ", "_src_path: /nowhere")

    assert world.find("name_servers").result == Result.UNKNOWN
    assert world.find("template_version").result == Result.UNKNOWN


def test_release_of_an_organisation(world: World) -> None:
    """
    An organisation's own release of the newest release is newer; what is no release is none.
    """
    release = world.root / "release"
    for command in (
        ["init", "--quiet", "release"],
        ["-C", "release", "commit", "--quiet", "--allow-empty", "--message=one"],
        *(["-C", "release", "tag", name] for name in ("v1.10.0", "v1.10.0.post1", "v2.0.0rc1")),
    ):
        subprocess.run(["git", *command], cwd=world.root, check=True)
    answers = (world.root / ".copier-answers.yml").read_text()
    answers = re.sub("(?m)^_src_path: .*$", f"_src_path: {release}", answers)
    (world.root / ".copier-answers.yml").write_text(answers)

    before = world.find("template_version")
    world.replace(".copier-answers.yml", "v1.10.0", "v1.10.0.post1")

    assert before.result == Result.FAIL
    assert "newest is v1.10.0.post1" in before.evidence
    assert world.find("template_version").result == Result.PASS


def test_reference_is_current() -> None:
    """
    docs/reference/checks.md says of each check what its docstring says.
    """
    text = (ROOT / "docs" / "reference" / "checks.md").read_text()
    rows = [line for line in text.splitlines() if line.startswith("| `")]

    said = {name: " ".join((check.__doc__ or "").split()) for name, check in CHECKS.items()}
    assert rows == [f"| `{name}` | {sentence} |" for name, sentence in sorted(said.items())]
