"""
compose.yaml as it is rendered, built and run by podman-compose.
"""

import json
import re
import secrets
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from books import functions
from harness import free_ports, system, wait_until

pytestmark = pytest.mark.covers(
    "docs/how-to/compose.md",
    "questions/runbooks.jinja",
    "template/compose.yaml.jinja",
    "template/Dockerfile.jinja",
    "template/deploy/compose/*",
)

NAME = "fiveweeks-compose"
# Nothing balances here: there is nobody to wait for.
SHORT = {"APP_DRAIN_SECONDS": "0.5", "APP_READINESS_PERIOD_SECONDS": "0"}
# Podman 4.3's resolver asks this machine's for a name before it knows the container. Where none
# answers, as here, it then hangs: for over 55 s, as was seen in one start of four.
RESOLVER_SECONDS = 240
READY = "from urllib.request import urlopen; urlopen('http://127.0.0.1:8001/readyz', timeout=2)"
# As buildah builds the other images, so that their layers are found again.
BUILD = (
    "--isolation=chroot --network=host --pull=never --force-rm --layers --timestamp=1"
    " --format=docker"
)


class Override(yaml.SafeDumper):
    """
    YAML that replaces the ports rather than adding to them.
    """


class Ports(list[str]):
    """
    The only ports.
    """


Override.add_representer(
    Ports, lambda dumper, ports: dumper.represent_sequence("!override", list(ports))
)


class Composed:
    """
    A project that is up: the service on free ports, and with variables of the test.
    """

    def __init__(self, folder: Path, podman: Callable[..., Any]) -> None:
        self.folder, self.podman = folder, podman
        self.port, self.admin_port = free_ports()

    get = system.Service.get
    post_json = system.Service.post_json
    is_ready = system.Service.is_ready

    def compose(self, *arguments: str, check: bool = True) -> str:
        """
        What podman-compose said; with *check* raises AssertionError with it when it fails.
        """
        command = str(Path(sys.executable).parent / "podman-compose")
        options = ["--file=compose.yaml", "--file=override.yaml", f"--project-name={NAME}"]
        ended = subprocess.run(
            [command, *options, f"--podman-build-args={BUILD}", *arguments],
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        said: str = ended.stdout
        assert not check or ended.returncode == 0, said
        return said

    def paste(self, script: str) -> str:
        """
        What a script prints, in a shell with the functions of the runbook; podman-compose is given
        this test's options. Raises AssertionError with the output when it fails.
        """
        command = [str(Path(sys.executable).parent / "podman-compose")]
        command += ["--file=compose.yaml", "--file=override.yaml", f"--project-name={NAME}"]
        words = shlex.join([*command, f"--podman-build-args={BUILD}"])
        pasted = functions(self.folder, "compose")
        assert pasted.count("docker compose") == 1
        ended = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", pasted.replace("docker compose", words) + script],
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        said: str = ended.stdout
        assert ended.returncode == 0, script + said
        return said

    def up(self, variables: Mapping[str, str], **keys: Any) -> None:
        """
        Start it, as the documents say.
        """
        ports = Ports([f"127.0.0.1:{self.port}:8000", f"127.0.0.1:{self.admin_port}:8001"])
        web = {"ports": ports, "environment": dict(variables)}
        text = yaml.dump({"services": {"web": web | keys.pop("web", {})}, **keys}, Dumper=Override)
        (self.folder / "override.yaml").write_text(text)
        self.compose("up", "--detach")

    def is_gone(self) -> bool:
        """
        Whether `down` leaves nothing. On a busy machine podman may still be taking a container off
        its network, and then it takes another one.
        """
        self.compose("down", check=False)
        left: str = self.podman("ps", "--all", "--quiet", f"--filter=name={NAME}").stdout
        left += self.podman("network", "ls", "--quiet", f"--filter=name={NAME}").stdout
        return left == ""

    def forget(self) -> None:
        """
        Remove containers and volumes, also those of a run that was killed: a database that it left
        behind knows another password.
        """
        self.podman("rm", "--force", "--time=0", f"{NAME}_worker_2", check=False)
        self.compose("--profile=job", "down", "--volumes")

    def inspect(self, name: str = "web") -> dict[str, Any]:
        """
        The container, as podman sees it.
        """
        found: list[dict[str, Any]] = json.loads(self.podman("inspect", f"{NAME}_{name}_1").stdout)
        return found[0]

    def wait(self, condition: Callable[[], object], *, seconds: float) -> None:
        """
        Raises AssertionError, with what each container is and said, when it takes too long.
        """
        try:
            wait_until(condition, seconds=seconds)
        except AssertionError as error:
            said = [str(error), self.podman("ps", "--all", f"--filter=name={NAME}").stdout]
            for name in self.podman("ps", "--all", "--format={{.Names}}").stdout.split():
                if name.startswith(NAME):
                    ended = self.podman("logs", name, check=False)
                    said.append(f"{name}:\n{ended.stdout}{ended.stderr}")
            raise AssertionError("\n".join(said)) from None

    def lines(self) -> list[dict[str, Any]]:
        """
        What the service logged.
        """
        ended = self.podman("logs", f"{NAME}_web_1")
        return [json.loads(line) for line in (ended.stdout + ended.stderr).splitlines()]


@pytest.fixture(name="composed", scope="module")
def _composed(
    podman: Callable[..., Any], image: str, project: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Composed]:
    """
    The project's image, built as compose.yaml says; nothing of it is left afterwards.
    """
    assert image
    folder = tmp_path_factory.mktemp("compose") / "order-desk"
    shutil.copytree(project, folder)
    # Compose reads it to fill in `${…}`; it is for `dev`, and nothing of it may reach the service.
    (folder / ".env").write_text("APP_PORT=1\nAPP_LOG_LEVEL=loud\nREVISION=from-the-test\n")
    (folder / "override.yaml").write_text("services: {}\n")
    composed = Composed(folder, podman)
    composed.forget()
    composed.compose("build")
    yield composed
    composed.compose("down")
    # Only this name: the image is that of the other tests, which have one for it too.
    # A project with a database builds one of the same name, and has taken it away.
    podman("untag", f"localhost/{NAME}_web", f"localhost/{NAME}_web", check=False)


def test_compose_serves_and_stops(composed: Composed) -> None:
    """
    It answers on the published ports, is healthy and hardened, takes secrets from files and nothing
    from .env; told to stop it drains, and `down` leaves nothing.
    """
    secret = composed.folder / "APP_ANNOUNCE_URL"
    secret.write_text("http://127.0.0.1:9/")

    composed.up(
        {"APP_SECRETS_DIR": "/run/secrets", **SHORT},
        web={"secrets": ["APP_ANNOUNCE_URL"]},
        secrets={"APP_ANNOUNCE_URL": {"file": str(secret)}},
    )
    wait_until(composed.is_ready, seconds=30)
    answer = composed.get("/v1/notes")
    healthy = composed.podman("healthcheck", "run", f"{NAME}_web_1").returncode
    shown = composed.podman("exec", f"{NAME}_web_1", "/app/bin/order-desk", "config", "show").stdout
    running = composed.inspect()
    composed.compose("stop")
    stopped, lines = composed.inspect(), composed.lines()
    wait_until(composed.is_gone)

    assert (answer.status, healthy) == (200, 0)
    assert "APP_ANNOUNCE_URL=http://127.0.0.1:9/  # file in /run/secrets" in shown
    assert "APP_PORT" not in shown
    assert "APP_LOG_LEVEL" not in shown
    host = running["HostConfig"]
    assert (running["EffectiveCaps"], running["BoundingCaps"]) == (None, None)
    assert (host["ReadonlyRootfs"], host["SecurityOpt"]) == (True, ["no-new-privileges"])
    assert (host["Memory"], host["PidsLimit"]) == (512 * 2**20, 100)
    assert (running["Config"]["User"], host["LogConfig"]["Size"]) == ("10001:10001", "10MB")
    assert [line["event"] for line in lines][-2:] == ["stopping", "stopped"]
    assert stopped["State"]["ExitCode"] == 0


def test_compose_builds_with_the_revision(composed: Composed) -> None:
    """
    The commit that is named reaches the build; buildah 1.28 would take the layer of another one
    from its cache, so this asks for the argument.
    """
    loaded = yaml.safe_load(composed.compose("config"))

    assert loaded["services"]["web"]["build"]["args"] == ["REVISION=from-the-test"]


def test_compose_waits_for_the_drain(composed: Composed) -> None:
    """
    The grace period reaches the command that stops: by itself it waits 10 s, too short for a drain.
    """
    assert "podman stop -t 45 " in composed.compose("--verbose", "--dry-run", "stop")


def test_compose_starts_again(composed: Composed) -> None:
    """
    What ended is started again, and each try says what is wrong.
    """
    composed.up({"APP_PORT": "many"})

    wait_until(lambda: composed.inspect()["RestartCount"] >= 2, seconds=60)
    wait_until(lambda: len(composed.lines()) >= 2, seconds=60)
    lines = composed.lines()
    composed.compose("down")

    assert {(line["event"], line["variable"]) for line in lines} == {
        ("configuration_invalid", "APP_PORT")
    }


@pytest.fixture(name="with_database")
def _with_database(
    podman: Callable[..., Any], full_image: str, full_project: Path, tmp_path: Path
) -> Iterator[Composed]:
    """
    A project with web, worker, job and PostgreSQL, its password made as the documents say.
    """
    assert full_image
    folder = tmp_path / "order-desk"
    shutil.copytree(full_project, folder)
    (folder / "secrets").mkdir(mode=0o700)
    (folder / "secrets" / "database_password").write_text(f"{secrets.token_hex(24)}\n")
    (folder / "override.yaml").write_text("services: {}\n")
    composed = Composed(folder, podman)
    composed.forget()
    composed.compose("--profile=job", "build")
    yield composed
    composed.forget()
    for name in ("web", "worker", "job", "migrate"):
        podman("untag", f"localhost/{NAME}_{name}", f"localhost/{NAME}_{name}")


@pytest.mark.usefixtures("postgres")
def test_compose_has_a_database(with_database: Composed) -> None:
    """
    One `up` makes role, database and schema, with a migration that ends with 0; web and worker are
    ready then, and stay so after a second `up`. The job backs up into its volume, which the next
    run finds. What was written outlives a `down`.
    """
    composed = with_database
    job = ("--profile=job", "run", "--rm", "-T", "job")

    def worker_is_ready() -> bool:
        ended = composed.podman("exec", f"{NAME}_worker_1", "python", "-c", READY, check=False)
        return bool(ended.returncode == 0)

    composed.up(SHORT)
    composed.wait(composed.is_ready, seconds=RESOLVER_SECONDS)
    composed.wait(worker_is_ready, seconds=RESOLVER_SECONDS)
    composed.wait(lambda: not composed.inspect("migrate")["State"]["Running"], seconds=30)
    migrated = composed.inspect("migrate")["State"]["ExitCode"]
    written = composed.post_json("/v1/notes", {"text": "Five weeks."})
    backed_up = composed.compose(*job)
    found = composed.compose(*job, "job", "restore")
    composed.compose("down")
    composed.up(SHORT)
    composed.wait(composed.is_ready, seconds=RESOLVER_SECONDS)
    composed.wait(worker_is_ready, seconds=RESOLVER_SECONDS)
    kept = composed.get(f"/v1/notes/{written.json['id']}")

    assert (migrated, written.status) == (0, 201)
    assert '"outcome":"success"' in backed_up
    assert '"rows":1' in found
    assert (kept.status, kept.json) == (200, written.json)


@pytest.mark.promise("P2")
@pytest.mark.nightly
@pytest.mark.timeout(1200)
@pytest.mark.usefixtures("postgres")
def test_functions_of_the_runbook(with_database: Composed) -> None:
    """
    What the runbook has one paste works as it stands: it asks each process type, reads its log and
    its stacks, scales the worker, restores a backup into a new database, and rolls back a deploy
    whose web does not start.
    """
    composed = with_database
    git = "git -c user.name=t -c user.email=t@example.com"
    composed.paste("git init -q && echo override.yaml >>.git/info/exclude")
    composed.paste(f"{git} add -A . && {git} commit -qm one")
    earlier = composed.paste("git rev-parse HEAD").strip()
    composed.up(SHORT)
    composed.wait(composed.is_ready, seconds=RESOLVER_SECONDS)
    composed.paste("role=worker; for _ in 1 2 3; do ready && break; done")
    composed.post_json("/v1/notes", {"text": "Five weeks."})

    web = composed.paste("svc status")
    worker = composed.paste("role=worker; svc status")
    composed.paste("stacks")
    composed.wait(lambda: '"event":"stacks"' in composed.paste("logs"), seconds=30)
    composed.paste("role=worker; scale 2")
    workers = composed.podman("ps", "--quiet", f"--filter=name={NAME}_worker").stdout.split()
    # podman-compose's `down` forgets it.
    composed.podman("rm", "--force", "--time=0", f"{NAME}_worker_2")
    backed_up = composed.paste("role=job; svc job backup")
    looked = composed.paste("role=job; svc job restore")
    path = re.search(r"APP_BACKUP_RESTORE=(/backups/[\w.-]+\.zip)", looked)
    assert path, looked
    composed.paste("dc stop web worker")
    sql = 'CREATE DATABASE "order-desk-restored" OWNER "order-desk"'
    composed.paste(f"dc exec -T database psql -U postgres -c '{sql}'")
    file = composed.folder / "compose.yaml"
    text = file.read_text()
    file.write_text(text.replace(":5432/order-desk\n", ":5432/order-desk-restored\n"))
    restored = composed.paste(f"role=job restore={path[1]}; svc migrate up; svc job restore")
    file.write_text(text)
    root = composed.folder / "src" / "order_desk" / "web.py"
    root.write_text(root.read_text() + '\n\nraise RuntimeError("a bad deploy")\n')
    composed.paste(f"{git} commit -q -a -m two; dc build; dc up -d --no-deps --force-recreate web")
    composed.wait(lambda: "a bad deploy" in composed.paste("logs"), seconds=60)
    back = composed.paste(f"for _ in 1 2 3; do back {earlier} && break; done")
    composed.wait(composed.is_ready, seconds=60)

    assert "process_type=web" in web
    assert "process_type=worker" in worker
    assert len(workers) == 2
    assert '"outcome":"success"' in backed_up
    assert '"is_dry_run":false' in restored
    assert '"outcome":"success"' in restored
    # buildah 1.28 takes the layer of the revision from its cache, whatever the argument says.
    assert "revision" in back
    assert composed.paste("git rev-parse HEAD").strip() == earlier
