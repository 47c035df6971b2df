"""A damaged or missing file as if it were whole, for whoever reads it."""

from __future__ import annotations

import io
from typing import Any

from bundler.parity.repair import Repairer


class RestoredFile(io.RawIOBase):
    """A readable, seekable file made by a :class:`~bundler.parity.repair.Repairer`.

    Every byte is verified or made again before it is handed out; nothing is written anywhere, so a
    bundle with damaged volumes is imported without room for repaired ones. Wrap it in
    :class:`io.BufferedReader` for many small reads.

    Args:
        repairer: Stays the caller's to close.
        file: Number of the file.
    """

    def __init__(self, repairer: Repairer, file: int) -> None:
        self._repairer = repairer
        self._file = file
        self._size = repairer.table.length(file)
        self._position = 0
        self._block: tuple[int, bytes] = (-1, b"")

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def tell(self) -> int:
        """The position in bytes."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """As in :class:`io.IOBase`.

        Raises:
            ValueError: A position before the start.
        """
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        if base + offset < 0:
            raise ValueError("a position before the start")
        self._position = base + offset
        return self._position

    def readinto(self, buffer: Any) -> int:
        """Read up to the next block's end.

        Raises:
            ContentMismatch: More is damaged here than the parity can repair.
            StorageFailure: A failed read other than of a bad spot.
        """
        view = memoryview(buffer).cast("B")
        if self._position >= self._size or not view:
            return 0
        stripe, start = divmod(self._position, self._repairer.table.block)
        if self._block[0] != stripe:
            self._block = (stripe, self._repairer.block(self._file, stripe))
        part = memoryview(self._block[1])[start : start + len(view)]
        view[: len(part)] = part
        self._position += len(part)
        return len(part)
