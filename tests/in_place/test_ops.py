"""
The tools of ops as they lie in the template: small.
"""

from harness import TEMPLATE
from test_chassis import code_lines

# A third of what a chassis takes: tools that nobody reads at 4 am.
OPS_LINES = 800


def test_ops_is_small() -> None:
    """
    `python -m ops` keeps its budget of code lines, its checks not counted twice.
    """
    ops = TEMPLATE / "ops"
    sizes = {
        path.name: code_lines(path) for path in [ops / "__main__.py", *ops.rglob("tools/**/*.py")]
    }

    assert sum(sizes.values()) <= OPS_LINES, sizes
