"""
Files are UTF-8, whatever the locale of the machine is.
"""

import ast
from collections.abc import Iterator

from harness import TEMPLATE

# How many arguments come before the encoding.
POSITION = {"read_text": 0, "write_text": 1}


def unnamed() -> Iterator[str]:
    """
    The calls in the template that leave the encoding to the locale.
    """
    for path in [*TEMPLATE.rglob("*.py"), *TEMPLATE.rglob("*.py.jinja")]:
        tree = ast.parse(path.read_text("utf-8").replace("{{ package_name }}", "package"))
        for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
            name = call.func.attr if isinstance(call.func, ast.Attribute) else ""
            named = {keyword.arg for keyword in call.keywords}
            if name in POSITION and len(call.args) <= POSITION[name] and "encoding" not in named:
                yield f"{path.relative_to(TEMPLATE)}:{call.lineno}: {ast.unparse(call)}"


def test_encoding_is_named() -> None:
    """
    Each file that a service reads or writes as text names its encoding.
    """
    assert [*unnamed()] == []
