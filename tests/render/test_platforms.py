"""
What is rendered for a platform pleases the linter of that platform, and says what it must.
"""

import json
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hcl2
import pytest
from selection import others_nightly

from questions import pairwise

Render = Callable[..., Path]
ALL = {"deploy": ["compose", "systemd", "nomad"]}
# The same sample as that of the other tests, so that nothing is rendered for these alone.
ANSWERS = [
    ALL,
    *others_nightly([row for row in pairwise() if {*ALL["deploy"]} & {*row["deploy"]}], 2),
]
Unseen = Callable[..., list[Path]]


@pytest.fixture(name="project", params=ANSWERS, ids=lambda answers: answers.get("service_name"))
def _project(request: pytest.FixtureRequest, render: Render) -> Path:
    return render(**request.param)


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_compose(project: Path, unseen: Unseen) -> None:
    """
    compose.yaml has the form that compose wants.
    """
    for path in unseen("compose", project, "compose.yaml"):
        ended = run("check-jsonschema", "--builtin-schema", "vendor.compose-spec", path)

        assert ended.returncode == 0, ended.stdout


def installed(unit: Path, folder: Path) -> Path:
    """
    A unit whose program is there, with a drop-in as the documents tell to write it; of a template
    the instance for a job.
    """
    found = re.search(r"^ExecStart=(\S+)", unit.read_text(), re.MULTILINE)
    assert found
    program = folder / found[1].replace("%N", unit.stem).lstrip("/")
    program.parent.mkdir(parents=True, exist_ok=True)
    program.unlink(missing_ok=True)
    program.symlink_to("/bin/true")
    copy = folder / unit.name.replace("@.", "@backup.")
    copy.write_text(unit.read_text().replace("=/opt/", f"={folder}/opt/"))
    if unit.with_suffix(".timer").exists():
        copy.with_suffix(".timer").write_text(unit.with_suffix(".timer").read_text())
    copy.with_name(f"{copy.name}.d").mkdir(exist_ok=True)
    (copy.with_name(f"{copy.name}.d") / "secrets.conf").write_text(
        "[Service]\nEnvironment=APP_SECRETS_DIR=%d\nLoadCredential=APP_SENTRY_DSN:/etc/dsn\n"
    )
    return copy


def test_systemd_unit(project: Path, unseen: Unseen, tmp_path: Path) -> None:
    """
    systemd-analyze has nothing to say to a unit or timer, and rates its exposure 2.0 at most.
    """
    for path in unseen("systemd", project, "deploy/systemd/*.service"):
        unit = installed(path, tmp_path)
        timer = unit.with_suffix(".timer")

        verify = ("systemd-analyze", "verify", "--man=no")
        verified = run(*verify, unit, *([timer] if timer.exists() else []))
        rated = run(
            *("systemd-analyze", "security", "--offline=true", "--threshold=20"),
            *("--no-pager", unit),
        )

        assert (verified.returncode, verified.stderr) == (0, ""), path
        assert rated.returncode == 0, rated.stdout
        assert "Overall exposure level" in rated.stdout


# By block, what https://developer.hashicorp.com/nomad/docs/job-specification lists (and, for
# `config`, /docs/job-declare/task-driver/docker), as far as stored pages of November 2026 show it;
# `job`, `restart`, `variable` and the newest keys have not been compared with a page.
KEYS = {
    "": "job variable",
    "check": "address_mode args body check_restart command expose failures_before_critical "
    "failures_before_warning grpc_service grpc_use_tls header initial_status interval method name "
    "on_update path port protocol success_before_passing task timeout tls_server_name "
    "tls_skip_verify type",
    "check_restart": "grace ignore_warnings limit",
    "config": "args auth auth_soft_fail cap_add cap_drop command cpu_cfs_period cpu_hard_limit "
    "cpuset_cpus devices dns_options dns_search_domains dns_servers entrypoint extra_hosts "
    "force_pull group_add healthchecks hostname image image_pull_timeout init interactive ipc_mode "
    "ipv4_address ipv6_address isolation labels load logging mac_address memory_hard_limit mount "
    "network_aliases network_mode oom_score_adj pid_mode pids_limit ports privileged "
    "readonly_rootfs runtime security_opt shm_size storage_opt sysctl tty ulimit userns_mode "
    "uts_mode volume_driver volumes work_dir",
    "group": "affinity constraint consul count disconnect ephemeral_disk meta migrate network "
    "reschedule restart scaling service shutdown_delay spread task update vault volume",
    "job": "affinity all_at_once constraint datacenters group id meta migrate multiregion name "
    "namespace node_pool parameterized periodic priority region reschedule spread type ui update "
    "vault",
    "lifecycle": "hook sidecar",
    "migrate": "health_check healthy_deadline max_parallel min_healthy_time",
    "network": "cni dns hostname mode port",
    "periodic": "cron crons enabled prohibit_overlap time_zone",
    "port": "host_network ignore_collision static to",
    "reschedule": "attempts delay delay_function interval max_delay unlimited",
    "resources": "cores cpu device memory memory_max numa secrets",
    "restart": "attempts delay interval mode render_templates",
    "service": "address address_mode canary_meta canary_tags check check_restart cluster connect "
    "enable_tag_override identity kind meta name on_update port provider tagged_addresses tags "
    "task weights",
    "spread": "attribute target weight",
    "task": "action affinity artifact config constraint consul dispatch_payload driver env "
    "identity kill_signal kill_timeout kind leader lifecycle logs meta resources restart scaling "
    "schedule secret service shutdown_delay template user vault volume_mount",
    "template": "change_mode change_script change_signal data destination env error_on_missing_key "
    "gid left_delimiter once perms right_delimiter source splay uid vault_grace wait",
    "update": "auto_promote auto_revert canary health_check healthy_deadline max_parallel "
    "min_healthy_time progress_deadline stagger",
    "variable": "default description type validation",
    "volume": "access_mode attachment_mode mount_options per_alloc read_only source sticky type",
    "volume_mount": "destination propagation_mode read_only selinux_label volume",
}
LABELLED = {"group", "job", "port", "task", "variable", "volume"}


def blocks(name: str, body: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """
    Each block of a parsed job by its name; a dynamic one as what it makes.
    """
    yield name, body
    for key, value in body.items():
        for inner in value if isinstance(value, list) and not key.startswith("__") else []:
            if key == "dynamic":
                ((label, outer),) = ((k, v) for k, v in inner.items() if not k.startswith("__"))
                yield from blocks(label.strip('"'), outer["content"][0])
            elif isinstance(inner, dict) and key in LABELLED:
                for label, labelled in inner.items():
                    if not label.startswith("__"):
                        yield from blocks(key, labelled)
            elif isinstance(inner, dict):
                yield from blocks(key, inner)


def test_nomad_job(project: Path, unseen: Unseen) -> None:
    """
    The job parses, every key of it is documented, and it refers to no variable that is not there.
    """
    for path in unseen("nomad", project, "deploy/nomad/*.nomad.hcl"):
        parsed = hcl2.loads(path.read_text())
        found = list(blocks("", parsed))

        for name, body in found:
            keys = {key for key in body if not key.startswith("__")} - {"dynamic"}
            assert keys <= {*KEYS[name].split()}, name
        text = path.read_text()
        declared = {*re.findall(r'^variable "(\w+)"', text, re.MULTILINE)}
        assert {*re.findall(r"\bvar\.(\w+)", text)} == declared


def test_nomad_update_keeps_the_old_ones(render: Render) -> None:
    """
    The old instances stay until as many new ones are healthy; what does not become healthy is taken
    back, and a wrong configuration is not tried for ever where it runs.
    """
    (path,) = render(**ALL).glob("deploy/nomad/*.nomad.hcl")
    found = dict(blocks("", hcl2.loads(path.read_text())))

    update = found["update"]
    assert update["canary"] == update["max_parallel"] == found["group"]["count"]
    assert (update["auto_promote"], update["auto_revert"]) == (True, True)
    assert json.loads(update["health_check"]) == "checks"
    assert json.loads(found["restart"]["mode"]) == "fail"
    assert found["config"]["readonly_rootfs"] is True
    assert found["config"]["cap_drop"] == ['"all"']


def test_not_chosen(render: Render) -> None:
    """
    What was not chosen is not there, nor are its tests.
    """
    project = render(deploy=[])

    assert not (project / "compose.yaml").exists()
    assert not (project / "deploy").exists()
    names = {path.stem for path in (project / "tests" / "system").glob("test_*.py")}
    assert not names & {"test_compose", "test_systemd", "test_nomad"}
