"""Where a blob is cut: by its tensor table if it has one, else by its content."""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import BinaryIO, Final

from bundler.archive.codec import ElementHint
from registry import gguf, safetensors
from registry.gguf import GGUFHeader
from registry.safetensors import SafetensorsHeader
from schemas.errors import MalformedModel

TableHeader = GGUFHeader | SafetensorsHeader


class Cut(enum.Enum):
    """How a region is cut into chunks."""

    FIXED = "fixed"
    """Every ``FIXED_CHUNK_BYTES`` from the region's start: tensors, and the padding after them."""
    FINE = "fine"
    """By content, ``FINE_CHUNK_BYTES`` on average: headers, of which edits change a few bytes."""
    COARSE = "coarse"
    """By content, ``COARSE_CHUNK_BYTES`` on average: whatever has no table."""


@dataclass(frozen=True, slots=True)
class Region:
    """A run of a blob's bytes that is cut in one way.

    Attributes:
        offset: Where it starts in the blob.
        length: Bytes; at least one.
        cut: How it is cut.
    """

    offset: int
    length: int
    cut: Cut

    def __post_init__(self) -> None:
        if self.offset < 0 or self.length <= 0:
            raise ValueError("a region has at least one byte, none of them before the blob")


def read_table(source: BinaryIO, size: int) -> TableHeader | None:
    """The tensor table of a blob that is a model file.

    Args:
        source: Stands at the blob's start; is read on from there, a little past the header.
        size: Of the blob, in bytes.

    Returns:
        None where it is no model file, or one that another part of Sealift will refuse: how a blob
        is cut is no question of trust.
    """
    start = source.tell()
    for read in (partial(gguf.read_header, projectors=True), safetensors.read_header):
        source.seek(start)
        try:
            return read(source, size)
        except MalformedModel:
            continue
    return None


def table_regions(header: TableHeader) -> Iterator[Region]:
    """Header, tensors and the padding between them, in order and without a gap."""
    yield Region(0, header.data_offset, Cut.FINE)
    end = header.data_offset
    for tensor in header.tensors:
        start = header.data_offset + tensor.offset
        if start > end:
            yield Region(end, start - end, Cut.FIXED)
        if tensor.size_bytes:
            yield Region(start, tensor.size_bytes, Cut.FIXED)
        end = start + tensor.size_bytes
    if end < header.file_size:
        yield Region(end, header.file_size - end, Cut.FIXED)


def plain_regions(size: int) -> Iterator[Region]:
    """One region for all of a blob without a table."""
    if size:
        yield Region(0, size, Cut.COARSE)


def regions_of(source: BinaryIO, size: int) -> Iterable[Region]:
    """How a blob is cut; see :func:`read_table` for the arguments."""
    header = read_table(source, size)
    return plain_regions(size) if header is None else table_regions(header)


def element_hint(header: TableHeader | None) -> ElementHint | None:
    """What the table says to the codec: the element size that most bytes have.

    Returns:
        None without a table; the codec then tries what it can.
    """
    if header is None:
        return None
    weight: Counter[int] = Counter()
    for tensor in header.tensors:
        dtype = tensor.type if isinstance(tensor, gguf.TensorInfo) else tensor.dtype
        weight[_ELEMENT_SIZES.get(dtype, 1)] += tensor.size_bytes
    return ElementHint(weight.most_common(1)[0][0]) if weight else None


_ELEMENT_SIZES: Final = {
    "F32": 4,
    "I32": 4,
    "U32": 4,
    "F16": 2,
    "BF16": 2,
    "I16": 2,
    "U16": 2,
}
