"""Writing a bundle: members in order, each with its predicted header."""

from __future__ import annotations

from collections.abc import Callable
from typing import BinaryIO

from bundler.archive import layout
from bundler.contents import Part
from registry.pipeline import Readable
from registry.verify import copy_verified, storage_errors


class ArchiveWriter:
    """Appends members to an open file.

    Args:
        sink: A file opened for unbuffered writing; this class never seeks in it, so a pipe will do.
    """

    def __init__(self, sink: BinaryIO) -> None:
        self._sink = sink
        self._position = 0

    def add_bytes(self, name: str, data: bytes) -> None:
        """Append a small member.

        Raises:
            StorageFull, StorageFailure: The disk says no.
        """
        with storage_errors("cannot write the bundle"):
            self._write(layout.header(name, len(data)) + data + bytes(layout.padding(len(data))))

    def add_part(self, part: Part, source: Readable, progress: Callable[[int], None]) -> None:
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
                copy_verified(
                    source, self._sink.fileno(), segment.digest, segment.size, progress=progress
                )
            self._position += part.size
            self._write(bytes(layout.padding(part.size)))

    def close(self) -> None:
        """Write the end-of-archive mark. The file itself stays open."""
        with storage_errors("cannot write the bundle"):
            self._write(layout.trailer(self._position))

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            written = self._sink.write(view)
            view = view[written:]
        self._position += len(data)
