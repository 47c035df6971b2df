"""The publisher's chunk indexes: one file per blob that was ever bundled, in its workspace."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Final

from bundler.chunks.index import ChunkIndex, IndexBuilder
from bundler.files import new_file
from registry.digest import Digest
from registry.verify import storage_errors
from schemas.errors import StoreDamaged

_SUFFIX: Final = ".chunks"


class IndexShelf:
    """A folder of indexes, named by the digests of their blobs.

    Args:
        folder: Made when the first index comes.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def path(self, blob: Digest) -> Path:
        """Where the index of a blob lies, or would."""
        return self._folder / f"{blob.hex}{_SUFFIX}"

    def __contains__(self, blob: Digest) -> bool:
        return self.path(blob).is_file()

    def add(self, builder: IndexBuilder, blob: Digest, size: int) -> None:
        """Write an index; it appears whole, or not at all. One that is there is replaced.

        Args:
            builder: Has all chunks of the blob.
            blob: The SHA-256 digest of it.
            size: Of it, in bytes.

        Raises:
            StorageFull, StorageFailure: The disk says no.
        """
        with storage_errors(f"cannot make {self._folder}"):
            self._folder.mkdir(parents=True, exist_ok=True)
        with new_file(self.path(blob)) as file:
            builder.write(file, blob, size)

    def open(self, blobs: Iterable[Digest]) -> list[ChunkIndex]:
        """Open the indexes of those blobs that have one, in this order; the caller closes them.

        Raises:
            StoreDamaged: One is not as it was written.
            StorageFailure: One cannot be read.
        """
        opened: list[ChunkIndex] = []
        try:
            for blob in blobs:
                if blob in self:
                    opened.append(ChunkIndex(self.path(blob)))
                    self._check(opened[-1], blob)
        except BaseException:
            for index in opened:
                index.close()
            raise
        return opened

    def _check(self, index: ChunkIndex, blob: Digest) -> None:
        if index.blob != blob:
            raise StoreDamaged(
                f"the chunk index {self.path(blob).name} is another blob's",
                hint="Delete it; deltas against this blob then need the blob bundled once more",
            )
