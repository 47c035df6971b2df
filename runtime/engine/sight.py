"""Pictures in prompts, as the engine sees them. Pure; what looks at pictures is a backend.

In a prompt's list of tokens a picture takes as many places as it takes positions. What stands there
are names and no tokens: negative numbers that follow from the picture's bytes, so that a prompt
with the same picture at the same place starts behind it, and with another one does not.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from runtime.messages import Image
from schemas.errors import UsageError

_NAMED: Final = 24  # bits for what lies in one picture; the others tell pictures apart
_PNG: Final = b"\x89PNG\r\n\x1a\n"
_HEADER: Final = 33  # bytes: signature and IHDR
_CHANNELS: Final = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by colour type (PNG, table 11.1)
_PIECE: Final = 256 * 1024
_PASSES: Final = 7  # of an interlaced picture, each with rows of its own


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """What a picture became: one stretch of it.

    Attributes:
        names: One per position.
        rows: Cells of the context that it takes; of some models more than positions.
        data: The backend's own business.
    """

    names: Sequence[int]
    rows: int
    data: Any


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """Where such a stretch stands in a prompt.

    Attributes:
        start: Its first position.
        end: The position after the last.
        extra: Cells that it takes beyond its positions.
        data: As of :class:`Seen`.
    """

    start: int
    end: int
    extra: int
    data: Any


class Eyes(Protocol):
    """What looks at pictures."""

    def look(self, image: Image) -> Sequence[list[int] | Seen]:
        """Decode a picture; the tokens that the model wants around it, and what it became.

        Raises:
            UsageError: It is damaged, or too large.
        """
        ...


def names_of(data: bytes, number: int, count: int) -> range:
    """Names for the positions of one stretch of a picture.

    Args:
        data: The picture's file.
        number: Of the stretch, from 0.
        count: How many.
    """
    digest = hashlib.sha256(b"%d:" % number + data).digest()
    first = -1 - (int.from_bytes(digest[:16]) << _NAMED)
    return range(first, first - count, -1)


def extra_cells(pictures: Sequence[Picture]) -> int:
    """Cells that pictures take beyond their positions."""
    return sum(picture.extra for picture in pictures)


def untouched(pictures: Sequence[Picture], count: int) -> int:
    """The largest number of positions up to ``count`` that cuts no picture in two."""
    return next((p.start for p in pictures if p.start < count < p.end), count)


def check_png(data: bytes) -> None:
    """See that a PNG holds as many bytes of pixels as its header says; others pass.

    The engine's decoder unpacks all that is there before it looks at the size, and some megabytes
    may hold gigabytes. Takes constant memory.

    Raises:
        UsageError: It holds more, or fewer, or cannot be unpacked.
    """
    if not data.startswith(_PNG):
        return
    if len(data) < _HEADER:
        raise _damaged("it ends early")
    width, height = int.from_bytes(data[16:20]), int.from_bytes(data[20:24])
    depth, colour, interlaced = data[24], data[25], data[28]
    row = 1 + (width * depth * _CHANNELS.get(colour, 4) + 7) // 8
    # Interlaced, rows are padded to bytes in each pass, and narrow passes have many rows.
    slack = 2 * _PASSES * (height + width + 8) if interlaced else 0
    most, unpacker, size = row * height + slack, zlib.decompressobj(), 0
    try:
        for chunk in _image_data(data):
            rest = chunk
            while rest and not unpacker.eof:
                size += len(unpacker.decompress(rest, _PIECE))
                rest = unpacker.unconsumed_tail
                if size > most:
                    raise _damaged("it holds more than its header says")
    except zlib.error as error:
        raise _damaged(str(error)) from None
    if not unpacker.eof or (size < row * height and not interlaced):
        raise _damaged("it ends early")


def _image_data(data: bytes) -> Sequence[bytes]:
    """The contents of all IDAT chunks (PNG, 11.2.4)."""
    found: list[bytes] = []
    at = len(_PNG)
    while at + 12 <= len(data):
        length, kind = int.from_bytes(data[at : at + 4]), data[at + 4 : at + 8]
        if kind == b"IDAT":
            found.append(data[at + 8 : at + 8 + length])
        at += 12 + length
    return found


def _damaged(why: str) -> UsageError:
    return UsageError("invalid image input", why=f"the PNG is damaged: {why}")
