"""The stored form of a delta: the recipe is the first segment, then its literals follow in pieces.

The literals are put together in their order, and travel like any blob does: in pieces of
``PIECE_BYTES``, encoded as a sample of them says (`bundler.archive.pieces`).
"""

from __future__ import annotations

import itertools
import os
from bisect import bisect_right
from collections.abc import Generator, Iterable, Sequence
from dataclasses import replace

from bundler.archive import codec, pieces
from bundler.archive.codec import Compression, ElementHint
from bundler.archive.pieces import Segment, StoredPiece
from bundler.archive.recipe import RECIPE_BYTES, Recipe
from registry.digest import Digest
from registry.verify import storage_errors
from schemas.errors import ContentMismatch, MalformedArchive

_COPY_AGAIN = "Copy the bundle again from its source, and compare"


class LiteralReader:
    """The literals of a recipe as one stream, read from the finished blob.

    Args:
        recipe: Which ranges.
        blob: The finished blob, an open file.
    """

    def __init__(self, recipe: Recipe, blob: int) -> None:
        self._blob = blob
        self._size = recipe.literal_size
        self._ranges = list(recipe.literal_ranges())
        lengths = (length for _, length in self._ranges)
        self._starts = list(itertools.accumulate(lengths, initial=0))
        self._position = 0

    def read(self, n: int = -1, /) -> bytes:
        """Up to ``n`` bytes, the rest if negative; none only at the end."""
        left = self._size - self._position
        data = self.sample(self._position, left if n < 0 else min(n, left))
        self._position += len(data)
        return data

    def sample(self, offset: int, length: int) -> bytes:
        """Bytes anywhere in the stream, as `codec.choose_encoding` wants them.

        Raises:
            ContentMismatch: The blob ends before.
            StorageFailure: A failed read.
        """
        parts = []
        while length:
            number = bisect_right(self._starts, offset) - 1
            start, available = self._ranges[number]
            inside = offset - self._starts[number]
            with storage_errors("cannot read the blob"):
                data = os.pread(self._blob, min(length, available - inside), start + inside)
            if not data:
                raise ContentMismatch("the blob ends too early", why=f"{length} bytes missing")
            parts.append(data)
            offset += len(data)
            length -= len(data)
        return parts[0] if len(parts) == 1 else b"".join(parts)


def store_delta(
    recipe: Recipe,
    blob: int,
    *,
    mode: Compression,
    hint: ElementHint | None = None,
    workers: int | None = None,
) -> Generator[StoredPiece]:
    """Encode a delta.

    Args:
        recipe: As made; its encoding is chosen here.
        blob: The finished blob, an open file.
        mode: What the user wants for the literals.
        hint: From the blob's tensor table.
        workers: See `pieces.encode_pieces`.

    Yields:
        The recipe, then the pieces of its literals.

    Raises:
        ContentMismatch: The blob is shorter than it was.
        StorageFailure: A failed read.
    """
    literals = LiteralReader(recipe, blob)
    choice = codec.choose_encoding(literals.sample, recipe.literal_size, mode=mode, hint=hint)
    data = replace(recipe, encoding=choice.encoding).to_bytes()
    yield StoredPiece(Segment(len(data), Digest.of(data)), data, 0)
    yield from pieces.encode_pieces(literals, recipe.literal_size, choice, workers=workers)


def read_recipe(
    stored: bytes, segments: Sequence[Segment], *, size: int, base_sizes: Sequence[int]
) -> Recipe:
    """Verify and parse the first segment of a delta, and see that the others can be its literals.

    Args:
        stored: The bytes of the first segment, which is at most ``RECIPE_BYTES`` long: see
            :func:`recipe_size`.
        segments: All of the delta; signed.
        size: Of the finished blob; signed.
        base_sizes: Of each base in the descriptor's list.

    Raises:
        ContentMismatch: Other bytes than its digest says.
        MalformedArchive: No proper recipe, or not these literals.
    """
    first = segments[0]
    if len(stored) != first.size or Digest.of(stored) != first.digest:
        raise ContentMismatch("a recipe has other bytes than were signed", hint=_COPY_AGAIN)
    recipe = Recipe.from_bytes(stored, size=size, base_sizes=base_sizes)
    pieces.check_segments(segments[1:], recipe.literal_size)
    return recipe


def recipe_size(segments: Sequence[Segment]) -> int:
    """How many bytes of a delta to read for its recipe.

    Raises:
        MalformedArchive: None, or more than any recipe has.
    """
    if not segments or segments[0].size > RECIPE_BYTES:
        raise MalformedArchive("a delta does not start with a recipe")
    return segments[0].size


def read_literals(
    stored: Iterable[bytes | bytearray],
    segments: Sequence[Segment],
    recipe: Recipe,
    *,
    workers: int | None = None,
) -> Generator[bytes | bytearray]:
    """Verify and decode the literals, for `bundler.archive.rebuild`.

    Args:
        stored: The bytes of each segment after the first.
        segments: All of the delta; signed.
        recipe: Read from the first one.
        workers: See `pieces.decode_pieces`.

    Raises:
        ContentMismatch: A segment has other bytes than its digest says.
        MalformedArchive: One is no proper piece.
    """
    return pieces.decode_pieces(
        stored, segments[1:], recipe.literal_size, recipe.encoding, workers=workers
    )
