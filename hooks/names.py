"""
Old names in a text: which are renamed, and which a person must look at.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

from python_names import parses, sure_places

__all__ = ["Hit", "Renamer"]

PREFIX = "APP_"
# Whose past nobody may change.
HISTORY = re.compile(r"(^|/)(CHANGELOG[^/]*$|ops/postmortems/)")
# Names the old and the new one itself.
TABLE = re.compile(r"/chassis/rules\.py$")


class Hit(NamedTuple):
    """
    A name in a text: where, which, and the new one, or why it stays.
    """

    start: int
    word: str
    new: str
    why: str


class Renamer:
    """
    Knows the names of one version.
    """

    def __init__(self, fields: dict[str, str]) -> None:
        self.fields = fields
        self.variables = {PREFIX + old.upper(): PREFIX + new.upper() for old, new in fields.items()}
        self.names = self.fields | self.variables

    def may_be_in(self, data: bytes) -> bool:
        """
        Whether *data* may hold a name, or what names begin with, as UTF-8 or UTF-16.
        """
        lower = data.lower()
        begins = {old.partition("_")[0] + "_" for old in self.fields}
        wide = [begin.encode("utf-16-le")[:-1] for begin in begins]
        return any(begin in lower for begin in [*map(str.encode, begins), *wide])

    def in_bytes(self, data: bytes) -> Iterator[tuple[int, str]]:
        """
        Line and name of each old name in what is no text in UTF-8.
        """
        for number, line in enumerate(data.lower().replace(b"\0", b"").split(b"\n"), start=1):
            yield from ((number, old) for old in self.fields if old.encode() in line)

    def hits(self, text: str, path: str) -> Iterator[Hit]:
        """
        Every name in *text*, every word that looks like one, and what one may be built from.
        """
        lines = text.split("\n")
        # A comment sets nothing.
        used = {
            word
            for line in lines
            if not line.lstrip().startswith(("#", "//", ";"))
            for word in re.findall(r"\w+", line)
        }
        sure = sure_places(text, {*self.fields}) if path.endswith((".py", ".pyi")) else set()
        for found in re.finditer(r"\w+", text):
            word, start = found[0], found.start()
            new = self.names.get(word, "")
            line = lines[text.count("\n", 0, start)]
            if (old := self._old(word)) and not (TABLE.search(path) and new in line):
                is_sure = start in sure or text[:start].lower().endswith("settings.")
                why = self._doubt(word, old, is_sure=is_sure, used=used)
                why = "it tells of the past" if HISTORY.search(path) else why
                yield Hit(start, word, "" if why else new, why)

    def _old(self, word: str) -> str:
        """
        The old name that *word* is, holds, or begins; or an empty text.
        """
        held = [old for old in self.fields if old in word.lower()]
        if word.endswith("_") and word != PREFIX:
            held += [old for old in self.names if old.startswith(word)]
        return held[0] if held else ""

    def _doubt(self, word: str, old: str, *, is_sure: bool, used: set[str]) -> str:
        """
        Why *word* can't be renamed by a program; empty if it can.
        """
        if word in self.variables:
            new = self.variables[word]
            return f"{new} is in this file, too: one of the two is to go" if new in used else ""
        if word in self.fields:
            told = f"it may be something else's; where it is the setting, it is {self.fields[word]}"
            return "" if is_sure else told
        if word.endswith("_"):
            return f"a name such as {old} may be built from it"
        return f"it looks like {old}"

    def rename(self, text: str, path: str) -> tuple[str, list[Hit]]:
        """
        *text* with the new names, and what was found in it.
        """
        hits = [*self.hits(text, path)]
        renamed = text
        for hit in reversed(hits):
            if hit.new:
                renamed = renamed[: hit.start] + hit.new + renamed[hit.start + len(hit.word) :]
        if path.endswith(".py") and parses(text) and not parses(renamed):
            why = "renamed, the file would not be Python any more"
            return text, [hit._replace(new="", why=hit.why or why) for hit in hits]
        return renamed, hits
