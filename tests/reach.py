"""
What a module of a service uses of its other modules, name by name: nearly all import `logs.py`, and
few are concerned by each change of it.
"""

import ast
import functools
from collections.abc import Callable, Iterator
from collections.abc import Set as AbstractSet
from pathlib import Path

__all__ = ["reaches_change"]

# A name of a module; without one, what stands outside of functions, classes and assignments.
Name = tuple[Path, str]


def reaches_change(path: Path, changed: AbstractSet[Path], before: Callable[[Path], str]) -> bool:
    """
    Whether a module uses a name of another one whose code differs from that of *before*, directly
    or through others.
    """
    found = _reached(path)
    return any(
        (place, name) in found
        for place in changed & {place for place, _ in found}
        for name in _differing(place.read_text(), before(place))
    )


@functools.cache
def _differing(new: str, old: str) -> frozenset[str]:
    was, now = ({name: ast.dump(part) for name, part in _parts(one).items()} for one in (old, new))
    return frozenset(name for name in now if now[name] != was.get(name))


@functools.cache
def _reached(path: Path) -> frozenset[Name]:
    """
    All that a module uses, directly or through others.
    """
    names = _parts(path.read_text()) if path.suffix == ".py" else ()
    waiting = [(path, name) for name in names]
    seen = set(waiting)
    while waiting:
        place, name = waiting.pop()
        fresh = {*_uses(place, name), (place, "")} - seen
        seen |= fresh
        waiting += fresh
    return frozenset(seen)


@functools.cache
def _parts(text: str) -> dict[str, ast.Module]:
    """
    The code that each name at the top of a module stands for.
    """
    found: dict[str, ast.Module] = {}
    for node in ast.parse(text).body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            continue
        names = [getattr(node, "name", "")]
        if isinstance(node, ast.Assign | ast.AnnAssign | ast.AugAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names = [one.id for target in targets for one in _names(target)]
        for name in names:
            found.setdefault(name, ast.Module([], [])).body.append(node)
    return found


def _names(node: ast.AST) -> Iterator[ast.Name]:
    return (one for one in ast.walk(node) if isinstance(one, ast.Name))


@functools.cache
def _imports(path: Path) -> dict[str, Name]:
    """
    The names that a module imports from its neighbours; a whole module has no name in it.
    """
    found = {}
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level == 1:
            for alias in node.names:
                parts = [*(node.module or alias.name).split(".")]
                file = path.parent.joinpath(*parts).with_suffix(".py")
                if file.is_file():
                    name = alias.name if node.module else ""
                    found[alias.asname or alias.name] = (file, name)
    return found


@functools.cache
def _uses(path: Path, name: str) -> frozenset[Name]:
    """
    What the code of a name uses, in its own module and in others.
    """
    parts, imports = _parts(path.read_text()), _imports(path)
    found = set[Name]()
    for node in ast.walk(parts.get(name, ast.Module([], []))):
        if isinstance(node, ast.Name) and node.id in parts:
            found.add((path, node.id))
        elif isinstance(node, ast.Name) and node.id in imports and imports[node.id][1]:
            found.add(imports[node.id])
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            file, inner = imports.get(node.value.id, (path, "-"))
            if not inner:
                found.add((file, node.attr))
    return frozenset(found)
