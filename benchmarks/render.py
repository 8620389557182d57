"""
What it costs to render a service, compared with rendering an empty template by the same copier.

    uv run python benchmarks/render.py [PAIRS]

CPU seconds (user and system, children included) of whole `copier copy` processes, in pairs, so that
a drift of the machine's speed hits both; the figure is the median of the pairs' ratios.
"""

import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]


def cpu_seconds(template: Path, folder: Path) -> float:
    """
    One `copier copy` with all defaults.
    """
    copier = Path(sys.executable).parent / "copier"
    command = [copier, "copy", "--quiet", "--defaults", "--vcs-ref", "HEAD", template, folder]
    process = subprocess.Popen(command)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    return usage.ru_utime + usage.ru_stime


def git(*arguments: str | Path, cwd: Path) -> None:
    identity = ["-c", "user.name=bench", "-c", "user.email=bench@example.com"]
    subprocess.run(["git", *identity, *arguments], cwd=cwd, check=True, capture_output=True)


def main() -> None:
    """
    Measure and print.
    """
    pairs = int(sys.argv[1]) if len(sys.argv) > 1 else 9
    with tempfile.TemporaryDirectory() as temporary:
        base = Path(temporary)
        ours, empty = base / "ours", base / "empty"
        git("clone", "--quiet", ROOT, ours, cwd=base)
        empty.mkdir()
        (empty / "copier.yml").write_text("_subdirectory: template\n")
        (empty / "template").mkdir()
        (empty / "template" / "{{_copier_conf.answers_file}}.jinja").write_text(
            "{{ _copier_answers | to_nice_yaml -}}\n"
        )
        git("init", "--quiet", cwd=empty)
        git("add", "--all", cwd=empty)
        git("commit", "--quiet", "--message", "empty", cwd=empty)

        cpu_seconds(ours, base / "warm-up")
        rows = [
            (cpu_seconds(ours, base / f"ours-{i}"), cpu_seconds(empty, base / f"empty-{i}"))
            for i in range(pairs)
        ]
        files = sum(path.is_file() for path in (base / "ours-0").rglob("*"))
    ratios = [one / other for one, other in rows]
    print(f"pairs            {pairs}")
    print(f"files rendered   {files}")
    print(f"ours, CPU s      {statistics.median(one for one, _ in rows):.2f}")
    print(f"empty, CPU s     {statistics.median(other for _, other in rows):.2f}")
    spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
    print(f"ratio            {statistics.median(ratios):.2f} ({spread})")


if __name__ == "__main__":
    main()
