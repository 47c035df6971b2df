"""Go templates as words: text, and what stands in the actions. Pure, in linear time.

::

    action  ::= "{{" [ "-" space ] words [ space "-" ] "}}"
    comment ::= "{{" [ "-" space ] "/*" … "*/" [ space "-" ] "}}"

A ``-`` takes the white space of the text beside it away. (Go's ``text/template``, package
documentation, and ``text/template/parse/lex.go``.)
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

from schemas import limits
from schemas.errors import UsageError

_SPACES: Final = " \t\r\n"
_OPENING: Final = re.compile(r"\{\{(?P<trim>-(?=[ \t\r\n]))?")
_CLOSING: Final = re.compile(r"\}\}|(?P<trim>[ \t\r\n]-\}\})")
_COMMENT_END: Final = re.compile(r"\*/(?:\}\}|(?P<trim>[ \t\r\n]-\}\}))")
_WORD: Final = re.compile(
    r"""
    (?P<SPACE>[ \t\r\n]+)
  | (?P<NUMBER>[+-]?(?:[0-9]|\.[0-9])(?:[eEpP][+-]?[0-9_]+|[0-9a-zA-Z_.])*)
  | (?P<FIELD>\.[^\W\d]\w*)
  | (?P<DOT>\.)
  | (?P<VARIABLE>\$\w*)
  | (?P<NAME>[^\W\d]\w*)
  | (?P<STRING>"(?:[^"\\\n]|\\[^\n])*")
  | (?P<RAW>`[^`]*`)
  | (?P<CHARACTER>'(?:[^'\\\n]|\\[^\n][^'\n]*)')
  | (?P<SIGN>:=|[=|,()])
    """,
    re.VERBOSE,
)
_JOINED: Final = " \t\r\n.,|:)("  # what may follow a word without a space


class Kind(Enum):
    """What a token is; the names of the words are those of the groups above."""

    TEXT = auto()
    LEFT = auto()
    RIGHT = auto()
    SPACE = auto()
    NUMBER = auto()
    FIELD = auto()
    DOT = auto()
    VARIABLE = auto()
    NAME = auto()
    STRING = auto()
    RAW = auto()
    CHARACTER = auto()
    SIGN = auto()
    END = auto()


_TIGHT: Final = frozenset({Kind.NUMBER, Kind.FIELD, Kind.DOT, Kind.VARIABLE, Kind.NAME})


@dataclass(frozen=True, slots=True)
class Token:
    """One word.

    Attributes:
        kind: What it is.
        text: As it is written.
        line: Where it begins, from 1.
    """

    kind: Kind
    text: str
    line: int


def wrong(line: int, what: str) -> UsageError:
    """An error of a template's, with its line."""
    return UsageError("template error", why=f"line {line}: {what}")


class _Lexer:
    def __init__(self, source: str) -> None:
        self._source = source
        self._at = 0
        self._line = 1
        self._trim = False  # the action before takes the white space away

    def tokens(self) -> Iterator[Token]:
        while True:
            opening = _OPENING.search(self._source, self._at)
            end = opening.start() if opening else len(self._source)
            trim = opening is not None and opening["trim"] is not None
            text = self._source[self._at : end]
            shown = text.lstrip(_SPACES) if self._trim else text
            shown = shown.rstrip(_SPACES) if trim else shown
            if shown:
                yield Token(Kind.TEXT, shown, self._line)
            self._go_to(end)
            if opening is None:
                yield Token(Kind.END, "", self._line)
                return
            yield from self._action(opening.end() + trim)

    def _action(self, start: int) -> Iterator[Token]:
        left = Token(Kind.LEFT, "{{", self._line)
        self._go_to(start)
        if self._source.startswith("/*", self._at):
            self._comment()
            return
        yield left
        while (closing := _CLOSING.match(self._source, self._at)) is None:
            yield self._word(left.line)
        self._trim = closing["trim"] is not None
        yield Token(Kind.RIGHT, "}}", self._line)
        self._go_to(closing.end())

    def _comment(self) -> None:
        ending = self._source.find("*/", self._at)
        if ending < 0:
            raise wrong(self._line, "unclosed comment")
        closing = _COMMENT_END.match(self._source, ending)
        if closing is None:
            raise wrong(self._line, "comment ends before closing delimiter")
        self._trim = closing["trim"] is not None
        self._go_to(closing.end())

    def _word(self, opened: int) -> Token:
        found = _WORD.match(self._source, self._at)
        if found is None:
            raise wrong(self._line, self._trouble(opened))
        kind = Kind[found.lastgroup or "SPACE"]
        end = found.end()
        if kind is Kind.SPACE and self._source.startswith("-}}", end):
            end -= 1  # the last of it belongs to the closing
        token = Token(kind, self._source[self._at : end], self._line)
        self._go_to(end)
        if kind in _TIGHT and not self._joins():
            raise wrong(self._line, f"bad character {self._source[self._at]!r}")
        return token

    def _joins(self) -> bool:
        following = self._source[self._at : self._at + 1]
        return not following or following in _JOINED or self._source.startswith("}}", self._at)

    def _trouble(self, opened: int) -> str:
        rest = self._source[self._at : self._at + 1]
        if not rest:
            return f"unclosed action started at line {opened}"
        if rest in "\"`'":
            return "unterminated string"
        return f"unexpected {rest!r} in an action"

    def _go_to(self, at: int) -> None:
        self._line += self._source.count("\n", self._at, at)
        self._at = at


def tokens_of(source: str) -> list[Token]:
    """The words of a template; the last one is :attr:`Kind.END`.

    Raises:
        UsageError: It is too large, or not made of words.
    """
    if len(source) > limits.GO_TEMPLATE_CHARS:
        raise UsageError("template error", why=f"over {limits.GO_TEMPLATE_CHARS} characters")
    found: list[Token] = []
    for token in _Lexer(source).tokens():
        if len(found) == limits.GO_TEMPLATE_TOKENS:
            raise wrong(token.line, f"over {limits.GO_TEMPLATE_TOKENS} words")
        found.append(token)
    return found
