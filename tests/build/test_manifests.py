"""
One truth for times: who edits a manifest or a setting alone is told by the project's own tests.

Each edit is an overlay of its own, so that one run of those tests tells of all.
"""

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree as ET

import pytest
from harness import clean

pytestmark = pytest.mark.covers(
    "template/compose.yaml.jinja",
    "template/deploy/*",
    "template/tests/system/*",
)

Copy = Callable[..., Path]
TESTS = "tests/system/test_kubernetes.py"
UNSEEN = """
            - name: APP_PORT
              valueFrom: {secretKeyRef: {name: other, key: port}}
"""
SCALED = """
---
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: web}
spec:
  minReplicas: 1
  maxReplicas: 9
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: web}
"""


class Edit(NamedTuple):
    """
    What is replaced in the base, what is added to the overlay, and what is told.
    """

    base: tuple[str, str] = ("", "")
    settings: str = ""
    more: str = ""
    told: str = ""


EDITS = {
    "grace": Edit(
        base=("terminationGracePeriodSeconds: 45", "terminationGracePeriodSeconds: 30"),
        told="terminationGracePeriodSeconds is 30, but APP_PLATFORM_GRACE_SECONDS is 45",
    ),
    "declared": Edit(
        settings="APP_GRACE_SECONDS=40 APP_PLATFORM_GRACE_SECONDS=60",
        told="terminationGracePeriodSeconds is 45, but APP_PLATFORM_GRACE_SECONDS is 60",
    ),
    "undeclared": Edit(
        settings="APP_GRACE_SECONDS=40",
        told="APP_DRAIN_SECONDS=5 + APP_GRACE_SECONDS=40 + 1 must be less than "
        "APP_PLATFORM_GRACE_SECONDS=45",
    ),
    "drain": Edit(
        settings="APP_DRAIN_SECONDS=3",
        told="APP_READINESS_PERIOD_SECONDS=2 * APP_READINESS_FAILURES=2 must be at most "
        "APP_DRAIN_SECONDS=3",
    ),
    "period": Edit(
        base=("periodSeconds: 2\n            failureThreshold: 2\n", "periodSeconds: 5\n"),
        told="readinessProbe.periodSeconds is 5, but APP_READINESS_PERIOD_SECONDS is 2",
    ),
    "unwritten": Edit(
        base=("            periodSeconds: 2\n            failureThreshold: 2\n", ""),
        told="readinessProbe.failureThreshold is 3, but APP_READINESS_FAILURES is 2",
    ),
    "timeout": Edit(
        base=("timeoutSeconds: 1", "timeoutSeconds: 3"),
        told="readinessProbe.timeoutSeconds is 3, but APP_PROBE_TIMEOUT_SECONDS is 1",
    ),
    "port": Edit(
        base=("containerPort: 8000", "containerPort: 9000"),
        told="ports.http.containerPort is 9000, but APP_PORT is 8000",
    ),
    "admin": Edit(
        base=("containerPort: 8001", "containerPort: 8002"),
        told="livenessProbe.httpGet.port is 8002, but APP_ADMIN_PORT is 8001",
    ),
    "policy": Edit(
        base=("port: 8000\n", "port: 8080\n"),
        told="leads to 8080, but APP_PORT and APP_ADMIN_PORT are",
    ),
    "service": Edit(
        base=("targetPort: http", "targetPort: 9000"),
        told="Service order-desk-web leads to 9000, but",
    ),
    "scraped": Edit(
        base=('port: "8001"', 'port: "9001"'),
        told="annotations.prometheus.io/port is 9001, but APP_ADMIN_PORT is 8001",
    ),
    "pause": Edit(
        base=("args: [web]", "args: [web]\n          lifecycle: {preStop: {sleep: {seconds: 5}}}"),
        told="lifecycle.preStop.sleep.seconds is 5, but APP_PRE_STOP_SECONDS is 0",
    ),
    "signal": Edit(
        base=("args: [web]", "args: [web]\n          lifecycle: {stopSignal: SIGQUIT}"),
        told="stopSignal is SIGQUIT, and only SIGTERM drains",
    ),
    "probe": Edit(
        base=(
            "periodSeconds: 10",
            "periodSeconds: 10\n            terminationGracePeriodSeconds: 9",
        ),
        told="livenessProbe.terminationGracePeriodSeconds is 9, but APP_PLATFORM_GRACE_SECONDS is",
    ),
    "prefix": Edit(
        base=("- configMapRef:\n", "- prefix: APP_\n              configMapRef:\n"),
        settings="PLATFORM_GRACE_SECONDS=50",
        told="terminationGracePeriodSeconds is 45, but APP_PLATFORM_GRACE_SECONDS is 50",
    ),
    "command": Edit(
        base=("args: [web]", "args: [web]\n          lifecycle: {preStop: {exec: {command: [x]}}}"),
        told="is of unknown length (use `sleep`), but APP_PRE_STOP_SECONDS is 0",
    ),
    "secrets": Edit(
        base=("mountPath: /run/secrets/app", "mountPath: /run/secrets/other"),
        told="APP_SECRETS_DIR is /run/secrets/app, but mounted are ['/run/secrets/other']",
    ),
    "unseen": Edit(
        base=("value: /run/secrets/app", f"value: /run/secrets/app\n{UNSEEN}"),
        told="ports.http.containerPort is 8000, but APP_PORT is set from elsewhere",
    ),
    "liveness": Edit(
        base=("timeoutSeconds: 25", "timeoutSeconds: 1"),
        told="livenessProbe.timeoutSeconds is 1, but APP_LIVENESS_TIMEOUT_SECONDS is 25",
    ),
    "impatient": Edit(
        base=("timeoutSeconds: 25", "timeoutSeconds: 10"),
        settings="APP_LIVENESS_TIMEOUT_SECONDS=10",
        told="APP_WATCHDOG_SECONDS=15 + 5 must be less than APP_LIVENESS_TIMEOUT_SECONDS=10",
    ),
    "watchdog": Edit(
        settings="APP_WATCHDOG_SECONDS=30",
        told="before the platform does; try APP_LIVENESS_TIMEOUT_SECONDS=36",
    ),
    "strategy": Edit(
        base=("maxUnavailable: 0", "maxUnavailable: 1"), told="maxUnavailable must be 0"
    ),
    "deadline": Edit(
        base=("progressDeadlineSeconds: 300", "progressDeadlineSeconds: 65"),
        told="progressDeadlineSeconds is 65, but the startup probe takes up to 60",
    ),
    "replicas": Edit(
        more="replicas: [{name: order-desk-web, count: 1}]",
        told="1 web replica in production: have two at least",
    ),
    "scaled": Edit(
        base=("targetPort: http\n", f"targetPort: http\n{SCALED}"),
        told="1 web replica in production: have two at least",
    ),
    "misspelt": Edit(
        settings="APP_GRACE_SECOND=40",
        told="is unknown; did you mean APP_GRACE_SECONDS?",
    ),
    "file": Edit(
        more="configMapGenerator: [{name: order-desk-settings, envs: [settings.env]}]",
        told="livenessProbe.failureThreshold is 3, but APP_LIVENESS_FAILURES is 5",
    ),
    "patch": Edit(
        more="patches: [{target: {kind: Deployment}, patch: "
        "'- {op: replace, path: /spec/template/spec/terminationGracePeriodSeconds, value: 31}'}]",
        told="terminationGracePeriodSeconds is 31, but APP_PLATFORM_GRACE_SECONDS is 45",
    ),
    "merged": Edit(
        more="configMapGenerator: [{name: order-desk-settings, behavior: merge}]",
        told="does not exist; cannot merge",
    ),
    "elsewhere": Edit(
        more="configMapGenerator: [{name: order-desk-other}]",
        told="what {'configMapRef': {'name': 'order-desk-settings'}} holds can't be seen",
    ),
}
# What is tried without kubectl, too, and what is told then instead.
UNREAD = "can't be read without kubectl; install it to test this overlay"
READ = {
    **dict.fromkeys(["grace", "declared", "replicas", "file"]),
    "patch": f"['patches'] {UNREAD}",
    "merged": f"['behavior'] {UNREAD}",
}
# These change nothing that matters.
FINE = {
    "staging": Edit(
        settings="APP_ENVIRONMENT=staging APP_LOG_LEVEL=debug",
        more="replicas: [{name: web, count: 1}]",
    ),
    "paused": Edit(
        base=("args: [web]", "args: [web]\n          lifecycle: {preStop: {sleep: {seconds: 5}}}"),
        settings="APP_PRE_STOP_SECONDS=5",
    ),
    "both": Edit(
        base=("terminationGracePeriodSeconds: 45", "terminationGracePeriodSeconds: 60"),
        settings="APP_GRACE_SECONDS=40 APP_PLATFORM_GRACE_SECONDS=60",
    ),
}


def lay(folder: Path, name: str, edit: Edit) -> None:
    """
    An overlay with this edit, on a base of its own.
    """
    base, overlay = folder / f"base-{name}", folder / "overlays" / name
    shutil.copytree(folder / "base", base)
    found = [path for path in base.glob("*.yaml") if edit.base[0] in path.read_text()]
    assert found, name
    for path in found:
        path.write_text(path.read_text().replace(*edit.base))
    overlay.mkdir()
    (overlay / "settings.env").write_text("# Slow.\nAPP_LIVENESS_FAILURES=5\n")
    literals = ", ".join(edit.settings.split())
    lines = [f"resources: [../../base-{name}]", edit.more]
    if "configMapGenerator" not in edit.more:
        lines += [f"configMapGenerator: [{{name: order-desk-settings, literals: [{literals}]}}]"]
    (overlay / "kustomization.yaml").write_text("\n".join(lines) + "\n")


def run(project: Path, **environment: str) -> dict[str, str]:
    """
    Run the project's tests of its manifests: by overlay, why they are red.
    """
    names = [*EDITS, *FINE] if "PATH" not in environment else [*READ, "staging"]
    selected = " or ".join(f"[{name}]" for name in ["base", "production", *names])
    subprocess.run(
        [".venv/bin/pytest", "--tb=short", "--junitxml=told.xml", "-k", selected, TESTS],
        cwd=project,
        env=clean(os.environ) | environment,
        capture_output=True,
        check=False,
    )
    told: dict[str, str] = {}
    for case in ET.parse(project / "told.xml").iter("testcase"):  # noqa: S314  # our own
        name = case.attrib["name"].partition("[")[2][:-1]
        found = [str(each.text) for kind in ("error", "failure") for each in case.iter(kind)]
        told[name] = told.get(name, "") + "".join(found)
    return told


@pytest.fixture(name="project", scope="module")
def _project(copy: Copy) -> Path:
    """
    With an overlay for each edit.
    """
    project = copy(deploy=["kubernetes"])
    for name, edit in {**EDITS, **FINE}.items():
        lay(project / "deploy" / "kubernetes", name, edit)
    return project


@pytest.fixture(name="told", scope="module")
def _told(project: Path) -> dict[str, str]:
    return run(project)


@pytest.fixture(name="told_without_kubectl", scope="module")
def _told_without_kubectl(
    project: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, str]:
    return run(project, PATH=str(tmp_path_factory.mktemp("nothing")))


@pytest.mark.promise("C4")
@pytest.mark.parametrize("name", EDITS)
def test_one_side_is_edited(told: dict[str, str], name: str) -> None:
    """
    The project's tests are red, and name file, key and both values.
    """
    assert f"deploy/kubernetes/overlays/{name}" in told[name]
    assert EDITS[name].told in told[name]


@pytest.mark.parametrize("name", READ)
def test_one_side_is_edited_without_kubectl(
    told_without_kubectl: dict[str, str], name: str
) -> None:
    """
    They are so without kubectl; what can't be read then is told instead of passing.
    """
    told = told_without_kubectl[name]

    assert f"deploy/kubernetes/overlays/{name}" in told
    assert (READ[name] or EDITS[name].told) in told


@pytest.mark.parametrize("name", ["base", "production", *FINE])
def test_both_sides_agree(
    told: dict[str, str], told_without_kubectl: dict[str, str], name: str
) -> None:
    """
    What was rendered is green, and so is what was edited on both sides, or does not matter.
    """
    assert told[name] == told_without_kubectl.get(name, "") == ""
    assert {"base", "production", "staging"} <= told_without_kubectl.keys()
