"""Request bodies: from bytes that anybody may have sent to checked values.

Unlike :mod:`schemas.strictjson` this takes floats and ignores repeated keys, as every client's JSON
library expects; size, depth, text and numbers are bounded all the same.
"""

from __future__ import annotations

import json
import math
from typing import Any, NoReturn

from schemas import limits
from schemas.errors import MalformedDocument, UsageError


def parse_body(data: bytes) -> dict[str, Any]:
    """Parse a request body (RFC 8259) into a JSON object.

    Args:
        data: At most ``limits.HTTP_BODY_BYTES``; the reader of the socket sees to that.

    Raises:
        UsageError: No body.
        MalformedDocument: Not UTF-8, not JSON, no object, nested too deeply, NaN or
            infinite numbers, half a surrogate pair.
    """
    if not data.strip():
        raise UsageError("missing request body")
    try:
        text = data.decode("utf-8")
        value = json.loads(text, parse_constant=_refuse, parse_float=_finite)
    except RecursionError:
        raise MalformedDocument("the request body is nested too deeply") from None
    except ValueError as error:  # UnicodeDecodeError, JSONDecodeError and over-long integers
        raise MalformedDocument("the request body is not JSON", why=str(error)) from None
    if not isinstance(value, dict):
        raise MalformedDocument("the request body is not a JSON object")
    # Only an escape can make half a surrogate pair: plain UTF-8 has none.
    _check_tree(value, surrogates="\\u" in text)
    return value


class Fields:
    """One JSON object of a request, read with checks. ``null`` counts as absent.

    Args:
        value: The object.
        path: Where it stands in the body, for messages; empty for the body itself.
    """

    __slots__ = ("_path", "_value")

    def __init__(self, value: dict[str, Any], path: str = "") -> None:
        self._value = value
        self._path = path

    @classmethod
    def of(cls, value: object, path: str) -> Fields:
        """The same for a value that may be no object.

        Raises:
            UsageError: It is none.
        """
        if not isinstance(value, dict):
            raise UsageError(f'"{path}" must be an object')
        return cls(value, path)

    def name(self, key: str) -> str:
        """The full path of a member, for messages."""
        return f"{self._path}.{key}" if self._path else key

    def raw(self, key: str) -> Any:
        """The value as it came, None if absent."""
        return self._value.get(key)

    def text(self, key: str) -> str | None:
        """A string."""
        value = self._value.get(key)
        if value is None or isinstance(value, str):
            return value
        raise UsageError(f'"{self.name(key)}" must be a string')

    def flag(self, key: str, default: bool) -> bool:  # noqa: FBT001 - reads as dict.get does
        """A boolean."""
        value = self._value.get(key)
        if value is None:
            return default
        if isinstance(value, bool):
            return value
        raise UsageError(f'"{self.name(key)}" must be true or false')

    def integer(self, key: str, low: int, high: int) -> int | None:
        """An integer within bounds, both included."""
        value = self._value.get(key)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int):
            raise UsageError(f'"{self.name(key)}" must be an integer')
        if not low <= value <= high:
            raise UsageError(f'"{self.name(key)}" must be between {low} and {high}')
        return value

    def number(self, key: str, low: float, high: float) -> float | None:
        """A number within bounds, both included."""
        value = self._value.get(key)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise UsageError(f'"{self.name(key)}" must be a number')
        if not low <= value <= high:
            raise UsageError(f'"{self.name(key)}" must be between {low:g} and {high:g}')
        return float(value)

    def items(self, key: str) -> list[Any]:
        """An array; absent is empty."""
        value = self._value.get(key)
        if value is None:
            return []
        if isinstance(value, list):
            return value
        raise UsageError(f'"{self.name(key)}" must be an array')

    def objects(self, key: str) -> list[Fields]:
        """An array of objects."""
        path = self.name(key)
        return [Fields.of(item, f"{path}[{at}]") for at, item in enumerate(self.items(key))]

    def table(self, key: str) -> Fields | None:
        """An object."""
        value = self._value.get(key)
        return None if value is None else Fields.of(value, self.name(key))

    @property
    def value(self) -> dict[str, Any]:
        """The object itself."""
        return self._value


def _refuse(text: str) -> NoReturn:
    raise ValueError(f"{text} is not a JSON number")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError("a number is too large")
    return value


def _check_tree(root: object, *, surrogates: bool) -> None:
    stack = [(root, 0)]
    while stack:
        node, level = stack.pop()
        if isinstance(node, str):
            if surrogates:
                _check_text(node)
        elif isinstance(node, dict | list):
            if level >= limits.HTTP_BODY_DEPTH:
                raise MalformedDocument("the request body is nested too deeply")
            if isinstance(node, dict):
                stack.extend((key, level + 1) for key in node)
                stack.extend((child, level + 1) for child in node.values())
            else:
                stack.extend((child, level + 1) for child in node)


def _check_text(text: str) -> None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise MalformedDocument("the request body has half a surrogate pair in it") from None
