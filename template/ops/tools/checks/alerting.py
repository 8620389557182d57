"""
Checks of alerts, runbooks and dashboards.
"""

import json
import re
from collections.abc import Iterator
from typing import Any

import yaml

from ops.tools.finding import Finding, judge, not_yet
from ops.tools.project import Project

__all__ = [
    "alert_actions",
    "alert_metrics",
    "alert_runbooks",
    "alert_tests",
    "alerts_for_objectives",
    "dashboard_metrics",
    "runbook_sections",
]

_ALERTS = "ops/alerts/*.y*ml"
_NONE = not_yet("there are no alerts", next="ops/alerts/: `copier update` brings none; write them")
# How much faster than evenly a budget is spent (Google's SRE workbook, chapter 5).
_RATES = (14.4, 6, 3, 1)
_SUFFIXES = {
    "Counter": ["_total", "_created"],
    "Gauge": [""],
    "Histogram": ["_bucket", "_sum", "_count", "_created"],
    "Summary": ["_sum", "_count", "_created"],
    "Info": ["_info"],
}


def _alerts(project: Project) -> list[dict[str, Any]]:
    return [rule for rule in _rules(project) if "alert" in rule]


def _rules(project: Project) -> Iterator[dict[str, Any]]:
    for text in project.texts(_ALERTS).values():
        for group in (yaml.safe_load(text) or {}).get("groups", []):
            yield from group["rules"]


def _value(text: str) -> float:
    """
    Of a product such as `14.4 * (1 - 0.999)`; NaN for what is no arithmetic of numbers.
    """
    if not re.fullmatch(r"[\d.\s*()+/-]+", text):
        return float("nan")
    value = 1.0
    for factor in re.split(r"\*(?![^(]*\))", text.replace(" ", "").strip()):
        first, _, second = factor.strip("()").partition("-")
        top, _, bottom = first.partition("/")
        value *= float(top) / float(bottom or 1) - float(second or 0)
    return value


def _thresholds(expression: str) -> set[float]:
    found = re.findall(
        r"(?:>=?\s*(?:bool\s*)?|\bvector\()"
        r"((?:[\d.]+|\([\d.\s*/-]+\))(?:\s*\*\s*(?:[\d.]+|\([\d.\s/-]+\)))*)",
        expression,
    )
    # Parentheses around the whole change nothing.
    values = (_value(re.sub(r"^\(([^()]*\*[^()]*)\)$", r"\1", text.strip())) for text in found)
    return {round(value, 9) for value in values if value}


def alerts_for_objectives(project: Project) -> Finding:
    """
    Each objective has an alert, whose numbers are those of the declaration.
    """
    if not (alerts := _alerts(project)):
        return _NONE
    faults, said = [], []
    for name, objective in (project.said("objectives") or {}).items():
        rules = [each for each in alerts if each.get("labels", {}).get("objective") == name]
        asked = " ".join(str(rule["expr"]) for rule in rules)
        # A number may be in a record that the alert compares with.
        asked += str([one["expr"] for one in _rules(project) if one.get("record", "\0") in asked])
        if "percent" in objective:
            budget = 1 - objective["percent"] / 100
            wanted = {round(rate * budget, 9) for rate in _RATES}
            # Guards against little traffic are beyond 1 or are 0.
            found = {value for value in _thresholds(asked) if value < 1}
        else:
            wanted = {float(objective.get("seconds", objective.get("hours", 0) * 3600))}
            found = {value for value in _thresholds(asked) if value > 1}
        le = f'le="{objective.get("seconds", 0):.1f}"'
        if name == "latency" and le not in " ".join(str(rule["expr"]) for rule in _rules(project)):
            faults.append(f"no rule has {le}")
        said.append(f"{name}: {sorted(found)} of {sorted(wanted)}")
        # Of several jobs, each may have a limit of its own.
        if not found or not (wanted <= found if "hours" in objective else found <= wanted):
            faults.append(f"{name}: {len(rules)} alerts, with other numbers than {objective}")
    told, mend = "; ".join(said), "make ops/alerts/ say what ops/service.yaml says"
    return judge(faults, told or "no objective is declared", next=mend, looked=said)


def alert_actions(project: Project) -> Finding:
    """
    Each alert is a page or a ticket, and says what it is about and where its runbook is.
    """
    faults = []
    for rule in (alerts := _alerts(project)):
        severity = rule.get("labels", {}).get("severity")
        if severity not in {"page", "ticket"} and (rule["alert"], severity) != ("Watchdog", "none"):
            faults.append(f"{rule['alert']}: severity {severity!r}")
        missing = {"summary", "description", "runbook_url"} - {*rule.get("annotations", {})}
        faults += [f"{rule['alert']} has no {name}" for name in sorted(missing)]
    said = f"{len(alerts)} alerts"
    return judge(faults, said, next="severity page or ticket; or drop it") if alerts else _NONE


def _sections(project: Project) -> set[str]:
    """
    File and anchor of each section, as GitHub makes them.
    """
    return {
        name + "#" + re.sub(r"[^\w -]", "", line.lstrip("# ").lower()).replace(" ", "-")
        for path in project.root.glob("ops/runbooks/*.md")
        for name in [project.name_of(path)]
        for line in project.lines(name)
        if re.match(r"#+ ", line)
    }


def alert_runbooks(project: Project) -> Finding:
    """
    Each alert links a section of a runbook that exists.
    """
    sections, alerts = _sections(project), _alerts(project)
    links = {rule["alert"]: rule.get("annotations", {}).get("runbook_url", "") for rule in alerts}
    faults = [
        f"{name} links {link!r}, which is not there"
        for name, link in links.items()
        if link[max(link.find("ops/runbooks/"), 0) :] not in sections
    ]
    relative = sum(link.startswith("ops/") for link in links.values())
    said = f"{len(links)} links, {relative} without an address, {len(sections)} sections"
    return judge(faults, said, next="write the section in ops/runbooks/") if alerts else _NONE


def _metrics(project: Project) -> set[str]:
    """
    What the service has, as Prometheus stores it, and what rules record.
    """
    source = "\n".join(project.texts(f"src/{project.package}/**/*.py").values())
    kinds = "|".join(_SUFFIXES)
    made = re.findall(rf"\b({kinds})(?:MetricFamily)?\(\s*\"([a-z][a-z0-9_]*)\"", source)
    known = {name.removesuffix("_total") + end for kind, name in made for end in _SUFFIXES[kind]}
    return known | {rule["record"] for rule in _rules(project) if "record" in rule}


def _unknown(project: Project, expression: str) -> set[str]:
    """
    Names in a PromQL expression that are neither metrics nor the language's.
    """
    text = re.sub(r"\"[^\"]*\"|'[^']*'|#.*", "", expression)
    text = re.sub(r"\{[^}]*\}|\[[^\]]*\]", " ", text)
    text = re.sub(r"\b(by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)", " ", text)
    names = {*re.findall(r"(?<![\w$.:])[a-zA-Z_:][\w:]*\b(?!\s*\()", text)}
    words = {"and", "or", "unless", "bool", "offset", "inf", "nan", "by", "without", "on"}
    words |= {"up", "group_left", "group_right", "ignoring", "ALERTS", "Inf", "NaN"}
    others = {name for name in names if re.match(r"(process|python|scrape|node|kube)_", name)}
    return names - words - others - _metrics(project)


def alert_metrics(project: Project) -> Finding:
    """
    Alerts ask for metrics that the service has: one that is misspelt never fires.
    """
    rules = [*_rules(project)]
    faults = [
        f"{rule.get('alert', rule.get('record'))} uses {name}, which nothing in src/ makes"
        for rule in rules
        for name in sorted(_unknown(project, str(rule["expr"])))
    ]
    return judge(faults, f"{len(rules)} rules", next="ops/alerts/") if rules else _NONE


def alert_tests(project: Project) -> Finding:
    """
    Each alert has a test of promtool in which it fires.
    """
    fired: set[str] = set()
    for text in project.texts("ops/alerts/tests/*.y*ml").values():
        for test in yaml.safe_load(text).get("tests", []):
            cases = [one for one in test.get("alert_rule_test", []) if one.get("exp_alerts")]
            fired |= {case["alertname"] for case in cases}
            # Or by the series ALERTS, of which several can be asked at once.
            samples = str([each["exp_samples"] for each in test.get("promql_expr_test", [])])
            fired |= {*re.findall(r'alertname="(\w+)"', samples)}
    names = [rule["alert"] for rule in _alerts(project)]
    faults = [f"{name} fires in no test" for name in names if name not in fired]
    return judge(faults, f"{len(names)} alerts", next="ops/alerts/tests/") if names else _NONE


def _expressions(node: Any) -> Iterator[str]:
    """
    Of all targets of a dashboard, in whatever row.
    """
    for key, value in node.items() if isinstance(node, dict) else enumerate(node):
        if key == "expr":
            yield value
        elif isinstance(value, dict | list):
            yield from _expressions(value)


def dashboard_metrics(project: Project) -> Finding:
    """
    Dashboards ask for metrics that the service has.
    """
    boards = project.texts("ops/dashboards/*.json")
    faults, count = [], 0
    for name, text in boards.items():
        for expression in _expressions(json.loads(text)):
            count += 1
            missing = sorted(_unknown(project, expression))
            faults += [f"{name} uses {each}, which nothing in src/ makes" for each in missing]
    if not boards:
        return not_yet("there is no dashboard", next="ops/dashboards/")
    return judge(faults, f"{count} queries", next="ops/dashboards/", looked=count)


def runbook_sections(project: Project) -> Finding:
    """
    Runbooks explain each exit code that is no success, and each of their links leads somewhere.
    """
    exits = project.texts(f"src/{project.package}/chassis/exits.py")
    codes = {*re.findall(r"(?m)^    [A-Z]+ = ([1-9]\d*)", "\n".join(exits.values()))}
    if "job" not in project.process_types and not project.has_database:
        codes.discard("75")
    if not (books := project.texts("ops/runbooks/*.md")):
        return not_yet("there are no runbooks", next="ops/runbooks/")
    named, sections = {*re.findall(r"\bexit-(\d+)", "\n".join(books.values()))}, _sections(project)
    faults = [f"exit-{code} is not explained" for code in sorted(codes - named)]
    faults += [
        f"{name} links {file}#{anchor}, which is not there"
        for name, text in books.items()
        for file, anchor in re.findall(r"\]\(([\w-]+\.md)?#([\w-]+)\)", text)
        if f"ops/runbooks/{file}#{anchor}" not in sections and f"{name}#{anchor}" not in sections
    ]
    return judge(faults, f"{len(codes)} exit codes", next="write it in ops/runbooks/")
