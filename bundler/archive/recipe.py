"""Recipes: a blob made of runs of other blobs, and of literals where nothing else has them.

::

    recipe    = magic, size, literals, bases, encoding, zero, count, count operations
    magic     = "sealift recipe" 00 01          16 bytes, the last is the version
    size      = of the finished blob            64 bits, big-endian like all numbers here
    literals  = bytes of all literals           64 bits
    bases     = number of bases                 16 bits
    encoding  = of the literals: 0 identity, 1 zstd, 2 zstd-planes2, 4 zstd-planes4    8 bits
    zero      = 0                               8 bits
    count     = number of operations            32 bits
    operation = base (32 bits), offset (64 bits), length (64 bits)

A base of 0 means: the next bytes of the literals; the offset is 0 then. A base of N means: of the
Nth base in the descriptor's list, from that offset. The operations fill the blob from its start.

A recipe is not trusted for anything: the finished blob must have its signed digest. So that it can
do no harm on the way there, it is refused unless:

1. its length is what its count says, and neither is beyond ``RECIPE_OPERATIONS``
2. magic, version, encoding and the zero are right
3. size and number of bases are those of the descriptor
4. every operation has a length, a base of the list, and an offset of 0 if it is a literal
5. every copy ends within its base
6. no two neighbours could be one operation: there is one way to write each recipe
7. lengths add up to the size, those of literals to what is said of them
8. every base is used, so that nothing is asked of a site that is not needed
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple, Self

from bundler.archive.codec import Encoding
from registry.digest import Digest
from schemas import limits
from schemas.errors import MalformedArchive, UnsupportedRequest

_MAGIC: Final = b"sealift recipe\x00\x01"
_HEAD: Final = struct.Struct(">16sQQHBBI")
_OPERATION: Final = struct.Struct(">IQQ")
_CODES: Final = {
    Encoding.IDENTITY: 0,
    Encoding.ZSTD: 1,
    Encoding.PLANES2: 2,
    Encoding.PLANES4: 4,
}
_ENCODINGS: Final = {code: encoding for encoding, code in _CODES.items()}
_HINT: Final = "Have the bundle made again; this one was not made by `bundle create`"

RECIPE_BYTES: Final = _HEAD.size + limits.RECIPE_OPERATIONS * _OPERATION.size
"""The longest recipe."""


class Operation(NamedTuple):
    """One step of a recipe.

    Attributes:
        base: Number of the base in the descriptor's list, from 0; None for a literal.
        offset: Where the run starts in the base; 0 for a literal.
        length: Bytes; at least one.
    """

    base: int | None
    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class Recipe:
    """A recipe that passed every check; 20 bytes of memory per operation.

    Attributes:
        size: Of the finished blob, in bytes.
        literal_size: Bytes of all literals together.
        bases: Number of bases.
        encoding: How the literals travel: in pieces, as `bundler.archive.pieces` makes them.
    """

    size: int
    literal_size: int
    bases: int
    encoding: Encoding
    _packed: bytes = field(repr=False)

    @classmethod
    def from_bytes(cls, data: bytes, *, size: int, base_sizes: Sequence[int]) -> Self:
        """Parse and check.

        Args:
            data: At most ``RECIPE_BYTES``.
            size: What the finished blob must have, by the descriptor.
            base_sizes: Of each base in the descriptor's list.

        Raises:
            MalformedArchive: Any of the module's checks failed.
        """
        if not _HEAD.size < len(data) <= RECIPE_BYTES:  # 1
            raise _refuse(f"it has {len(data)} bytes")
        magic, own_size, literal_size, bases, code, zero, count = _HEAD.unpack_from(data)
        if magic != _MAGIC or code not in _ENCODINGS or zero:  # 2
            raise _refuse("it starts as no recipe of this version does")
        if len(data) != _HEAD.size + count * _OPERATION.size:  # 1
            raise _refuse(f"it has {len(data)} bytes and says {count} operations")
        if own_size != size or bases != len(base_sizes):  # 3
            raise _refuse(f"it makes {own_size} bytes of {bases} blobs, signed are others")
        recipe = cls(size, literal_size, bases, _ENCODINGS[code], data[_HEAD.size :])
        _check(recipe, base_sizes)
        return recipe

    def to_bytes(self) -> bytes:
        """The inverse of :meth:`from_bytes`."""
        code = _CODES[self.encoding]
        count = len(self)
        head = _HEAD.pack(_MAGIC, self.size, self.literal_size, self.bases, code, 0, count)
        return head + self._packed

    def __len__(self) -> int:
        return len(self._packed) // _OPERATION.size

    def __iter__(self) -> Iterator[Operation]:
        for base, offset, length in _OPERATION.iter_unpack(self._packed):
            yield Operation(base - 1 if base else None, offset, length)

    @property
    def copied(self) -> int:
        """Bytes that come from bases."""
        return self.size - self.literal_size

    def literal_ranges(self) -> Iterator[tuple[int, int]]:
        """Offset and length, in the finished blob, of each literal."""
        position = 0
        for operation in self:
            if operation.base is None:
                yield position, operation.length
            position += operation.length

    def since(self, start: int) -> Iterator[tuple[int, Operation]]:
        """What is left to do when the first ``start`` bytes are there.

        Yields:
            Where in the finished blob an operation begins, and the operation; the first one is
            shortened if it was half done.
        """
        position = 0
        for base, offset, length in self:
            done = min(max(start - position, 0), length)
            if done < length:
                rest = Operation(base, offset + done if base is not None else 0, length - done)
                yield position + done, rest
            position += length

    def literals_before(self, start: int) -> int:
        """Bytes of literals among the first ``start`` bytes of the finished blob."""
        ranges = self.literal_ranges()
        return sum(min(max(start - offset, 0), length) for offset, length in ranges)


class RecipeBuilder:
    """Makes a recipe operation by operation; neighbours that could be one are joined."""

    def __init__(self) -> None:
        self._packed = bytearray()
        self._last: Operation | None = None
        self._size = 0
        self._literal_size = 0
        self._count = 0

    def copy(self, base: int, offset: int, length: int) -> None:
        """Add a run of a base.

        Raises:
            UnsupportedRequest: The recipe would have too many operations.
        """
        last = self._last
        if last is not None and last.base == base and last.offset + last.length == offset:
            self._last = last._replace(length=last.length + length)
        else:
            self._begin(Operation(base, offset, length))
        self._size += length

    def literal(self, length: int) -> None:
        """Add bytes that no base has.

        Raises:
            UnsupportedRequest: The recipe would have too many operations.
        """
        last = self._last
        if last is not None and last.base is None:
            self._last = last._replace(length=last.length + length)
        else:
            self._begin(Operation(None, 0, length))
        self._size += length
        self._literal_size += length

    def build(self, bases: int, encoding: Encoding = Encoding.IDENTITY) -> Recipe:
        """Finish.

        Args:
            bases: Number of bases; each was copied from.
            encoding: How the literals will travel.
        """
        self._flush()
        self._last = None
        return Recipe(self._size, self._literal_size, bases, encoding, bytes(self._packed))

    def _begin(self, operation: Operation) -> None:
        if self._count == limits.RECIPE_OPERATIONS:
            raise UnsupportedRequest(
                "the blob is too unlike the others for a delta", why=f"{self._count} operations"
            )
        self._flush()
        self._count += 1
        self._last = operation

    def _flush(self) -> None:
        if self._last is not None:
            base, offset, length = self._last
            self._packed += _OPERATION.pack(0 if base is None else base + 1, offset, length)


def check_bases(output: Digest, bases: Sequence[Digest]) -> None:
    """See that a delta does not need itself, nor the same blob twice.

    Raises:
        MalformedArchive: It does; or it has no base, or too many.
    """
    if not 0 < len(bases) <= limits.RECIPE_BASES:
        raise _refuse(f"it has {len(bases)} bases, allowed are 1 to {limits.RECIPE_BASES}")
    if output in bases:
        raise _refuse(f"blob {output.short} would be made of itself")
    if len(set(bases)) != len(bases):
        raise _refuse("it names a base twice")


def _check(recipe: Recipe, base_sizes: Sequence[int]) -> None:
    size = literal_size = 0
    used: set[int] = set()
    expected: tuple[int, int] | None = None  # what would continue the operation before
    for base, offset, length in _OPERATION.iter_unpack(recipe._packed):  # noqa: SLF001
        if not length or base > len(base_sizes) or (not base and offset):  # 4
            raise _refuse(f"an operation is no operation at byte {size}")
        if base and offset + length > base_sizes[base - 1]:  # 5
            raise _refuse(
                f"it reads past the end of base {base}",
                f"{offset} + {length} of {base_sizes[base - 1]} bytes",
            )
        if expected == (base, offset):  # 6
            raise _refuse(f"two operations could be one at byte {size}")
        expected = (base, offset + length if base else 0)
        size += length
        if base:
            used.add(base)
        else:
            literal_size += length
    if size != recipe.size or literal_size != recipe.literal_size:  # 7
        raise _refuse(
            f"it makes {size} bytes, {literal_size} of them literals",
            f"{recipe.size} and {recipe.literal_size} were promised",
        )
    if len(used) != len(base_sizes):  # 8
        raise _refuse(f"it uses {len(used)} of {len(base_sizes)} bases")


def _refuse(why: str, detail: str = "") -> MalformedArchive:
    return MalformedArchive(
        "a recipe is refused", why=f"{why} ({detail})" if detail else why, hint=_HINT
    )
