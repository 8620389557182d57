"""
The Dockerfile of a project, held against its settings by the project's own tests.
"""

import subprocess
from collections.abc import Callable
from pathlib import Path


def test_own_tests_compare(copy: Callable[..., Path]) -> None:
    """
    Who edits one side only is told, all at once: what, where, and both values.
    """
    project = copy()
    path = project / "Dockerfile"
    text = path.read_text()
    for old, new in (
        ("EXPOSE 8000 8001", "EXPOSE 8000/tcp 8002/tcp"),
        ("# Yours below: system packages", "env APP_PORT=9000\n# Yours below: system packages"),
        ("--interval=10s", "--interval=20s"),
        ("--retries=3", "--retries=2"),
        ("--timeout=27s", "--timeout=3s"),
    ):
        assert text.count(old) == 1
        text = text.replace(old, new)
    path.write_text(text)

    command = [".venv/bin/pytest", "tests/system/test_dockerfile.py", "-k", "truth or time"]
    ended = subprocess.run(command, cwd=project, capture_output=True, text=True, check=False)

    assert "2 failed" in ended.stdout
    for told in (
        "EXPOSE, the first is 8000, but APP_PORT is 9000",
        "EXPOSE, the second is 8002, but APP_ADMIN_PORT is 8001",
        "HEALTHCHECK --interval is 20s, but APP_LIVENESS_PERIOD_SECONDS is 10",
        "HEALTHCHECK --retries is 2, but APP_LIVENESS_FAILURES is 3",
        "HEALTHCHECK --timeout=3s, but APP_LIVENESS_TIMEOUT_SECONDS is 25",
    ):
        assert f"Dockerfile: {told}" in ended.stdout
