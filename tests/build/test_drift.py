"""
What the template owns and a team edited: told, waived, and brought back by one command.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml
from harness import ROOT, wait_until
from ops.tools import drift, template
from ops.tools.checks.code import template_files
from ops.tools.declaration import Malformed
from ops.tools.finding import Result
from ops.tools.project import Project
from ownership import owners
from releases import git
from selection import others_nightly

from questions import QUESTIONS, pairwise

pytestmark = pytest.mark.covers(
    "copier.yml",
    "template/.ci/*",
    "template/ops/*",
)

Copy = Callable[..., Path]
Render = Callable[..., Path]

WHOLE = {name: QUESTIONS[name][-1] for name in ("processes", "database", "telemetry", "deploy")}
TODAY = datetime.now(UTC).date()
LIMITS = "src/order_desk/chassis/limits.py"
FLOOD = "src/order_desk/chassis/flood.py"
# One with answers in it.
NOMAD = "deploy/nomad/order-desk.nomad.hcl"
BACK = "brings the template's back, a waiver in ops/service.yaml keeps yours"


def run(*command: str | Path, cwd: Path, **environment: str) -> tuple[int, list[str], list[str]]:
    """
    Exit code, and the lines of output and of errors.
    """
    ended = subprocess.run(
        command,
        cwd=cwd,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )
    return ended.returncode, ended.stdout.splitlines(), ended.stderr.splitlines()


def ask(project: Path, *arguments: str, **environment: str) -> tuple[int, list[str], list[str]]:
    """
    `python -m ops drift` of the project, with the libraries of these tests.
    """
    command = (sys.executable, "-m", "ops", "drift", *arguments)
    return run(*command, cwd=project, **environment)


def names(project: Path) -> list[str]:
    """
    What a look without the template tells.
    """
    return [edit.name for edit in drift.look(Project(project)) if not edit.is_waived]


def edit(path: Path) -> None:
    path.write_text(path.read_text() + "\n\n# ours\n")


def answer(project: Path, name: str, text: str) -> None:
    """
    Change a recorded answer by hand.
    """
    path = project / ".copier-answers.yml"
    changed = re.sub(rf"^{name}: .*$", f"{name}: {text}", path.read_text(), flags=re.MULTILINE)
    assert changed != path.read_text()
    path.write_text(changed)


def waive(project: Path, *waivers: dict[str, object]) -> int:
    """
    Declare these; returns the line in which they begin.
    """
    path = project / "ops" / "service.yaml"
    before, found, _ = path.read_text().partition("  waivers:")
    assert found
    written = yaml.safe_dump(list(waivers), default_flow_style=True, width=10_000)
    path.write_text(f"{before}  waivers: {written}")
    return before.count("\n") + 1


def waiver(days: int = 0, check: str = "template_files", **more: object) -> dict[str, object]:
    """
    One of Ada's, which ends so many days from today.
    """
    until = str(TODAY + timedelta(days=days))
    return {"check": check, "reason": "hot-fix", "by": "Ada", "until": until, **more}


def commit(project: Path, message: str = "all") -> None:
    if not (project / ".git").exists():
        git("init", "--quiet", cwd=project)
    git("add", "--all", cwd=project)
    git("commit", "--quiet", "--message", message, cwd=project)


@pytest.fixture(name="project")
def _project(copy: Copy) -> Path:
    """
    A committed one that the test may change, without an environment of its own.
    """
    project = copy(sync=False, deploy=["compose", "nomad"])
    commit(project)
    return project


@pytest.mark.parametrize("answers", [{}, WHOLE, *others_nightly(pairwise())], ids=repr)
def test_every_file_is_watched(copy: Copy, answers: dict[str, object]) -> None:
    """
    Whatever was chosen: nothing of a new project is edited or missing, and each file of the
    template's is missed when it is gone, but for the answers and the list themselves.
    """
    project = copy(sync=False, **answers)
    paths = {path.relative_to(project).as_posix() for path in project.rglob("*") if path.is_file()}
    owned = {name for name in paths if owners(name) == ["template"]}
    owned -= {".copier-answers.yml", "ops/tools/sums"}

    fresh = names(project)
    for name in owned:
        (project / name).unlink()

    assert fresh == []
    assert {*names(project)} == owned


def test_check_warns_in_one_line_each(copy: Copy) -> None:
    """
    `.ci/run check` tells of each edited, deleted and no longer executable file in one line with the
    way back, and passes; of what is as it should be it says nothing.
    """
    project = copy()
    commit(project)
    clean, _, said_clean = run(".ci/run", "check", cwd=project)
    edit(project / LIMITS)
    (project / ".dockerignore").unlink()
    (project / ".ci/run").chmod(0o644)
    commit(project)

    code, _, said = run("bash", ".ci/run", "check", cwd=project)

    assert (clean, code) == (0, 0), [*said_clean, *said]
    assert not [line for line in said_clean if "warning" in line]
    assert len([line for line in said_clean if line.startswith("drift: ")]) == 1
    assert [line for line in said if "warning" in line] == [
        f"warning: {name} {what}: `uv run python -m ops drift --restore {name}` {BACK}"
        for name, what in (
            (".ci/run", "can't be executed any more"),
            (".dockerignore", "is missing"),
            (LIMITS, "was edited"),
        )
    ]


PIPELINE = ".github/workflows/ci.yml"


@pytest.mark.parametrize("place", ["check", "drift", "checklist"])
def test_each_place_names_what_it_did_not_look_at(project: Path, place: str) -> None:
    """
    A file with answers in it has no checksum, so an edit of a manifest or of the pipeline passes.
    Each place that looks names such files, and the command that compares them.
    """
    for name in (NOMAD, PIPELINE):
        edit(project / name)
    commit(project)
    looks = {
        "check": ("ops.tools.drift",),
        "drift": ("ops", "drift"),
        "checklist": ("ops", "checklist", "run", "vacation", "--json"),
    }

    code, told, said = run(sys.executable, "-m", *looks[place], cwd=project)

    if place == "checklist":
        items = {item["check"]: item for item in json.loads("\n".join(told))}
        said = [items["template_files"]["evidence"]]
        assert items["template_files"]["result"] == "pass"
    else:
        assert (code, told) == (0, [])
    (line,) = said
    assert re.search(r"\b\d\d+ files compared with ops/tools/sums; not compared, ", line)
    assert NOMAD in line
    assert PIPELINE in line
    assert LIMITS not in line
    assert "`uv run python -m ops drift --render` compares them" in line


UV = """\
#!/bin/sh
echo "$*" >>"$ASKED"
"""


def test_without_ops_nothing_is_asked(project: Path, tmp_path: Path) -> None:
    """
    Where a team deleted ops/, `.ci/run check` has no drift to tell, and passes.
    """
    shutil.rmtree(project / "ops")
    (project / "uv.lock").touch()
    (tmp_path / "uv").write_text(UV)
    (tmp_path / "uv").chmod(0o755)
    asked = tmp_path / "asked"
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"

    code, _, said = run(".ci/run", "check", cwd=project, PATH=path, ASKED=str(asked))

    assert code == 0, said
    assert "lock --check" in asked.read_text()
    assert "ops" not in asked.read_text()


@pytest.mark.usefixtures("as_rendered")
def test_outside_a_repository(project: Path) -> None:
    """
    It looks without git; it restores nothing there, since nothing would keep the edit.
    """
    shutil.rmtree(project / ".git")
    edit(project / LIMITS)

    code, told, _ = ask(project)
    refused, _, said = ask(project, "--restore", LIMITS)

    assert (code, len(told)) == (0, 1)
    assert refused == 1
    assert said == [f"drift: {LIMITS} has changes that git does not keep: commit them first"]
    assert names(project) == [LIMITS]


def test_strict(project: Path) -> None:
    """
    Drift alone is no failure; with `--strict` it is.
    """
    edit(project / LIMITS)

    assert [ask(project)[0], ask(project, "--strict")[0]] == [0, 1]


def test_other_ends_of_lines(project: Path) -> None:
    """
    A checkout with CRLF is no edit.
    """
    for path in [
        *project.glob("src/**/*.py"),
        *project.glob("ops/tools/*.py"),
        project / ".ci/run",
    ]:
        path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))

    assert names(project) == []


def test_more_modes_are_no_edit(project: Path) -> None:
    """
    Where a file system makes all files executable, nothing is told.
    """
    for path in (project / "src").rglob("*.py"):
        path.chmod(0o755)

    assert names(project) == []


def test_renamed_package(project: Path) -> None:
    """
    A team that renamed its package is told of edits under the new name.
    """
    (project / "src/order_desk").rename(project / "src/desk")
    toml = project / "pyproject.toml"
    toml.write_text(toml.read_text().replace("order_desk.__main__", "desk.__main__"))

    assert names(project) == []
    edit(project / "src/desk/chassis/limits.py")
    assert names(project) == ["src/desk/chassis/limits.py"]


@pytest.mark.parametrize("content", [None, "", "<<<<<<< before updating\n"])
def test_list_is_damaged(project: Path, content: str | None) -> None:
    """
    Without the list itself nothing else can be told, and that is told.
    """
    edit(project / LIMITS)
    path = project / "ops/tools/sums"
    path.unlink() if content is None else path.write_text(content)

    assert names(project) == ["ops/tools/sums"]
    assert template_files(Project(project)).result == Result.FAIL


def test_waived(project: Path) -> None:
    """
    A waiver of a file silences that file until the end of its last day, one without a file all; the
    check of the checklists says the same.
    """
    edit(project / LIMITS)
    edit(project / FLOOD)

    waive(project, waiver(0, file=LIMITS))
    one, found = names(project), template_files(Project(project))
    waive(project, waiver(0, file=LIMITS), waiver(3, file=FLOOD))
    both, passed = names(project), template_files(Project(project))
    waive(project, waiver(0))
    every = names(project)
    # Of two, the later one counts.
    waive(project, waiver(-3), waiver(2))
    renewed = names(project)

    assert (one, both, every, renewed) == ([FLOOD], [], [], [])
    assert (found.result, passed.result) == (Result.FAIL, Result.PASS)
    assert f"{FLOOD} was edited" in found.evidence
    assert LIMITS not in found.evidence
    assert "2 waived" in passed.evidence
    assert ask(project, "--strict")[:2] == (0, [])


def test_waiver_that_ended(project: Path) -> None:
    """
    After its last day it is told again, with whose waiver ended when.
    """
    edit(project / LIMITS)
    waive(project, waiver(-1, file=LIMITS))

    code, told, _ = ask(project)

    assert code == 0
    (line,) = told
    ended = TODAY - timedelta(days=1)
    assert line.startswith(f"{LIMITS} was edited, and the waiver of Ada ended on {ended}: `uv run")


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (waiver(file=f"{LIMITS}x"), f"is no file of the template's, did you mean {LIMITS!r}?"),
        (waiver(file="zzz"), "'zzz' is no file of the template's, ops/tools/sums lists them"),
        (waiver(file=LIMITS, check="replicas"), "only template_files has files: take `file` away"),
    ],
)
def test_waiver_of_nothing(project: Path, wrong: dict[str, object], said: str) -> None:
    """
    A waiver whose file is not the template's is refused with its line.
    """
    line = waive(project, wrong)

    with pytest.raises(Malformed, match=rf"^ops/service\.yaml:{line}: .*{re.escape(said)}$"):
        drift.look(Project(project))


def test_wrong_waiver_stops_every_command(project: Path) -> None:
    """
    It is the same one line for `drift`, for checklists and for `.ci/run`.
    """
    line = waive(project, waiver(file="zzz"))
    said = "'zzz' is no file of the template's, ops/tools/sums lists them"

    for words in (["ops", "drift"], ["ops", "checklist", "status"], ["ops.tools.drift"]):
        ended = run(sys.executable, "-m", *words, cwd=project)
        assert ended == (78, [], [f"ops/service.yaml:{line}: {said}"])


def test_waiver_of_a_file_waives_no_checklist(project: Path) -> None:
    """
    In a checklist the check still runs, and tells of the other files.
    """
    edit(project / LIMITS)
    edit(project / FLOOD)
    waive(project, waiver(0, file=LIMITS))

    _, told, _ = run(sys.executable, "-m", "ops", "checklist", "run", "vacation", cwd=project)

    (row,) = re.findall(r"template-files: ((?:\S+\s+){2})", "\n".join(told))
    assert row.split()[0] == FLOOD


def test_restored_by_one_command(project: Path) -> None:
    """
    What was edited, deleted or is no longer executable is the template's again, to the byte, and
    shown before; the template of the recorded version is asked, without trust.
    """
    changed = [".ci/run", LIMITS, FLOOD, NOMAD]
    held = {name: (project / name).read_bytes() for name in changed}
    edit(project / LIMITS)
    edit(project / NOMAD)
    (project / FLOOD).unlink()
    (project / ".ci/run").chmod(0o644)
    commit(project)

    code, told, said = ask(project, "--diff")
    restored = ask(project, "--restore", *changed[:-1], f"./{NOMAD}")
    after = ask(project, "--strict")

    assert code == 0, said
    assert told[1].startswith(f"{NOMAD} was edited, or .copier-answers.yml was: `uv run")
    assert [line.split(" ")[0] for line in told[:4]] == [".ci/run", NOMAD, FLOOD, LIMITS]
    assert [line for line in told[4:] if line.startswith("+") and "+++" not in line] == [
        *("+", "+", "+# ours"),
        *("+", "+", "+# ours"),
    ]
    assert restored == (0, [], [])
    assert after[:2] == (0, [])
    assert {name: (project / name).read_bytes() for name in changed} == held
    assert os.access(project / ".ci/run", os.X_OK)
    git("add", "--all", cwd=project)
    assert git("diff", "--cached", "HEAD~", "--name-only", cwd=project) == ""


UVX = """\
#!/bin/sh
for last; do :; done
cp -r "$MADE" "$last"
"""


@pytest.fixture(name="as_rendered")
def _as_rendered(render: Render, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    As if copier rendered what the session has, which is quicker: other tests run it.
    """
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "uvx").write_text(UVX)
    (tmp_path / "bin" / "uvx").chmod(0o755)
    monkeypatch.setenv("MADE", str(render(deploy=["compose", "nomad"])))
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")


@pytest.mark.usefixtures("as_rendered")
def test_given_back_to_the_template(project: Path, tmp_path: Path) -> None:
    """
    What the how-to tells to paste brings an edit into a checkout of the template.
    """
    text = (ROOT / "docs" / "how-to" / "drift.md").read_text()
    pasted = text.partition("2. Give it back")[2].partition("3. Keep it")[0]
    lines = [line.strip() for line in pasted.splitlines() if line.startswith("       ")]
    edit(project / LIMITS)
    template = tmp_path / "template"
    git("clone", "--quiet", ROOT, template, cwd=tmp_path)
    held = template / "template/src/{{ package_name }}/chassis/limits.py"
    shutil.copy(ROOT / held.relative_to(template), held)
    script = "\n".join(lines).replace("../order-desk", str(project))
    script = script.replace("uv run python", sys.executable).replace("../fix", f"{tmp_path}/fix")

    code, _, said = run("bash", "-euc", script, cwd=template)

    assert code == 0, said
    assert len(lines) == 2
    assert held.read_bytes() == (project / LIMITS).read_bytes()


@pytest.mark.usefixtures("as_rendered")
@pytest.mark.parametrize(
    ("wanted", "code", "said"),
    [
        ([FLOOD, LIMITS], 1, "has changes that git does not keep: commit them first"),
        ([FLOOD, "src/order_desk/domain.py"], 64, "is no file of the template's"),
        ([FLOOD, "../order-desk.py"], 64, "is no file of the template's"),
        (
            [FLOOD, "src/order_desk/chassis/worker.py"],
            64,
            "is not among what .copier-answers.yml chooses",
        ),
    ],
)
def test_nothing_is_half_restored(project: Path, wanted: list[str], code: int, said: str) -> None:
    """
    One file that can't be restored leaves all as they are, and what is not committed is kept.
    """
    edit(project / FLOOD)
    commit(project)
    edit(project / LIMITS)
    before = (project / FLOOD).read_text(), (project / LIMITS).read_text()

    with (
        drift.rendered(Project(project)) as made,
        pytest.raises(template.Refusal, match=re.escape(said)) as refused,
    ):
        drift.restore(Project(project), wanted, made)

    assert refused.value.code == code
    assert before == ((project / FLOOD).read_text(), (project / LIMITS).read_text())


@pytest.mark.usefixtures("as_rendered")
@pytest.mark.parametrize("how", ["untracked", "ignored", "hidden"])
def test_what_git_does_not_know_is_kept(project: Path, how: str) -> None:
    """
    An edit that git never saw is not overwritten, whatever its settings.
    """
    git("rm", "--quiet", "--cached", LIMITS, cwd=project)
    if how == "ignored":
        (project / ".git/info/exclude").write_text("limits.py\n")
    elif how == "hidden":
        git("config", "status.showUntrackedFiles", "no", cwd=project)
    git("commit", "--quiet", "--message", "forgotten", cwd=project)
    edit(project / LIMITS)

    with drift.rendered(Project(project)) as made, pytest.raises(template.Refusal, match="commit"):
        drift.restore(Project(project), [LIMITS], made)

    assert names(project) == [LIMITS]


@pytest.mark.usefixtures("as_rendered")
def test_render_believes_no_list(project: Path) -> None:
    """
    A list that was edited so that it hides an edit is told by a render, and so is the edit; in a
    package that the team renamed, too.
    """
    (project / "src/order_desk").rename(project / "src/desk")
    toml = project / "pyproject.toml"
    toml.write_text(toml.read_text().replace("order_desk.__main__", "desk.__main__"))
    edit(project / "src/desk/chassis/limits.py")
    path = project / "ops/tools/sums"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(line for line in lines if "chassis/limits.py" not in line))

    with drift.rendered(Project(project)) as made:
        found = [each.name for each in drift.look(Project(project), made)]

    assert names(project) == []
    assert found == ["ops/tools/sums", "src/desk/chassis/limits.py"]


def test_answers_edited_by_hand(project: Path) -> None:
    """
    What the changed answers render is not what is there: that is told, and so is a part that they
    choose and that never came.
    """
    answer(project, "service_name", "order-bureau")
    chosen = yaml.safe_load((project / ".copier-answers.yml").read_text())
    (project / ".copier-answers.yml").write_text(yaml.safe_dump(chosen | {"ci": "gitlab"}))

    without = names(project)
    code, told, said = ask(project, "--render")

    assert without == [".ci/gitlab.yml"]
    assert code == 0, said
    assert [line.partition(": ")[0] for line in told] == [
        ".ci/gitlab.yml is missing",
        f"{NOMAD} was edited, or .copier-answers.yml was",
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("_commit: v1.0.0\nx: [\n", ".copier-answers.yml:3: can't be read as YAML"),
        ("- a\n", ".copier-answers.yml:1: is no mapping with _src_path and _commit"),
        ("when: 2026-13-45\n", ".copier-answers.yml:1: can't be read as YAML"),
    ],
)
def test_broken_answers(project: Path, text: str, said: str) -> None:
    """
    An answers file that can't be read is refused with its line; the check fails with it.
    """
    (project / ".copier-answers.yml").write_text(text)

    code, _, told = ask(project)

    assert code == 78
    assert told == [f"{said}: bring it back with git, and don't edit it by hand"]
    assert said in template_files(Project(project)).evidence


def test_who_left_the_template_has_none(project: Path) -> None:
    """
    Without answers nothing is the template's: no file is named, and there is nothing to render.
    """
    edit(project / LIMITS)
    (project / ".copier-answers.yml").unlink()

    gone = "drift: there is no .copier-answers.yml: this project has left the template"
    nothing = "drift: nothing was compared, because there is no .copier-answers.yml"
    assert ask(project, "--strict") == (0, [], [nothing])
    assert ask(project, "--render") == (1, [], [gone])
    assert template_files(Project(project)).result == Result.PASS


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("_commit", "v98.0.0", "has no v98.0.0 any more: ask who keeps it for the tag"),
        ("_src_path", "file:///nowhere", "the template at file:///nowhere can't be reached ("),
        (
            "_src_path",
            "https://me:hidden@127.0.0.1:9/t.git",
            "the template at https://…@127.0.0.1:9/t.git can't be reached (",
        ),
        ("owner", "'@x y'", "copier can't render v99.0.0 of file://"),
    ],
)
def test_template_that_is_gone(
    project: Path, monkeypatch: pytest.MonkeyPatch, name: str, text: str, said: str
) -> None:
    """
    What can't be rendered is 69, in one line that says why; a look without the template goes on.
    """
    monkeypatch.setattr(drift, "COPIER", (str(ROOT / ".venv/bin/copier"),))
    answer(project, name, text)

    with pytest.raises(template.Refusal) as refused, drift.rendered(Project(project)):
        pass

    assert refused.value.code == 69
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)
    assert "hidden" not in str(refused.value)
    assert names(project) == []


def test_without_network(project: Path, tmp_path: Path) -> None:
    """
    The look needs none; a render without copier says in one line that it can't be had.
    """
    if run("unshare", "-rn", "true", cwd=tmp_path)[0]:
        pytest.skip("unshare is not allowed here")
    edit(project / LIMITS)
    cut = ("unshare", "-rn", sys.executable, "-m")

    code, _, warned = run(*cut, "ops.tools.drift", cwd=project)
    nowhere = {"UV_CACHE_DIR": str(tmp_path), "UV_DEFAULT_INDEX": "http://127.0.0.1:9/simple"}
    refused, _, said = run(
        *cut, "ops", "drift", "--render", cwd=project, UV_HTTP_RETRIES="0", **nowhere
    )

    assert code == 0
    assert [line.split(":")[0] for line in warned] == ["warning", "drift"]
    assert refused == 69
    (line,) = said
    assert line.startswith("drift: copier can't be had (")


def test_without_uv(project: Path, tmp_path: Path) -> None:
    """
    Where uv is missing, that is said.
    """
    (tmp_path / "git").symlink_to(shutil.which("git") or "")

    refused = ask(project, "--render", PATH=str(tmp_path))

    assert refused == (69, [], ["drift: uvx can't be run (No such file or directory): install it"])


def test_index_of_the_project(copy: Copy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Copier comes from the index that the service's packages come from.
    """
    project = copy(sync=False, package_index_url="https://packages.example.com/simple")
    asked = tmp_path / "asked"
    show = f'echo "$UV_DEFAULT_INDEX" >{asked}; exit 1'
    monkeypatch.setattr(drift, "COPIER", ("bash", "-c", show))
    monkeypatch.delenv("UV_DEFAULT_INDEX", raising=False)

    with pytest.raises(template.Refusal, match="copier can't be had"):
        drift.rendered(Project(project)).__enter__()

    assert asked.read_text() == "internal=https://packages.example.com/simple\n"


def test_render_ends_in_time(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    A template that hangs is given up after a time, with all that copier started.
    """
    pid = tmp_path / "pid"
    hang = f"sleep 600 & echo $! >{pid}; wait"
    monkeypatch.setattr(drift, "COPIER", ("bash", "-c", hang))
    monkeypatch.setattr(template, "LIMIT_SECONDS", 1.0)

    with pytest.raises(template.Refusal, match="took longer than 1 s") as refused:
        drift.rendered(Project(project)).__enter__()

    assert refused.value.code == 69
    wait_until(lambda: is_gone(int(pid.read_text())), seconds=10)


def is_gone(pid: int) -> bool:
    """
    Ended, perhaps not yet waited for.
    """
    status = Path(f"/proc/{pid}/status")
    return not status.exists() or "Z (zombie)" in status.read_text()
