"""
Values and exceptions as far as they fit a log line, whatever their number, depth and length.
"""

import traceback
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from pathlib import PurePath
from typing import Any, TypeVar

import orjson

__all__ = ["Cut", "Excerpt", "brief", "dumps", "fit", "origin", "traceback_text", "words"]

T = TypeVar("T")
# Shortens a text to so many characters.
Cut = Callable[[str, int], str]
# A file and a line.
Call = tuple[str, int]
# A line has 64 KiB, and a mask of ten characters may take the place of a secret of six.
FIT_BYTES = 39_000
SIZE, NAME_SIZE = 32_000, 200
NOTES_MAX, MEMBERS_MAX, ITEMS_MAX = 5, 10, 1_000
# How many causes, and groups in groups, are looked at.
WALK_MAX = 2_000
# This service, and the chassis in it.
OURS = __file__.rpartition("chassis")[0]
CHASSIS = f"{OURS}chassis"


def dumps(value: object) -> bytes:
    """
    As JSON; raises TypeError for what has lone surrogates, large integers or no end.
    """
    return orjson.dumps(value, repr, orjson.OPT_NON_STR_KEYS | orjson.OPT_UTC_Z)


def fit(event: Mapping[str, Any], cut: Cut, error: BaseException | None = None) -> bytes:
    """
    An event and its exception as one line; `left_out` counts what did not fit.
    """
    size = SIZE
    while True:
        excerpt = Excerpt(cut, size)
        shown = excerpt.fields(event)
        shown |= {"exception": excerpt.exceptions(error)} if error is not None else {}
        left_out = +excerpt.left_out
        shown |= {"left_out": left_out} if left_out else {}
        if len(line := dumps(shown)) <= FIT_BYTES:
            return line
        # Some of its characters take more than one byte.
        size //= 2


class Excerpt:
    """
    Copies what fits into *size* characters, and counts what it leaves out.
    """

    def __init__(self, cut: Cut, size: int = SIZE) -> None:
        self.left_out: Counter[str] = Counter()
        self._cut, self._size, self._items = cut, size, ITEMS_MAX

    def fields(self, event: Mapping[str, Any]) -> dict[str, Any]:
        """
        Of a field that is too long, a quarter of the room that those before it have left.
        """
        shown, room = dict[str, Any](), self._size
        for key, value in event.items():
            if room < NAME_SIZE:
                self.left_out["fields"] = len(event) - len(shown)
                break
            name, text = self.text(words(key)), value if isinstance(value, str) else ""
            data = b"" if text else self._data(value)
            if text or len(data) > room:
                shown[name] = text = self.text(text or data.decode(), room // 4)
            else:
                shown[name] = orjson.Fragment(data)
            room -= len(name) + len(text or data)
        return shown

    def exceptions(self, error: BaseException, *, frames_max: int = 20) -> list[dict[str, Any]]:
        """
        The exception, then its causes and the members of groups: of many the first and the last.
        """
        found = self._ends("exceptions", self._walk(error), max(self._size // 3_200, 1))
        size, most = self._size // 4 // len(found), self._size // 320 // len(found)
        return [self._exception(one, size, max(min(most, frames_max), 2)) for one in found]

    def text(self, text: str, most: int = NAME_SIZE) -> str:
        """
        At most so many characters of *text*, without those that UTF-8 does not know.
        """
        if len(text) > most:
            self.left_out["characters"] += len(text) - most
            text = self._cut(text, most)
        return text if text.isascii() else text.encode(errors="backslashreplace").decode()

    def _data(self, value: object) -> bytes:
        try:
            return dumps(self._some(value))
        except Exception:  # noqa: BLE001  # lone surrogates, large integers, a broken repr, a circle
            return dumps(words(value).encode(errors="backslashreplace").decode())

    def _some(self, value: object) -> object:
        """
        The first items of what is nested, so that it costs no more than what is shown.
        """
        if isinstance(value, str):
            return self.text(value, self._size // 4)
        if not isinstance(value, (dict, list, tuple, set, frozenset)):
            return value[: self._size] if isinstance(value, (bytes, bytearray)) else value
        items = list(islice(value.items() if isinstance(value, dict) else value, self._items))
        self._items -= len(items)
        self.left_out["items"] += len(value) - len(items)
        if isinstance(value, dict):
            return {key: self._some(one) for key, one in items}
        return [self._some(one) for one in items]

    def _exception(self, error: BaseException, size: int, frames_max: int) -> dict[str, Any]:
        trace = traceback.walk_tb(error.__traceback__)
        calls = [(one.f_code.co_filename, line, one.f_code.co_name) for one, line in trace]
        notes = self._ends("notes", list(getattr(error, "__notes__", ())), NOTES_MAX)
        return {
            "exc_type": self.text(type(error).__name__),
            "exc_value": self.text(words(error), size),
            "exc_notes": [self.text(words(note), size // NOTES_MAX) for note in notes],
            "frames": [
                {"filename": self.text(file), "lineno": line, "name": self.text(name)}
                for file, line, name in self._ends("frames", calls, frames_max)
            ],
        }

    def _walk(self, error: BaseException) -> list[BaseException]:
        """
        An exception, what it came of, and what it is made of.
        """
        found, waiting = list[BaseException](), list[BaseException | None]([error])
        while waiting and len(found) < WALK_MAX:
            if (one := waiting.pop()) is not None:
                found.append(one)
                waiting += [one.__cause__ if one.__suppress_context__ else one.__context__]
                if isinstance(one, BaseExceptionGroup):
                    waiting += reversed(self._ends("exceptions", one.exceptions, MEMBERS_MAX))
        return found

    def _ends(self, what: str, items: Sequence[T], most: int) -> Sequence[T]:
        """
        All items, or if there are too many, the first and the last ones.
        """
        if len(items) <= most:
            return items
        self.left_out[what] += len(items) - most
        return [*items[: most - most // 2], *items[len(items) - most // 2 :]]


def origin(error: BaseException) -> list[Call]:
    """
    Where an exception was raised, and the last line of the service's own on the way there.
    """
    calls = [(frame.f_code.co_filename, n) for frame, n in traceback.walk_tb(error.__traceback__)]
    own = [one for one in calls if one[0].startswith(OURS) and not one[0].startswith(CHASSIS)]
    return calls[-1:] + own[-1:]


def brief(error: BaseException) -> str:
    """
    An exception and its place in short: `LookupError at routes.py:94`.
    """
    name = type(error).__name__
    # One that comes from far away, such as another process, has no place.
    for file, line in origin(error)[-1:]:
        name += f" at {'/'.join(PurePath(file.removeprefix(OURS)).parts[-2:])}:{line}"
    return name[:NAME_SIZE]


def traceback_text(shown: Sequence[Mapping[str, Any]]) -> str:
    """
    What `Excerpt.exceptions` returned as Python writes it, the first cause first.
    """
    parts = []
    for one in reversed(shown):
        calls = [(call["filename"], call["lineno"], call["name"], None) for call in one["frames"]]
        parts += ["Traceback (most recent call last):\n", *traceback.format_list(calls)]
        parts += [f"{one['exc_type']}: {one['exc_value']}\n", *one["exc_notes"], "\n"]
    return "".join(parts)


def words(value: object) -> str:
    """
    A value as text, whatever it does when it is shown.
    """
    try:
        return str(value)
    except Exception:  # noqa: BLE001  # as above
        return f"<{type(value).__name__}>"
