"""Cutting model files into chunks while they are hashed: for later deltas, and for this one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import BinaryIO

from bundler.chunks.chunker import ChunkingReader
from bundler.chunks.index import IndexBuilder
from bundler.chunks.recipes import Delta, RecipeMaker
from bundler.chunks.regions import regions_of
from bundler.chunks.shelf import IndexShelf
from registry.digest import Digest
from registry.verify import digest_stream
from schemas import limits


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
        self, file: BinaryIO, size: int, progress: Callable[[int], None]
    ) -> tuple[Digest, Delta | None]:
        """Hash a file from its start, in one pass.

        Returns:
            Its digest; and how to make it of what the far side holds, where that pays.

        Raises:
            ContentMismatch: It ends early: it changes while it is read.
            DependencyMissing: The library that cuts by content is not installed.
            StorageFull, StorageFailure: The disk says no.
        """
        if size < limits.FINE_CHUNK_BYTES:  # nothing in it could be found again
            return digest_stream(file, size, progress), None
        regions = regions_of(file, size)
        file.seek(0)
        with ExitStack() as stack:
            indexes = self._shelf.open(sorted(self.held))
            for index in indexes:
                stack.enter_context(index)
            builder, maker = IndexBuilder(), RecipeMaker(indexes)
            stack.callback(builder.close)
            reader = ChunkingReader(file, regions, [builder.add, maker.take])
            digest = digest_stream(reader, size, progress)
            reader.finish()
            if digest not in self._shelf:
                self._shelf.add(builder, digest, size)
            return digest, None if digest in self.held else maker.finish(digest)
