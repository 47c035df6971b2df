"""What should lie on the medium: extents with their bytes or digests."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bundler.parity.table import Table
from registry.digest import Digest
from registry.verify import Writable, storage_errors
from schemas import limits
from schemas.errors import MalformedDocument

PIECE: Final = 1 * limits.MIB  # of a file whose content is recorded here


@dataclass(frozen=True, slots=True)
class Extent:
    """A run of a file, and what it should hold.

    Attributes:
        offset: In the file, in bytes.
        length: In bytes.
        content: The bytes themselves, so that bad sectors are told one by one; or their digest, so
            that an extent is right or wrong as a whole. Small extents tell more.
    """

    offset: int
    length: int
    content: bytes | Digest

    def __post_init__(self) -> None:
        if self.offset < 0 or self.length < 1:
            raise MalformedDocument("an extent is empty or before its file")
        if isinstance(self.content, bytes) and len(self.content) != self.length:
            raise MalformedDocument("an extent has content of another length")

    @property
    def end(self) -> int:
        """Offset of what follows."""
        return self.offset + self.length


class Recorder:
    """Notes what is written through it, in extents of 1 MiB.

    Args:
        sink: Where the bytes go.
    """

    def __init__(self, sink: Writable) -> None:
        self._sink = sink
        self._hash = hashlib.sha256()
        self._start = self._position = 0
        self._extents: list[Extent] = []

    def write(self, data: bytes | bytearray | memoryview) -> int:
        """Pass on, and note what the sink took; returns how many bytes that were."""
        view = memoryview(data).cast("B")
        count = self._sink.write(view)
        taken = view if count is None else view[:count]
        while taken:
            part = taken[: self._start + PIECE - self._position]
            self._hash.update(part)
            self._position += len(part)
            taken = taken[len(part) :]
            if self._position == self._start + PIECE:
                self._close_extent()
        return len(view) if count is None else count

    def extents(self) -> list[Extent]:
        """All that was written; call it once, at the end."""
        if self._position > self._start:
            self._close_extent()
        return self._extents

    def _close_extent(self) -> None:
        digest = Digest("sha256", self._hash.hexdigest())
        self._extents.append(Extent(self._start, self._position - self._start, digest))
        self._start = self._position
        self._hash = hashlib.sha256()


def extents_of_file(path: Path) -> Iterator[Extent]:
    """What another copy of the file holds, read as it is needed.

    Raises:
        StorageFailure: It cannot be read.
    """
    offset = 0
    with storage_errors(f"cannot read {path}"), path.open("rb", buffering=0) as file:
        while data := file.read(PIECE):
            yield Extent(offset, len(data), data)
            offset += len(data)


def extents_of_table(table: Table, file: int, *, offset: int = 0) -> Iterator[Extent]:
    """What a parity table says of one of its files.

    Args:
        table: Trusted.
        file: Its number, data files first.
        offset: Where its bytes begin in the file on the medium.
    """
    for stripe in range(table.blocks(file)):
        digest = Digest("sha256", table.digest(file, stripe).hex())
        yield Extent(offset + stripe * table.block, table.size(file, stripe), digest)
