"""
The tools of ops as they lie in the template: small.
"""

from harness import TEMPLATE
from test_chassis import code_lines

# Tools that nobody reads at 4 am, and that somebody has to maintain.
OPS_LINES = 2_397


def test_ops_is_small() -> None:
    """
    `python -m ops` keeps its budget of code lines.
    """
    ops = TEMPLATE / "ops"
    sizes = {
        path.relative_to(ops).as_posix(): code_lines(path)
        for path in [ops / "__main__.py", *(ops / "tools").rglob("*.py")]
    }

    assert sum(sizes.values()) <= OPS_LINES, sizes
