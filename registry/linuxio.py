"""Linux calls that the standard library lacks: ``fallocate``, ``sync_file_range``, ``syncfs``.

``os.posix_fallocate`` will not do: where a file system cannot preallocate, glibc emulates it by
writing into every block, which doubles the work. All calls here are hints on such systems.
"""

from __future__ import annotations

import ctypes
import errno
import os
from functools import cache
from pathlib import Path
from typing import Final

_SYNC_FILE_RANGE_WRITE: Final = 2  # linux/fs.h: start writing dirty pages out, do not wait
_KEEP_SIZE_PUNCH_HOLE: Final = 0x01 | 0x02  # linux/falloc.h
_NO_PREALLOCATION: Final = frozenset(
    {errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.ENODEV, errno.ESPIPE}
)


def preallocate(fd: int, size: int) -> None:
    """Reserve room for ``size`` bytes from where the descriptor stands.

    So a full disk is told before the first byte. Does nothing where the file system cannot do it,
    or on a pipe; there the write itself will fail.

    Raises:
        OSError: ENOSPC, EDQUOT or EFBIG: the file will not fit.
    """
    call = getattr(_libc(), "fallocate", None)
    start = position(fd)
    if call is None or start is None or size == 0:
        return
    ctypes.set_errno(0)
    if call(fd, 0, ctypes.c_int64(start), ctypes.c_int64(size)) != 0:
        code = ctypes.get_errno()
        if code not in _NO_PREALLOCATION:
            raise OSError(code, os.strerror(code))


def give_back(fd: int, offset: int, length: int) -> None:
    """Free the room of a range that nobody will read again; it reads as zeros from now on.

    Only a hint: where the file system cannot do it, the room stays taken.
    """
    call = getattr(_libc(), "fallocate", None)
    if call is not None and length > 0:
        call(fd, _KEEP_SIZE_PUNCH_HOLE, ctypes.c_int64(offset), ctypes.c_int64(length))


def start_writeback(fd: int, offset: int, length: int) -> None:
    """Have the kernel begin to write a range out; the later ``fsync`` then finds little left.

    Only a hint, so failures are nobody's business here: ``fsync`` will tell of a broken disk.
    """
    call = getattr(_libc(), "sync_file_range", None)
    if call is not None:
        call(fd, ctypes.c_int64(offset), ctypes.c_int64(length), _SYNC_FILE_RANGE_WRITE)


def sync_file_system(folder: Path) -> None:
    """Write out everything of a folder's file system at once.

    Only a hint, made before many files are synced one by one: these syncs tell of a broken disk,
    and each has little left to do.
    """
    call = getattr(_libc(), "syncfs", None)
    if call is not None:
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            call(fd)
        finally:
            os.close(fd)


def position(fd: int) -> int | None:
    """Where the descriptor stands; None for pipes and sockets."""
    try:
        return os.lseek(fd, 0, os.SEEK_CUR)
    except OSError as error:
        if error.errno != errno.ESPIPE:
            raise
        return None


@cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)
