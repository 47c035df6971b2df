"""From a delta's stored bytes and the blobs that it builds on to the blob itself."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import BinaryIO, Protocol

from bundler.archive.delta import read_literals, read_recipe, recipe_size
from bundler.archive.rebuild import rebuild
from bundler.contents import Entry
from registry.digest import Digest
from registry.verify import storage_errors


class Bases(Protocol):
    """Where the blobs lie that deltas copy from; see :class:`registry.blobs.BlobStore`."""

    def open(self, digest: Digest) -> BinaryIO:
        """Open a blob.

        Raises:
            NotFound: It is not there.
        """

    def size(self, digest: Digest) -> int:
        """Its size in bytes."""


def rebuild_entry(entry: Entry, stored: BinaryIO, bases: Bases, out: int) -> None:
    """Make a blob and verify it.

    Args:
        entry: Encoded as a delta.
        stored: Its stored bytes, at their start.
        bases: Hold the blobs that it builds on.
        out: A file open for reading and writing; cut or filled to the blob's size.

    Raises:
        ContentMismatch: Something else came out; what was written must be discarded.
        MalformedArchive: The recipe is none, or asks for what its bases have not.
        StorageFull, StorageFailure: The disk says no.
    """
    segments = entry.parts
    with ExitStack() as stack, storage_errors(f"cannot rebuild blob {entry.digest.short}"):
        recipe = read_recipe(
            stored.read(recipe_size(segments)),
            segments,
            size=entry.size,
            base_sizes=[bases.size(base) for base in entry.bases],
        )
        files = [stack.enter_context(bases.open(base)) for base in entry.bases]
        literals = read_literals(_rest(stored, entry), segments, recipe)
        rebuild(recipe, [file.fileno() for file in files], literals, out, entry.digest)


def _rest(stored: BinaryIO, entry: Entry) -> Iterator[bytes]:
    for segment in entry.parts[1:]:
        yield stored.read(segment.size)
