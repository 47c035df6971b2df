"""Linux calls that the standard library lacks: ``fallocate``, ``sync_file_range``, ``syncfs``.

``os.posix_fallocate`` will not do: where a file system cannot preallocate, glibc emulates it by
writing into every block, which doubles the work. All calls here are hints on such systems.
"""

from __future__ import annotations

import ctypes
import errno
import os
import re
from functools import cache
from typing import Final

_SYNC_FILE_RANGE_WRITE: Final = 2  # linux/fs.h: start writing dirty pages out, do not wait
_KEEP_SIZE_PUNCH_HOLE: Final = 0x01 | 0x02  # linux/falloc.h
# Of these (linux/magic.h), syncfs(2) writes out data and names and flushes the disk's cache. FUSE
# and network file systems may not pass it on.
_WHOLLY_SYNCED: Final = frozenset(
    {
        0xEF53,  # ext2, ext3, ext4
        0x58465342,  # XFS
        0x9123683E,  # Btrfs
        0xF2F52010,  # F2FS
    }
)
_TELLS_ERRORS: Final = (5, 8)  # since this Linux, syncfs(2) says whether writing out failed
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


def sync_file_system(fd: int) -> bool:
    """Write out everything of a file system at once.

    Args:
        fd: Of any file in it, opened before the first write that is to be heard of if it failed.

    Returns:
        Whether all of it is on the disk for good. If not, each file must be synced by itself, which
        tells whose fault it is, and has little left to do.
    """
    call = getattr(_libc(), "syncfs", None)
    return call is not None and call(fd) == 0 and _tells_errors() and _type_of(fd) in _WHOLLY_SYNCED


def _type_of(fd: int) -> int:
    """The file system's magic number, see statfs(2); 0 if it cannot be told."""
    room = ctypes.create_string_buffer(512)  # struct statfs has some 120 bytes
    known = _libc().fstatfs(fd, room) == 0
    return ctypes.c_ulong.from_buffer(room).value & 0xFFFFFFFF if known else 0


@cache
def _tells_errors() -> bool:
    numbers = re.match(r"(\d+)\.(\d+)", os.uname().release)
    return numbers is not None and (int(numbers[1]), int(numbers[2])) >= _TELLS_ERRORS


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
