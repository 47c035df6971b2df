"""Makes a recipe for a new blob from the chunk indexes of blobs that the far side has."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from bundler.archive.recipe import Recipe, RecipeBuilder
from bundler.chunks.chunker import Chunk
from bundler.chunks.index import ChunkIndex
from registry.digest import Digest
from schemas import limits
from schemas.errors import UnsupportedRequest

LEAST_COPIED: Final = 0.1
"""Of the blob's size: with less to copy, the blob travels whole, and needs nothing over there."""

_TINY: Final = 64  # bytes; shorter chunks elsewhere are padding: an operation would cost as much


@dataclass(frozen=True, slots=True)
class Delta:
    """A recipe, and the blobs that it builds on.

    Attributes:
        recipe: Its encoding is not chosen yet.
        bases: In the order of the recipe's numbers.
    """

    recipe: Recipe
    bases: tuple[Digest, ...]


class RecipeMaker:
    """Takes a new blob's chunks as they come; see `bundler.chunks.chunker.Chunker.giving`.

    Args:
        indexes: Of blobs that the far side has, the likeliest first; the new blob itself may not be
            among them.
    """

    def __init__(self, indexes: Sequence[ChunkIndex]) -> None:
        self._indexes = indexes
        self._builder = RecipeBuilder()
        self._bases: list[ChunkIndex] = []
        self._numbers: dict[Digest, int] = {}
        self._last: ChunkIndex | None = None
        self._end = 0  # of the last copy, in that base
        self._size = 0
        self._copied = 0
        self._hopeless = not indexes

    def take(self, chunk: Chunk) -> None:
        """Take the next chunk."""
        self._size += chunk.length
        if self._hopeless:
            return
        try:
            self._add(chunk)
        except UnsupportedRequest:  # too many operations
            self._hopeless = True

    def finish(self, blob: Digest) -> Delta | None:
        """Make the recipe.

        Args:
            blob: Digest of what the chunks were cut from.

        Returns:
            None where a delta is not worth it: too little to copy, or too finely mixed.
        """
        copied_enough = self._copied >= max(self._size * LEAST_COPIED, 1)
        if self._hopeless or not copied_enough or blob in self._numbers:
            return None
        bases = tuple(index.blob for index in self._bases)
        return Delta(self._builder.build(len(bases)), bases)

    def _add(self, chunk: Chunk) -> None:
        found = self._find(chunk)
        if found is None:
            self._builder.literal(chunk.length)
            return
        index, offset = found
        number = self._numbers.setdefault(index.blob, len(self._bases))
        if number == len(self._bases):
            self._bases.append(index)
        self._builder.copy(number, offset, chunk.length)
        self._copied += chunk.length
        self._last = index
        self._end = offset + chunk.length

    def _find(self, chunk: Chunk) -> tuple[ChunkIndex, int] | None:
        """Where a chunk is, best of all right behind the last one."""
        if self._last is not None:
            match = self._last.find(chunk.digest, near=self._end)
            if match is not None and (match.offset == self._end or chunk.length >= _TINY):
                return self._last, match.offset
        if chunk.length < _TINY:
            return None
        for index in self._indexes:
            if index is self._last or not self._may_use(index):
                continue
            match = index.find(chunk.digest, near=chunk.offset)
            if match is not None:
                return index, match.offset
        return None

    def _may_use(self, index: ChunkIndex) -> bool:
        return index.blob in self._numbers or len(self._bases) < limits.RECIPE_BASES
