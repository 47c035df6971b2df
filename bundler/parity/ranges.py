"""Byte ranges of files: a whole volume, or the data of a member inside one."""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from registry.verify import Writable, storage_errors
from schemas.errors import MalformedDocument, UsageError

# What a worn or pulled medium answers; such a block is lost, the next one may be fine.
_UNREADABLE: Final = frozenset({errno.EIO, errno.ENODATA, errno.EILSEQ, errno.EREMOTEIO})
_ABSENT: Final = frozenset({errno.ENOENT, errno.ENOTDIR, *_UNREADABLE})


@dataclass(frozen=True, slots=True)
class FileRange:
    """Where a file's bytes lie.

    Attributes:
        path: Of the file that holds them.
        length: How many; may be more than are there, the rest counts as lost then.
        offset: Of the first one.
    """

    path: Path
    length: int
    offset: int = 0

    def __post_init__(self) -> None:
        if self.length < 0 or self.offset < 0:
            raise MalformedDocument(f"{self.path.name} has a range that cannot be")

    @property
    def name(self) -> str:
        """For messages."""
        return self.path.name


class OpenRange:
    """A range, open for reading at any position; close it.

    Args:
        extent: Which.
        writable: Open it for writing in place too.

    Raises:
        StorageFailure: It cannot be opened.
        UsageError: It is no regular file.
    """

    def __init__(self, extent: FileRange, *, writable: bool = False) -> None:
        self.extent = extent
        flags = (os.O_RDWR if writable else os.O_RDONLY) | os.O_CLOEXEC | os.O_NONBLOCK
        with storage_errors(f"cannot open {extent.path}"):
            self._fd = os.open(extent.path, flags)
            # What a stick calls a volume may be a pipe or a device.
            if not stat.S_ISREG(os.fstat(self._fd).st_mode):
                self.close()
                raise UsageError(f"{extent.path} is not a regular file")

    def close(self) -> None:
        """Give the descriptor back; again is fine."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def read_into(self, view: memoryview, position: int) -> int:
        """Fill memory from a position of the range.

        Returns:
            How many bytes there were; fewer where the file or the range ends, or the medium cannot
            be read.

        Raises:
            StorageFailure: Any other failure.
        """
        wanted = min(len(view), max(self.extent.length - position, 0))
        done = 0
        try:
            while done < wanted:
                count = os.preadv(
                    self._fd, [view[done:wanted]], self.extent.offset + position + done
                )
                if not count:
                    break
                done += count
        except OSError as error:
            if error.errno not in _UNREADABLE:
                with storage_errors(f"cannot read {self.extent.path}"):
                    raise
        return done

    def write(self, data: bytes | memoryview, position: int) -> None:
        """Overwrite.

        Raises:
            StorageFull, StorageFailure: As the disk says.
        """
        view = memoryview(data)
        with storage_errors(f"cannot write {self.extent.path}"):
            while view:
                count = os.pwrite(self._fd, view, self.extent.offset + position)
                view, position = view[count:], position + count

    def sync(self) -> None:
        """Make what was written durable.

        Raises:
            StorageFailure: As the disk says.
        """
        with storage_errors(f"cannot write {self.extent.path}"):
            os.fsync(self._fd)


def open_range(extent: FileRange | None) -> OpenRange | None:
    """A range for reading; None where its file is not there or the medium does not show it.

    Raises:
        StorageFailure: Any other failure.
        UsageError: It is no regular file.
    """
    if extent is None:
        return None
    try:
        extent.path.stat()
    except OSError as error:
        if error.errno in _ABSENT:
            return None
    return OpenRange(extent)


def write_all(sink: Writable, data: bytes | memoryview) -> None:
    """Write every byte.

    Raises:
        StorageFull, StorageFailure: As the disk says.
    """
    view = memoryview(data)
    with storage_errors("cannot write a volume"):
        while view:
            count = sink.write(view)
            view = view[len(view) if count is None else count :]


def read_block(file: OpenRange | None, view: memoryview, position: int, length: int) -> bool:
    """Fill ``view`` with ``length`` bytes of a file and zeros after them.

    Returns:
        Whether all of them could be read; a file that is not there gives none.
    """
    came = file.read_into(view[:length], position) if file is not None and length else 0
    if came < len(view):
        view[came:] = bytes(len(view) - came)
    return came == length
