"""
Alerts and dashboards of every kind of service: they parse, fire, and ask for what there is.
"""

import json
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from harness import ROOT, modules
from pages import blocks, paste

from questions import QUESTIONS

pytestmark = pytest.mark.covers(
    "template/ops/alerts/*",
    "template/tests/system/test_*alerts.py",
)

Render = Callable[..., Path]
KINDS = [
    {"processes": processes, "database": database}
    for processes in QUESTIONS["processes"]
    for database in QUESTIONS["database"]
    if not ("worker" in processes and database == "none")
]
ALL: dict[str, Any] = {"processes": ["web", "worker", "job"], "database": "postgresql"}
# Those of others: of prometheus-client, of Prometheus itself and of kube-state-metrics.
OTHERS = {
    "kube_cronjob_status_last_successful_time",
    "kube_job_failed",
    "kube_job_status_start_time",
    "process_cpu_seconds_total",
    "process_resident_memory_bytes",
    "process_start_time_seconds",
    "up",
}
METRIC = r"\b((?:app|kube|process)_\w+|up)(?=\{|,|\[)(?!\w)"
# The answers of a service, by where its repository is then.
ADDRESSES: dict[str, dict[str, Any]] = {
    "your-team/order-desk/blob": {},
    "acme/order-desk/blob": {"owner": "acme/payments"},
    "acme/payments/order-desk/-/blob": {"owner": "acme/payments", "ci": "gitlab"},
}
# What is made wrong in a rule, and the file of tests that must object.
FAULTS = [
    ("process", "> 3", "> 30"),
    ("process", "== 0", "== 2"),
    ("process", 'kind!~"body_too_large', 'kind!~"bug|loop|body_too_large'),
    ("process", "unless", "and"),
    ("process", "lines_dropped_total", "lines_total"),
    ("process", "settings_unknown", "settings"),
    ("web", '"5.."', '"5..|4.."'),
    ("web", '"5.."', '"500"'),
    ("web", "> 14.4 * 0.001", "> 144 * 0.001"),
    ("web", "> 6 * 0.001", "> 60 * 0.001"),
    ("web", "> 1 * 0.001", "> 10 * 0.001"),
    ("web", "> 14.4 * 0.01", "> 144 * 0.01"),
    ("web", "> 1 * 0.01", "> 10 * 0.01"),
    ("web", "increase6h > 10", "increase6h > 0"),
    ("web", 'le="1.0"', 'le="1"'),
    ("web", "ratio_rate5m > 14.4 * 0.001", "ratio_rate6h > 0"),
    ("web", 'process_type="web"', 'process_type="worker"'),
    ("web", "> 0.05", "> 0.5"),
    ("web", "> 800", "> 8000"),
    ("process", "app_ready", "app_draining"),
    ("process", "body|error", "4xx|late|abandoned|body|error"),
    ("process", "> 4\n", "> 0\n"),
    ("process", "> 0.5 *", "> 0.05 *"),
    ("process", "full|status|timeout", "full|status"),
    ("worker", "> 300", "> 3000"),
    ("worker", "> 300", "> 200"),
    ("worker", 'state!="retried"', 'state="none"'),
    ("worker", 'state="retried"}) > 300', 'state="none"}) > 300'),
    ("worker", 'outcome="done"}[10m]', 'outcome="none"}[10m]'),
    ("worker", "> 120", "> 100"),
    ("worker", "> 120", "> 100_000"),
    ("worker", "and on (job) app_messages_waiting", "or app_messages_waiting"),
    ("worker", ">= 10", ">= 1000"),
    ("worker", 'outcome="done"}[15m]', 'outcome="none"}[15m]'),
    ("worker", 'check="queue"', 'check="database"'),
    ("worker", "app_messages_dead", "app_messages_waiting"),
    ("job", "26 * 3600", "24 * 3600"),
    ("job", "26 * 3600", "260 * 3600"),
    ("job", "vector(Inf)", "vector(3600)"),
    ("job", 'service="', 'service!="'),
    (
        "job",
        "last_success:timestamp >= exported_job:app_job_last_failure",
        "last_start:timestamp >= x",
    ),
    ("job", 'condition="true"', 'condition="false"'),
    ("job", "time() - 3600", "time() - 36000"),
    ("job", "and exported_job:app_job_age_max:seconds < Inf", ""),
    ("database", 'check="database"', 'check="queue"'),
    ("database", "failures_total", "failures"),
    ("database", "waiting", "in_use"),
    ("database", 'reason!="PoolTimeout"', 'reason!="TimeoutError"'),
    ("database", "> 0\n          unless on (job)\n", "> 0\n          or on (job)\n"),
    ("database", "for: 2m", "for: 10m"),
]


@pytest.fixture(name="promtool", scope="session")
def _promtool() -> str:
    found = shutil.which("promtool")
    assert found, "apt-get install --no-install-recommends prometheus"
    return found


@pytest.mark.promise("M7")
@pytest.mark.parametrize("answers", KINDS, ids=lambda kind: "-".join(kind["processes"]))
def test_parts(render: Render, promtool: str, answers: dict[str, Any]) -> None:
    """
    A service has the alerts of its parts, with their tests, and Prometheus takes them.
    """
    project = render(**answers)
    parts = {*answers["processes"]}
    parts |= {"process"} if parts != {"job"} else set()
    parts |= {"database"} if answers["database"] == "postgresql" else set()

    for folder in ("ops/alerts", "ops/alerts/tests"):
        assert {path.stem for path in (project / folder).glob("*.yaml")} == parts
    boards = {path.stem for path in (project / "ops/dashboards").glob("*.json")}
    assert boards == parts - {"process"}
    rules = sorted((project / "ops/alerts").glob("*.yaml"))
    ended = subprocess.run(
        [promtool, "check", "rules", *rules], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr


@pytest.mark.promise("M7")
@pytest.mark.parametrize("name", ["order-desk", "null"])
@pytest.mark.parametrize("part", ["process", "web", "worker", "job", "database"])
def test_fire(render: Render, promtool: str, part: str, name: str) -> None:
    """
    Each alert fires in a series with its fault, and is silent in a healthy one.
    """
    ended = prove(promtool, render(**ALL, service_name=name) / "ops" / "alerts", part)

    assert ended.returncode == 0, ended.stdout + ended.stderr


@pytest.mark.promise("M7")
@pytest.mark.parametrize("fault", FAULTS, ids=" ".join)
def test_wrong_rules_are_found(
    render: Render, promtool: str, tmp_path: Path, fault: tuple[str, str, str]
) -> None:
    """
    A rule with a wrong threshold, label or metric goes red.
    """
    part, right, wrong = fault
    alerts = tmp_path / "alerts"
    shutil.copytree(render(**ALL) / "ops" / "alerts", alerts)
    text = (alerts / f"{part}.yaml").read_text()
    assert right in text
    (alerts / f"{part}.yaml").write_text(text.replace(right, wrong))

    assert prove(promtool, alerts, part).returncode != 0


@pytest.mark.promise("M7")
def test_labels(render: Render) -> None:
    """
    Each alert has a severity that means something, says what to do, and links its runbook.
    """
    project = render(**ALL)
    objectives = yaml.safe_load((project / "ops/service.yaml").read_text())["spec"]["objectives"]
    for path in sorted((project / "ops/alerts").glob("*.yaml")):
        for rule in alerts_of(path):
            labels, said = rule["labels"], rule["annotations"]
            expected = {"none"} if rule["alert"] == "Watchdog" else {"page", "ticket"}
            assert labels["severity"] in expected, rule["alert"]
            assert labels.get("objective", "latency") in objectives, rule["alert"]
            assert said["summary"]
            assert said["description"]
            anchor = rule["alert"].lower()
            assert said["runbook_url"].endswith(f"/ops/runbooks/{path.stem}.md#{anchor}")


@pytest.mark.promise("M7")
@pytest.mark.parametrize("where", [*ADDRESSES])
@pytest.mark.parametrize("revision", ["4" * 40, "unknown", None])
def test_runbook_address(
    render: Render, promtool: str, tmp_path: Path, where: str, revision: str | None
) -> None:
    """
    An alert links its runbook by an absolute address: at the commit that runs, or else the newest.
    """
    alerts = tmp_path / "alerts"
    shutil.copytree(render(**ADDRESSES[where]) / "ops" / "alerts", alerts)
    (rule,) = [one for one in alerts_of(alerts / "process.yaml") if one["alert"] == "InstanceDown"]
    build = f'app_build_info{{job="order-desk", instance="b", revision="{revision}"}}'
    commit = revision if revision == "4" * 40 else "HEAD"
    expected = {
        "exp_labels": {"severity": "ticket", "job": "order-desk", "instance": "a"},
        "exp_annotations": {
            "summary": "A process of order-desk does not answer at a",
            "description": rule["annotations"]["description"],
            "runbook_url": f"https://git.example.com/{where}/{commit}/ops/runbooks/process.md#instancedown",
        },
    }
    series = [{"series": 'up{job="order-desk", instance="a"}', "values": "0x30"}]
    series += [{"series": build, "values": "1x30"}] if revision else []
    case = {"eval_time": "20m", "alertname": "InstanceDown", "exp_alerts": [expected]}
    test = {"interval": "1m", "input_series": series, "alert_rule_test": [case]}
    whole = {"rule_files": ["../process.yaml"], "evaluation_interval": "1m", "tests": [test]}
    (alerts / "tests" / "process.yaml").write_text(yaml.safe_dump(whole))

    ended = prove(promtool, alerts, "process")

    assert ended.returncode == 0, ended.stdout + ended.stderr


@pytest.mark.promise("M7")
def test_dashboards_link_the_same_runbooks(render: Render) -> None:
    """
    The variable of a dashboard is the folder that the alerts link, at the newest commit.
    """
    project = render(**ALL, owner="acme/payments", ci="gitlab")
    boards = [json.loads(path.read_text()) for path in project.glob("ops/dashboards/*.json")]

    found = {
        one["query"]
        for board in boards
        for one in board["templating"]["list"]
        if "query" in one
        if one["name"] == "runbooks"
    }

    address = "https://git.example.com/acme/payments/order-desk/-/blob/HEAD/ops/runbooks"
    assert found == {address}


@pytest.mark.promise("M7")
@pytest.mark.parametrize("before", ["path", "address"])
def test_address_is_put_into_a_service(render: Render, tmp_path: Path, before: str) -> None:
    """
    The command of the page puts an address into alerts that have only a path, or another one.
    """
    project = tmp_path / "order-desk"
    shutil.copytree(render(**ALL) / "ops" / "alerts", project / "ops" / "alerts")
    for path in project.glob("ops/alerts/*.yaml") if before == "path" else []:
        # As releases before 0.3.1 wrote it.
        text = re.sub(r"runbook_url: '.*/(\S+)'", r"runbook_url: ops/runbooks/\1", path.read_text())
        path.write_text(text)
    (command,) = (one for one in blocks("alerts", "Be told when something is wrong"))

    paste(command, project, {})

    for path in project.glob("ops/alerts/*.yaml"):
        for rule in alerts_of(path):
            assert rule["annotations"]["runbook_url"] == (
                "https://git.example.com/acme/order-desk/blob/HEAD/ops/runbooks/"
                f"{path.stem}.md#{rule['alert'].lower()}"
            )


@pytest.mark.promise("M7")
def test_address_in_one_repository_for_all(render: Render, tmp_path: Path) -> None:
    """
    What the page for several services in one repository has one paste is for alerts and dashboards.
    """
    ops = tmp_path / "services" / "orders" / "ops"
    shutil.copytree(render(**ALL, service_name="orders") / "ops", ops)
    (command,) = (one for one in blocks("monorepo", "What else belongs to the root"))

    paste(command, tmp_path, {})

    texts = [
        path.read_text() for path in [*ops.glob("alerts/*.yaml"), *ops.glob("dashboards/*.json")]
    ]
    found = {line for text in texts for line in text.splitlines() if "git.example.com" in line}
    assert len(texts) == 9
    assert len(found) > 10
    assert all("/acme/services/blob/" in line for line in found)
    assert all("/services/orders/ops/runbooks" in line for line in found)


@pytest.mark.promise("J8")
def test_every_standstill_has_its_alerts(render: Render) -> None:
    """
    Each alert that the page names for work that stands still is there, is of the kind that it says,
    and comes as soon; a way without an alert says what to do. That each fires is tested for all.
    """
    rules = [rule for path in render(**ALL).glob("ops/alerts/*.yaml") for rule in alerts_of(path)]
    kinds = {rule["alert"]: rule["labels"]["severity"] for rule in rules}
    waits = {(rule["alert"], rule.get("for", "0m")) for rule in rules}
    page = (ROOT / "docs" / "how-to" / "alerts.md").read_text()
    table = page.partition("## What can stand still")[2].partition("\n\nA queue can't")[0]
    rows = re.findall(r"^\| (web|worker|job|any) \| (.+) \| (.+) \|$", table, re.MULTILINE)

    assert len(rows) > 30
    assert {process for process, _, _ in rows} == {"web", "worker", "job", "any"}
    for _, what, told in rows:
        named = re.findall(r"`([A-Z][a-z]+[A-Z]\w+|Saturated|Watchdog)`", told)
        assert named or told.startswith("none: "), what
        assert {*named} <= {*kinds}, what
        for name, kind, minutes in re.findall(r"`(\w+)`, an? (\w+) after (\d+) min", told):
            assert kinds[name] == kind
            looked_back = {"QueueTooOld": 5, "JobUnfinished": 60}.get(name, 0)
            assert (name, f"{int(minutes) - looked_back}m") in waits


@pytest.mark.promise("M7")
def test_alerts_say_how_long_they_linger(render: Render) -> None:
    """
    An alert that looks back for more than ten minutes without `for` says how long it goes on.
    """
    lingering = set()
    for path in render(**ALL).glob("ops/alerts/*.yaml"):
        for rule in alerts_of(path):
            # An alert ends when the shorter of its windows has forgotten the fault.
            if re.search(r"\[15m\]|ratio_rate(30m|6h)", rule["expr"]):
                lingering.add(rule["alert"])
                assert "goes on for up to" in " ".join(rule["annotations"]["description"].split())

    assert {"AvailabilityBurnsFast", "CrashLoop", "MessagesDying"} <= lingering


@pytest.mark.promise("M7")
def test_metrics_exist(render: Render) -> None:
    """
    Rules and dashboards ask for metrics that a service exports.
    """
    project = render(**ALL)
    defined = "".join(path.read_text() for path in modules())
    known = {*OTHERS}
    for name in re.findall(r'"(app_\w+)"', defined):
        known |= {name, *(f"{name}_{end}" for end in ("total", "info", "bucket", "count", "sum"))}
    texts = [rule["expr"] for path in project.glob("ops/alerts/*.yaml") for rule in rules_of(path)]
    texts += [target["expr"] for _, target in targets(project)]

    asked = {name for text in texts for name in re.findall(METRIC, text)}

    assert len(asked) > 20
    assert asked <= known


@pytest.mark.promise("M7")
def test_dashboards_open_anywhere(render: Render) -> None:
    """
    No data source is named but by the variable, and each panel says what is bad, in which unit, and
    where its runbook is.
    """
    project = render(**ALL)
    source = {"type": "prometheus", "uid": "${datasource}"}
    anchors = {
        f"{path.stem}.md#{rule['alert'].lower()}"
        for path in project.glob("ops/alerts/*.yaml")
        for rule in alerts_of(path)
    }

    for panel, target in targets(project):
        assert panel["datasource"] == target["datasource"] == source
        assert "Bad: " in panel["description"]
        assert panel["fieldConfig"]["defaults"]["unit"]
        assert panel["links"][0]["url"].removeprefix("${runbooks}/") in anchors
    boards = [json.loads(path.read_text()) for path in project.glob("ops/dashboards/*.json")]
    assert len({board["uid"] for board in boards}) == len(boards)
    for board in boards:
        first, *others = board["templating"]["list"]
        assert (first["name"], first["type"]) == ("datasource", "datasource")
        assert all(one.get("datasource", source) == source for one in others)


def prove(promtool: str, alerts: Path, part: str) -> subprocess.CompletedProcess[str]:
    """
    The end of the tests of one part.
    """
    command = [promtool, "test", "rules", str(alerts / "tests" / f"{part}.yaml")]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


def rules_of(path: Path) -> Iterator[dict[str, Any]]:
    for group in yaml.safe_load(path.read_text())["groups"]:
        yield from group["rules"]


def alerts_of(path: Path) -> list[dict[str, Any]]:
    return [rule for rule in rules_of(path) if "alert" in rule]


def targets(project: Path) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """
    Each query of each panel of each dashboard.
    """
    for path in project.glob("ops/dashboards/*.json"):
        for panel in json.loads(path.read_text())["panels"]:
            for target in panel.get("targets", []):
                yield panel, target
