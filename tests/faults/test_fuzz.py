"""
The service against whoever makes up requests from its own document.
"""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from faulty_postgresql import PostgreSQL
from harness import clean

Start = Callable[..., Any]


@pytest.fixture(name="generated")
def _generated(copy: Callable[..., Path]) -> Callable[..., Path]:
    """
    A service without faults; tests/mutations hands in its own.
    """

    def generated(**answers: Any) -> Path:
        given = os.environ.get("FIVEWEEKS_PROJECT")
        return Path(given) if given else copy(**answers)

    return generated


@pytest.mark.promise("E3")
@pytest.mark.covers("template/src/{{ package_name }}/chassis/fastapi.py")
def test_fuzz(generated: Callable[..., Path], start_in: Start, tmp_path: Path) -> None:
    """
    The example as it is generated: no answer above 499, none that the document doesn't describe,
    nothing wrong that is taken, nothing right that is refused.
    """
    service = start_in(generated(), api_docs="true", log_level="info")

    ended = _fuzz(service, tmp_path, "--checks", "all")

    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "Operations:       3 selected / 3 total" in ended.stdout
    # The document describes every problem by one `default`; these are the ones that may come.
    seen = {line["status"] for line in service.events("request")}
    assert {200, 201, 404, 405, 422} <= seen <= {200, 201, 400, 404, 405, 413, 415, 422}
    assert not service.events("request_failed")


@pytest.mark.promise("E3")
@pytest.mark.covers("template/src/{{ package_name }}/chassis/fastapi.py")
def test_fuzz_frozen(
    generated: Callable[..., Path], start_in: Start, postgresql: PostgreSQL, tmp_path: Path
) -> None:
    """
    With a database that is frozen: no answer but those that are documented, and none is a bug.
    """
    project = generated(database="postgresql")
    command = [str(project / ".venv" / "bin" / "order-desk"), "migrate", "up"]
    subprocess.run(command, env={"APP_DATABASE_URL": postgresql.url}, check=True)
    limits = {
        "pool_checkout_seconds": 0.2,
        "database_statement_seconds": 0.3,
        "database_lock_seconds": 0.1,
    }
    service = start_in(
        project,
        api_docs="true",
        log_level="info",
        database_url=postgresql.url,
        database_client_check_seconds=0.1,
        **limits,
    )
    postgresql.freeze()

    checks = "response_schema_conformance,status_code_conformance,content_type_conformance"
    ended = _fuzz(service, tmp_path, "--checks", checks)

    assert "Operations:       3 selected / 3 total" in ended.stdout, ended.stdout + ended.stderr
    assert ended.returncode == 0, ended.stdout + ended.stderr
    seen = {line["status"] for line in service.events("request")}
    assert {422, 503} <= seen <= {200, 400, 404, 405, 413, 415, 422, 503, 504}
    assert not service.events("request_failed")


def _fuzz(service: Any, folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [
        *(str(Path(sys.executable).parent / "schemathesis"), "run", "--no-color"),
        *("--max-time", "15", "--seed", "5", "--continue-on-failure", *options),
        f"http://127.0.0.1:{service.port}/openapi.json",
    ]
    return subprocess.run(
        command, cwd=folder, env=clean({}), capture_output=True, text=True, check=False
    )
