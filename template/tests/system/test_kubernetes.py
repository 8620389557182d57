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
# What runs a process type; its container has that name.
KINDS = {"web": "Deployment", "worker": "Deployment", "job": "CronJob"}
SERVING = [kind for kind in ("web", "worker") if any(PROJECT.glob(f"src/*/{kind}.py"))]
HAS_DATABASE = any(PROJECT.glob("src/*/chassis/database.py"))
# What `read` understands, or may leave aside.
READABLE = {
    *("apiVersion", "configMapGenerator", "images", "kind"),
    *("labels", "namePrefix", "namespace", "replicas", "resources"),
}


class Workload:
    """
    What runs one process type: its controller, what it starts, and the container of its name.
    """

    def __init__(self, kind: str, document: dict[str, Any], container: dict[str, Any]) -> None:
        self.kind, self.container = kind, container
        self.spec = document["spec"]
        self.run = self.spec.get("jobTemplate", document)["spec"]
        self.pod = self.run["template"]
        self.ports = {
            port.get("name"): port["containerPort"] for port in container.get("ports", [])
        }

    def key(self, key: str) -> str:
        """
        How a number is called in what is told.
        """
        return key if self.kind == "web" else f"{self.kind}: {key}"

    def owns(self, selector: Mapping[str, str]) -> bool:
        """
        Whether these labels are the pod's.
        """
        return {*selector.items()} <= {*self.pod["metadata"]["labels"].items()}


class Manifests:
    """
    What one kustomization makes, and in it the process types of this service.
    """

    def __init__(self, path: Path) -> None:
        # Which of its files holds what is wrong, the rendered whole does not tell.
        self.path = path.parent.relative_to(PROJECT)
        self.documents = render(path)
        self.workloads = [
            Workload(container["name"], document, container)
            for document in [*self.of_kind("Deployment"), *self.of_kind("CronJob")]
            for container in pod_of(document)["spec"]["containers"]
            if KINDS.get(container["name"]) == document["kind"]
        ]
        found = [each.kind for each in self.workloads]
        for kind in SERVING:
            count = found.count(kind)
            assert count == 1, f"{self.path}: {count} Deployments have a container `{kind}`"

    @property
    def serving(self) -> list[Workload]:
        return [each for each in self.workloads if each.kind in SERVING]

    @property
    def jobs(self) -> list[Workload]:
        return [each for each in self.workloads if each.kind == "job"]

    def of_kind(self, kind: str) -> list[dict[str, Any]]:
        return [document for document in self.documents if document["kind"] == kind]

    def variables(self, workload: Workload) -> dict[str, str | None]:
        """
        The settings that the container gets, with None for a text that is in no manifest; raises
        AssertionError where not even the names can be seen.
        """
        found: dict[str, str | None] = {}
        held = {
            each["metadata"]["name"]: each.get("data", {}) for each in self.of_kind("ConfigMap")
        }
        for source in workload.container.get("envFrom", []):
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
        found |= {each["name"]: each.get("value") for each in workload.container.get("env", [])}
        return {name: text for name, text in found.items() if name.startswith("APP_")}


def pod_of(document: dict[str, Any]) -> Any:
    """
    The template of the pods that a controller makes.
    """
    return document["spec"].get("jobTemplate", document)["spec"]["template"]


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
    loaded = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert loaded.keys() <= READABLE, f"{path}: {sorted(loaded.keys() - READABLE)} {why}"
    counts = {each["name"]: each["count"] for each in loaded.get("replicas", [])}
    for resource in loaded.get("resources", []):
        there = path.parent / resource
        assert there.exists(), f"{path}: {resource} {why}"
        inner = (
            read(there / path.name)
            if there.is_dir()
            else yaml.safe_load_all(there.read_text(encoding="utf-8"))
        )
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
            lines += (path.parent / name).read_text(encoding="utf-8").splitlines()
        pairs = [line.partition("=") for line in lines if line.strip() and line[0] != "#"]
        data = {name: text.strip("\"'") for name, _, text in pairs}
        yield {"kind": "ConfigMap", "metadata": {"name": generator["name"]}, "data": data}


@pytest.fixture(
    name="manifests", scope="session", params=PATHS, ids=[path.parent.name for path in PATHS]
)
def _manifests(request: pytest.FixtureRequest) -> Manifests:
    return Manifests(request.param)


Settings = Callable[[Workload], dict[str, str]]


@pytest.fixture(name="settings", scope="session")
def _settings(manifests: Manifests, values: Callable[..., dict[str, str]]) -> Settings:
    """
    What is in force in a container.
    """
    return lambda workload: values(manifests.path, manifests.variables(workload))


def numbers(workload: Workload) -> Iterator[tuple[str, tuple[Any, str]]]:
    """
    Where a number stands, what it is or what Kubernetes takes without it, and its setting.
    """
    container, pod, ports = workload.container, workload.pod["spec"], workload.ports
    grace = pod.get("terminationGracePeriodSeconds", 30)
    yield "terminationGracePeriodSeconds", (grace, "APP_PLATFORM_GRACE_SECONDS")
    pause = container.get("lifecycle", {}).get("preStop", {"sleep": {"seconds": 0}})
    seconds = pause.get("sleep", {}).get("seconds", "of unknown length (use `sleep`)")
    yield "lifecycle.preStop.sleep.seconds", (seconds, "APP_PRE_STOP_SECONDS")
    if workload.kind in SERVING:
        yield from numbers_of_probes(workload)
    if workload.kind == "web":
        yield "ports.http.containerPort", (ports.get("http"), "APP_PORT")


def numbers_of_probes(workload: Workload) -> Iterator[tuple[str, tuple[Any, str]]]:
    """
    The same of probes and their port.
    """
    ports = workload.ports
    for kind in ("startup", "readiness", "liveness"):
        key, probe = f"{kind}Probe", workload.container.get(f"{kind}Probe", {})
        port, timeout = probe.get("httpGet", {}).get("port"), probe.get("timeoutSeconds", 1)
        yield f"{key}.httpGet.port", (ports.get(port, port), "APP_ADMIN_PORT")
        limit = "LIVENESS" if kind == "liveness" else "PROBE"
        yield f"{key}.timeoutSeconds", (timeout, f"APP_{limit}_TIMEOUT_SECONDS")
        # A probe may have one of its own.
        if own := probe.get("terminationGracePeriodSeconds"):
            yield f"{key}.terminationGracePeriodSeconds", (own, "APP_PLATFORM_GRACE_SECONDS")
        if kind != "startup":
            period, failures = probe.get("periodSeconds", 10), probe.get("failureThreshold", 3)
            yield f"{key}.periodSeconds", (period, f"APP_{kind.upper()}_PERIOD_SECONDS")
            yield f"{key}.failureThreshold", (failures, f"APP_{kind.upper()}_FAILURES")
    yield "ports.admin.containerPort", (ports.get("admin"), "APP_ADMIN_PORT")
    scraped = workload.pod["metadata"].get("annotations", {}).get("prometheus.io/port")
    if scraped:
        yield "annotations.prometheus.io/port", (scraped, "APP_ADMIN_PORT")


@pytest.mark.promise("C4")
def test_one_truth(manifests: Manifests, compare: Callable[..., None]) -> None:
    """
    Grace, pause, probes and ports are those that the service is told and counts on.
    """
    for each in manifests.workloads:
        said = {each.key(key): pair for key, pair in numbers(each)}
        signal = each.container.get("lifecycle", {}).get("stopSignal", "SIGTERM")

        compare(manifests.path, manifests.variables(each), said)
        assert signal == "SIGTERM", (
            f"{manifests.path}: {each.key('stopSignal')} is {signal}, and only SIGTERM drains"
        )


def test_ports_are_served(manifests: Manifests, settings: Settings) -> None:
    """
    What Services and network policies let through to the pods is a port of the service.
    """
    wrong = []
    for each in manifests.serving:
        force = settings(each)
        served = {force["APP_PORT"], force["APP_ADMIN_PORT"]}
        wrong += [
            f"{manifests.path}: {where} leads to {port}, but APP_PORT and APP_ADMIN_PORT are "
            f"{served}"
            for where, port in led(manifests, each)
            if str(each.ports.get(port, port)) not in served
        ]

    assert not wrong, "\n".join(wrong)


def led(manifests: Manifests, workload: Workload) -> Iterator[tuple[str, Any]]:
    """
    What leads to the pods, and to which of their ports.
    """
    for each in manifests.of_kind("Service"):
        if workload.owns(each["spec"].get("selector", {})):
            for port in each["spec"]["ports"]:
                yield f"Service {each['metadata']['name']}", port.get("targetPort", port["port"])
    for each in manifests.of_kind("NetworkPolicy"):
        if workload.owns(each["spec"]["podSelector"].get("matchLabels", {})):
            for rule in each["spec"].get("ingress", []):
                for port in rule.get("ports", []):
                    yield f"NetworkPolicy {each['metadata']['name']}", port["port"]


def test_secrets_are_where_they_are_read(manifests: Manifests) -> None:
    """
    APP_SECRETS_DIR is a mounted folder.
    """
    for each in manifests.workloads:
        mounted = [one["mountPath"] for one in each.container.get("volumeMounts", [])]

        folder = manifests.variables(each).get("APP_SECRETS_DIR")

        assert folder is None or folder in mounted, (
            f"{manifests.path}: {each.key('APP_SECRETS_DIR')} is {folder}, "
            f"but mounted are {mounted}"
        )


def test_rollout_waits_for_the_new(manifests: Manifests) -> None:
    """
    No pod goes before another is ready, and there is time to become so.
    """
    for each in manifests.serving:
        spec, container = each.spec, each.container
        rolling = spec.get("strategy", {}).get("rollingUpdate", {})
        startup = container["startupProbe"]
        start = startup.get("periodSeconds", 10) * startup.get("failureThreshold", 3)

        assert rolling.get("maxUnavailable") == 0, (
            f"{manifests.path}: {each.key('maxUnavailable')} must be 0"
        )
        deadline, settled = spec.get("progressDeadlineSeconds", 600), spec.get("minReadySeconds", 0)
        assert deadline > start + settled, (
            f"{manifests.path}: {each.key('progressDeadlineSeconds')} is {deadline}, but the "
            f"startup probe takes up to {start} and minReadySeconds {settled}: raise it"
        )


def test_production_survives_the_loss_of_one(manifests: Manifests, settings: Settings) -> None:
    """
    Where APP_ENVIRONMENT is production there are two pods at least.
    """
    for each in manifests.serving:
        scaled = manifests.of_kind("HorizontalPodAutoscaler")
        replicas = each.spec.get("replicas", 1)

        least = min((one["spec"].get("minReplicas", 1) for one in scaled), default=replicas)

        assert least >= 2 or settings(each)["APP_ENVIRONMENT"] != "production", (
            f"{manifests.path}: {least} {each.kind} replica in production: have two at least"
        )


@pytest.mark.promise("C4")
def test_connections_are_counted(manifests: Manifests, compare: Callable[..., None]) -> None:
    """
    With a database there are as many pods as were declared to it, also during a rollout.
    """
    for each in manifests.serving if HAS_DATABASE else []:
        scaled = [
            one["spec"]["maxReplicas"] for one in manifests.of_kind("HorizontalPodAutoscaler")
        ]
        replicas = max(scaled, default=each.spec.get("replicas", 1))
        surge = each.spec.get("strategy", {}).get("rollingUpdate", {}).get("maxSurge", "25%")

        said = {"replicas": (replicas, "APP_REPLICAS"), "maxSurge": (surge, "APP_SURGE")}
        compare(
            manifests.path,
            manifests.variables(each),
            {each.key(key): pair for key, pair in said.items()},
        )


@pytest.mark.promise("C4")
def test_runs_end_before_the_next(
    manifests: Manifests, settings: Settings, interval: Callable[[str], float]
) -> None:
    """
    A job is started as often as declared; its own limit comes before that of Kubernetes, and both
    before the next start, however late it began.
    """
    for each in manifests.jobs:
        force, where = settings(each), f"{manifests.path}: job"
        declared = float(force["APP_JOB_INTERVAL_SECONDS"])
        names = ("APP_JOB_JITTER", "APP_JOB_MAX_RUNTIME", "APP_PLATFORM_GRACE")
        longest = sum(float(force[f"{name}_SECONDS"]) for name in names)
        between, late = interval(each.spec["schedule"]), each.spec.get("startingDeadlineSeconds", 0)
        deadline = each.run.get("activeDeadlineSeconds")

        assert between == declared, (
            f"{where}: schedule {each.spec['schedule']!r} starts it every {between:g} s at the "
            f"shortest, but APP_JOB_INTERVAL_SECONDS is {declared:g}"
        )
        assert deadline is not None, f"{where}: activeDeadlineSeconds is missing"
        assert deadline > longest, (
            f"{where}: activeDeadlineSeconds is {deadline}, but a run takes up to {longest:g} s "
            "(APP_JOB_JITTER_SECONDS, APP_JOB_MAX_RUNTIME_SECONDS, APP_PLATFORM_GRACE_SECONDS)"
        )
        assert late + deadline <= between, (
            f"{where}: startingDeadlineSeconds {late} and activeDeadlineSeconds {deadline} are "
            f"more than the {between:g} s until the next start"
        )


def test_runs_do_not_overlap(manifests: Manifests) -> None:
    """
    One run at a time, by UTC; what another try would not mend ends it.
    """
    for each in manifests.jobs:
        rules = each.run.get("podFailurePolicy", {}).get("rules", [])
        failed = [
            code
            for rule in rules
            if rule["action"] == "FailJob"
            for code in rule.get("onExitCodes", {}).get("values", [])
        ]
        policy, zone = each.spec.get("concurrencyPolicy", "Allow"), each.spec.get("timeZone")

        assert policy == "Forbid", f"{manifests.path}: job: concurrencyPolicy is {policy}"
        assert zone in {"Etc/UTC", "UTC"}, f"{manifests.path}: job: timeZone is {zone}"
        assert {64, 78} <= {*failed}, f"{manifests.path}: job: FailJob has the exit codes {failed}"
