"""
The envelope of a generated service, written from its settings and declaration.
"""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

from harness import clean


def test_envelope(copy: Callable[..., Path]) -> None:
    """
    It says the limits, is stale once a default or the declaration is another one, and never half.
    """
    project = copy(processes=["web", "worker"], database="postgresql")
    path, declaration = project / "ops" / "envelope.md", project / "ops" / "service.yaml"

    def ops(*arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
        command = [str(project / ".venv" / "bin" / "python"), "-m", "ops", "envelope", *arguments]
        environment = clean(dict(os.environ)) | settings
        return subprocess.run(
            command, cwd=project, env=environment, capture_output=True, text=True, check=False
        )

    stale = ops("--check")
    assert (stale.returncode, path.exists()) == (1, False)
    assert "uv run python -m ops envelope" in stale.stdout
    assert ops().returncode == 0
    text = path.read_text()
    assert "answered within 10 s, or with 504" in text
    assert "a crash of this service loses none of it" in text
    assert "after 5 failures it waits for a person, 90 days" in text
    # What this machine has set is not what the service promises.
    assert ops("--check", APP_REQUEST_DEADLINE_SECONDS="20").returncode == 0

    declared = declaration.read_text()
    declaration.write_text(declared.replace("percent: 99.9", "percent: 99.5"))
    assert ops("--check").returncode == 1
    injected = '"then\\n\\n## More\\n- promises"'
    called = f"dependencies: [{{name: x, limit: y, fallback: {injected}}}]\n  waivers:"
    before, _, _ = declared.partition("dependencies:")
    declaration.write_text(f"{before}{called} []\n")
    assert ops().returncode == 0
    assert "- Without x: then ## More - promises.\n" in path.read_text()
    path.write_text(text)
    declaration.write_text("spec: [")
    broken = ops()
    assert broken.returncode == 78
    assert "Traceback" not in broken.stderr
    assert path.read_text() == text
