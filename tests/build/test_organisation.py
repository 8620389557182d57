"""
An organisation's own standard: presets, a fork that merges, private repositories, trust. What is
pasted is docs/how-to/organisation.md.
"""

import base64
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml
from harness import ROOT
from pages import World, blocks, commit, conflicts, paste, surroundings
from releases import NEXT, RELEASES, git
from selection import others_nightly

PAGE = "organisation"
VERSION = "src/order_desk/chassis/VERSION"
ORGANISATION = Path("questions") / "organisation.jinja"
UPSTREAM, ACME = (f"https://git.example.com/{name}/fiveweeks.git" for name in ("upstream", "acme"))
COPY, UPDATE = "uvx --from copier copier copy --quiet --defaults", "uvx --from x copier update -q"
# How the page's commands name the releases, and how the tests do.
AFTER = "100.0.0"
NAMES = {"1.2.0": NEXT, "1.3.0": AFTER}
# Each costs some seconds.
pytestmark = pytest.mark.covers("docs/how-to/organisation.md", "questions/*", "copier.yml")
TOKEN = "canary-of-the-token"  # noqa: S105  # made up


def told(heading: str, number: int = 0) -> str:
    """
    A block of the page, with the releases of these tests.
    """
    text = blocks(PAGE, heading)[number]
    for ours, theirs in NAMES.items():
        text = text.replace(f"v{ours}", f"v{theirs}")
    return text


def answers(project: Path) -> dict[str, object]:
    """
    What is recorded in a project.
    """
    loaded: dict[str, object] = yaml.safe_load((project / ".copier-answers.yml").read_text())
    return loaded


@pytest.fixture(name="world", scope="module")
def _world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("organisation"), is_acme_empty=True)


@pytest.fixture(name="fork", scope="module")
def _fork(world: World) -> Path:
    """
    The clone in which the fork's first release was made, as the page says.
    """
    world.paste(told("A fork"), world.folder)
    fork = world.folder / "fiveweeks"
    path = fork / ORGANISATION
    text = path.read_text()
    for line in told("A fork", 1).splitlines():
        start = line.partition("=")[0]
        pattern = re.compile(rf"^{re.escape(start)}=.*$", re.MULTILINE)
        (old,) = pattern.findall(text)
        text = text.replace(old, line)
    path.write_text(text)
    world.paste(told("A fork", 2), fork)
    return fork


@pytest.fixture(name="service")
def _service(world: World, fork: Path, tmp_path: Path) -> Path:
    """
    A service made from the fork's first release, and committed.
    """
    copy = told("A fork", 3).replace("--defaults", f"--defaults --vcs-ref v{NEXT}.post1")
    world.paste(f"mkdir {tmp_path}/fork; cd {tmp_path}/fork; {copy}", fork)
    project = tmp_path / "order-desk"
    commit(project)
    return project


@pytest.fixture(name="next_release", scope="module")
def _next_release(world: World, fork: Path) -> str:
    """
    A release of ours that changes much, in the file of the organisation, too.
    """
    # The fork was made from the release before.
    assert git("tag", "--points-at", "HEAD", cwd=fork) == f"v{NEXT}.post1"
    chassis = "template/src/{{ package_name }}/chassis"
    last = f'"{[*RELEASES][-1]}" = '
    world.release(
        AFTER,
        (
            "copier.yml",
            "python_version:\n",
            "tier:\n  type: str\n  default: B\n\npython_version:\n",
        ),
        ("copier.yml", "help: Team that owns it", "help: The team that owns it"),
        ("template/Dockerfile.jinja", "{{ uv_image }}:0.13", "{{ uv_image }}:0.14"),
        ("template/Dockerfile.jinja", "# Last, so that", "# Last of all, so that"),
        (str(ORGANISATION), "{#- The team, as", "{#- The team or user, as"),
        (str(ORGANISATION), "{#- The end", "{#- New. -#}\n\n{%- set tier = 'B' -%}\n\n{#- The end"),
        ("CHANGELOG.md", "## Unreleased\n", f"## Unreleased\n\n\n## {AFTER} (2027-01-31)\n"),
        ("releases.toml", last, f'"{AFTER}" = "{"0" * 40}"\n{last}'),
        ("README.md", "# fiveweeks\n", "# fiveweeks\n\nNews.\n"),
        (f"{chassis}/exits.py", '"""\n', '"""\nNext. '),
    )
    return AFTER


def test_values_keep_apart() -> None:
    """
    Around each value of the organisation's file are empty lines, and one that nobody changes is the
    last: so git merges what two sides changed.
    """
    lines = (ROOT / ORGANISATION).read_text().splitlines()

    places = [number for number, line in enumerate(lines) if line.startswith("{%- set ")]
    assert len(places) > 5
    for number in places:
        assert lines[number - 1] == lines[number + 1] == "", lines[number]
    assert lines[-1].startswith("{#- The end")


def test_new_service_of_a_fork(service: Path) -> None:
    """
    A service made from the fork has its defaults, images and contacts, and pleases the linters.
    """
    docker = (service / "Dockerfile").read_text()
    found = answers(service)
    declared = yaml.safe_load((service / "ops" / "service.yaml").read_text())
    check = ["hadolint", "Dockerfile"]
    linted = subprocess.run(check, cwd=service, capture_output=True, text=True, check=False)

    assert (found["_commit"], found["_src_path"]) == (f"v{NEXT}.post1", ACME)
    assert (found["owner"], found["ci"], found["deploy"]) == (
        "acme/platform",
        "gitlab",
        ["kubernetes"],
    )
    assert 'url = "https://packages.example.com/simple"' in (service / "pyproject.toml").read_text()
    assert "ARG BASE_IMAGE=registry.example.com/base/python:3.13\n" in docker
    assert "ARG UV_IMAGE=registry.example.com/astral-sh/uv:" in docker
    pipeline = (service / ".ci" / "gitlab.yml").read_text()
    assert "image: registry.example.com/astral-sh/uv:" in pipeline
    assert "image: registry.example.com/library/docker:" in pipeline
    assert "docker.io" not in docker + pipeline
    assert declared["spec"]["contact"] == "#platform in the chat"
    assert linted.returncode == 0, linted.stdout


def test_fork_merges_and_its_services_update(
    world: World, fork: Path, service: Path, next_release: str
) -> None:
    """
    Our next release merges into the fork without a conflict, and reaches its services with the
    fork's values: no conflict, no trust, and nothing of upstream comes past the fork.
    """
    merge = told("Merge our next release").replace("scripts/test fast\n", "")

    world.paste(merge, fork)
    world.paste(f"{UPDATE} --defaults", service)

    changed = git("diff", "--name-only", f"v{next_release}", f"v{next_release}.post1", cwd=fork)
    assert changed.split() == [str(ORGANISATION)]
    docker = (service / "Dockerfile").read_text()
    assert answers(service)["_commit"] == f"v{next_release}.post1"
    assert "ARG BASE_IMAGE=registry.example.com/base/python:3.13\n" in docker
    assert "ARG UV_IMAGE=registry.example.com/astral-sh/uv:0.14\n" in docker
    assert "# Last of all" in docker
    assert "Next. " in (service / "src" / "order_desk" / "chassis" / "exits.py").read_text()
    assert {*git("status", "--porcelain", cwd=service).splitlines()} == {
        f" M {name}"
        for name in (
            ".copier-answers.yml",
            "Dockerfile",
            VERSION,
            "src/order_desk/chassis/exits.py",
        )
    }


def test_change_of_the_fork_reaches_its_services(world: World, fork: Path, service: Path) -> None:
    """
    A release of the fork alone brings another image to its services; their answers stay.
    """
    clone, older = world.folder / "own-release", f"v{NEXT}.post1"
    git("clone", "--quiet", world.acme, clone, cwd=fork)
    git("checkout", "--quiet", older, cwd=clone)
    path = clone / ORGANISATION
    text = path.read_text().replace("base/python:{version}", "base/python:{version}-2027")
    path.write_text(text.replace("'acme/platform'", "'acme/others'"))
    git("commit", "--quiet", "--all", "--message", "Another image", cwd=clone)
    git("tag", f"v{NEXT}.post2", cwd=clone)
    git("push", "--quiet", "origin", f"v{NEXT}.post2", cwd=clone)

    world.paste(f"{UPDATE} --defaults --vcs-ref v{NEXT}.post2", service)

    assert "/base/python:3.13-2027\n" in (service / "Dockerfile").read_text()
    assert answers(service)["owner"] == "acme/platform"
    assert git("diff", "--name-only", cwd=service).split() == [
        ".copier-answers.yml",
        "Dockerfile",
        VERSION,
    ]


@pytest.mark.parametrize("release", others_nightly([NEXT, list(RELEASES)[-1]]))
def test_services_move_to_the_fork_and_back(
    world: World,
    fork: Path,  # noqa: ARG001  # it must be released
    tmp_path: Path,
    release: str,
) -> None:
    """
    A service of ours takes the next release from the fork after an edit of one line, and the way
    back.
    """
    project = tmp_path / "order-desk"
    world.paste(f"{COPY} --vcs-ref v{release} {UPSTREAM} order-desk", tmp_path)
    commit(project)

    move = told("Move services to the fork")
    world.paste(move.replace("update", f"update --vcs-ref v{NEXT}.post1"), project)

    found = answers(project)
    assert (found["_commit"], found["_src_path"]) == (f"v{NEXT}.post1", ACME)
    assert found["owner"] == "your-team"
    assert "registry.example.com/base/python:3.13\n" in (project / "Dockerfile").read_text()
    assert not conflicts(project)

    commit(project)
    back = told("Move services to the fork", 1)
    world.paste(f"{back}\ngit commit -qam back\n{UPDATE} --defaults --vcs-ref v{NEXT}", project)

    found = answers(project)
    assert (found["_commit"], found["_src_path"]) == (f"v{NEXT}", UPSTREAM)
    assert "registry.example.com/base/python:3.13\n" in (project / "Dockerfile").read_text()
    assert not conflicts(project)


def test_fork_without_our_tags_says_so(world: World, fork: Path, tmp_path: Path) -> None:
    """
    A fork that does not know the release a service was made from says so, and changes nothing.
    """
    poor = world.origin / "poor" / "fiveweeks.git"
    git("clone", "--quiet", "--bare", "--no-tags", world.acme, poor, cwd=fork)
    git("tag", f"v{NEXT}.post1", "main", cwd=poor)
    project = tmp_path / "order-desk"
    world.paste(f"{COPY} --vcs-ref v0.1.0 {UPSTREAM} order-desk", tmp_path)
    commit(project)
    move = told("Move services to the fork").replace(ACME, ACME.replace("acme", "poor"))

    said = world.paste(move, project, check=False)

    assert "invalid reference: v0.1.0" in said
    assert git("status", "--porcelain", cwd=project) == ""


def test_preset(world: World, tmp_path: Path) -> None:
    """
    A preset answers when a service is made. It is recorded: an update needs none, a changed one
    changes nothing until it is named.
    """
    preset = tmp_path / "acme.yml"
    project = tmp_path / "order-desk"
    preset.write_text(blocks(PAGE, "A preset")[0])
    copy, take = blocks(PAGE, "A preset")[1:]
    made_from = f"--defaults --vcs-ref v{list(RELEASES)[-1]}"
    world.paste(copy.replace("--defaults", made_from), tmp_path)
    commit(project)
    recorded = answers(project)
    preset.write_text(preset.read_text().replace("acme/platform", "acme/others"))

    world.paste(f"{UPDATE} --defaults --vcs-ref v{NEXT}", project)
    updated = answers(project)
    commit(project)
    world.paste(take, project)

    assert recorded["owner"] == updated["owner"] == "acme/platform"
    assert (updated["ci"], updated["deploy"]) == ("gitlab", ["kubernetes"])
    assert answers(project)["owner"] == "acme/others"
    assert answers(project)["_commit"] == f"v{NEXT}"


def test_defaults_of_settings(world: World, tmp_path: Path) -> None:
    """
    Defaults of copier's settings answer below a preset and above the template, and are recorded.
    """
    preset = tmp_path / "acme.yml"
    preset.write_text("ci: gitlab\n")
    world.set("defaults:\n  owner: acme/settings\n  ci: none\n  deploy: [nomad]\n")
    world.paste(f"{COPY} --vcs-ref v{NEXT} --data-file acme.yml {UPSTREAM} order-desk", tmp_path)
    world.set("{}\n")

    found = answers(tmp_path / "order-desk")
    assert (found["owner"], found["ci"], found["deploy"]) == ("acme/settings", "gitlab", ["nomad"])


def test_ssh_for_an_address_of_https(world: World, tmp_path: Path) -> None:
    """
    By SSH git asks for what is spelled with https.
    """
    (tmp_path / "gitconfig").write_text("")
    commands = blocks(PAGE, "A private repository")[0]

    said = world.paste(commands, tmp_path, GIT_CONFIG_GLOBAL=str(tmp_path / "gitconfig"))

    assert said == "git@git.example.com:acme/fiveweeks.git\n"


class Private(SimpleHTTPRequestHandler):
    """
    Repositories for those who know the token.
    """

    def do_GET(self) -> None:
        known = base64.b64encode(f"template:{TOKEN}".encode()).decode()
        if self.headers["Authorization"] == f"Basic {known}":
            return super().do_GET()
        self.send_response(401)
        self.send_header("WWW-Authenticate", 'Basic realm="git"')
        self.send_header("Content-Length", "0")
        return self.end_headers()

    def log_message(self, *_: object) -> None:
        """
        Say nothing.
        """


@pytest.fixture(name="private")
def _private(world: World, fork: Path) -> Iterator[str]:  # noqa: ARG001  # it must be released
    """
    The address of a server that has the repositories for those who know the token.
    """
    git("repack", "-adq", cwd=world.acme)
    git("update-server-info", cwd=world.acme)
    handler = partial(Private, directory=str(world.origin))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_private_repository(service: Path, private: str, tmp_path: Path) -> None:
    """
    A service updates from a private repository by a token of its environment: the token is in no
    file, and the address stays as it is. Without it copier says so, and asks nobody.
    """
    # The address of the page leads to the server, whose credentials git looks for by its own.
    commands = blocks(PAGE, "A private repository")[1]
    commands = commands.replace("credential.https://git.example.com", f"credential.{private}")
    told = f"--defaults --vcs-ref v{NEXT}.post1 --data python_version=3.14"
    commands = commands.replace("--defaults", told)
    environment = surroundings(tmp_path / "surroundings", private)

    without = re.sub("export GIT_CONFIG.*\n", "", commands)
    said = paste(without, service, environment, check=False)
    untouched = git("status", "--porcelain", cwd=service)
    paste(commands, service, environment | {"TEMPLATE_TOKEN": TOKEN})

    assert "terminal prompts disabled" in said.stderr
    assert untouched == ""
    assert answers(service)["_src_path"] == ACME
    assert answers(service)["python_version"] == "3.14"
    for folder in (service, tmp_path / "surroundings"):
        for path in (path for path in folder.rglob("*") if path.is_file()):
            assert TOKEN.encode() not in path.read_bytes(), path


def test_trust(world: World, fork: Path, service: Path, tmp_path: Path) -> None:
    """
    An update that crosses a migration ends with 4 and changes nothing, until it is trusted, by the
    option or by an address in the settings that is spelled as in the service.
    """
    clone, address = tmp_path / "fork", yaml.safe_load(told("Trust", 1))["trust"][0]
    git("clone", "--quiet", world.acme, clone, cwd=fork)
    git("checkout", "--quiet", f"v{NEXT}.post1", cwd=clone)
    with (clone / "copier.yml").open("a") as file:
        file.write(f"_migrations: [{{version: {AFTER}, command: touch migrated}}]\n")
    git("commit", "--quiet", "--all", "--message", "Migrate", cwd=clone)
    git("tag", f"v{AFTER}.post9", cwd=clone)
    git("push", "--quiet", "origin", f"v{AFTER}.post9", cwd=clone)
    trusting = told("Trust").replace("--defaults", f"--defaults --vcs-ref v{AFTER}.post9")
    update = trusting.replace("--trust", "")
    shutil.copytree(service, tmp_path / "other" / "order-desk")
    other = tmp_path / "other" / "order-desk"

    codes = []
    for settings in ("{}", f"trust: [{address.removesuffix('.git')}]"):
        world.set(settings)
        ended = paste(update, service, world.environment, check=False)
        codes.append(ended.returncode)
        assert git("status", "--porcelain", cwd=service) == ""
    world.set(told("Trust", 1))
    world.paste(update, service)
    world.set("{}\n")
    world.paste(trusting, other)

    assert codes == [4, 4]
    assert address == answers(service)["_src_path"] == ACME
    for project in (service, other):
        assert (project / "migrated").exists()
