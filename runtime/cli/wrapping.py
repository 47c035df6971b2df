"""Breaks an answer's lines between words, while it comes."""

from __future__ import annotations

import re
import unicodedata
from typing import Final

# Scripts and pictures that are broken anywhere stand alone, what has letters in words.
_PARTS: Final = re.compile(r"\n|[^\S\n]+|[\u2e80-\U0003ffff]|[^\s\u2e80-\U0003ffff]+")


def columns(text: str) -> int:
    """How wide a terminal shows a text."""
    return sum(0 if unicodedata.category(c) in ("Mn", "Me", "Cf") else 1 + (_wide(c)) for c in text)


def _wide(character: str) -> bool:
    return unicodedata.east_asian_width(character) in "WF"


class Wrapping:
    r"""Text in, text with line breaks out; the last word waits until it is known how it ends.

    Args:
        width: Columns of the terminal; 0 leaves the text as it is.

    >>> wrapping = Wrapping(8)
    >>> wrapping.feed("one two th"), wrapping.feed("ree"), wrapping.end()
    ('one two', '', '\nthree')
    """

    def __init__(self, width: int) -> None:
        self._width = width
        self._column = 0
        self._gap = ""
        self._word = ""
        self._longer = False  # the word does not fit on any line: the terminal breaks it

    def feed(self, text: str) -> str:
        """What can be shown once this piece is there too."""
        if not self._width:
            return text
        shown = []
        for part in _PARTS.findall(text):
            if part.isspace():
                shown.append(self.end())
                self._longer = False
                self._gap += part
                if part == "\n":
                    shown.append(part)
                    self._column, self._gap = 0, ""
            else:
                if _wide(part[0]):
                    shown.append(self.end())
                self._word += part
                if columns(self._word) >= self._width:
                    shown.append(self.end())
                    self._longer = True
        return "".join(shown)

    def end(self) -> str:
        """The word that waits."""
        word, gap = self._word, self._gap
        if not word:
            return ""
        self._word = self._gap = ""
        size = columns(word)
        if self._column and not self._longer and self._column + columns(gap) + size > self._width:
            self._column = size
            return f"\n{word}"
        self._column += columns(gap) + size
        return gap + word
