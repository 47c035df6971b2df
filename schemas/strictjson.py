"""JSON for documents that an attacker may have written.

Stricter than RFC 8259 where parsers differ: no duplicate keys, no floats, no NaN or Infinity, no
lone surrogates; bounded size, depth and integers. What was hashed is what is parsed.
"""

from __future__ import annotations

import json
from typing import Any, NoReturn

from schemas import limits
from schemas.errors import MalformedDocument


def parse(data: bytes, *, what: str, max_bytes: int, depth: int = limits.JSON_DEPTH) -> Any:
    """Parse one JSON document.

    Args:
        data: UTF-8 text, without a byte order mark.
        what: The document's name for messages, as in ``"bundle descriptor"``.
        max_bytes: Refused before parsing if longer.
        depth: Deepest nesting of arrays and objects.

    Returns:
        None, bool, int, str, list or dict; never a float.

    Raises:
        MalformedDocument: Whatever is wrong with it.
    """
    if len(data) > max_bytes:
        raise MalformedDocument(f"{what} is too large", why=f"{len(data)} > {max_bytes} bytes")
    try:
        value = json.loads(
            data.decode("utf-8"),
            object_pairs_hook=_unique_pairs,
            parse_float=_no_float,
            parse_constant=_no_float,
            parse_int=_bounded_int,
        )
    except RecursionError:
        raise MalformedDocument(f"{what} is nested too deeply") from None
    except ValueError as error:  # UnicodeDecodeError and JSONDecodeError are both of this kind
        raise MalformedDocument(f"{what} is not acceptable JSON", why=str(error)) from None
    # Bytes that are UTF-8 hold no surrogates, so half a pair can only come out of an escape; and
    # what has no more brackets than levels is not nested too deeply. Most small documents are both.
    texts = b"\\u" in data
    if texts or data.count(b"{") + data.count(b"[") > depth:
        _check_tree(value, what, depth, texts=texts)
    return value


def parse_object(
    data: bytes, *, what: str, max_bytes: int, depth: int = limits.JSON_DEPTH
) -> dict[str, Any]:
    """As :func:`parse`, for documents whose outermost value must be an object."""
    value = parse(data, what=what, max_bytes=max_bytes, depth=depth)
    if not isinstance(value, dict):
        raise MalformedDocument(f"{what} is not a JSON object")
    return value


def dumps(value: object) -> bytes:
    """Serialise deterministically: sorted keys, no spaces, ASCII with escapes, no newline.

    Equal values give equal bytes, so a derived document can be compared byte for byte.
    """
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False
    ).encode("ascii")


def _unique_pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("an object has the same key twice")
    return result


def _no_float(text: str) -> NoReturn:
    raise ValueError(f"{text[:40]!r} is not an integer")


def _bounded_int(text: str) -> int:
    # 19 digits and a sign hold every 64-bit integer; longer text is refused before conversion.
    if len(text) > 20 or abs(value := int(text)) > limits.JSON_INTEGER:
        raise ValueError("an integer exceeds 64 bits")
    return value


def _check_tree(value: object, what: str, depth: int, *, texts: bool) -> None:
    stack = [(value, 0)]
    while stack:
        node, level = stack.pop()
        if isinstance(node, dict | list):
            if level >= depth:
                raise MalformedDocument(f"{what} is nested too deeply", why=f"more than {depth}")
            if texts and isinstance(node, dict):
                for key in node:
                    _check_text(key, what)
            children = node.values() if isinstance(node, dict) else node
            kinds = (dict, list, str) if texts else (dict, list)
            stack.extend((child, level + 1) for child in children if isinstance(child, kinds))
        elif isinstance(node, str) and texts:
            _check_text(node, what)


def _check_text(text: str, what: str) -> None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise MalformedDocument(f"{what} has half a surrogate pair in a string") from None
