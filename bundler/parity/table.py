"""``sealift/parity.bin``: the digest of every block, so that damage is found and not guessed.

::

    magic     8 bytes       "sealpar" 0x01
    block     u32           bytes per block; a power of two, 512 … 16 MiB
    k         u16           data files
    m         u16           parity files
    lengths   k times u64   bytes of each data file
    digests   n times 32    SHA-256 of every block: of data file 0, 1 …, then of parity file 0, 1 …

All numbers are big-endian. A file of ``length`` bytes has ``ceil(length / block)`` blocks, the last
one shorter; it is hashed as it is and enters the parity with zeros after it. Parity files are as
long as the longest data file.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Final, Self

from schemas import limits
from schemas.errors import MalformedDocument

DIGEST: Final = 32
_MAGIC: Final = b"sealpar\x01"
_HEAD: Final = struct.Struct(">8sIHH")
_WHAT: Final = "parity table"


@dataclass(frozen=True, slots=True)
class Table:
    """Lengths and block digests of all files, data files first.

    Attributes:
        block: Bytes per block.
        lengths: Of the data files, in bytes.
        parity: How many parity files.
        digests: All, concatenated, in the order of the format.
    """

    block: int
    lengths: tuple[int, ...]
    parity: int
    digests: bytes
    _first: tuple[int, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_geometry(self.lengths, self.parity, self.block)
        first = tuple(accumulate((self.blocks(file) for file in range(self.files)), initial=0))
        if len(self.digests) != first[-1] * DIGEST:
            raise MalformedDocument(
                f"{_WHAT} has a wrong length", why=f"it should have {first[-1]} digests"
            )
        object.__setattr__(self, "_first", first)

    @property
    def data(self) -> int:
        """How many data files."""
        return len(self.lengths)

    @property
    def files(self) -> int:
        """How many files in all."""
        return len(self.lengths) + self.parity

    @property
    def stripes(self) -> int:
        """How many stripes: blocks of the longest file."""
        return -(-max(self.lengths) // self.block)

    def length(self, file: int) -> int:
        """Bytes of a file, data or parity."""
        return self.lengths[file] if file < self.data else max(self.lengths)

    def blocks(self, file: int) -> int:
        """How many blocks a file has."""
        return -(-self.length(file) // self.block)

    def size(self, file: int, stripe: int) -> int:
        """Bytes of a file's block in a stripe; 0 where the file has ended."""
        return max(0, min(self.block, self.length(file) - stripe * self.block))

    def digest(self, file: int, stripe: int) -> bytes:
        """SHA-256 of a block that the file has."""
        start = (self._first[file] + stripe) * DIGEST
        return self.digests[start : start + DIGEST]

    def encode(self) -> bytes:
        """The file's bytes."""
        head = _HEAD.pack(_MAGIC, self.block, self.data, self.parity)
        return head + struct.pack(f">{self.data}Q", *self.lengths) + self.digests

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Parse, strictly; whoever calls has compared the signed digest.

        Raises:
            MalformedDocument: Anything but exactly one table.
        """
        if len(data) > limits.PARITY_TABLE_BYTES:
            raise MalformedDocument(f"{_WHAT} is too large", why=f"{len(data)} bytes")
        if len(data) < _HEAD.size:
            raise MalformedDocument(f"{_WHAT} is too short")
        magic, block, count, parity = _HEAD.unpack_from(data)
        if magic != _MAGIC:
            raise MalformedDocument(f"{_WHAT} is of an unknown kind")
        start = _HEAD.size + 8 * count
        if len(data) < start:
            raise MalformedDocument(f"{_WHAT} is too short")
        lengths = struct.unpack_from(f">{count}Q", data, _HEAD.size)
        return cls(block, lengths, parity, data[start:])


def check_geometry(lengths: Sequence[int], parity: int, block: int) -> None:
    """See that there can be parity of this kind.

    Raises:
        MalformedDocument: There cannot.
    """
    if not limits.PARITY_LEAST_BLOCK <= block <= limits.PARITY_LARGEST_BLOCK or block & (block - 1):
        raise MalformedDocument(f"{_WHAT} has blocks of {block} bytes")
    if not lengths or parity < 1 or len(lengths) + parity > limits.PARITY_FILES:
        raise MalformedDocument(f"{_WHAT} has {parity} parity files for {len(lengths)}")
    if not 0 < max(lengths) <= limits.BLOB_BYTES or min(lengths) < 0:
        raise MalformedDocument(f"{_WHAT} has a file of a length that cannot be")
    if table_bytes(lengths, parity, block) > limits.PARITY_TABLE_BYTES:
        raise MalformedDocument(f"{_WHAT} has too many blocks", why=f"of {block} bytes")


def table_bytes(lengths: Sequence[int], parity: int, block: int) -> int:
    """How long the table is."""
    count = sum(-(-length // block) for length in lengths) + parity * -(-max(lengths) // block)
    return _HEAD.size + 8 * len(lengths) + DIGEST * count
