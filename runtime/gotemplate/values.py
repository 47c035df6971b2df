"""Values as Go templates see them: which are true, how they are printed, compared and taken apart.

Maps are dicts, slices lists, ``nil`` None; a struct is a :class:`Record`. Lengths and positions of
strings are those of UTF-8, as in Go.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

from schemas import limits

_NO_EXPONENT: Final = 1e21  # below it encoding/json writes numbers without an exponent
_LEAST_PLAIN: Final = 1e-4  # strconv: smaller ones have one
_JSON_ESCAPES: Final = str.maketrans(
    {
        "<": r"\u003c",
        ">": r"\u003e",
        "&": r"\u0026",
        "\u2028": r"\u2028",
        "\u2029": r"\u2029",
    }
)
Value = Any


class GoError(Exception):
    """What a template does cannot be done.

    Attributes:
        what: In words.
        line: Where in the template; 0 until the evaluator sets it.
    """

    def __init__(self, what: str, line: int = 0) -> None:
        super().__init__(what)
        self.what = what
        self.line = line

    def __str__(self) -> str:
        """With the line."""
        return f"line {self.line}: {self.what}" if self.line else self.what


class TooMuch(GoError):
    """A template passes a limit."""


class NotShown(GoError):
    """A template has no place for what a conversation holds."""


@dataclass(frozen=True, slots=True, eq=False)
class Record:
    """A struct.

    Attributes:
        kind: What it is called in errors.
        fields: By their names in templates.
        document: What it is as JSON; that is also how it prints.
    """

    kind: str
    fields: Mapping[str, Value]
    document: Value


class JsonMap(dict[str, Value]):
    """A map that prints as JSON."""


class JsonList(list[Value]):
    """A slice that prints as JSON."""


def kind_of(value: Value) -> str:
    """A value's type, for errors."""
    match value:
        case None:
            return "nil"
        case bool():
            return "bool"
        case int():
            return "int"
        case float():
            return "float64"
        case str():
            return "string"
        case dict():
            return "map"
        case Record():
            return value.kind
    return "slice"


def is_true(value: Value) -> bool:
    """Whether ``if`` takes it: not for zero, nil and what is empty."""
    return True if isinstance(value, Record) else bool(value)


def field_of(value: Value, name: str) -> Value:
    """``.name`` of a value; of a map that lacks it, nil.

    Raises:
        GoError: It has no fields, or not this one.
    """
    if isinstance(value, dict):
        return value.get(name)
    if isinstance(value, Record) and name in value.fields:
        return value.fields[name]
    if value is None:
        raise GoError(f"nil pointer evaluating .{name}")
    raise GoError(f"can't evaluate field {name} in type {kind_of(value)}")


def shown(value: Value, *, inside: bool = False) -> str:
    """A value as an action prints it.

    Args:
        value: Any.
        inside: Whether it stands inside another value, or was given to a function.
    """
    match value:
        case None:
            return "<nil>" if inside else "<no value>"
        case str():
            return value
        case bool():
            return "true" if value else "false"
        case int():
            return str(value)
        case float():
            return shown_float(value)
        case Record() | JsonMap() | JsonList():
            return to_json(value)
        case dict():
            parts = (f"{shown(k)}:{shown(v, inside=True)}" for k, v in items_of(value))
            return f"map[{' '.join(parts)}]"
    return f"[{' '.join(shown(item, inside=True) for item in value)}]"


def items_of(value: Mapping[str, Value]) -> list[tuple[str, Value]]:
    """A map's entries in the order of their keys, as Go visits them."""
    return sorted(value.items(), key=lambda item: item[0])


def shown_float(value: float) -> str:
    """The shortest decimal that says the same.

    Without an exponent up to 21 digits, as in JSON; Go begins with them at seven.
    """
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else ("+Inf" if value > 0 else "-Inf")
    exact = Decimal(repr(value)).normalize()
    if value == 0 or _LEAST_PLAIN <= abs(value) < _NO_EXPONENT:
        return f"{exact:f}"
    digits, _, power = f"{exact:e}".partition("e")
    return f"{digits}e{int(power):+03d}"


def to_json(value: Value) -> str:
    """As ``encoding/json`` writes it: keys of maps in order, ``<``, ``>`` and ``&`` escaped.

    Raises:
        TooMuch: It is longer than a prompt may be.
    """
    text = json.dumps(_plain(value), ensure_ascii=False, separators=(",", ":"))
    return bounded(text.translate(_JSON_ESCAPES))


def bounded(text: str) -> str:
    """The text itself.

    Raises:
        TooMuch: It is longer than a prompt may be.
    """
    if len(text) > limits.RENDERED_PROMPT_BYTES:
        raise TooMuch("it makes too much text")
    return text


def _plain(value: Value) -> Value:
    if isinstance(value, Record):
        return _document(value.document)
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in items_of(value)}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return _number(value)


def _document(value: Value) -> Value:
    """A struct's JSON: its own keys keep their order."""
    if isinstance(value, dict) and not isinstance(value, JsonMap):
        return {key: _document(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_document(item) for item in value]
    return _plain(value)


def _number(value: Value) -> Value:
    if isinstance(value, float) and value == math.floor(value) and abs(value) < _NO_EXPONENT:
        return int(value)
    return value


def equal(left: Value, right: Value) -> bool:
    """``eq``.

    Raises:
        GoError: They are of different types, or of such as cannot be compared.
    """
    if left is None or right is None:
        return left is None and right is None
    if _family(left) != _family(right):
        raise GoError("incompatible types for comparison")
    return bool(left == right)


def less(left: Value, right: Value) -> bool:
    """``lt``.

    Raises:
        GoError: They are of different types, or of such as have no order.
    """
    families = {_family(left), _family(right)}
    if len(families) > 1:
        raise GoError("incompatible types for comparison")
    if families == {"bool"}:
        raise GoError("invalid type for comparison")
    return bool(left < right)


def _family(value: Value) -> str:
    match value:
        case bool():
            return "bool"
        case int() | float():
            return "number"
        case str():
            return "string"
    raise GoError(f"non-comparable type {kind_of(value)}")


def length(value: Value) -> int:
    """``len``.

    Raises:
        GoError: It has none.
    """
    if isinstance(value, str):
        return len(value.encode())
    if isinstance(value, dict | list | tuple):
        return len(value)
    raise GoError(f"len of type {kind_of(value)}")


def item_of(value: Value, key: Value) -> Value:
    """``index`` with one index.

    Raises:
        GoError: It has no items, or not this one.
    """
    if isinstance(value, dict):
        if not isinstance(key, str):
            raise GoError(f"value has type {kind_of(key)}; should be string")
        return value.get(key)
    if isinstance(value, str | list | tuple):
        whole = value.encode() if isinstance(value, str) else value
        position = _position(key, len(whole) - 1)
        return whole[position]
    raise GoError(f"index of {'untyped nil' if value is None else kind_of(value)}")


def slice_of(value: Value, *positions: Value) -> Value:
    """``slice``.

    Raises:
        GoError: It has no parts, or not these.
    """
    if not isinstance(value, str | list | tuple):
        raise GoError(f"slice of {'untyped nil' if value is None else kind_of(value)}")
    if len(positions) > (2 if isinstance(value, str) else 3):
        raise GoError("too many slice indexes")
    whole = value.encode() if isinstance(value, str) else value
    start = _position(positions[0], len(whole)) if positions else 0
    end = _position(positions[1], len(whole)) if len(positions) > 1 else len(whole)
    if start > end:
        raise GoError(f"invalid slice index: {start} > {end}")
    part = whole[start:end]
    return part.decode("utf-8", "replace") if isinstance(part, bytes) else type(value)(part)


def _position(key: Value, most: int) -> int:
    if isinstance(key, bool) or not isinstance(key, int):
        raise GoError(f"cannot index slice/array with type {kind_of(key)}")
    if not 0 <= key <= most:
        raise GoError(f"index out of range: {key}")
    return key
