"""
Checks of what the manifests ask the platform for.
"""

import re
from collections.abc import Iterator
from typing import Any

import yaml

from ops.tools.finding import Finding, judge, not_yet, nothing, passes
from ops.tools.project import Project

__all__ = [
    "admin_port_private",
    "base_image_pinned",
    "containers_hardened",
    "disruption_budget",
    "image_hardened",
    "memory_limited",
    "replicas",
    "replicas_spread",
    "restart_policy",
    "times_consistent",
]

_KUBERNETES = ("deploy/kubernetes/base/*.yaml", "deploy/kubernetes/overlays/*/*.yaml")
_ELSEWHERE = ("compose.yaml", "deploy/systemd/*.service", "deploy/nomad/*.hcl")
# How each platform is told; keys are the ends of the files' names.
_GRACE = {
    "yaml": r"(?:stop_grace_period|terminationGracePeriodSeconds):\s*(\d+)",
    "service": r"TimeoutStopSec=(\d+)",
    "hcl": r"\"kill_timeout\" \{[^}]*default\s*=\s*\"(\d+)s\"",
}
_NO_IMAGE = nothing("there is no Dockerfile")
_HARDENED = {
    "service": [r"^ProtectSystem=strict$", r"^NoNewPrivileges=yes$", r"^CapabilityBoundingSet=$"],
    "hcl": [r"readonly_rootfs\s*=\s*true", r"no-new-privileges", r"cap_drop\s*=\s*\[\"all\"\]"],
}


def _documents(project: Project) -> Iterator[dict[str, Any]]:
    for text in project.texts(*_KUBERNETES).values():
        yield from filter(None, yaml.safe_load_all(text))


def _workloads(project: Project) -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
    """
    Name, controller and pod of each; a CronJob has its pod one level further in.
    """
    for document in _documents(project):
        if document.get("kind") in {"Deployment", "StatefulSet", "CronJob"}:
            inner = document["spec"].get("jobTemplate", document)["spec"]["template"]["spec"]
            yield document["metadata"]["name"], document, inner


def _serving(project: Project) -> dict[str, dict[str, Any]]:
    return {
        name: document for name, document, _ in _workloads(project) if document["kind"] != "CronJob"
    }


def _services(project: Project) -> dict[str, dict[str, Any]]:
    """
    Those of compose.yaml that are ours: they have settings.
    """
    loaded = [yaml.safe_load(text) for text in project.texts("compose.yaml").values()]
    return {
        name: service
        for each in loaded
        for name, service in each["services"].items()
        if "APP_ENVIRONMENT" in str(service.get("environment"))
    }


def _counts(project: Project) -> dict[str, int]:
    """
    How many there are of what serves, by manifest; an overlay has the last word.
    """
    counts = {
        f"kubernetes {name}": document["spec"].get("replicas", 1)
        for name, document in _serving(project).items()
    }
    for document in _documents(project):
        for each in document.get("replicas", []):
            names = (key for key in counts if f"-{each['name']}".endswith(f"-{key.split()[1]}"))
            counts |= dict.fromkeys(names, each["count"])
    for name, text in project.texts("deploy/nomad/*.hcl").items():
        if found := re.search(r"\"count\" \{[^}]*default\s*=\s*(\d+)", text):
            counts[name] = int(found[1])
    return counts


def _nowhere(project: Project) -> Finding | None:
    """
    What is found where no replicas are to be seen.
    """
    if not {"web", "worker"} & {*project.process_types}:
        return nothing("a job runs once; nothing of it serves")
    if _counts(project):
        return None
    hosts = [*project.texts("compose.yaml", "deploy/systemd/*.service")]
    said = f"{', '.join(hosts)}: on one host" if hosts else "no manifest in deploy/"
    return not_yet(
        f"{said}; its end is the end of the service",
        next="run it on a cluster, or waive this with the names of the hosts",
    )


def replicas(project: Project) -> Finding:
    """
    Two or more of each process that serves, three or more where the tier is A.
    """
    least, counts = 3 if project.said("tier") == "A" else 2, _counts(project)
    faults = [f"{name} needs {least}" for name, count in counts.items() if count < least]
    said = ", ".join(f"{name}: {count}" for name, count in counts.items())
    return _nowhere(project) or judge(
        faults, said, next="`replicas` of an overlay, or `count` of the Nomad job"
    )


def replicas_spread(project: Project) -> Finding:
    """
    Replicas are told to run on different machines.
    """
    faults = [
        f"{name} is not spread over hosts"
        for name, _, pod in _workloads(project)
        if name in _serving(project)
        and "kubernetes.io/hostname"
        not in str(pod.get("topologySpreadConstraints", pod.get("affinity")))
    ]
    faults += [
        f"{name} is not spread over nodes"
        for name, text in project.texts("deploy/nomad/*.hcl").items()
        if name in _counts(project) and not re.search(r"node\.unique\.id|distinct_hosts", text)
    ]
    said = ", ".join(_counts(project))
    return _nowhere(project) or judge(
        faults, f"looked at {said}", next="topologySpreadConstraints, or `spread`"
    )


def disruption_budget(project: Project) -> Finding:
    """
    Who empties a node takes one replica of web at a time.
    """
    serving = {name for name in _serving(project) if name == "web"}
    if not serving:
        return nothing("no web on Kubernetes")
    budgets = [each for each in _documents(project) if each.get("kind") == "PodDisruptionBudget"]
    said = [
        str(each["spec"].get("maxUnavailable", each["spec"].get("minAvailable")))
        for each in budgets
    ]
    # None may go: then no node can ever be emptied.
    faults = [] if budgets else ["web has no PodDisruptionBudget"]
    faults += ["no pod may ever go"] if {"0", "0%", "100%"} & {*said} else []
    return judge(
        faults,
        f"budgets: {', '.join(said) or 'none'}",
        next="deploy/kubernetes/base/disruption.yaml",
    )


def restart_policy(project: Project) -> Finding:
    """
    Wrong usage and wrong configuration (64, 78) are not tried again where the platform can tell.
    """
    faults = []
    units = project.texts("deploy/systemd/*.service")
    for name, text in units.items():
        said = re.findall(r"(?m)^RestartPreventExitStatus=(.*)$", text)
        if not {"64", "78"} <= {*" ".join(said).split()}:
            faults.append(f"{name} restarts after 64 or 78")
    jobs = [(name, each) for name, each, _ in _workloads(project) if each["kind"] == "CronJob"]
    for name, document in jobs:
        rules = document["spec"]["jobTemplate"]["spec"].get("podFailurePolicy", {}).get("rules", [])
        codes = {
            code
            for rule in rules
            if rule["action"] == "FailJob"
            for code in rule.get("onExitCodes", {}).get("values", [])
        }
        if not {64, 78} <= codes:
            faults.append(f"CronJob {name} is tried again after 64 or 78")
    told = f"{len(units)} systemd units and {len(jobs)} CronJobs end for good on 64 and 78"
    mend = "RestartPreventExitStatus=64 78, or podFailurePolicy"
    return judge(faults, told, next=mend, looked=[*units, *jobs])


def image_hardened(project: Project) -> Finding:
    """
    The image runs as a number that is not root's, in exec form, and no secret is built into it.
    """
    if not (text := project.texts("Dockerfile").get("Dockerfile", "")):
        return _NO_IMAGE
    user = (re.findall(r"(?m)^USER\s+(\S+)", text) or ["root"])[-1]
    entry = re.findall(r"(?m)^ENTRYPOINT\s+(.*)", text)
    words = "password|secret|token|api_?key|credential"
    pattern = rf"(?im)^\s*(?:(?:ENV|ARG)\s+)?(\w*(?:{words})\w*)[ =]"
    faults = [f"{name} is in the image" for name in re.findall(pattern, text)]
    faults += [] if re.match(r"[1-9]\d*(:|$)", user) else [f"USER is {user}"]
    faults += [] if entry and entry[-1].startswith("[") else ["ENTRYPOINT is not in exec form"]
    return judge(faults, f"USER {user}, ENTRYPOINT {entry[-1:]}", next="Dockerfile")


def containers_hardened(project: Project) -> Finding:
    """
    Each container has a read-only root, no capabilities and no way to more privileges.
    """
    looked, faults = 0, []
    for name, _, pod in _workloads(project):
        for each in [*pod.get("initContainers", []), *pod["containers"]]:
            looked, context = looked + 1, each.get("securityContext", {})
            wanted = {"readOnlyRootFilesystem": True, "allowPrivilegeEscalation": False}
            drops = context.get("capabilities", {}).get("drop", [])
            if "ALL" not in drops or not wanted.items() <= context.items():
                faults.append(f"kubernetes {name}: {each['name']}")
    for name, service in _services(project).items():
        looked += 1
        options = " ".join(service.get("security_opt", []))
        if not (
            service.get("read_only")
            and "ALL" in service.get("cap_drop", [])
            and re.search("no-new-privileges(:true)?( |$)", options)
        ):
            faults.append(f"compose {name}")
    for name, text in project.texts(*_ELSEWHERE[1:]).items():
        # Each task of a Nomad job has a driver.
        parts = text.split("driver ")[1:] if name.endswith("hcl") else [text]
        looked += len(parts)
        patterns = _HARDENED[name.rpartition(".")[2]]
        if not all(
            re.search(pattern, part, re.MULTILINE) for part in parts for pattern in patterns
        ):
            faults.append(name)
    faults = [f"{fault} is not hardened" for fault in faults]
    mend = "read-only root, drop ALL capabilities, no new privileges: docs of your platform"
    return judge(faults, f"{looked} containers and units", next=mend, looked=looked)


def memory_limited(project: Project) -> Finding:
    """
    Each container has a limit of memory, so that a leak ends one process and no machine.
    """
    faults = [
        f"kubernetes {name}: {each['name']}"
        for name, _, pod in _workloads(project)
        for each in [*pod.get("initContainers", []), *pod["containers"]]
        if not each.get("resources", {}).get("limits", {}).get("memory")
    ]
    for name, service in _services(project).items():
        if "memory" not in str(service.get("deploy")) and not service.get("mem_limit"):
            faults.append(f"compose {name}")
    for name, text in project.texts(*_ELSEWHERE[1:]).items():
        faults += [] if re.search(r"(?m)^MemoryMax=\d|^\s*memory\s*=", text) else [name]
    faults = [f"{fault} has no limit of memory" for fault in faults]
    count, mend = len(project.texts(*_KUBERNETES, *_ELSEWHERE)), "the limit of memory there"
    return judge(faults, f"{count} manifests", next=mend, looked=count)


def base_image_pinned(project: Project) -> Finding:
    """
    The base image is named by its digest, and the overlays' images are yours.
    """
    if not (text := project.texts("Dockerfile").get("Dockerfile", "")):
        return _NO_IMAGE
    base = (re.findall(r"(?m)^ARG BASE_IMAGE=(\S+)", text) or ["unknown"])[0]
    images = [each for one in _documents(project) for each in one.get("images", [])]
    named = [each.get("newName", "") for each in images]
    if "@sha256:" not in base:
        return not_yet(
            f"BASE_IMAGE={base} moves",
            next="let Renovate pin it, or append @sha256:… in Dockerfile",
        )
    if any("registry.example.com" in name for name in named):
        return not_yet(f"image {named}", next="name your registry in deploy/kubernetes/overlays/")
    return passes(f"BASE_IMAGE={base}")


def admin_port_private(project: Project) -> Finding:
    """
    No manifest publishes the admin port: it is for probes and Prometheus.
    """
    port = project.settings.get("APP_ADMIN_PORT", "8001")
    faults = []
    for document in _documents(project):
        spec, name = document.get("spec", {}), document.get("metadata", {}).get("name")
        if document.get("kind") in {"Service", "Ingress"} and re.search(
            rf"\b{port}\b|'admin'", str(spec)
        ):
            faults.append(f"{document['kind']} {name} publishes it")
        for rule in spec.get("ingress", []) if document.get("kind") == "NetworkPolicy" else []:
            ports = [str(each.get("port")) for each in rule.get("ports", [])]
            if not rule.get("from") and ({port, "admin"} & {*ports} or not ports):
                faults.append(f"NetworkPolicy {name} lets everybody to it")
    faults += [
        f"compose {name} publishes {each}"
        for name, service in _services(project).items()
        for each in map(str, service.get("ports", []))
        if each.endswith(f":{port}") and not each.startswith(("127.0.0.1:", "[::1]:"))
    ]
    if project.settings.get("APP_PROBES_ON_PUBLIC_PORT") == "true":
        faults.append("APP_PROBES_ON_PUBLIC_PORT is on")
    looked = len([*_documents(project)]) + len(_services(project))
    said = f"admin port {port}; {looked} objects of compose and Kubernetes"
    return judge(faults, said, next="leave it to probes and Prometheus", looked=looked)


def times_consistent(project: Project) -> Finding:
    """
    The limits fit into each other, and the platform waits as long as the service counts on.
    """
    if not project.settings:
        # What is missing says nothing of the limits.
        wrong = project.problems.items()
        faults = [f"{name} {said}" for name, said in wrong if not said.startswith("is missing")]
        if not faults:
            return not_yet("the settings are not complete", next="see `configuration`")
        return judge(faults, "they can't be compared", next="see `config show`")
    faults, looked, every = [], 0, project.texts(*_KUBERNETES, *_ELSEWHERE)
    told = re.findall(r"APP_PLATFORM_GRACE_SECONDS\s*[:=]\s*\"?(\d+)", "\n".join(every.values()))
    grace = max(map(float, [*told, project.settings["APP_PLATFORM_GRACE_SECONDS"]]))
    for name, text in every.items():
        waits = [float(each) for each in re.findall(_GRACE[name.rpartition(".")[2]], text)]
        looked += len(waits)
        faults += [f"{name} kills after {each:g} s" for each in waits if each < grace]
    others = f"compared with {looked} limits of manifests" if looked else "there is no manifest"
    return judge(
        faults,
        f"APP_PLATFORM_GRACE_SECONDS={grace:g}, {others}",
        next="the same number in both; tests/system compares the others",
    )
