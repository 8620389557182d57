"""
The chassis as it lies in the template: small, pure, self-contained.
"""

import ast
import io
import json
import re
import subprocess
import sys
import tokenize
from pathlib import Path

import pytest
from harness import BESIDE_WITH_DATABASE, PACKAGE, ROOT, WITH_DATABASE, modules

DEMO = ROOT / "tests" / "in_place" / "demo_service"
CHASSIS = PACKAGE / "chassis"

# docs/decisions/chassis.md: for a web service. What only some answers bring has its own budget.
CHASSIS_LINES = 2_489
CHOSEN = {
    "sentry.py": 56,
    "opentelemetry.py": 75,
    "database.py": 170,
    "migrations.py": 267,
    "preflight.py": 114,
    "idempotency.py": 52,
    "job.py": 168,
    "lock.py": 41,
    "worker.py": 307,
    "backlog.py": 62,
    "queue.py": 64,
    "dead.py": 63,
}


def code_lines(path: Path) -> int:
    """
    Lines of code without blanks, comments and docstrings.
    """
    source = path.read_text()
    prose: set[int] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            prose.update(range(node.lineno, (node.end_lineno or 0) + 1))
    code: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in {
            tokenize.COMMENT,
            tokenize.NL,
            tokenize.NEWLINE,
            tokenize.INDENT,
            tokenize.DEDENT,
            tokenize.ENDMARKER,
        }:
            code.update(range(token.start[0], token.end[0] + 1))
    return len(code - prose)


def test_chassis_is_small() -> None:
    """
    The chassis keeps its budget of code lines.
    """
    sizes = {path.name: code_lines(path) for path in CHASSIS.glob("*.py")}

    assert all(sizes.pop(name) <= limit for name, limit in CHOSEN.items()), sizes
    assert sum(sizes.values()) <= CHASSIS_LINES, sizes


def test_newcomer_reads_little() -> None:
    """
    To add an endpoint one reads at most four files and a hundred lines.
    """
    files = ["routes.py", "resources.py", "settings.py", "web.py"]

    assert sum(code_lines(DEMO / name) for name in files) <= 100


def test_newcomer_reads_little_with_a_database() -> None:
    """
    And thirty more where the example lies in a table.
    """
    files = [WITH_DATABASE / "routes.py", BESIDE_WITH_DATABASE / "resources.py"]
    files += [DEMO / "settings.py", PACKAGE / "web.py"]

    assert sum(code_lines(path) for path in files) <= 130


def test_chassis_imports_nothing_outside_itself() -> None:
    """
    Only relative imports within the chassis, so that it can move as it is.
    """
    for path in CHASSIS.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom):
                assert node.level <= 1, f"{path.name}:{node.lineno}"
                assert not (node.module or "").startswith("demo_service")


def test_only_the_glue_knows_fastapi() -> None:
    """
    No module of the chassis but fastapi.py imports FastAPI or Starlette, or is imported by others.
    """
    for path in CHASSIS.glob("*.py"):
        if path.name != "fastapi.py":
            text = path.read_text()
            assert not re.search(r"^\s*(from|import) \.?(fastapi|starlette)", text, re.MULTILINE)
            assert not re.search(r"^\s*from \. import .*\bfastapi\b", text, re.MULTILINE)


def test_what_is_not_used_is_not_imported() -> None:
    """
    A service that calls no other one does not pay for the client.
    """
    code = """
import asyncio, sys
import demo_service.__main__, demo_service.chassis.web, demo_service.resources, demo_service.web
from demo_service.settings import Settings

async def open_all() -> None:
    async with demo_service.resources.open_resources(Settings()):
        print(*sorted({"httpx2", "httpcore2"} & sys.modules.keys()))

asyncio.run(open_all())
"""

    ended = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT / "tests" / "in_place",
        capture_output=True,
        text=True,
        check=False,
    )

    assert (ended.stdout, ended.stderr) == ("\n", "")


@pytest.mark.promise("C8")
def test_import_is_pure() -> None:
    """
    Importing every module opens no socket or file for writing, starts no thread or process, sets
    no signal handler and reads no variable of the environment.
    """
    ended = subprocess.run(
        [sys.executable, Path(__file__).parent / "import_everything.py"],
        cwd=ROOT / "tests" / "in_place",
        env={"PYTHONPATH": str(ROOT / "tests" / "in_place"), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )

    assert ended.returncode == 0, ended.stderr
    found = json.loads(ended.stdout)
    there = [*CHASSIS.glob("*.py"), *DEMO.glob("*.py")]
    assert len(found["modules"]) == len(there)
    assert found["impure"] == []


@pytest.mark.promise("T9")
def test_nothing_is_unbounded() -> None:
    """
    No code of a service makes a queue, cache or pool without saying how large it may become.
    """
    bounds = {
        "Queue": "maxsize",
        "LifoQueue": "maxsize",
        "PriorityQueue": "maxsize",
        "deque": "maxlen",
        "lru_cache": "maxsize",
        "ThreadPoolExecutor": "max_workers",
        "ProcessPoolExecutor": "max_workers",
    }
    never = {"SimpleQueue", "cache"}
    for path in modules():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, (ast.Name, ast.Attribute)):
                name = ast.unparse(node).rpartition(".")[2]
                assert name not in never, f"{path.name}:{node.lineno}"
            if isinstance(node, ast.Call):
                made = ast.unparse(node.func).rpartition(".")[2]
                said = {keyword.arg for keyword in node.keywords}
                assert bounds.get(made, "") in {"", *said}, f"{path.name}:{node.lineno} {made}"


def test_context_managers_are_generators() -> None:
    """
    A function that becomes a context manager returns a generator: an editor strikes `Iterator`
    through, which is deprecated there.
    """
    for path in modules():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                made = {ast.unparse(one) for one in node.decorator_list}
                result = ast.unparse(node.returns) if node.returns else ""
                if made & {"contextmanager", "asynccontextmanager"}:
                    assert "Generator[" in result, f"{path.name}:{node.lineno}"
