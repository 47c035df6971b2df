"""Writing a bundle: members in order, each with its predicted header."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, BinaryIO, Final

from bundler.archive import layout
from bundler.archive.pieces import Segment
from bundler.contents import Part
from registry import linuxio
from registry.pipeline import hash_through
from registry.verify import storage_errors
from schemas import limits
from schemas.errors import ContentMismatch

if TYPE_CHECKING:
    from hashlib import _Hash

_CHANGED: Final = "The model's file was changed meanwhile; run it again when it is left alone"

Progress = Callable[[int], None]


class ArchiveWriter:
    """Appends members to an open file, or goes on where an earlier attempt was interrupted.

    Args:
        sink: A file opened for unbuffered writing. This class seeks in it only to go on, so a pipe
            will do otherwise; to go on, it must be readable and stand at ``start``.
        start: So many bytes are there already, written from the same calls in the same order.
        durable: Called with the number of bytes that are synced, at least every
            ``limits.SEGMENT_BYTES``; None leaves syncing to the caller.
    """

    def __init__(
        self,
        sink: BinaryIO,
        *,
        start: int = 0,
        durable: Callable[[int], None] | None = None,
    ) -> None:
        self._sink = sink
        self._start = self._synced = start
        self._durable = durable
        self._position = 0

    @property
    def position(self) -> int:
        """Bytes of the archive so far, those from earlier included."""
        return self._position

    def add_bytes(self, name: str, data: bytes) -> None:
        """Append a small member.

        Raises:
            StorageFull, StorageFailure: The disk says no.
        """
        self.add_raw(layout.header(name, len(data)) + data + bytes(layout.padding(len(data))))

    def add_raw(self, members: bytes) -> None:
        """Append whole members, as another writer wrote them."""
        with storage_errors("cannot write the bundle"):
            self._write(members)

    def add_part(self, part: Part, source: BinaryIO, progress: Progress) -> None:
        """Append a large member, checking on the way that it is what its digests say.

        Args:
            part: What it holds.
            source: Stands at its first stored byte.
            progress: Called with the bytes of each step.

        Raises:
            ContentMismatch: The source's bytes changed since they were hashed.
            StorageFull, StorageFailure: The disk says no.
        """
        with storage_errors("cannot write the bundle"):
            self._write(layout.header(part.name, part.size))
            for segment in part.segments:
                self._sync_before(segment.size)
                self._add_segment(segment, source, progress)
            self._write(bytes(layout.padding(part.size)))

    def close(self) -> None:
        """Write the end-of-archive mark. The file itself stays open."""
        with storage_errors("cannot write the bundle"):
            self._write(layout.trailer(self._position))

    def _add_segment(self, segment: Segment, source: BinaryIO, progress: Progress) -> None:
        end = self._position + segment.size
        if end <= self._start:  # compared with its digest before that was recorded
            source.seek(segment.size, os.SEEK_CUR)
            progress(segment.size)
        elif self._position >= self._start or not self._go_on(segment, source, progress):
            self._copy(segment, source, segment.digest.hasher(), 0, progress)
        self._position = end

    def _go_on(self, segment: Segment, source: BinaryIO, progress: Progress) -> bool:
        """Finish a segment of which the front is there; False if that is not what it should be."""
        have = self._start - self._position
        seed = segment.digest.hasher()
        fd = self._sink.fileno()
        for offset in range(0, have, limits.IO_CHUNK):
            seed.update(os.pread(fd, min(limits.IO_CHUNK, have - offset), self._position + offset))
        begin = source.seek(have, os.SEEK_CUR) - have
        progress(have)
        try:
            self._copy(segment, source, seed, have, progress)
        except ContentMismatch:
            source.seek(begin)
            os.lseek(fd, self._position, os.SEEK_SET)
            return False
        return True

    def _copy(
        self, segment: Segment, source: BinaryIO, seed: _Hash, have: int, progress: Progress
    ) -> None:
        fd, begin, size = self._sink.fileno(), self._position + have, segment.size - have
        if size > limits.IO_CHUNK:
            linuxio.preallocate(fd, size)

        def note(done: int) -> None:
            if done < size:  # a whole segment counts only once its digest was compared
                self._note(begin + done)

        came, found = hash_through(
            source,
            size,
            segment.digest.algorithm,
            sink_fd=fd,
            progress=progress,
            seed=seed,
            durable=None if self._durable is None else note,
        )
        if came < size:
            raise ContentMismatch(
                "the model's file ends too early",
                why=f"{have + came} of {segment.size} bytes came",
                hint=_CHANGED,
            )
        if found != segment.digest.hex:
            raise ContentMismatch(
                "the model's file is not what was hashed before",
                why=f"it hashes to {found[:12]}, not {segment.digest.short}",
                hint=_CHANGED,
            )

    def _sync_before(self, size: int) -> None:
        """Have what was written before a segment synced, where both together exceed one segment."""
        if self._durable is None or self._position <= self._synced:
            return
        if self._position + size - self._synced > limits.SEGMENT_BYTES:
            os.fdatasync(self._sink.fileno())
            self._note(self._position)

    def _note(self, position: int) -> None:
        self._synced = position
        if self._durable is not None:
            self._durable(position)

    def _write(self, data: bytes) -> None:
        view = memoryview(data)[max(0, self._start - self._position) :]
        while view:
            view = view[self._sink.write(view) :]
        self._position += len(data)
