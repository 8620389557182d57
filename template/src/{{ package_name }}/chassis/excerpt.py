"""
Values and exceptions as far as they fit a log line, whatever their number, depth and length.
"""

import traceback
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import PurePath
from typing import Any, TypeVar

import orjson

__all__ = ["Cut", "Excerpt", "brief", "dumps", "fit", "origin", "place", "traceback_text", "words"]

T = TypeVar("T")
# Shortens a text to so many characters.
Cut = Callable[[str, int], str]
# A line has 64 KiB, and a mask of ten characters may take the place of a secret of six.
FIT_BYTES = 39_000
SIZE, NAME_SIZE = 32_000, 200
# What a field or an item takes beside its text, so that a line has at most 1,600 of them.
ITEM_SIZE = 20
NOTES_MAX, MEMBERS_MAX = 5, 10
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
        shown |= {"left_out": excerpt.left_out} if excerpt.left_out else {}
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
        self._cut, self._size, self._room = cut, size, size

    def fields(self, event: Mapping[Any, Any], what: str = "fields") -> dict[str, Any]:
        """
        The first fields of *event*; the number of the others is in `left_out` as *what*.
        """
        items = self._first(event.items(), what)
        return {self.text(words(key)): self._value(value) for key, value in items}

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
        text = text if text.isascii() else text.encode(errors="backslashreplace").decode()
        self._room -= len(text)
        return text

    def _value(self, value: object) -> object:
        """
        A copy, so that it costs no more than what is shown; of a text that is too long, a quarter
        of the room that is left.
        """
        if isinstance(value, dict):
            return self.fields(value, "items")
        if isinstance(value, (list, tuple, set, frozenset)):
            return [self._value(one) for one in self._first(value, "items")]
        if isinstance(value, (bytes, bytearray)):
            value = value[: self._size]
        # What has lone surrogates, large integers or a broken repr becomes a text.
        with suppress(Exception):
            if not isinstance(value, str) and len(data := dumps(value)) <= self._room:
                self._room -= len(data)
                return orjson.Fragment(data)
        text = words(value)
        return self.text(text, self._room if len(text) <= self._room else self._room // 4)

    def _first(self, items: Collection[T], what: str) -> Iterator[T]:
        """
        As many items as there is room for. An eighth of it is kept for what comes after them, which
        also ends a circle.
        """
        kept = self._room // 8
        self._room -= kept
        for count, item in enumerate(items):
            if self._room < 2 * NAME_SIZE:
                self.left_out[what] += len(items) - count
                break
            self._room -= ITEM_SIZE
            yield item
        self._room += kept

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


def origin(error: BaseException) -> list[tuple[str, int]]:
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
        name += f" at {place(file, line)}"
    return name[:NAME_SIZE]


def place(file: str, line: int) -> str:
    """
    A line of code in short: a file of this service, or the end of another path.
    """
    return f"{'/'.join(PurePath(file.removeprefix(OURS)).parts[-2:])}:{line}"


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
