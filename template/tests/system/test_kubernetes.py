"""
What the Kubernetes manifests say of times, ports and folders is what the settings say.

kubectl (or kustomize) renders base and overlays. Where there is neither, they are read: that is
enough for an overlay that sets an image, labels, replicas and settings, and no other passes.
"""

import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

PROJECT = Path(__file__).parents[2]
FOLDER = PROJECT / "deploy" / "kubernetes"
PATHS = [
    FOLDER / "base" / "kustomization.yaml",
    *sorted(FOLDER.glob("overlays/*/kustomization.yaml")),
]
# What `read` understands, or may leave aside.
READABLE = {
    *("apiVersion", "configMapGenerator", "images", "kind"),
    *("labels", "namePrefix", "namespace", "replicas", "resources"),
}


class Manifests:
    """
    What one kustomization makes, and in it the Deployment that has a container `web`.
    """

    def __init__(self, path: Path) -> None:
        # Which of its files holds what is wrong, the rendered whole does not tell.
        self.path = path.parent.relative_to(PROJECT)
        self.documents = render(path)
        found = [
            (document["spec"], container)
            for document in self.of_kind("Deployment")
            for container in document["spec"]["template"]["spec"]["containers"]
            if container["name"] == "web"
        ]
        assert len(found) == 1, f"{self.path}: {len(found)} Deployments have a container `web`"
        self.spec, self.web = found[0]
        self.pod = self.spec["template"]
        self.ports = {port.get("name"): port["containerPort"] for port in self.web["ports"]}

    def of_kind(self, kind: str) -> list[dict[str, Any]]:
        return [document for document in self.documents if document["kind"] == kind]

    def ours(self, selector: Mapping[str, str]) -> bool:
        """
        Whether these labels are the pod's.
        """
        return {*selector.items()} <= {*self.pod["metadata"]["labels"].items()}

    def variables(self) -> dict[str, str | None]:
        """
        The settings that the container gets, with None for a text that is in no manifest; raises
        AssertionError where not even the names can be seen.
        """
        found: dict[str, str | None] = {}
        held = {
            each["metadata"]["name"]: each.get("data", {}) for each in self.of_kind("ConfigMap")
        }
        for source in self.web.get("envFrom", []):
            name = source.get("configMapRef", {}).get("name")
            # The base leaves its settings to the overlays.
            if name not in held and PROJECT / self.path == PATHS[0].parent:
                continue
            assert name in held, (
                f"{self.path}: what {source} holds can't be seen; "
                "generate settings by configMapGenerator, mount secrets as files"
            )
            prefix = source.get("prefix", "")
            found |= {prefix + key: text for key, text in held[name].items()}
        found |= {each["name"]: each.get("value") for each in self.web.get("env", [])}
        return {name: text for name, text in found.items() if name.startswith("APP_")}


def render(path: Path) -> list[dict[str, Any]]:
    """
    The documents that a kustomization makes.
    """
    for command in (["kubectl", "kustomize"], ["kustomize", "build"]):
        if shutil.which(command[0]):
            ended = subprocess.run(  # noqa: S603  # a tool on PATH and a folder of ours
                [*command, str(path.parent)],
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
            assert ended.returncode == 0, f"{path}: {ended.stderr}"
            return [each for each in yaml.safe_load_all(ended.stdout) if each]
    return list(read(path))


def read(path: Path) -> Iterator[dict[str, Any]]:
    """
    The same without a tool, names and labels aside; raises AssertionError for what it can't tell.
    """
    why = "can't be read without kubectl; install it to test this overlay"
    loaded = yaml.safe_load(path.read_text())
    assert loaded.keys() <= READABLE, f"{path}: {sorted(loaded.keys() - READABLE)} {why}"
    counts = {each["name"]: each["count"] for each in loaded.get("replicas", [])}
    for resource in loaded.get("resources", []):
        there = path.parent / resource
        assert there.exists(), f"{path}: {resource} {why}"
        inner = read(there / path.name) if there.is_dir() else yaml.safe_load_all(there.read_text())
        for document in filter(None, inner):
            name = document["metadata"]["name"]
            for each, count in counts.items():
                # Named with its prefix or without.
                if document["kind"] == "Deployment" and f"-{each}".endswith(f"-{name}"):
                    document["spec"]["replicas"] = count
            yield document
    for generator in loaded.get("configMapGenerator", []):
        other = generator.keys() - {"envs", "literals", "name"}
        assert not other, f"{path}: {sorted(other)} {why}"
        lines = list(generator.get("literals", []))
        for name in generator.get("envs", []):
            lines += (path.parent / name).read_text().splitlines()
        pairs = [line.partition("=") for line in lines if line.strip() and line[0] != "#"]
        data = {name: text.strip("\"'") for name, _, text in pairs}
        yield {"kind": "ConfigMap", "metadata": {"name": generator["name"]}, "data": data}


@pytest.fixture(
    name="manifests", scope="session", params=PATHS, ids=[path.parent.name for path in PATHS]
)
def _manifests(request: pytest.FixtureRequest) -> Manifests:
    return Manifests(request.param)


@pytest.fixture(name="settings", scope="session")
def _settings(manifests: Manifests, values: Callable[..., dict[str, str]]) -> dict[str, str]:
    """
    What is in force in the container.
    """
    return values(manifests.path, manifests.variables())


def numbers(manifests: Manifests) -> Iterator[tuple[str, tuple[Any, str]]]:
    """
    Where a number stands, what it is or what Kubernetes takes without it, and its setting.
    """
    web, pod, ports = manifests.web, manifests.pod["spec"], manifests.ports
    grace = pod.get("terminationGracePeriodSeconds", 30)
    yield "terminationGracePeriodSeconds", (grace, "APP_PLATFORM_GRACE_SECONDS")
    pause = web.get("lifecycle", {}).get("preStop", {"sleep": {"seconds": 0}})
    seconds = pause.get("sleep", {}).get("seconds", "of unknown length (use `sleep`)")
    yield "lifecycle.preStop.sleep.seconds", (seconds, "APP_PRE_STOP_SECONDS")
    for kind in ("startup", "readiness", "liveness"):
        key, probe = f"{kind}Probe", web.get(f"{kind}Probe", {})
        port, timeout = probe.get("httpGet", {}).get("port"), probe.get("timeoutSeconds", 1)
        yield f"{key}.httpGet.port", (ports.get(port, port), "APP_ADMIN_PORT")
        yield f"{key}.timeoutSeconds", (timeout, "APP_PROBE_TIMEOUT_SECONDS")
        # A probe may have one of its own.
        if own := probe.get("terminationGracePeriodSeconds"):
            yield f"{key}.terminationGracePeriodSeconds", (own, "APP_PLATFORM_GRACE_SECONDS")
        if kind != "startup":
            period, failures = probe.get("periodSeconds", 10), probe.get("failureThreshold", 3)
            yield f"{key}.periodSeconds", (period, f"APP_{kind.upper()}_PERIOD_SECONDS")
            yield f"{key}.failureThreshold", (failures, f"APP_{kind.upper()}_FAILURES")
    yield "ports.http.containerPort", (ports.get("http"), "APP_PORT")
    yield "ports.admin.containerPort", (ports.get("admin"), "APP_ADMIN_PORT")
    scraped = manifests.pod["metadata"].get("annotations", {}).get("prometheus.io/port")
    if scraped:
        yield "annotations.prometheus.io/port", (scraped, "APP_ADMIN_PORT")


@pytest.mark.promise("C4")
def test_one_truth(manifests: Manifests, compare: Callable[..., None]) -> None:
    """
    Grace, pause, probes and ports are those that the service is told and counts on.
    """
    signal = manifests.web.get("lifecycle", {}).get("stopSignal", "SIGTERM")

    compare(manifests.path, manifests.variables(), dict(numbers(manifests)))
    assert signal == "SIGTERM", f"{manifests.path}: stopSignal is {signal}, and only SIGTERM drains"


def test_ports_are_served(manifests: Manifests, settings: dict[str, str]) -> None:
    """
    What Services and network policies let through to the pods is a port of the service.
    """
    served = {settings["APP_PORT"], settings["APP_ADMIN_PORT"]}
    led = [
        (f"Service {each['metadata']['name']}", port.get("targetPort", port["port"]))
        for each in manifests.of_kind("Service")
        if manifests.ours(each["spec"].get("selector", {}))
        for port in each["spec"]["ports"]
    ]
    led += [
        (f"NetworkPolicy {each['metadata']['name']}", port["port"])
        for each in manifests.of_kind("NetworkPolicy")
        if manifests.ours(each["spec"]["podSelector"].get("matchLabels", {}))
        for rule in each["spec"].get("ingress", [])
        for port in rule.get("ports", [])
    ]

    wrong = [
        f"{manifests.path}: {where} leads to {port}, but APP_PORT and APP_ADMIN_PORT are {served}"
        for where, port in led
        if str(manifests.ports.get(port, port)) not in served
    ]
    assert not wrong, "\n".join(wrong)


def test_secrets_are_where_they_are_read(manifests: Manifests) -> None:
    """
    APP_SECRETS_DIR is a mounted folder.
    """
    mounted = [each["mountPath"] for each in manifests.web.get("volumeMounts", [])]

    folder = manifests.variables().get("APP_SECRETS_DIR")

    assert folder is None or folder in mounted, (
        f"{manifests.path}: APP_SECRETS_DIR is {folder}, but mounted are {mounted}"
    )


def test_rollout_waits_for_the_new(manifests: Manifests, settings: dict[str, str]) -> None:
    """
    No pod goes before another is ready, there is time to become so, and the watchdog, which says
    why, ends a stuck process before the liveness probe does.
    """
    spec, web = manifests.spec, manifests.web
    rolling = spec.get("strategy", {}).get("rollingUpdate", {})
    startup, liveness = web["startupProbe"], web["livenessProbe"]
    start = startup.get("periodSeconds", 10) * startup.get("failureThreshold", 3)
    stuck = liveness.get("periodSeconds", 10) * liveness.get("failureThreshold", 3)

    assert rolling.get("maxUnavailable") == 0, f"{manifests.path}: maxUnavailable must be 0"
    deadline, settled = spec.get("progressDeadlineSeconds", 600), spec.get("minReadySeconds", 0)
    assert deadline > start + settled, (
        f"{manifests.path}: progressDeadlineSeconds is {deadline}, but the startup probe takes "
        f"up to {start} and minReadySeconds {settled}: raise it"
    )
    assert stuck > float(settings["APP_WATCHDOG_SECONDS"]), (
        f"{manifests.path}: the liveness probe ends a stuck process after {stuck} s, but "
        f"APP_WATCHDOG_SECONDS is {settings['APP_WATCHDOG_SECONDS']}: let the watchdog be first"
    )


def test_production_survives_the_loss_of_one(
    manifests: Manifests, settings: dict[str, str]
) -> None:
    """
    Where APP_ENVIRONMENT is production there are two pods at least.
    """
    scaled = manifests.of_kind("HorizontalPodAutoscaler")
    replicas = manifests.spec.get("replicas", 1)

    least = min((each["spec"].get("minReplicas", 1) for each in scaled), default=replicas)

    assert least >= 2 or settings["APP_ENVIRONMENT"] != "production", (
        f"{manifests.path}: {least} replica in production: have two at least"
    )
