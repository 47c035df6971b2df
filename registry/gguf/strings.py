"""Arrays of strings: the bulk of a header, 98,000 of them in a small model.

The numbers are those of the list of checks in `registry.gguf.parse`.
"""

from __future__ import annotations

import codecs
import struct
from itertools import repeat
from operator import length_hint
from typing import Final

from registry.gguf.window import Cursor, refuse
from schemas.limits import MIB

TOKENS: Final = "tokenizer.ggml.tokens"
_BYTE_STRINGS: Final = frozenset({TOKENS, "tokenizer.ggml.merges"})  # 6
_LENGTH: Final = struct.Struct("<Q").unpack_from
_BATCH: Final = 4096
_SLICE: Final = 1 * MIB


def walk_strings(cursor: Cursor, key: str, count: int, what: str) -> None:
    """Walk over an array's strings and check them.

    Args:
        cursor: Stands at the first item; afterwards behind the last.
        key: The array's key, which decides on the checks.
        count: Number of items.
        what: The array in words.

    Raises:
        MalformedModel: An item goes on past the file's end, is not UTF-8 where it must be, or is a
            token that was there before.
    """
    if key == TOKENS:
        tokens = _collect(cursor, count, what)
        if (twin := _first_twin(tokens)) is not None:  # 7
            raise refuse(f"token {twin} is there twice: {tokens[twin][:40]!r}")
    elif key in _BYTE_STRINGS:
        _skip(cursor, count, what)
    else:
        while count:
            batch = _collect(cursor, min(count, _BATCH), what)
            joined = b"\x00".join(batch)
            check_utf8(joined, 0, len(joined), what)
            count -= len(batch)


def check_utf8(data: bytes, start: int, end: int, what: str) -> None:
    """Decode piece by piece: one wide character would make a whole string four times as long.

    Raises:
        MalformedModel: The bytes are not UTF-8.
    """
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        for at in range(start, end, _SLICE):
            stop = min(at + _SLICE, end)
            decoder.decode(data[at:stop], final=stop == end)
    except UnicodeDecodeError:
        raise refuse(f"{what} is not UTF-8") from None


def _skip(cursor: Cursor, count: int, what: str) -> None:
    """Walk over ``count`` strings; this loop is most of what a header costs."""
    position = cursor.position
    todo = repeat(None, count)
    while True:
        data = cursor.data
        try:
            for _ in todo:
                position += _LENGTH(data, position)[0] + 8
            break
        except (struct.error, OverflowError):  # past the bytes at hand, perhaps by 2**63
            cursor.need(position + 8, what)
            todo = repeat(None, length_hint(todo) + 1)
    cursor.need(position, what)
    cursor.position = position


def _collect(cursor: Cursor, count: int, what: str) -> list[bytes]:
    """Walk over ``count`` strings and keep them."""
    items: list[bytes] = []
    append = items.append
    start = cursor.position
    while len(items) < count:
        data = cursor.data
        end = start
        try:
            for _ in repeat(None, count - len(items)):
                end = start + 8 + _LENGTH(data, start)[0]
                append(data[start + 8 : end])
                start = end
        except (struct.error, OverflowError):
            end = start + 8
        if start > len(data):  # the last one was cut off: take it again from its beginning
            end = start
            start = len(data) - len(items.pop()) - 8
        cursor.need(end, what)
    cursor.position = start
    return items


def _first_twin(tokens: list[bytes]) -> int | None:
    """Index of the first token that the engine takes for an earlier one.

    It cuts a token at its first NUL and calls an empty one ``[EMPTY_n]``
    (llama.cpp src/llama-vocab.cpp, ``llama_vocab::impl::load``).
    """
    if b"\x00" in b"".join(tokens):
        tokens = [token.partition(b"\x00")[0] for token in tokens]
    distinct = set(tokens)
    if len(distinct) == len(tokens) and b"" not in distinct:
        return None
    seen: set[bytes] = set()
    for index, token in enumerate(tokens):
        name = token or b"[EMPTY_%d]" % index
        if name in seen:
            return index
        seen.add(name)
    return None
