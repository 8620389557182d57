"""
Where Python code names fields of an object that is called settings, or of a class of them.
"""

import ast
import warnings
from collections.abc import Iterator

__all__ = ["parses", "sure_places"]

BY_NAME = {"delattr", "getattr", "hasattr", "setattr"}
COPIES = {"model_construct", "model_copy", "model_validate"}


def parses(text: str) -> bool:
    """
    Whether it is Python, of the version that runs this.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            # Unlike the parser, it sees that an argument is given twice.
            compile(text, "text", "exec", dont_inherit=True)
    except (SyntaxError, ValueError):
        return False
    return True


def sure_places(text: str, fields: set[str]) -> set[int]:
    """
    Where in *text* each is; nowhere if it does not parse.
    """
    if not parses(text):
        return set()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tree, marker = ast.parse(text), _Marker(text, fields)
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef) and any(is_settings(base, set()) for base in node.bases):
            marker.mark(node, is_class=True)
    for scope in scopes(tree):
        typed = {node.arg for node in scope if isinstance(node, ast.arg) and is_settings_type(node)}
        for node in scope:
            if isinstance(node, ast.Attribute) and is_settings(node.value, typed):
                marker.mark_attribute(node)
        calls = [node for node in scope if isinstance(node, ast.Call) and takes_fields(node, typed)]
        arguments = [argument for call in calls for argument in (*call.args, *call.keywords)]
        passed = {last_name(node) for argument in arguments for node in ast.walk(argument)} - {""}
        assigned = [node for node in scope if isinstance(node, ast.Assign)]
        arguments += [each.value for each in assigned if passed & {*map(last_name, each.targets)}]
        for argument in arguments:
            marker.mark(argument)
    return marker.places


class _Marker:
    """
    Finds out where nodes are in the text.
    """

    def __init__(self, text: str, fields: set[str]) -> None:
        self.places: set[int] = set()
        self._text, self._fields = text, fields
        self._lines = text.split("\n")
        self._begins = [0]
        for line in self._lines:
            self._begins.append(self._begins[-1] + len(line) + 1)

    def _place(self, line: int | None, column: int | None) -> int:
        # The parser counts bytes.
        before = self._lines[(line or 1) - 1].encode()[:column]
        return self._begins[(line or 1) - 1] + len(before.decode(errors="replace"))

    def mark(self, root: ast.AST, *, is_class: bool = False) -> None:
        """
        What an argument names, as keyword or text; of a class also its names.
        """
        for node in ast.walk(root):
            if isinstance(node, ast.keyword) and node.arg in self._fields:
                self.places.add(self._place(node.lineno, node.col_offset))
            if isinstance(node, ast.Constant) and node.value in self._fields:
                begin = self._place(node.lineno, node.col_offset)
                self.places.add(self._text.find(str(node.value), begin))
            if is_class and isinstance(node, ast.Name) and node.id in self._fields:
                self.places.add(self._place(node.lineno, node.col_offset))
            if is_class and isinstance(node, ast.Attribute):
                self.mark_attribute(node)

    def mark_attribute(self, node: ast.Attribute) -> None:
        """
        Its last name, whatever it is.
        """
        end = self._place(node.end_lineno, node.end_col_offset)
        self.places.add(end - len(node.attr))


def scopes(tree: ast.Module) -> Iterator[list[ast.AST]]:
    """
    The nodes of each function with those within it, and those of the module outside of functions.
    """
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    within: set[ast.AST] = set()
    for node in ast.walk(tree):
        if isinstance(node, functions):
            nodes = [*ast.walk(node)]
            within.update(nodes)
            yield nodes
    yield [node for node in ast.walk(tree) if node not in within]


def is_settings(node: ast.AST, typed: set[str]) -> bool:
    """
    Whether an expression is called settings, such as `self.settings` or `Settings()`.
    """
    if isinstance(node, ast.Call):
        return is_settings(node.func, typed)
    name = last_name(node)
    return name in typed or name.lower().endswith("settings")


def is_settings_type(parameter: ast.arg) -> bool:
    """
    Whether a parameter's annotation names such a class, also as `Settings | None`.
    """
    return any(last_name(node).endswith("Settings") for node in ast.walk(parameter))


def takes_fields(call: ast.Call, typed: set[str]) -> bool:
    """
    Whether a call's arguments name fields: `Settings(…)`, `settings.model_copy(…)`, `getattr(…)`.
    """
    name = last_name(call.func)
    if name in BY_NAME:
        return bool(call.args) and is_settings(call.args[0], typed)
    if name in COPIES and isinstance(call.func, ast.Attribute):
        return is_settings(call.func.value, typed)
    return name.endswith("Settings")


def last_name(node: ast.AST) -> str:
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""
