"""Cutting model files into chunks while they are hashed: for later deltas, and for this one."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import BinaryIO

from bundler.archive.pieces import Segment
from bundler.chunks.chunker import Chunker
from bundler.chunks.index import IndexBuilder
from bundler.chunks.recipes import Delta, RecipeMaker
from bundler.chunks.regions import regions_of
from bundler.chunks.shelf import IndexShelf
from registry.digest import Digest
from registry.verify import digest_stream
from schemas import limits


@dataclass(frozen=True, slots=True)
class Hashed:
    """What one pass over a file found out.

    Attributes:
        digest: Of the whole.
        delta: How to make it of what the far side holds, where that pays.
        segments: As far as they were wanted.
    """

    digest: Digest
    delta: Delta | None
    segments: tuple[Segment, ...]


class Chunking:
    """Makes a chunk index of every blob that is bundled, and deltas against what a site holds.

    Args:
        shelf: The publisher's indexes.
        held: Blobs that the far side has, with their sizes in bytes.
    """

    def __init__(self, shelf: IndexShelf, held: Mapping[Digest, int]) -> None:
        self._shelf = shelf
        self.held = held

    def digest(
        self,
        file: BinaryIO,
        size: int,
        progress: Callable[[int], None],
        piece: int | None = None,
    ) -> Hashed:
        """Hash a file from its start, in one pass: the whole, its chunks, its segments.

        Args:
            file: Seekable.
            size: In bytes.
            progress: Told of the bytes.
            piece: Bytes per segment; None where none are wanted.

        Raises:
            ContentMismatch: It ends early: it changes while it is read.
            DependencyMissing: The library that cuts by content is not installed.
            StorageFull, StorageFailure: The disk says no.
        """
        cutter = _SegmentCutter(piece, size) if piece else None
        others = [cutter.take] if cutter else []
        if size < limits.FINE_CHUNK_BYTES:  # nothing in it could be found again
            digest = digest_stream(file, size, progress, also=others)
            return Hashed(digest, None, cutter.segments if cutter else ())
        regions = regions_of(file, size)
        file.seek(0)
        with ExitStack() as stack:
            indexes = self._shelf.open(sorted(self.held))
            for index in indexes:
                stack.enter_context(index)
            builder, maker = IndexBuilder(), RecipeMaker(indexes)
            stack.callback(builder.close)
            chunker = Chunker(regions)
            chunks = chunker.giving(builder.add, maker.take)
            digest = digest_stream(file, size, progress, also=[chunks, *others])
            chunker.finish()
            if digest not in self._shelf:
                self._shelf.add(builder, digest, size)
            delta = None if digest in self.held else maker.finish(digest)
            return Hashed(digest, delta, cutter.segments if cutter else ())


class _SegmentCutter:
    """Hashes each segment of what passes by."""

    def __init__(self, piece: int, size: int) -> None:
        self._piece = piece
        self._size = size
        self._position = 0
        self._hash = hashlib.sha256()
        self._segments: list[Segment] = []

    @property
    def segments(self) -> tuple[Segment, ...]:
        """All of them, once all bytes came."""
        return tuple(self._segments)

    def take(self, data: memoryview) -> None:
        """Take the next bytes."""
        while data:
            start = len(self._segments) * self._piece
            portion = data[: start + self._piece - self._position]
            self._hash.update(portion)
            self._position += len(portion)
            data = data[len(portion) :]
            if self._position in {start + self._piece, self._size}:
                digest = Digest("sha256", self._hash.hexdigest())
                self._segments.append(Segment(self._position - start, digest))
                self._hash = hashlib.sha256()
