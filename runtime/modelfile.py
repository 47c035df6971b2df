"""Modelfiles: text to instructions, and back. Pure.

::

    modelfile   ::= { blank | comment | instruction }
    comment     ::= "#" … end of line, at the start of an instruction only
    instruction ::= NAME space [ key space ] value
    key         ::= the name of a PARAMETER, the role of a MESSAGE
    value       ::= text to the end of the line | QUOTE text QUOTE
    QUOTE       ::= one double quote, or three

Names are case-insensitive. A quoted value may span lines and ends with the first line whose end is
the closing quote; nothing in it is escaped. (Ollama's ``parser/parser.go``, v0.33.) Stricter than
there: control characters and a FROM without a value are errors.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from runtime.options import RETIRED, read_parameter
from schemas import limits
from schemas.errors import MalformedDocument, UsageError

NAMES: Final = (
    "from",
    "license",
    "template",
    "system",
    "adapter",
    "draft",
    "renderer",
    "parser",
    "parameter",
    "message",
    "requires",
)
ROLES: Final = ("system", "user", "assistant")
_KEYED: Final = ("parameter", "message")
_TRIPLE: Final = '"""'
_BLANKS: Final = " \t"
_KEY_CHARS: Final = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_")
_NAME_CHARS: Final = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
_NAMES_SHOWN: Final = ", ".join(f'"{name}"' for name in NAMES[:-1]) + f', or "{NAMES[-1]}"'


@dataclass(frozen=True, slots=True)
class Instruction:
    """One statement of a Modelfile.

    Attributes:
        name: One of :data:`NAMES`.
        value: Without its quotes.
        key: A parameter's name, or a message's role; else empty.
        line: Where it begins, from 1; 0 for one that was never in a file.
    """

    name: str
    value: str
    key: str = ""
    line: int = 0

    def __post_init__(self) -> None:
        if self.name not in NAMES:
            raise _wrong(self.line, f"command must be one of {_NAMES_SHOWN}")
        if self.name == "message" and self.key not in ROLES:
            raise _wrong(self.line, 'message role must be one of "system", "user", or "assistant"')


def parse(text: str) -> tuple[Instruction, ...]:
    """Read a Modelfile.

    Raises:
        MalformedDocument: It does not follow the grammar; names the line.
    """
    if len(text) > limits.MODELFILE_CHARS:
        raise MalformedDocument("the Modelfile is too large", why=f"over {limits.MODELFILE_CHARS}")
    lines = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n").split("\n")
    found: list[Instruction] = []
    at = 0
    while at < len(lines):
        line = lines[at].lstrip(_BLANKS)
        if not line or line.startswith("#"):
            at += 1
            continue
        instruction, at = _statement(line, lines, at)
        found.append(instruction)
    _check(found)
    return tuple(found)


def _statement(line: str, lines: Sequence[str], at: int) -> tuple[Instruction, int]:
    """The instruction that begins here, and the number of the line behind it."""
    number = at + 1
    name, rest = _word(line, _NAME_CHARS)
    name = name.lower()
    if name not in NAMES or rest[:1] not in _BLANKS or not rest:
        raise _wrong(number, f"command must be one of {_NAMES_SHOWN}")
    rest = rest.lstrip(_BLANKS)
    key = ""
    if name in _KEYED:
        key, rest = _word(rest, _KEY_CHARS)
        if not key or rest[:1] not in _BLANKS or not rest:
            raise _wrong(number, f"{name.upper()} needs a name and a value")
    inner, at = _value(rest, lines, at, number)
    if any(not (c.isprintable() or c in "\n\t" or c > "\x9f") for c in inner):
        raise _wrong(number, "a control character")
    return Instruction(name, inner, key, number), at


def _value(rest: str, lines: Sequence[str], at: int, number: int) -> tuple[str, int]:
    """A value that begins in this line, without its quotes, and the number of the line behind."""
    begun = rest.lstrip()
    quote = next((each for each in (_TRIPLE, '"') if begun.startswith(each)), "")
    parts = [begun]
    closed = not quote or (begun.rstrip().endswith(quote) and len(begun.rstrip()) >= 2 * len(quote))
    while not closed:
        at += 1
        if at == len(lines):
            raise _wrong(number, "unexpected EOF: the closing quote is missing")
        parts.append(lines[at])
        closed = lines[at].rstrip().endswith(quote)
    whole = "\n".join(parts).strip()
    return whole[len(quote) : len(whole) - len(quote)], at + 1


def _word(text: str, chars: frozenset[str]) -> tuple[str, str]:
    end = next((i for i, char in enumerate(text) if char not in chars), len(text))
    return text[:end], text[end:]


def _check(found: Iterable[Instruction]) -> None:
    seen: set[str] = set()
    for each in found:
        if each.name == "from" and not each.value:
            raise _wrong(each.line, "FROM needs a model or a file")
        seen.add(each.name)
    if "from" not in seen:
        raise MalformedDocument("no FROM line")


def _wrong(line: int, what: str) -> MalformedDocument:
    return MalformedDocument(f"(line {line}): {what}" if line else what)


def render(instructions: Iterable[Instruction]) -> str:
    """A Modelfile of these instructions; :func:`parse` gives them back.

    Only a value that holds three quotes at the end of a line, beside newlines, has no form there.
    """
    return "".join(f"{_line(each)}\n" for each in instructions)


def _line(each: Instruction) -> str:
    key = f"{each.key} " if each.key else ""
    return f"{each.name.upper()} {key}{_quoted(each.value)}"


def _quoted(text: str) -> str:
    if text and "\n" not in text and text == text.strip() and not text.startswith('"'):
        return text
    return f"{_TRIPLE}{text}{_TRIPLE}" if '"' in text or not text else f'"{text}"'


def parameters(instructions: Iterable[Instruction]) -> tuple[dict[str, Any], list[str]]:
    """What a Modelfile's PARAMETER lines say, typed.

    Returns:
        Values by name, for the ``parameters`` of ``/api/create``, and the names that were dropped.

    Raises:
        MalformedDocument: An unknown name, or a value of the wrong type; names the line.
    """
    values: dict[str, Any] = {}
    dropped: list[str] = []
    for each in instructions:
        if each.name != "parameter":
            continue
        if each.key in RETIRED:
            dropped.append(each.key)
            continue
        try:
            value = read_parameter(each.key, [each.value])
        except UsageError as error:
            raise _wrong(each.line, error.what) from None
        if isinstance(value, list):
            value = [*values.get(each.key, ()), *value]
        values[each.key] = value
    return values, dropped


def last(instructions: Iterable[Instruction], name: str) -> str | None:
    """The value of the last instruction of this name; None if there is none."""
    found = [each.value for each in instructions if each.name == name]
    return found[-1] if found else None
