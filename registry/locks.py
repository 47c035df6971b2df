"""Advisory whole-file locks (``flock``), which the kernel drops when their process dies."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path
from typing import Final

_POLL_SECONDS: Final = 0.02


def try_lock(fd: int) -> bool:
    """Take an exclusive lock if nobody else holds one; never waits."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def lock_within(fd: int, seconds: float) -> bool:
    """Take an exclusive lock, waiting up to ``seconds``; False when the time is over."""
    deadline = time.monotonic() + seconds
    while not try_lock(fd):
        if time.monotonic() >= deadline:
            return False
        time.sleep(_POLL_SECONDS)
    return True


def holder(fd: int) -> int | None:
    """Process id of who holds the lock, as far as ``/proc/locks`` tells.

    Asking the kernel leaves the lock file empty: nothing in it can be stale, and failed work
    leaves no trace in the store.
    """
    status = os.fstat(fd)
    wanted = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    try:
        lines = Path("/proc/locks").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return None
    for line in lines:
        fields = line.split()
        # 1: FLOCK  ADVISORY  WRITE 1234 fe:00:5678 0 EOF
        if fields[1:2] == ["FLOCK"] and wanted in fields and fields[4].isdecimal():
            return int(fields[4]) or None
    return None
