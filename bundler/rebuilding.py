"""From a delta's stored bytes and the blobs that it builds on to the blob itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from typing import BinaryIO, Final, Protocol

from bundler.archive.codec import piece_sizes
from bundler.archive.delta import read_recipe, recipe_size
from bundler.archive.pieces import decode_run
from bundler.archive.rebuild import rebuild
from bundler.archive.recipe import Recipe
from bundler.contents import Entry
from registry.digest import Digest
from registry.verify import storage_errors
from schemas import limits

# Together with a recipe and a piece of literals it is less than a segment.
_STRIDE: Final = limits.SEGMENT_BYTES // 2

Durable = Callable[[int, int], None]
"""Makes the first bytes of the blob durable, so many; and the stored bytes that they used up."""


class Bases(Protocol):
    """Where the blobs lie that deltas copy from; see :class:`registry.blobs.BlobStore`."""

    def open(self, digest: Digest) -> BinaryIO:
        """Open a blob.

        Raises:
            NotFound: It is not there.
        """

    def size(self, digest: Digest) -> int:
        """Its size in bytes."""


def rebuild_entry(
    entry: Entry,
    stored: BinaryIO,
    bases: Bases,
    out: int,
    *,
    front: int = 0,
    durable: Durable | None = None,
) -> None:
    """Make a blob and verify it.

    Args:
        entry: Encoded as a delta.
        stored: Its stored bytes, at their start; with a ``front``, a file that can be sought in.
        bases: Hold the blobs that it builds on.
        out: A file open for reading and writing; cut or filled to the blob's size.
        front: How many of its first bytes are there already.
        durable: Called from time to time, at least once in ``SEGMENT_BYTES`` of the blob.

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
        literals = _Literals(entry, recipe, stored, recipe.literals_before(front))
        rebuild(
            recipe,
            [file.fileno() for file in files],
            literals,
            out,
            entry.digest,
            start=front,
            progress=None if durable is None else _Strides(front, literals, durable).advance,
        )


class _Literals:
    """The literals of a delta from some byte on.

    Attributes:
        used: Stored bytes that will not be read again.
    """

    def __init__(self, entry: Entry, recipe: Recipe, stored: BinaryIO, start: int) -> None:
        first, self._skip = divmod(start, limits.PIECE_BYTES)
        self._segments = entry.parts[1 + first :]
        self._recipe = recipe
        self._stored = stored
        self.used = 0
        self._ahead = entry.parts[0].size + sum(s.size for s in entry.parts[1 : 1 + first])
        if first:
            stored.seek(self._ahead)

    def __iter__(self) -> Iterator[bytes | bytearray | memoryview]:
        sizes = list(piece_sizes(self._recipe.literal_size))[-len(self._segments) :]
        items = zip(self._read(), self._segments, sizes, strict=True)
        with closing(decode_run(items, self._recipe.encoding)) as pieces:
            for raw, segment in zip(pieces, self._segments, strict=True):
                yield memoryview(raw)[self._skip :]
                self._skip = 0
                self._ahead += segment.size
                self.used = self._ahead

    def _read(self) -> Iterator[bytes]:
        for segment in self._segments:
            yield self._stored.read(segment.size)


class _Strides:
    """Has a blob made durable from time to time."""

    def __init__(self, front: int, literals: _Literals, durable: Durable) -> None:
        self._done = self._synced = front
        self._literals = literals
        self._durable = durable

    def advance(self, count: int) -> None:
        """So many bytes more are written."""
        self._done += count
        if self._done - self._synced >= _STRIDE:
            self._durable(self._done, self._literals.used)
            self._synced = self._done
