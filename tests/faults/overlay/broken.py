"""
Exceptions without measure, for every process type.
"""

from collections.abc import Callable

__all__ = ["broken"]


def _nested() -> Exception:
    error: Exception = ValueError("the innermost")
    for number in range(600):
        error = ExceptionGroup(f"level {number}", [error])
    return error


def _causes() -> Exception:
    error = ValueError("the first cause")
    for number in range(1_000):
        later = ValueError(f"cause {number}")
        later.__cause__ = error
        error = later
    return error


def _noted() -> Exception:
    error = ValueError("noted")
    note = "n" * 1_000_000
    for _ in range(1_000):
        error.add_note(note)
    return error


def _recursive() -> Exception:
    return _recursive()


def _deep() -> Exception:
    try:
        return _recursive()
    except RecursionError as error:
        return error


BROKEN: dict[str, Callable[[], Exception]] = {
    "group": lambda: ExceptionGroup("many", [ValueError(f"{n}") for n in range(20_000)]),
    "nested": _nested,
    "causes": _causes,
    "notes": _noted,
    "message": lambda: ValueError("m" * 10_000_000),
    "unicode": lambda: ValueError("\x00\U0001f600\ud800" * 1_000_000),
    "recursion": _deep,
    "type": lambda: type("T" * 100_000, (Exception,), {})("of a long name"),
}


def broken(what: str) -> Exception:
    return BROKEN[what]()
