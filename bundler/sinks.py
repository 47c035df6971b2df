"""Where the blobs of a bundle go while they are verified: a staging area, or nowhere."""

from __future__ import annotations

import os
from typing import BinaryIO, Protocol

from bundler.archive.reader import BlobStream
from bundler.descriptor import Member
from registry.blobs import BlobStore
from registry.digest import Digest
from registry.gguf import GGUFHeader, read_header
from registry.staging import StagingArea
from registry.verify import hash_stream, storage_errors
from schemas.errors import StorageFull
from schemas.render import Meter


class BlobSink(Protocol):
    """Takes blobs in archive order."""

    def reserve(self, total: int) -> None:
        """See that so many bytes will fit, before the first one moves."""

    def add_small(self, data: bytes) -> None:
        """Take a manifest or a config, verified already."""

    def add_large(self, stream: BlobStream, member: Member, progress: Meter) -> None:
        """Take exactly the member's bytes and compare them with its digest."""

    def header(self, member: Member) -> GGUFHeader:
        """Parse the header of a large member that was added."""


class Staging:
    """On the store's disk, not yet part of the store.

    Attributes:
        added: Blobs that are new to the store.
        reused: Blobs that it has already.
    """

    def __init__(self, blobs: BlobStore, area: StagingArea) -> None:
        self._blobs = blobs
        self._area = area
        self.added = 0
        self.reused = 0

    def reserve(self, total: int) -> None:
        """See :class:`BlobSink`.

        Raises:
            StorageFull: There is not as much free.
        """
        with storage_errors("cannot look at the store's disk"):
            stats = os.statvfs(self._area.folder)
        free = stats.f_bavail * stats.f_frsize
        if free < total:
            raise StorageFull(
                "not enough space in the store",
                why=f"{total} bytes needed, {free} free",
                hint="Free some space, or set SEALIFT_HOME to a larger disk",
            )

    def add_small(self, data: bytes) -> None:
        """See :class:`BlobSink`."""
        if not self._claim(Digest.of(data), len(data)):
            self._area.add_bytes(data)

    def add_large(self, stream: BlobStream, member: Member, progress: Meter) -> None:
        """See :class:`BlobSink`; a blob that the store has is verified again, but not written."""
        if self._claim(member.digest, member.size):
            hash_stream(stream, member.digest, member.size, progress.advance)
        else:
            self._area.add(stream, member.digest, member.size, progress.advance)

    def _claim(self, digest: Digest, size: int) -> bool:
        claimed = self._area.claim(digest, size)
        self.reused += claimed
        self.added += not claimed
        return claimed

    def header(self, member: Member) -> GGUFHeader:
        """See :class:`BlobSink`."""
        path = self._area.path(member.digest)
        if not path.exists():
            path = self._blobs.path(member.digest)
        with storage_errors(f"cannot read blob {member.digest.short}"), path.open("rb") as file:
            return read_header(file, member.size)


class Discard:
    """Nowhere: for ``bundle verify``.

    Args:
        source: The bundle itself, to which headers are read again after their blob was verified.
    """

    def __init__(self, source: BinaryIO) -> None:
        self._source = source
        self._offsets: dict[str, int] = {}

    def reserve(self, total: int) -> None:
        """Nothing is written."""

    def add_small(self, data: bytes) -> None:
        """Nothing is kept."""

    def add_large(self, stream: BlobStream, member: Member, progress: Meter) -> None:
        """See :class:`BlobSink`."""
        self._offsets[member.name] = stream.offset
        hash_stream(stream, member.digest, member.size, progress.advance)

    def header(self, member: Member) -> GGUFHeader:
        """See :class:`BlobSink`."""
        position = self._source.tell()
        try:
            self._source.seek(self._offsets[member.name])
            return read_header(self._source, member.size)
        finally:
            self._source.seek(position)
