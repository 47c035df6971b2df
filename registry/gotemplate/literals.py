"""Strings, characters and numbers as Go writes them."""

from __future__ import annotations

import re
from typing import Final

_ESCAPES: Final = {
    "a": "\a",
    "b": "\b",
    "f": "\f",
    "n": "\n",
    "r": "\r",
    "t": "\t",
    "v": "\v",
    "\\": "\\",
    "'": "'",
    '"': '"',
}
_ESCAPE: Final = re.compile(
    r"\\(?:(x)([0-9a-fA-F]{2})|(u)([0-9a-fA-F]{4})|(U)([0-9a-fA-F]{8})|([0-7]{3})|(.)|)", re.DOTALL
)
_INTEGER: Final = re.compile(r"[+-]?(?:0[xX][0-9a-fA-F_]+|0[bB][01_]+|0[oO]?[0-7_]+|[0-9][0-9_]*)")
_FLOAT: Final = re.compile(r"[+-]?(?:[0-9][0-9_]*\.?[0-9_]*|\.[0-9][0-9_]*)(?:[eE][+-]?[0-9_]+)?")
_DIGITS: Final = 64  # of a number; more say nothing that Go could hold


def unquoted(text: str) -> str | None:
    """The value of ``"…"``; None if an escape in it is none of Go's."""
    inner = text[1:-1]
    parts: list[bytes] = []
    done = 0
    for escape in _ESCAPE.finditer(inner):
        value = _escaped(escape)
        if value is None:
            return None
        parts += [inner[done : escape.start()].encode(), value]
        done = escape.end()
    return b"".join([*parts, inner[done:].encode()]).decode("utf-8", "replace")


def character(text: str) -> int | None:
    """The value of ``'…'``; None if it is no single character."""
    value = unquoted(text)
    return ord(value) if value is not None and len(value) == 1 else None


def number(text: str) -> int | float | None:
    """The value of a number; None if it is none that is understood here."""
    if len(text) > _DIGITS:
        return None
    digits = text.lstrip("+-")
    if _INTEGER.fullmatch(text):
        plain = digits.replace("_", "").lower()
        octal = plain.startswith("0") and plain.isdigit() and len(plain) > 1
        try:
            value = int(plain, 8) if octal else int(plain, 0)
        except ValueError:
            return None
        return -value if text.startswith("-") else value
    if _FLOAT.fullmatch(text):
        return float(text.replace("_", ""))
    return None


def _escaped(escape: re.Match[str]) -> bytes | None:
    if escape[1]:
        return bytes([int(escape[2], 16)])
    if escape[7]:
        value = int(escape[7], 8)
        return bytes([value]) if value <= 0xFF else None
    if code := escape[4] or escape[6]:
        try:
            return chr(int(code, 16)).encode()
        except (ValueError, OverflowError):  # a surrogate, or beyond Unicode
            return None
    plain = _ESCAPES.get(escape[8] or "")
    return None if plain is None else plain.encode()
