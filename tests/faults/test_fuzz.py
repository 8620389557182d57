"""
The service against whoever makes up requests from its own document.
"""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from harness import clean

Start = Callable[..., Any]


def test_fuzz(copy: Callable[..., Path], start_in: Start, tmp_path: Path) -> None:
    """
    The example as it is generated: no answer above 499, none that the document doesn't describe,
    nothing wrong that is taken, nothing right that is refused.
    """
    service = start_in(copy(), api_docs="true", log_level="info")
    command = [
        *(str(Path(sys.executable).parent / "schemathesis"), "run", "--no-color"),
        *("--checks", "all", "--max-time", "15", "--seed", "5", "--continue-on-failure"),
        f"http://127.0.0.1:{service.port}/openapi.json",
    ]

    ended = subprocess.run(
        command, cwd=tmp_path, env=clean({}), capture_output=True, text=True, check=False
    )

    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "Operations:       3 selected / 3 total" in ended.stdout
    # The document describes every problem by one `default`; these are the ones that may come.
    seen = {line["status"] for line in service.events("request")}
    assert {200, 201, 404, 405, 422} <= seen <= {200, 201, 400, 404, 405, 413, 415, 422}
    assert not service.events("request_failed")
