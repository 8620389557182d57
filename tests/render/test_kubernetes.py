"""
The Kubernetes manifests: rendered by the real kustomize, valid, and as strict as they promise.

No cluster runs here: what these documents say is tested, not what a cluster does with them.
"""

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import kubernetes_validate  # type: ignore[import-untyped]  # it has no types
import pytest
import yaml
from harness import TEMPLATE

from questions import pairwise

Documents = list[dict[str, Any]]
Render = Callable[..., Path]
# One for each name: that nothing else matters is tested, too.
ANSWERS = {
    answers["service_name"]: answers for answers in pairwise() if "kubernetes" in answers["deploy"]
}
# The oldest that has a pre-stop's `sleep` without asking for it, and the newest that is known.
VERSIONS = ["1.30", kubernetes_validate.latest_version()]


def make(folder: Path) -> Documents:
    """
    The documents of a kustomization; raises AssertionError also for a warning.
    """
    assert shutil.which("kubectl"), "no kubectl: `uv sync` brings one, but not to Macs with Intel"
    ended = subprocess.run(
        ["kubectl", "kustomize", folder], capture_output=True, text=True, check=False
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    return list(yaml.safe_load_all(ended.stdout))


@pytest.fixture(name="folder", scope="session")
def _folder(render: Render) -> Path:
    return render(deploy=["kubernetes"]) / "deploy" / "kubernetes"


@pytest.fixture(name="documents", scope="session")
def _documents(folder: Path) -> dict[str, Any]:
    """
    What production gets, by kind and name.
    """
    made = make(folder / "overlays" / "production")
    return {f"{each['kind']}/{each['metadata']['name']}": each for each in made}


@pytest.fixture(name="deployment", scope="session")
def _deployment(documents: dict[str, Any]) -> Any:
    return documents["Deployment/order-desk-web"]["spec"]


@pytest.fixture(name="pod", scope="session")
def _pod(deployment: Any) -> Any:
    return deployment["template"]["spec"]


@pytest.mark.parametrize("answers", ANSWERS.values(), ids=ANSWERS.keys())
def test_valid(render: Render, answers: dict[str, Any]) -> None:
    """
    Whatever was answered, kustomize renders every document without a warning, and each follows
    the schema of its kind, with no unknown field.
    """
    folder = render(**answers) / "deploy" / "kubernetes"

    made = [*make(folder / "base"), *make(folder / "overlays" / "production")]

    # For each process type, for the database, and what is everybody's; the overlay adds two.
    counts = {"web": 5, "worker": 4, "job": 4}
    base = sum(counts[kind] for kind in answers["processes"]) + (answers["database"] != "none")
    assert len(made) == base + base + 2
    for document in made:
        for version in VERSIONS:
            kubernetes_validate.validate(document, version, strict=True)


def test_little_else_matters() -> None:
    """
    Of all answers the manifests hold the service's name, process types and database alone.
    """
    paths = (TEMPLATE / "deploy" / "kubernetes").rglob("*.jinja")
    texts = "".join(path.read_text() for path in paths)

    found = " ".join(re.findall(r"\{[{%#](.*?)[}%#]\}", texts))
    names = {*re.findall(r"[a-z_]+", re.sub(r"'[^']*'", "", found))}
    assert names - {"if", "else", "endif", "in"} == {
        *("service_name", "job_name"),
        *("processes", "database"),
    }


WHOLE = {"deploy": ["kubernetes"], "processes": ["web", "worker", "job"], "database": "postgresql"}


@pytest.fixture(name="whole", scope="session")
def _whole(render: Render) -> dict[str, Any]:
    """
    What production gets with every process type and a database.
    """
    made = make(render(**WHOLE) / "deploy" / "kubernetes" / "overlays" / "production")
    return {f"{each['kind']}/{each['metadata']['name']}": each for each in made}


def pods(documents: dict[str, Any]) -> dict[str, Any]:
    """
    The pods that controllers make, by their component.
    """
    specs = [
        each["spec"].get("jobTemplate", each)["spec"]["template"]
        for each in documents.values()
        if each["kind"] in {"Deployment", "CronJob"}
    ]
    return {each["metadata"]["labels"]["app.kubernetes.io/component"]: each for each in specs}


def test_every_pod_is_restricted(whole: dict[str, Any]) -> None:
    """
    Whatever the process type: the `restricted` Pod Security Standard, no token, nothing writable
    but the backups of jobs, memory limited, and the reason of a failed start in its description.
    """
    found = pods(whole)

    assert found.keys() == {"web", "worker", "job"}
    for kind, pod in found.items():
        spec = pod["spec"]
        containers = [*spec["containers"], *spec["initContainers"]]
        assert [each["args"][0] for each in containers] == [kind, "migrate"]
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert spec["automountServiceAccountToken"] is spec["enableServiceLinks"] is False
        for each in containers:
            assert each["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert each["resources"]["limits"] == {"memory": "256Mi"}
            assert each["terminationMessagePolicy"] == "FallbackToLogsOnError"
            assert each["image"] == "registry.example.com/order-desk:0.1.0"
            writable = [one["name"] for one in each["volumeMounts"] if not one.get("readOnly")]
            assert writable == (["backups"] if each["name"] == "job" else [])
        account = whole[f"ServiceAccount/{spec['serviceAccountName']}"]
        assert account["automountServiceAccountToken"] is False


def test_database_can_be_reached(whole: dict[str, Any]) -> None:
    """
    Every pod may call PostgreSQL and names, and nobody but who watches calls worker or job.
    """
    reach = whole["NetworkPolicy/order-desk-database"]["spec"]
    worker = whole["NetworkPolicy/order-desk-worker"]["spec"]
    job = whole["NetworkPolicy/order-desk-job"]["spec"]
    chosen = reach["podSelector"]["matchLabels"].items()

    assert all(pod["metadata"]["labels"].items() >= chosen for pod in pods(whole).values())
    assert reach["egress"] == [{"ports": [{"port": 5432, "protocol": "TCP"}]}]
    assert [rule["ports"][0]["port"] for rule in worker["ingress"]] == [8001]
    assert worker["policyTypes"] == job["policyTypes"] == ["Ingress", "Egress"]
    assert "ingress" not in job


def test_job_ends(whole: dict[str, Any]) -> None:
    """
    One run at a time, by UTC; wrong usage and configuration are not tried again, being told to stop
    or meeting another run is no failure, and all tries together have a limit.
    """
    cron = whole["CronJob/order-desk-backup"]["spec"]
    run = cron["jobTemplate"]["spec"]
    rules = run["podFailurePolicy"]["rules"]

    assert (cron["concurrencyPolicy"], cron["timeZone"]) == ("Forbid", "Etc/UTC")
    assert cron["startingDeadlineSeconds"] + run["activeDeadlineSeconds"] < 86400
    assert [(rule["action"], rule.get("onExitCodes", {}).get("values")) for rule in rules] == [
        ("FailJob", [64, 78]),
        ("Ignore", [75]),
        ("Ignore", None),
    ]
    assert run["template"]["spec"]["restartPolicy"] == "Never"
    assert run["ttlSecondsAfterFinished"] > 0
    claim = run["template"]["spec"]["volumes"][1]["persistentVolumeClaim"]["claimName"]
    assert f"PersistentVolumeClaim/{claim}" in whole


def test_selectors_find_the_pods(documents: dict[str, Any], deployment: Any, pod: Any) -> None:
    """
    Deployment, Service, budget, spread and network policies all mean the same pods, by labels that
    no other service of the namespace has.
    """
    labels = {"app.kubernetes.io/component": "web", "app.kubernetes.io/name": "order-desk"}
    budget = documents["PodDisruptionBudget/order-desk-web"]["spec"]
    policies = [each["spec"] for each in documents.values() if each["kind"] == "NetworkPolicy"]

    assert deployment["template"]["metadata"]["labels"].items() >= labels.items()
    assert deployment["selector"]["matchLabels"] == labels
    assert documents["Service/order-desk-web"]["spec"]["selector"] == labels
    assert budget["selector"]["matchLabels"] == labels
    assert [each["podSelector"]["matchLabels"] for each in policies] == [labels, labels]
    spread = pod["topologySpreadConstraints"]
    assert [each["labelSelector"]["matchLabels"] for each in spread] == [labels, labels]


def test_redundant(documents: dict[str, Any], deployment: Any, pod: Any) -> None:
    """
    Two pods, in other zones and on other hosts where there are any; a node that is emptied takes
    one at a time, and waits for no pod that serves nothing.
    """
    budget = documents["PodDisruptionBudget/order-desk-web"]["spec"]
    spread = {each["topologyKey"]: each["maxSkew"] for each in pod["topologySpreadConstraints"]}

    assert deployment["replicas"] >= 2
    assert spread == {"topology.kubernetes.io/zone": 1, "kubernetes.io/hostname": 1}
    assert budget["maxUnavailable"] < deployment["replicas"]
    assert budget["unhealthyPodEvictionPolicy"] == "AlwaysAllow"


def test_bad_configuration_stalls(deployment: Any, pod: Any) -> None:
    """
    A release that exits at its start replaces nobody: no pod goes before a new one is ready and
    has stayed so, the rollout is called failed in the end, and the pod's description says why.
    """
    (web,) = pod["containers"]

    assert deployment["strategy"] == {
        "type": "RollingUpdate",
        "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1},
    }
    assert deployment["minReadySeconds"] > 0
    assert deployment["progressDeadlineSeconds"] <= 600
    assert {web[f"{kind}Probe"]["httpGet"]["path"] for kind in ("startup", "readiness")} == {
        "/startupz",
        "/readyz",
    }
    assert web["terminationMessagePolicy"] == "FallbackToLogsOnError"


def test_liveness_is_local(pod: Any) -> None:
    """
    Only what a restart mends restarts a pod: the liveness probe asks /livez, and the end of a pod
    is the process's own drain, without a pause before it.
    """
    (web,) = pod["containers"]

    assert web["livenessProbe"]["httpGet"] == {"path": "/livez", "port": "admin"}
    assert "lifecycle" not in web


def test_restricted(documents: dict[str, Any], pod: Any) -> None:
    """
    The pods keep to the `restricted` Pod Security Standard, can write nowhere, and can't speak to
    the cluster.
    """
    (web,) = pod["containers"]
    inherited, own = pod["securityContext"], web["securityContext"]
    user = {"runAsNonRoot": True, "runAsUser": 10001, "runAsGroup": 10001}

    assert inherited == {**user, "seccompProfile": {"type": "RuntimeDefault"}}
    assert own == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert not {"hostNetwork", "hostPID", "hostIPC", "initContainers"} & pod.keys()
    assert [{*volume} for volume in pod["volumes"]] == [{"name", "secret"}]
    assert all(mount["readOnly"] for mount in web["volumeMounts"])
    account = documents[f"ServiceAccount/{pod['serviceAccountName']}"]
    assert pod["automountServiceAccountToken"] is False
    assert account["automountServiceAccountToken"] is False
    assert not any(each["kind"].endswith("Binding") for each in documents.values())


def test_network(documents: dict[str, Any]) -> None:
    """
    Everybody reaches the service, only those who watch its admin port, and no Service leads there;
    out go names and HTTPS, but not to the cloud's metadata.
    """
    base = documents["NetworkPolicy/order-desk-web"]["spec"]
    extra = documents["NetworkPolicy/order-desk-web-egress"]["spec"]
    (port,) = documents["Service/order-desk-web"]["spec"]["ports"]
    public, admin = base["ingress"]

    assert base["policyTypes"] == ["Ingress", "Egress"]
    assert public == {"ports": [{"port": 8000, "protocol": "TCP"}]}
    assert admin["ports"] == [{"port": 8001, "protocol": "TCP"}]
    assert admin["from"] == [
        {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}
    ]
    assert [part["port"] for rule in base["egress"] for part in rule["ports"]] == [53, 53]
    assert [part["port"] for rule in extra["egress"] for part in rule["ports"]] == [443]
    blocks = [each["ipBlock"] for rule in extra["egress"] for each in rule["to"]]
    assert [block["except"] for block in blocks] == [["169.254.169.254/32"], ["fd00:ec2::254/128"]]
    assert port["targetPort"] == "http"


def test_resources(pod: Any) -> None:
    """
    Memory is asked for and limited alike; processor time is asked for and not limited, since a
    throttled process looks like a stuck one.
    """
    (web,) = pod["containers"]

    assert web["resources"] == {
        "requests": {"cpu": "100m", "memory": "256Mi"},
        "limits": {"memory": "256Mi"},
    }


def test_configuration(documents: dict[str, Any], pod: Any) -> None:
    """
    Settings come from the overlay's ConfigMap, secrets as files that may be missing, and nothing
    from the Services of the namespace; the image is the one that the overlay names.
    """
    (web,) = pod["containers"]
    (source,) = web["envFrom"]
    (volume,) = pod["volumes"]

    settings = documents[f"ConfigMap/{source['configMapRef']['name']}"]
    assert settings["data"] == {"APP_ENVIRONMENT": "production"}
    assert web["env"] == [{"name": "APP_SECRETS_DIR", "value": "/run/secrets/app"}]
    assert volume["secret"] == {"secretName": "order-desk-secrets", "optional": True}
    assert pod["enableServiceLinks"] is False
    assert web["image"] == "registry.example.com/order-desk:0.1.0"
    assert web["args"] == ["web"]


def test_changed_setting_rolls(folder: Path, tmp_path: Path) -> None:
    """
    Another value of a setting is another name of the ConfigMap, and so another pod.
    """
    shutil.copytree(folder, tmp_path / "kubernetes")
    overlay = tmp_path / "kubernetes" / "overlays" / "production"
    path = overlay / "kustomization.yaml"
    path.write_text(path.read_text().replace("=production", "=production\n      - APP_A=1"))

    before, after = make(folder / "overlays" / "production"), make(overlay)

    one, two = (
        next(each["spec"]["template"] for each in made if each["kind"] == "Deployment")
        for made in (before, after)
    )
    assert one != two
    assert [part["envFrom"] for part in one["spec"]["containers"]] != [
        part["envFrom"] for part in two["spec"]["containers"]
    ]
