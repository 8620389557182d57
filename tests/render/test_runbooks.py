"""
The functions of the runbooks name what the manifests name, and call programs as they are.

No cluster, no systemd and no Nomad runs here. What a function calls is recorded, its names are
compared with the manifests, and kubectl, systemctl and journalctl are asked to parse it.
tests/image runs those of compose, tests/faults those for a process without a platform.
"""

import os
import re
import shlex
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hcl2
import pytest
import yaml
from books import functions
from harness import find_command
from selection import others_nightly

from questions import QUESTIONS, pairwise

Render = Callable[..., Path]
PLATFORMS = ["compose", "kubernetes", "systemd", "nomad"]
WHOLE = {"processes": ["web", "worker", "job"], "database": "postgresql", "deploy": PLATFORMS}
ANSWERS: list[dict[str, Any]] = [
    WHOLE,
    {"processes": ["job"], "database": "none", "deploy": PLATFORMS},
    {"processes": ["web"], "database": "none", "deploy": PLATFORMS},
    {"processes": ["worker", "job"], "database": "postgresql", "deploy": PLATFORMS},
    {"processes": ["web"], "deploy": []},
    *others_nightly(pairwise(), 2),
]
# A stand-in for a platform: it writes down how it was called, and answers what the functions ask.
RECORDER = """\
#!/bin/bash
printf '%s\\n' "${0##*/} ${*@Q}" >>"$CALLS"
case "$*" in
  *MainPID*) echo "$PPID" ;;
  *' status') printf 'ready 1\\nrevision\\n' ;;
esac
"""


@pytest.fixture(name="project", params=ANSWERS, ids=repr)
def _project(request: pytest.FixtureRequest, render: Render) -> Path:
    return render(**request.param)


def answers_of(project: Path) -> dict[str, Any]:
    """
    What was answered.
    """
    found: dict[str, Any] = yaml.safe_load((project / ".copier-answers.yml").read_text())
    return found


@pytest.fixture(name="calls")
def _calls(tmp_path: Path) -> Callable[..., list[list[str]]]:
    """
    What the functions of a block call on a platform, for each process type.
    """
    programs = ("docker", "git", "journalctl", "kubectl", "nomad", "systemctl", "systemd-run")
    folder, recorded = tmp_path / "bin", tmp_path / "calls"
    folder.mkdir()
    for program in programs:
        (folder / program).write_text(RECORDER)
        (folder / program).chmod(0o755)

    def calls(pasted: str, *lines: str) -> list[list[str]]:
        recorded.write_text("")
        subprocess.run(
            ["bash", "-c", pasted + "\n".join(lines)],
            env=os.environ | {"PATH": f"{folder}:{os.environ['PATH']}", "CALLS": str(recorded)},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        return [shlex.split(line) for line in recorded.read_text().splitlines()]

    return calls


def test_every_platform_has_its_functions(project: Path) -> None:
    """
    Each platform that was chosen has a block, and no other; bash reads it, and it defines what the
    sections use. Without a platform there is a block for a process of this machine.
    """
    answers = answers_of(project)
    chosen = answers["deploy"] or ["none"]
    needed = {"svc", "logs", "back"}
    needed |= {"stacks", "scale", "ready"} if answers["processes"] != ["job"] else set()

    for platform in [*PLATFORMS, "none"]:
        text = functions(project, platform)
        assert bool(text) == (platform in chosen), platform
        if text:
            assert subprocess.run(["bash", "-n", "-c", text], check=False).returncode == 0
            assert needed <= {*re.findall(r"^(\w+)\(\)", text, re.MULTILINE)}, platform


def documents(project: Path) -> list[dict[str, Any]]:
    """
    What Kubernetes gets: base and overlay, as kustomize renders them.
    """
    folder = project / "deploy" / "kubernetes" / "overlays" / "production"
    ended = subprocess.run(
        ["kubectl", "kustomize", folder], capture_output=True, text=True, check=True
    )
    return list(yaml.safe_load_all(ended.stdout))


def pod_of(document: dict[str, Any]) -> dict[str, Any]:
    """
    The template of the pods that a controller makes.
    """
    found: dict[str, Any] = document["spec"].get("jobTemplate", document)["spec"]["template"]
    return found


@pytest.mark.promise("P2")
def test_kubernetes(project: Path, calls: Callable[..., list[list[str]]]) -> None:
    """
    Namespace, Deployments, CronJob, containers and labels are those of base and overlay together.
    """
    if not (pasted := functions(project, "kubernetes")):
        return
    made = documents(project)
    by_name = {f"{one['kind'].lower()}/{one['metadata']['name']}": one for one in made}
    for role in answers_of(project)["processes"]:
        called = calls(pasted, f"role={role}", "svc status", "logs", "stacks", "scale 3", "pods")
        called += calls(pasted, f"role={role}", "back")
        if role == "job":
            # What asks a Deployment is not for a job.
            called = [call for call in called if "deployment/" not in str(call)]
        kubectl = [call for call in called if call[0] == "kubectl" and "apply" not in call]
        assert kubectl
        for call in kubectl:
            (space,) = (each for each in call if each.startswith("--namespace="))
            objects = [
                each.removeprefix("--from=")
                for each in call
                if re.match(r"(--from=)?(deployment|cronjob)/", each)
            ]
            for name in objects:
                assert by_name[name]["metadata"]["namespace"] == space.partition("=")[2]
            pods = [pod_of(by_name[name]) for name in objects]
            for each in call:
                option, _, value = each.partition("=")
                if option == "--selector":
                    wanted = dict(pair.split("=") for pair in value.split(","))
                    pods = [
                        pod_of(one)
                        for one in made
                        if one["kind"] in {"Deployment", "CronJob"}
                        and wanted.items() <= pod_of(one)["metadata"]["labels"].items()
                    ]
                    assert len(pods) == 1, call
            for each in call:
                if each.startswith("--container=") and pods:
                    names = [one["name"] for one in pods[0]["spec"]["containers"]]
                    assert each.partition("=")[2] in names, call
        # Each role was really asked about.
        assert any(f"-{role}" in each or f"={role}" in each for call in kubectl for each in call)


@pytest.mark.promise("P2")
def test_job_by_hand_on_kubernetes(render: Render, tmp_path: Path) -> None:
    """
    `svc job restore` makes of the CronJob a Job with these arguments and this backup, and of the
    CronJob nothing else is changed. kubectl is the real one, but for what a cluster answers.
    """
    project = render(**WHOLE)
    (cron,) = (one for one in documents(project) if one["kind"] == "CronJob")
    job = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "by-hand", "namespace": "order-desk"},
        "spec": cron["spec"]["jobTemplate"]["spec"],
    }
    (tmp_path / "job.yaml").write_text(yaml.dump(job))
    stand_in = tmp_path / "kubectl"
    stand_in.write_text(
        "#!/bin/bash\n"
        'case "$*" in\n'
        f"  *--from=cronjob/{cron['metadata']['name']}*) cat {tmp_path}/job.yaml ;;\n"
        f'  *"patch --local"*) exec {find_command("kubectl")} "$@" ;;\n'
        f"  *create*) cat >{tmp_path}/created.json ;;\n"
        "  *logs*) echo the log of the run ;;\n"
        "esac\n"
    )
    stand_in.chmod(0o755)

    ended = subprocess.run(
        [
            *("bash", "-euo", "pipefail", "-c"),
            functions(project, "kubernetes") + "role=job restore=/backups/a.zip\nsvc job restore\n",
        ],
        env=os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )

    assert (ended.returncode, ended.stdout) == (0, "the log of the run\n"), ended.stderr
    spec = yaml.safe_load((tmp_path / "created.json").read_text())["spec"]
    (made,), (was,) = (one["template"]["spec"]["containers"] for one in (spec, job["spec"]))
    assert made["args"] == ["job", "restore"]
    assert made["env"] == [*was["env"], {"name": "APP_BACKUP_RESTORE", "value": "/backups/a.zip"}]
    was["args"], was["env"] = made["args"], made["env"]
    assert spec == job["spec"]


def test_kubectl_takes_it(render: Render, tmp_path: Path) -> None:
    """
    The real kubectl parses each command, and fails only because no cluster answers.
    """
    find_command("kubectl")
    text = functions(render(**WHOLE), "kubernetes")
    config = tmp_path / "config"
    cluster = {"name": "none", "cluster": {"server": "http://127.0.0.1:9"}}
    context = {"name": "none", "context": {"cluster": "none", "user": ""}}
    known = {"apiVersion": "v1", "kind": "Config", "current-context": "none"}
    config.write_text(yaml.dump(known | {"clusters": [cluster], "contexts": [context]}))

    for line in ("svc status", "logs", "stacks", "back", "scale 3", "pods", "ready"):
        ended = subprocess.run(
            ["bash", "-c", text + line],
            env=os.environ | {"KUBECONFIG": str(config)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert ended.returncode != 0, line
        assert "refused" in ended.stderr, line + ended.stderr
        assert "unknown" not in ended.stderr, line + ended.stderr


@pytest.mark.promise("P2")
def test_compose(project: Path, calls: Callable[..., list[list[str]]]) -> None:
    """
    Services and profile are those of compose.yaml.
    """
    if not (pasted := functions(project, "compose")):
        return
    services = yaml.safe_load((project / "compose.yaml").read_text())["services"]
    processes = answers_of(project)["processes"]
    for role in processes:
        called = calls(pasted, f"role={role}", "svc status", "logs", "stacks", "scale 3")
        for call in called:
            assert call[:2] == ["docker", "compose"]
            assert {role} == {each for each in call if each in services}, call
        # Of a job compose keeps no log, and a second web would need the same port.
        asked = {word for call in called for word in call}
        assert ({"run"} if role == "job" else {"exec", "logs", "kill"}) <= asked
        assert ("--scale" in asked) == (role == "worker")
    (up,) = (
        (call for call in calls(pasted, "back 1") if "up" in call)
        if processes != ["job"]
        else (["up"],)
    )
    assert {*services} & {*up} == {*processes} - {"job"}
    if "job" in processes:
        assert services["job"]["profiles"] == ["job"]


@pytest.mark.promise("P2")
def test_systemd(project: Path, calls: Callable[..., list[list[str]]]) -> None:
    """
    Units, programs and files of settings are those of deploy/systemd.
    """
    if not (pasted := functions(project, "systemd")):
        return
    folder = project / "deploy" / "systemd"
    name = answers_of(project)["service_name"]
    processes = answers_of(project)["processes"]
    units = {path.stem for path in folder.glob("*.service")} - {f"{name}-migrate"}
    for role in processes:
        called = calls(pasted, f"role={role}", "svc status", "svc job backup", "logs", "stacks")
        words = [word.removeprefix("--unit=") for call in called for word in call[1:]]
        named = {
            re.sub("@.*", "@", word) for word in words if re.match(rf"{name}(-\w+@?.*)?$", word)
        }
        suffix = {"web": "", "worker": "-worker", "job": "-job@"}[role]
        assert named == {name + suffix}
        assert named <= units
    serving = units - {f"{name}-job@"}
    restarted = re.findall(r"systemctl restart (.*) &&", pasted)
    assert [{*each.split()} for each in restarted] == ([serving] if serving else [])
    # What the units start and read, with %N as systemd fills it in.
    texts = {path: path.read_text().replace("%N", path.stem) for path in folder.glob("*.service")}
    programs = {re.search(r"^ExecStart=(\S+)", text, re.MULTILINE)[1] for text in texts.values()}  # type: ignore[index]  # each has one
    assert {*re.findall(r"(/opt/\S+/bin/\S+)", pasted)} <= programs
    if "job" in processes:
        job = texts[folder / f"{name}-job@.service"]
        files = re.findall(r"^EnvironmentFile=(\S+)", job, re.MULTILINE)
        assert re.findall(r"--property=EnvironmentFile=(\S+)", pasted) == files
        assert f"StateDirectory={name}-backups" in job
        assert f"/var/lib/{name}-backups" in pasted


def test_systemd_takes_it(render: Render) -> None:
    """
    The real systemctl, journalctl and systemd-run parse each option; nothing runs systemd here.
    """
    text = functions(render(**WHOLE), "systemd")
    for program in ("systemctl", "journalctl", "systemd-run"):
        find_command(program)

    for line in ("pid", "logs", "stacks", "role=job; svc job restore", "role=job; svc preflight"):
        ended = subprocess.run(
            ["bash", "-c", text + line], capture_output=True, text=True, timeout=60, check=False
        )
        said = ended.stdout + ended.stderr
        assert not re.search(
            "unrecognized|ambiguous|invalid option|Failed to parse|Unknown", said
        ), said


@pytest.mark.promise("P2")
def test_nomad(project: Path, calls: Callable[..., list[list[str]]]) -> None:
    """
    Jobs, groups and tasks are those of deploy/nomad.
    """
    if not (pasted := functions(project, "nomad")):
        return
    found = dict(_nomad(project))
    for role in answers_of(project)["processes"]:
        more = () if role == "job" else ("back 1", "scale 3")
        lines = ("svc status", "logs", "stacks", *more)
        called = calls(pasted, f"role={role}", *lines)
        suffix = {"web": "", "worker": "-worker", "job": "-job"}[role]
        job = answers_of(project)["service_name"] + suffix
        group, tasks = found[job]
        assert called
        assert any(job in call for call in called)
        for call in called:
            named = {each.partition("=")[2] for each in call if each.startswith("-task=")}
            assert named <= tasks
            if call[:3] == ["nomad", "job", "scale"]:
                assert call[3:] == [job, group, "3"]


def _nomad(project: Path) -> Iterator[tuple[str, tuple[str, set[str]]]]:
    """
    By the name of a job its group, and the names of the group's tasks.
    """
    for path in (project / "deploy" / "nomad").glob("*.hcl"):
        (job,) = hcl2.loads(path.read_text())["job"]
        ((name, body),) = job.items()
        (group,) = body["group"]
        ((title, inner),) = group.items()
        tasks = {task.strip('"') for one in inner["task"] for task in one}
        yield name.strip('"'), (title.strip('"'), tasks)


def test_every_choice_is_tried() -> None:
    """
    Each platform and each process type is in the answers above.
    """
    # Those that are tried for every change.
    rows = [row for row in ANSWERS if isinstance(row, dict)]
    assert {name for row in rows for name in row["deploy"]} == {*PLATFORMS}
    assert {name for row in rows for name in row["processes"]} == {
        name for some in QUESTIONS["processes"] for name in some
    }
