"""A bounded view of a file's first bytes, and the one way to refuse a file."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Final

from registry.gguf.tables import ValueType
from schemas.errors import MalformedModel
from schemas.limits import GGUF_HEADER_BYTES, MIB

DAMAGED: Final = "Fetch the model again from a source you trust; this file is damaged or forged"
_FIRST_READ: Final = 1 * MIB
_U32: Final = struct.Struct("<I").unpack_from
_U64: Final = struct.Struct("<Q").unpack_from


def refuse(why: str, hint: str = DAMAGED) -> MalformedModel:
    """The error for every file that must not reach an engine."""
    return MalformedModel("GGUF file refused", why=why, hint=hint)


class Cursor:
    """Reads fields one after the other and never past the file's end or the header's limit.

    Bytes are fetched as they are needed, in doubling steps, so a short header costs one read and
    no claim inside the file makes anything larger than the file itself.

    Args:
        fetch: Returns up to ``length`` bytes from ``offset``; called with rising offsets and no
            gaps; fewer bytes mean the end.
        size: The file's size in bytes.

    Attributes:
        data: The bytes fetched so far, from the start of the file.
        position: The next byte to be read.
    """

    __slots__ = ("_fetch", "_size", "data", "position")

    def __init__(self, fetch: Callable[[int, int], bytes], size: int) -> None:
        self._fetch = fetch
        self._size = size
        self.data = b""
        self.position = 0

    def need(self, end: int, what: str) -> None:
        """Have all bytes before ``end`` at hand.

        Raises:
            MalformedModel: The file, or the part of it that may be a header, ends before.
        """
        if end <= len(self.data):
            return
        if end > self._size:
            raise refuse(f"{what} goes on past the end of the file ({self._size} bytes)")
        if end > GGUF_HEADER_BYTES:
            raise refuse(f"{what} goes on past the {GGUF_HEADER_BYTES} bytes allowed for a header")
        wanted = max(end, 2 * len(self.data), _FIRST_READ)
        wanted = min(wanted, self._size, GGUF_HEADER_BYTES)
        self.data += self._fetch(len(self.data), wanted - len(self.data))
        if end > len(self.data):
            raise refuse(f"{what} is cut off: the file holds fewer bytes than its size says")

    def left(self) -> int:
        """Bytes that may still belong to the header."""
        return min(self._size, GGUF_HEADER_BYTES) - self.position

    def u32(self, what: str) -> int:
        """The next unsigned 32-bit integer."""
        start = self.position
        self.need(start + 4, what)
        self.position = start + 4
        value: int = _U32(self.data, start)[0]
        return value

    def u64(self, what: str) -> int:
        """The next unsigned 64-bit integer."""
        start = self.position
        self.need(start + 8, what)
        self.position = start + 8
        value: int = _U64(self.data, start)[0]
        return value

    def take(self, length: int, what: str) -> bytes:
        """The next ``length`` bytes."""
        start = self.position
        self.need(start + length, what)
        self.position = start + length
        return self.data[start : self.position]

    def count(self, what: str, limit: int, least_bytes: int) -> int:
        """A count of things, each at least ``least_bytes`` long: refused where it cannot be true.

        Raises:
            MalformedModel: More than ``limit``, or more than the rest of the file could hold.
        """
        value = self.u64(f"the number of {what}")
        if value > limit:
            raise refuse(f"it claims {value} {what}, more than the {limit} allowed")
        if value * least_bytes > self.left():
            raise refuse(f"it claims {value} {what}, more than the rest of the file can hold")
        return value

    def value_type(self, what: str) -> ValueType:
        """The next type number of a metadata value."""
        number = self.u32(f"the type of {what}")
        try:
            return ValueType(number)
        except ValueError:
            raise refuse(f"{what} has the unknown type {number}") from None
