"""``printf``: Go's verbs, within bounds.

Where Go writes ``%!d(MISSING)`` or the like into the text, this is an error. (Go's ``fmt``.)
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Final

from runtime.engine.marks import MARKS
from runtime.gotemplate.values import GoError, TooMuch, Value, bounded, kind_of, shown, to_json
from schemas import limits

_VERB: Final = re.compile(r"%([-+# 0]*)(\*|\d{1,9})?(\.(?:\*|\d{1,9})?)?(.|\Z)", re.DOTALL)
_CHARACTER: Final = re.compile(rf"[^{MARKS.pattern[1:-1]}]", re.DOTALL)
_FLOATS: Final = "eEfFgG"
_BASES: Final[dict[str, Callable[[int], str]]] = {
    "d": "{:d}".format,
    "b": "{:b}".format,
    "o": "{:o}".format,
    "x": "{:x}".format,
    "X": "{:X}".format,
}
_FLOAT_DIGITS: Final = 6


def sprintf(pattern: Value, *arguments: Value) -> str:
    """``printf``.

    Raises:
        GoError: A verb is unknown, has no value, or one of the wrong type; or a value no verb.
        TooMuch: It pads to more than :data:`schemas.limits.GO_TEMPLATE_WIDTH`.
    """
    if not isinstance(pattern, str):
        raise GoError(f"printf needs a string, not {kind_of(pattern)}")
    given = iter(arguments)
    parts: list[str] = []
    done = size = 0
    for verb in _VERB.finditer(pattern):
        parts += [pattern[done : verb.start()], _formatted(verb, given)]
        size += len(parts[-1])
        if size > limits.RENDERED_PROMPT_BYTES:
            raise TooMuch("it makes too much text")
        done = verb.end()
    for _ in given:
        raise GoError("printf has more values than verbs")
    return bounded("".join([*parts, pattern[done:]]))


def sprint(*values: Value) -> str:
    """``print``: a space between two values of which none is a string."""
    parts: list[str] = []
    for number, value in enumerate(values):
        if number and not isinstance(value, str) and not isinstance(values[number - 1], str):
            parts.append(" ")
        parts.append(shown(value, inside=True))
    return bounded("".join(parts))


def sprintln(*values: Value) -> str:
    """``println``: a space between any two, and a newline."""
    return bounded(" ".join(shown(value, inside=True) for value in values) + "\n")


def _formatted(verb: re.Match[str], given: Iterator[Value]) -> str:
    flags, width, precision, letter = verb.groups()
    if letter == "%":
        return "%"
    wide = _size(width, given)
    exact = None if precision is None else _size(precision[1:] or "0", given)
    if not letter:
        raise GoError("printf ends in the middle of a verb")
    text = _body(letter, flags, exact, _following(given, letter))
    wide += len(MARKS.findall(text))
    if "-" in flags:
        return text.ljust(wide)
    if "0" in flags and letter not in "sqvt":
        sign = text[: text[:1] in ("+", "-")]
        return sign + text[len(sign) :].rjust(wide - len(sign), "0")
    return text.rjust(wide)


def _following(given: Iterator[Value], letter: str) -> Value:
    for value in given:
        return value
    raise GoError(f"printf has no value for %{letter}")


def _size(text: str | None, given: Iterator[Value]) -> int:
    size = _following(given, "*") if text == "*" else int(text or "0")
    if isinstance(size, bool) or not isinstance(size, int) or size < 0:
        raise GoError("printf has a width that is no number")
    if size > limits.GO_TEMPLATE_WIDTH:
        raise GoError(f"printf has a width over {limits.GO_TEMPLATE_WIDTH}")
    return size


def _body(letter: str, flags: str, exact: int | None, value: Value) -> str:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if letter in "vs":
        text = to_json(value) if letter == "v" and "#" in flags else shown(value, inside=True)
        return text if exact is None or not isinstance(value, str) else _cut(text, exact)
    if letter == "q" and isinstance(value, str):
        return json.dumps(value if exact is None else _cut(value, exact), ensure_ascii=False)
    if letter == "t" and isinstance(value, bool):
        return shown(value)
    if letter in "xX" and isinstance(value, str):
        text = value.encode().hex()
        return text.upper() if letter == "X" else text
    if number and letter in _FLOATS:
        return _signed(f"{value:.{_FLOAT_DIGITS if exact is None else exact}{letter}}", flags)
    if number and isinstance(value, int):
        if letter == "c" and 0 <= value <= 0x10FFFF and not 0xD800 <= value < 0xE000:
            return chr(value)
        if letter in _BASES:
            return _signed(_BASES[letter](value), flags)
    raise GoError(f"printf cannot write {kind_of(value)} as %{letter}")


def _cut(text: str, count: int) -> str:
    """The first characters; marks around what clients write are none."""
    ends = [0, *(each.end() for each in islice(_CHARACTER.finditer(text), count + 1))]
    return text if len(ends) <= count + 1 else text[: ends[count]]


def _signed(text: str, flags: str) -> str:
    if text.startswith("-"):
        return text
    return f"+{text}" if "+" in flags else f" {text}" if " " in flags else text
