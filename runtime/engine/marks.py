"""Marks around what clients write, on its way through a chat template.

A mark changes a string, and templates look at strings. So rendering is tried from the strictest
marking on, and the first is taken that equals the unmarked rendering once the marks are off:

1. all contents enclosed in marks;
2. all but the assistant's (templates cut ``</think>`` out of those);
3. none; where a client's string spells a special token, one mark breaks the spelling.

The last is also what strings outside of contents always get (tool names, arguments, descriptions),
and what is taken if none fits.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

# Unicode noncharacters, never exchanged between systems; a client's own become U+FFFD.
_OPEN: Final = "\ufdd0"
_CLOSE: Final = "\ufdd1"
_BREAK: Final = "\ufdd2"
MARKS: Final = re.compile(f"[{_OPEN}{_CLOSE}{_BREAK}]")
PICTURE: Final = "\ufdd3"
"""Stands in a rendered prompt where a picture does; no client can write it."""
_RESERVED: Final = re.compile(f"[{_OPEN}{_CLOSE}{_BREAK}{PICTURE}]")


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of a rendered prompt.

    Attributes:
        text: Not empty.
        trusted: Whether the template said it.
    """

    text: str
    trusted: bool


class SpecialTokens(Protocol):
    """Where the special tokens of a vocabulary are spelled."""

    def starts(self, text: str) -> Sequence[int]:
        """Offsets at which a special token begins, overlapping ones too."""
        ...


def clean(text: str) -> str:
    """A client's text without marks of its own."""
    return _RESERVED.sub("\ufffd", text)


def breaker_for(special: SpecialTokens) -> Callable[[str], str]:
    """Put a mark after the first character of every special token spelled in a string."""

    def change(text: str) -> str:
        parts, done = [], 0
        for start in special.starts(text):
            parts.append(text[done : start + 1])
            done = start + 1
        return _BREAK.join([*parts, text[done:]])

    return change


class Encloser:
    """Encloses contents of some roles, inside their white space so that trimming does no harm."""

    def __init__(self, roles: frozenset[str], breaker: Callable[[str], str]) -> None:
        self._roles = roles
        self._breaker = breaker
        self._enclosed: set[str] = set()

    def __call__(self, role: str, text: str) -> str:
        """A message's content, marked."""
        core = text.strip()
        if role not in self._roles or not core:
            return self._breaker(text)
        self._enclosed.add(core)
        lead = text.index(core)
        return f"{text[:lead]}{_OPEN}{core}{_CLOSE}{text[lead + len(core) :]}"

    def intact_in(self, marked: str) -> bool:
        """Whether marks come in pairs, around whole strings: no template cut one in two."""
        outside, *parts = marked.split(_OPEN)
        if _CLOSE in outside:
            return False
        return all(
            part.count(_CLOSE) == 1 and part.split(_CLOSE)[0] in self._enclosed for part in parts
        )


def at_pictures(spans: Sequence[Span]) -> list[list[Span]]:
    """What stands before, between and after the pictures of a rendered prompt."""
    parts: list[list[Span]] = [[]]
    for span in spans:
        first, *others = span.text.split(PICTURE)
        if first:
            parts[-1].append(Span(first, span.trusted))
        parts += [[Span(text, span.trusted)] if text else [] for text in others]
    return parts


def spans_of(marked: str) -> list[Span]:
    """Take the marks off; what they enclose or break is the client's."""
    spans: list[Span] = []

    def add(text: str, *, trusted: bool) -> None:
        if text:
            spans.append(Span(text, trusted))

    inside = False
    at = 0
    for match in MARKS.finditer(marked):
        text, mark = marked[at : match.start()], match.group()
        at = match.end()
        if mark == _BREAK and not inside:
            # The characters on both sides belong to a spelling that the client wrote.
            add(text[:-1], trusted=True)
            after = MARKS.sub("", marked[at : at + 1])
            add(text[-1:] + after, trusted=False)
            at += len(after)
        else:
            add(text, trusted=not inside)
            inside = mark == _OPEN
    add(marked[at:], trusted=not inside)
    return spans
