"""
Postmortems and the envelope: filled from logs and settings, checked for owners and dates.
"""

import json
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from harness import TEMPLATE
from ops.tools import postmortem

BEGIN = datetime(2026, 11, 23, 3, 50, tzinfo=UTC)
TABLE = "| action | owner | due | done |\n| --- | --- | --- | --- |\n"


def line(event: str, second: int, level: str = "info", **fields: Any) -> bytes:
    at = (BEGIN + timedelta(seconds=second)).isoformat().replace("+00:00", "Z")
    return json.dumps({"timestamp": at, "level": level, "event": event, **fields}).encode() + b"\n"


@pytest.fixture(name="folder")
def _folder(tmp_path: Path) -> Path:
    """
    A project that has postmortems, and nothing else.
    """
    folder = tmp_path / "ops" / "postmortems"
    folder.mkdir(parents=True)
    template = (TEMPLATE / "ops" / "postmortems" / "template.md").read_text()
    (folder / "template.md").write_text(template)
    return folder


@pytest.fixture(name="ops")
def _ops(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """
    `postmortem` in that project; its exit code and what it said.
    """
    code = (
        "import argparse, sys\nfrom pathlib import Path\n"
        "from ops.tools import postmortem, project\n"
        "parser = argparse.ArgumentParser()\npostmortem.register(parser.add_subparsers())\n"
        "told = parser.parse_args(sys.argv[2:])\n"
        "sys.exit(told.function(told, project.Project(Path(sys.argv[1]))))\n"
    )

    def ops(*arguments: str, text: str = "") -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", code, str(tmp_path), "postmortem", *arguments]
        return subprocess.run(
            command, cwd=TEMPLATE, input=text, capture_output=True, text=True, check=False
        )

    return ops


TIMES = ("--from", "2026-11-23T03:50Z", "--to", "2026-11-23T04:50Z")


@pytest.mark.promise("P3")
def test_timeline(folder: Path, ops: Callable[..., Any]) -> None:
    """
    Starts, checks, first errors with their counts, a deploy, requests by minute; no path, no text.
    """
    log = [
        line("started", 0, revision="a1"),
        *(line("request", n, status=200, path="/secret") for n in range(59)),
        *(line("request", 60 + n, "warning", status=503, reason="unavailable") for n in range(9)),
        line("check_changed", 61, "warning", check="database", is_up=False, error="secret words"),
        line("request_failed", 62, "error", exception="secret words"),
        line("somebody's secret words", 63, "error", logger="library"),
        line("started", 90, revision="b2"),
        line("stopped", 7200),
        b"Nov 23 03:52:00 host app[1]: " + line("crash", 120, "critical", cause="secret"),
        b"no json\n",
    ]

    ended = ops("new", *TIMES, "--title", "The pool!", text=b"".join(log).decode())

    assert ended.returncode == 0, ended.stderr
    text = (folder / "2026-11-23-the-pool.md").read_text()
    assert text.startswith("# Postmortem: The pool!\n")
    assert (
        "| 2026-11-23 03:51:30 | info: `started` revision=b2 (another revision: a deploy) |" in text
    )
    assert "warning: `check_changed` check=database is_up=False" in text
    assert "| `request unavailable` | 9 |" in text
    assert "| 2026-11-23 03:50 | 59 | 0 |" in text
    assert "| 2026-11-23 03:51 | 9 | 9 |" in text
    assert "critical: `crash`" in text
    assert "Unreadable lines: 1." in text
    assert "secret" not in text
    assert "`stopped`" not in text


@pytest.mark.promise("P3")
def test_what_is_refused(folder: Path, ops: Callable[..., Any]) -> None:
    """
    Times without a zone or reversed, files that are not there, to overwrite; nothing is touched.
    """
    naive = ops("new", "--from", "2026-11-23T03:50", "--to", "2026-11-23T04:50Z")
    reversed_ = ops("new", "--from", "2026-11-23T04:50Z", "--to", "2026-11-23T03:50Z")
    missing = ops("new", *TIMES, "no-such-log")

    assert "must say its zone" in naive.stderr
    assert naive.returncode
    assert reversed_.returncode == missing.returncode == 64
    assert [path.name for path in folder.iterdir()] == ["template.md"]
    assert ops("new", *TIMES).returncode == 0
    before = (folder / "2026-11-23-incident.md").read_text()
    assert ops("new", *TIMES, text=line("crash", 1).decode()).returncode == 64
    assert (folder / "2026-11-23-incident.md").read_text() == before


def test_no_room(folder: Path, ops: Callable[..., Any]) -> None:
    """
    Where nothing can be written, that is said in a line.
    """
    (folder / "2026-11-23-incident.md").symlink_to("/nonexistent/file")

    ended = ops("new", *TIMES)

    assert ended.returncode == 64
    assert len(ended.stderr.splitlines()) == 1


STRANGE = [
    '{"timestamp": "2026-11-23T03:55:00Z", "event": "e", "level": ["error"]}',
    '{"timestamp": "0001-01-01T00:00:00+14:00", "event": "e", "level": "error"}',
    '{"timestamp": "2026-11-23T03:55:00", "event": "e", "level": "error"}',
    '{"timestamp": 1, "event": "e", "level": "error"}',
    '{"timestamp": "2026-13-40", "event": "e", "level": "error"}',
    '{"timestamp": "2026-11-23T03:55:00Z", "level": "error"}',
]


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ("| a | Ada | 2020-01-01 | todo |", "was due"),
        ("| a | Ada | 2020-01-01 | not yet |", "was due"),
        ("| a | — | 2999-01-01 | |", "nobody owns"),
        ("| a | <one person> | 2999-01-01 | |", "nobody owns"),
        ("| <https://tickets.example.com/1> | <ada@example.com> | 2020-01-01 | |", "1>' was due"),
        ("| a | Ada | 2026-13-40 | |", "has no date"),
        ("| a | Ada | 2020-01-01 | [x] |", ""),
        ("| a | Ada | 2020-01-01 | ✅ |\r", ""),
    ],
)
def test_cells_as_people_write_them(
    folder: Path, ops: Callable[..., Any], row: str, told: str
) -> None:
    """
    A box that is not ticked, a long dash, a link; bytes that are no text.
    """
    (folder / "x.md").write_bytes(f"{TABLE}{row}\n\n".encode() + b"\xff")

    ended = ops("check")

    assert told in ended.stdout
    assert len(ended.stdout.splitlines()) == ended.returncode == bool(told)


@pytest.mark.parametrize("strange", STRANGE)
def test_strange_lines(folder: Path, ops: Callable[..., Any], strange: str) -> None:
    """
    What only looks like a line of ours, or has a time without a zone, tells nothing and ends
    nothing.
    """
    ended = ops("new", *TIMES, text=f"{strange}\n{line('crash', 1, 'critical').decode()}")

    text = (folder / "2026-11-23-incident.md").read_text()
    assert ended.returncode == 0, ended.stderr
    assert "critical: `crash`" in text
    assert "`e`" not in text


def test_memory_is_bounded() -> None:
    """
    A hundred megabytes of lines, of all kinds, take less than thirty of memory.
    """

    def lines() -> Iterator[bytes]:
        for number in range(200_000):
            kind = f"kind_{number % 5000}"
            yield line(kind, number % 3600, "error", dependency=f"d{number}", note="x" * 400)

    timeline = postmortem.Timeline(begin=BEGIN, end=BEGIN + timedelta(hours=1))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    timeline.read(lines())

    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 30_000
    assert len(timeline.told) <= postmortem.TOLD_MAX
    assert sum(timeline.kinds.values()) == 200_000
    assert len([*timeline.rows()]) < 2_000


@pytest.mark.promise("P3")
def test_actions(folder: Path, ops: Callable[..., Any]) -> None:
    """
    One without owner, one without date and one that is overdue are named with file and line.
    """
    path = folder / "2026-01-01-x.md"
    rows = ["| a | | 2999-01-01 | |", "| b | Ada | soon | |", "| c | Ada | 2026-01-02 | |"]
    good = ["| d | Ada | 2999-01-01 | |", "| e | Ada | 2026-01-02 | yes |"]
    path.write_text(f"# x\n\n{TABLE}" + "\n".join([*rows, *good]) + "\n")

    told = postmortem.faults(folder, date(2026, 2, 1))
    ended = ops("check")

    assert [one.partition(": ")[0] for one in told] == [
        f"ops/postmortems/2026-01-01-x.md:{number}" for number in (5, 6, 7)
    ]
    assert ended.returncode == 1
    assert "2026-01-01-x.md:5: nobody owns 'a'" in ended.stdout


@pytest.mark.promise("P3")
def test_blame_is_a_hint(folder: Path, ops: Callable[..., Any]) -> None:
    """
    Words of blame get a better question, and no more: the exit code stays 0.
    """
    path = folder / "2026-01-01-x.md"
    path.write_text(
        f"# x\n\nHuman error, he should have looked.\n\n{TABLE}| a | Ada | 2999-01-01 | |\n"
    )

    ended = ops("check")

    assert ended.returncode == 0, ended.stdout
    assert ended.stdout.count("2026-01-01-x.md:3: hint:") == 2


def test_a_fresh_project_has_nothing_to_tell(folder: Path, ops: Callable[..., Any]) -> None:
    """
    Without a postmortem there is nothing wrong, and the template's own row is no action.
    """
    assert postmortem.actions(folder / "template.md") == []
    assert (ops("check").returncode, ops("check").stdout) == (0, "")
