"""The few kernel interfaces that Python lacks, through the C library."""

from __future__ import annotations

import ctypes
import errno
import os
from pathlib import Path
from typing import Final

from schemas.errors import SandboxUnavailable

# linux/prctl.h
PR_SET_DUMPABLE: Final = 4
PR_SET_NO_NEW_PRIVS: Final = 38
PR_GET_NO_NEW_PRIVS: Final = 39

# linux/capability.h: version 3 has two 32-bit words per set.
_CAPABILITY_VERSION_3: Final = 0x20080522

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


def syscall(number: int, *arguments: object) -> int:
    """Make a system call; integers are passed as ``long``, ctypes values as they are.

    Raises:
        OSError: The kernel said no; ``errno`` is set.
    """
    args = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    result = int(_libc.syscall(ctypes.c_long(number), *args))
    if result == -1:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def prctl(option: int, value: int = 0) -> int:
    """``prctl(option, value, 0, 0, 0)``.

    Raises:
        OSError: The kernel said no.
    """
    zero = ctypes.c_ulong(0)
    result = int(_libc.prctl(ctypes.c_int(option), ctypes.c_ulong(value), zero, zero, zero))
    if result == -1:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def unshare(flags: int) -> None:
    """``unshare(flags)``.

    Raises:
        OSError: The kernel said no.
    """
    if _libc.unshare(ctypes.c_int(flags)) == -1:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def drop_capabilities(capset: int) -> None:
    """Empty the effective, permitted and inheritable sets of the calling thread.

    Args:
        capset: The number of that system call here.

    Raises:
        OSError: The kernel said no.
    """
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    sets = (ctypes.c_uint32 * 6)()
    syscall(capset, ctypes.byref(header), ctypes.byref(sets))


def thread_count() -> int:
    """Threads of this process.

    Raises:
        SandboxUnavailable: ``/proc`` is not mounted or not ours.
    """
    try:
        return len(list(Path("/proc/self/task").iterdir()))
    except OSError as error:
        raise no_proc(error) from error


def no_proc(error: OSError) -> SandboxUnavailable:
    """The error for a host whose ``/proc`` cannot be read."""
    return SandboxUnavailable(
        "threads and descriptors of this process cannot be seen",
        why=f"/proc: {error.strerror}",
        hint="Mount /proc before starting the service.",
    )


def errno_name(error: OSError) -> str:
    """``EPERM`` and the like; the number where it has no name."""
    return errno.errorcode.get(error.errno or 0, str(error.errno))
