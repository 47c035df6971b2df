"""The chunk index of a blob: the digests of its chunks and where they lie, in one sorted file.

::

    index   = magic, blob, size, count, count entries, checksum
    magic   = "sealift chunks" 00 01     16 bytes, the last is the version
    blob    = SHA-256 of the blob        32 bytes
    size    = of the blob                64 bits, big-endian like all numbers here
    count   = number of entries          64 bits
    entry   = SHA-256 of the chunk (32 bytes), offset (64 bits), length (32 bits)
    checksum = SHA-256 of all before     32 bytes

Entries rise strictly, compared as bytes. So a look-up is a binary search in the mapped file, and
neither making nor reading an index needs memory for all of it.

The publisher makes the index when it bundles a blob, and keeps it in its workspace; the blob itself
may go. A wrong index makes a recipe that does not work out on the far side, hence the checksum.
"""

from __future__ import annotations

import hashlib
import heapq
import mmap
import os
import struct
import tempfile
from bisect import bisect_left
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Final, NoReturn, Self

from bundler.chunks.chunker import Chunk
from registry.digest import Digest
from registry.verify import storage_errors
from schemas import limits
from schemas.errors import StoreDamaged, UnsupportedRequest

_MAGIC: Final = b"sealift chunks\x00\x01"
_HEAD: Final = struct.Struct(">16s32sQQ")
_ENTRY: Final = struct.Struct(">32sQI")
_KEY_BYTES: Final = 40  # of an entry: digest and offset
_CHECKSUM_BYTES: Final = 32
_DIGEST_BYTES: Final = 32
_WRITE_ENTRIES: Final = 8192


class IndexBuilder:
    """Takes a blob's chunks as they come and writes them sorted, in constant memory.

    Args:
        folder: Where sorted runs are kept meanwhile, in files without a name; by default the
            system's folder for temporary files.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self._run: list[bytes] = []
        self._runs: list[BinaryIO] = []
        self._count = 0

    def add(self, chunk: Chunk) -> None:
        """Take the next chunk.

        Raises:
            UnsupportedRequest: The blob has too many.
            StorageFull, StorageFailure: No room for a run.
        """
        if self._count == limits.CHUNK_ENTRIES:
            raise UnsupportedRequest(
                "the blob has too many chunks for an index", why=f"more than {self._count}"
            )
        self._count += 1
        self._run.append(_ENTRY.pack(chunk.digest, chunk.offset, chunk.length))
        if len(self._run) == limits.CHUNK_RUN_ENTRIES:
            self._spill()

    def write(self, sink: BinaryIO, blob: Digest, size: int) -> None:
        """Write the index of all chunks so far; to be called once.

        Args:
            sink: A file opened for writing.
            blob: The SHA-256 digest of what the chunks were cut from.
            size: Of it, in bytes.

        Raises:
            StorageFull, StorageFailure: The disk says no.
        """
        whole = hashlib.sha256()

        def put(data: bytes) -> None:
            whole.update(data)
            view = memoryview(data)
            while view:
                view = view[sink.write(view) :]

        self._run.sort()
        with storage_errors("cannot write a chunk index"):
            put(_HEAD.pack(_MAGIC, bytes.fromhex(blob.hex), size, self._count))
            batch: list[bytes] = []
            for entry in heapq.merge(self._run, *(_entries(run) for run in self._runs)):
                batch.append(entry)
                if len(batch) == _WRITE_ENTRIES:
                    put(b"".join(batch))
                    batch.clear()
            put(b"".join(batch))
            put(whole.digest())
        self.close()

    def close(self) -> None:
        """Give the space of all runs back; harmless a second time."""
        for run in self._runs:
            run.close()
        self._runs.clear()
        self._run.clear()

    def _spill(self) -> None:
        self._run.sort()
        with storage_errors("cannot keep a run of chunks"):
            run: BinaryIO = tempfile.TemporaryFile(dir=self._folder)  # noqa: SIM115
            self._runs.append(run)
            run.write(b"".join(self._run))
            run.seek(0)
        self._run.clear()


class ChunkIndex:
    """An index, opened for looking up.

    Args:
        path: The file that `IndexBuilder.write` made.

    Attributes:
        blob: Digest of the blob that it describes.
        size: Of that blob, in bytes.

    Raises:
        StoreDamaged: It is no index, or not as it was written.
        StorageFailure: It cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        least = _HEAD.size + _CHECKSUM_BYTES
        with storage_errors(f"cannot read {path}"), path.open("rb") as file:
            length = os.fstat(file.fileno()).st_size
            if not least <= length <= least + limits.CHUNK_ENTRIES * _ENTRY.size:
                self._refuse(f"it has {length} bytes")
            self._map = mmap.mmap(file.fileno(), length, access=mmap.ACCESS_READ)
        try:
            head: tuple[bytes, bytes, int, int] = _HEAD.unpack_from(self._map)
            magic, blob, self.size, self._count = head
            if magic != _MAGIC:
                self._refuse("it is something else, or of another version")
            if length != least + self._count * _ENTRY.size:
                self._refuse(f"it has {length} bytes and says {self._count} entries")
            self._check_sum()
        except StoreDamaged:
            self.close()
            raise
        self.blob = Digest("sha256", blob.hex())

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, number: int) -> bytes:
        """Digest and offset of an entry; they rise with its number."""
        start = _HEAD.size + number * _ENTRY.size
        return self._map[start : start + _KEY_BYTES]

    def find(self, digest: bytes, near: int = 0) -> Chunk | None:
        """Look a chunk up by its digest.

        Args:
            digest: SHA-256, 32 bytes.
            near: The chunk at this offset is preferred, if there is one; else the first one is.
        """
        number = bisect_left(self, digest + near.to_bytes(8, "big"))
        here = self._entry(number, digest)
        if here is not None and here.offset == near:
            return here
        if here is None and self._entry(number - 1, digest) is None:
            return None
        return self._entry(bisect_left(self, digest, 0, number), digest)

    def chunks(self) -> Iterator[Chunk]:
        """All entries, by rising digest."""
        for number in range(self._count):
            digest, offset, length = self._unpacked(number)
            yield Chunk(offset, length, digest)

    def close(self) -> None:
        """Unmap the file."""
        self._map.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _entry(self, number: int, digest: bytes) -> Chunk | None:
        """An entry, if there is one of that number, with that digest."""
        if not 0 <= number < self._count:
            return None
        found, offset, length = self._unpacked(number)
        return Chunk(offset, length, digest) if found == digest else None

    def _unpacked(self, number: int) -> tuple[bytes, int, int]:
        start = _HEAD.size + number * _ENTRY.size
        entry: tuple[bytes, int, int] = _ENTRY.unpack_from(self._map, start)
        return entry

    def _check_sum(self) -> None:
        end = len(self._map) - _CHECKSUM_BYTES
        with memoryview(self._map) as view:
            found = hashlib.sha256(view[:end]).digest()
        if found != self._map[end:]:
            self._refuse("its checksum is wrong")

    def _refuse(self, why: str) -> NoReturn:
        raise StoreDamaged(
            f"the chunk index {self._path.name} cannot be used",
            why=why,
            hint="Delete it; deltas against this blob then need the blob bundled once more",
        )


def _entries(run: BinaryIO) -> Iterator[bytes]:
    while data := run.read(_WRITE_ENTRIES * _ENTRY.size):
        for start in range(0, len(data), _ENTRY.size):
            yield data[start : start + _ENTRY.size]
