"""
Documents that can't drift.
"""

import re
import subprocess
import sys

import pytest
from demo_service.__main__ import doc
from demo_service.chassis.exits import Exit
from demo_service.chassis.rules import RENAMED, variable
from demo_service.chassis.settings import Settings
from harness import (
    BESIDE_WITHOUT_DATABASE,
    PACKAGE,
    ROOT,
    TEMPLATE,
    WITH_DATABASE,
    WITHOUT_DATABASE,
    modules,
)
from ops.tools.report import CHECK_SECONDS
from test_chassis import CHASSIS, CHASSIS_LINES, CHOSEN, code_lines

CODE = "\n".join(path.read_text() for path in modules())
DOCS = ROOT / "docs"


def test_promises_are_current() -> None:
    """
    docs/promises.md and the table of the README say what the tests' markers say.
    """
    ended = subprocess.run(
        [sys.executable, ROOT / "scripts" / "promises", "--check"],
        capture_output=True,
        text=True,
        check=False,
    )

    assert ended.returncode == 0, ended.stderr


# A promise with two conditions has a test for each of them.
CONDITIONS = {
    "D1": {"test_session", "test_everything_is_named"},
    "E3": {"test_fuzz", "test_fuzz_frozen"},
    "J1": {"test_job.py", "test_job_database.py"},
    "L5": {"test_crash_only", "test_without_a_database"},
    "L9": {"test_signals", "test_stacks_on_request", "test_status"},
    "P2": {"test_command", "test_every_alert_has_a_section", "test_bad_deploy"},
    "T3": {"test_large_bodies", "test_large_heads"},
}


@pytest.mark.parametrize("name", CONDITIONS)
def test_promises_are_proved_under_each_condition(name: str) -> None:
    """
    No condition of a promise rests on the test of another one.
    """
    page = (DOCS / "promises.md").read_text()
    (row,) = re.findall(rf"^\| {name} \| .*$", page, re.MULTILINE)

    assert CONDITIONS[name] <= {*re.findall(r"\w+\.py|(?<=::)\w+", row)}


def test_numbers_of_lines_are_those_of_the_code() -> None:
    """
    The README has the sums of the code lines; the decision is within a tenth of each group.
    """
    readme = (ROOT / "README.md").read_text()
    page = (DOCS / "decisions" / "chassis.md").read_text()
    chosen = sum(CHOSEN.values())
    rows = re.findall(r"^\| ([\d,]+) \| ((?:`\w+\.py`(?:, )?)+) \|", page, re.MULTILINE)

    assert f"it has {CHASSIS_LINES:,} lines" in readme
    assert f"{CHASSIS_LINES + chosen:,} with every option" in readme
    assert f"{CHASSIS_LINES:,} lines" in page
    assert f"{chosen:,} lines for everything" in page
    assert len(rows) == 11
    for number, names in rows:
        counted = sum(code_lines(CHASSIS / name) for name in re.findall(r"\w+\.py", names))
        assert abs(int(number.replace(",", "")) - counted) <= counted / 10, names


def test_numbers_of_checks_are_those_of_the_code() -> None:
    """
    How long all checks of the checklists may take.
    """
    told = f"{CHECK_SECONDS:g} seconds"

    assert told in (DOCS / "how-to" / "checklists.md").read_text()
    assert told in (DOCS / "decisions" / "checklists.md").read_text()


def test_numbers_of_costs_are_those_measured() -> None:
    """
    What the README says that it costs is what was measured, what is worse included.
    """
    results = (ROOT / "benchmarks" / "RESULTS.md").read_text()
    get, post = (
        re.findall(rf"^\| C: generated service \| {method} \| ([\d.]+) ", results, re.MULTILINE)[0]
        for method in ("GET", "POST")
    )
    (start,) = re.findall(
        r"^\| process start to first 200, wall time \| ([\d.]+)", results, re.MULTILINE
    )
    (memory,) = re.findall(r"^\| idle memory, PSS \| ([\d.]+)", results, re.MULTILINE)
    readme = (ROOT / "README.md").read_text()

    assert f"{get} (GET) and {post} (POST)" in readme
    assert f"{start} times as long" in readme
    assert f"{memory} times the memory" in readme
    assert f"{get} (GET) and {post} (POST)" in (DOCS / "how-to" / "requests.md").read_text()


def test_every_event_is_documented() -> None:
    """
    Each event that the code logs is in the reference, and the reference names no other.
    """
    levels = "info|warning|error|critical|exception"
    logged = set(re.findall(rf"\blog\.(?:{levels})\(\s*\"(\w+)\"", CODE))
    logged |= set(re.findall(r"\blog\.log\([^,]+,\s*\"(\w+)\"", CODE))
    logged |= set(re.findall(r"partial\(self\.exit,[^,]+, \"(\w+)\"", CODE))
    logged |= set(re.findall(r"\.exit\(\s*[\w. +]+,\s*\"(\w+)\"", CODE))
    logged |= set(re.findall(r"line\(\s*\"(\w+)\"", CODE))
    logged |= set(re.findall(r"get_logger\(\)\.info\(\"(\w+)\"", CODE))
    logged |= set(re.findall(r"event = [\w.]+, \"(\w+)\"", CODE))
    logged |= set(re.findall(r"tell\(\"\w+\", \"(\w+)\"", CODE))
    logged |= set(re.findall(r"Refused\((?:Exit\.\w+|code), \"(\w+)\"", CODE))
    documented = re.findall(
        r"^\| `(\w+)` \|", (DOCS / "reference" / "events.md").read_text(), re.MULTILINE
    )

    assert logged == {*documented}


def test_every_metric_is_documented() -> None:
    """
    Each metric of ours is in the reference, and the reference names no other.
    """
    kinds = "Info|Counter|Gauge|Histogram"
    found = re.findall(rf"\b({kinds})(?:MetricFamily)?\(\s*\"(app_\w+)\"", CODE)
    ends = {"Info": "_info", "Counter": "_total", "Gauge": "", "Histogram": ""}
    text = (DOCS / "reference" / "interface.md").read_text()

    assert {name + ends[kind] for kind, name in found} == {*re.findall(r"`(app_\w+)`", text)}


def test_every_exit_code_is_documented() -> None:
    """
    Each exit code is in the reference and in `--help`.
    """
    text = (DOCS / "reference" / "interface.md").read_text()
    epilog = (PACKAGE / "__main__.py").read_text().partition("Exit codes:")[2].partition('"""')[0]

    for code in Exit:
        assert re.search(rf"^\| {code.value} \|", text, re.MULTILINE)
        assert re.search(rf"\b{code.value}\b", epilog)


def test_every_command_is_documented() -> None:
    """
    Each command is in the reference, and the reference names no other.
    """
    text = (DOCS / "reference" / "interface.md").read_text()
    table = text.partition("## Commands")[2].partition("\n## ")[0]
    code = (PACKAGE / "__main__.py").read_text()
    there = re.findall(r"^ {8}\(\s*\"(\w+)\",\s+\"[\w.]*\",\s", code, re.MULTILINE)
    there += re.findall(r"\bcommands\.add_parser\(\"(\w+)\"", code)

    assert {*there} == {*re.findall(r"^\| `(\w+)", table, re.MULTILINE)}


def test_reference_of_settings_is_current(capsys: pytest.CaptureFixture[str]) -> None:
    """
    The reference and `.env.example` are what `config doc` prints.
    """
    doc()
    printed = capsys.readouterr().out
    ours = printed.partition("# Settings of this service")[0]

    assert printed.strip() in (DOCS / "reference" / "configuration.md").read_text()
    assert ours.strip() in (TEMPLATE / ".env.example.jinja").read_text()


def test_settings_in_documents_exist() -> None:
    """
    No document names a setting that there is not, but for those that are wrong on purpose, and the
    changelog for names that were.
    """
    known = {f"APP_{name.upper()}" for name in Settings.model_fields}
    examples = {"APP_PAGE_SIZE_MAX", "APP_ANNOUNCE_URL", "APP_NAMES", "APP_PROT"}
    paths = [*ROOT.glob("*.md"), *DOCS.rglob("*.md"), *TEMPLATE.rglob("*.md*")]

    for path in paths:
        named = set(re.findall(r"\bAPP_[A-Z_]*[A-Z]\b", path.read_text()))
        past = {*map(variable, RENAMED)} if path.name == "CHANGELOG.md" else set()
        assert named <= known | examples | past, path


def test_code_about_other_services_is_the_example() -> None:
    """
    What the how-to shows of a dependency is in the seeds, line by line.
    """
    shown = (DOCS / "how-to" / "outbound.md").read_text().partition("- What comes back")[0]
    lines = re.findall(r"^    (.*)$", shown, re.MULTILINE)
    seed = (BESIDE_WITHOUT_DATABASE / "resources.py").read_text()
    seed += (PACKAGE / "announcer.py").read_text()

    assert len(lines) == 3
    for line in [*lines, *re.findall(r"`(from .*?)`", shown)]:
        # In the example the URL has a name of its own.
        assert line.replace("settings.announce_url", "url") in seed


def test_code_about_jobs_is_the_example() -> None:
    """
    What the how-to shows of a job is in the seed, line by line.
    """
    text = (DOCS / "how-to" / "jobs.md").read_text().partition("Whatever starts")[0]
    lines = re.findall(r"^    (.*)$", text, re.MULTILINE)

    assert len(lines) == 2
    assert {*lines} <= {*(WITHOUT_DATABASE / "tasks.py").read_text().splitlines()}


def test_code_about_repeated_requests_is_the_example() -> None:
    """
    What the how-to shows of an operation is in the seed, line by line.
    """
    page = (DOCS / "how-to" / "idempotency.md").read_text()
    shown = page.partition("in the same transaction:")[2].partition("with `key")[0]
    lines = [line.strip() for line in shown.splitlines() if line.strip()]

    assert len(lines) == 5
    assert {*lines} <= {
        line.strip() for line in (WITH_DATABASE / "routes.py").read_text().splitlines()
    }


def test_code_about_messages_is_the_example() -> None:
    """
    What the how-to shows of enqueuing and handling is in the seed, line by line.
    """
    text = (DOCS / "how-to" / "worker.md").read_text().partition("What the function ends")[0]
    lines = re.findall(r"^ {4,8}(\S.*)$", text, re.MULTILINE)
    seed = (WITH_DATABASE / "handlers.py").read_text()

    assert len(lines) == 6
    for line in lines:
        assert line in seed or "resources.database.transaction" in line or line.startswith("...")


def test_code_about_what_comes_later_is_the_example() -> None:
    """
    What the how-tos have one add for a worker or a job fits into the seeds that are there.
    """
    page = (DOCS / "how-to" / "worker.md").read_text()
    routes, handlers = ((WITH_DATABASE / name).read_text() for name in ("routes.py", "handlers.py"))
    for line in ("await opened.announcer.announce(note)", "await notes.add(connection, note)"):
        assert f"`{line}`" in page
        assert routes.count(line) == 1
    assert "    await announce_later(connection, note)\n" in page
    assert "async def announce_later(connection" in handlers

    page = (DOCS / "how-to" / "add-database.md").read_text()
    later = (WITH_DATABASE / "tasks.py").read_text()
    told = re.findall(
        r"^    (from \. import backup|.* back_up\(.*|    return .*backup.*)$", page, re.MULTILINE
    )
    assert len(told) == 3
    assert all(f"{line}\n" in later for line in told)
    assert 'JOBS = {"sweep": sweep}' in (WITHOUT_DATABASE / "tasks.py").read_text()


@pytest.mark.promise("C4")
def test_numbers_of_haproxy_are_the_defaults() -> None:
    """
    What the how-to has haproxy wait, ask and count are the defaults of the settings.
    """
    text = (DOCS / "how-to" / "haproxy.md").read_text()
    config = "\n".join(re.findall(r"^    (.*)$", text, re.MULTILINE))
    default = {name: field.default for name, field in Settings.model_fields.items()}

    def number(pattern: str) -> float:
        (found,) = {*re.findall(pattern, config, re.MULTILINE)}
        return float(found)

    assert number(r"timeout server (\d+)s") == default["lb_response_seconds"]
    assert number(r"timeout http-keep-alive (\d+)s") == default["lb_idle_seconds"]
    assert number(r"timeout http-keep-alive (\d+)s") < default["keep_alive_seconds"]
    assert number(r"timeout http-request (\d+)s") == default["header_receive_seconds"]
    assert number(r"timeout check (\d+)s") == default["probe_timeout_seconds"]
    assert number(r"inter (\d+)s") * number(r"fall (\d+)") < default["drain_seconds"]
    assert number(r"rise \d+ maxconn (\d+)") < default["in_flight_max"]
    assert number(r"server one \S+:(\d+) ") == default["port"]
    assert number(r"server one \S+ port (\d+)") == default["admin_port"]


def test_ownership_is_current() -> None:
    """
    The reference of owners, and `ops/tools/sums`, are what `scripts/sums` writes.
    """
    ended = subprocess.run(
        [sys.executable, ROOT / "scripts" / "sums", "--check"],
        capture_output=True,
        text=True,
        check=False,
    )

    assert ended.returncode == 0, ended.stderr


def test_links_resolve() -> None:
    """
    Every relative link in a document leads to a file.
    """
    for path in [*ROOT.glob("*.md"), *DOCS.rglob("*.md")]:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", path.read_text()):
            assert (path.parent / target).exists(), f"{path.name}: {target}"


def test_readmes_are_short() -> None:
    """
    The service's README has fewer than 60 lines, its AGENTS.md at most 40.
    """
    assert len((TEMPLATE / "README.md.jinja").read_text().splitlines()) < 60
    assert len((TEMPLATE / "AGENTS.md.jinja").read_text().splitlines()) <= 40


def test_no_placeholders() -> None:
    """
    Nothing is left to do that the text says is left to do.
    """
    names = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    words = re.compile(r"\b(TO" r"DO|FIX" r"ME|XX" r"X)\b")

    for name in names:
        path = ROOT / name
        if path.is_file() and not path.is_symlink():
            # A picture has no words.
            assert path.suffix == ".png" or not words.search(path.read_text()), name
