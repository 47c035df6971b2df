"""The same start for everyone: what lies in memory, what waits for the disk, how much is free.

Whoever comes second in a pair finds the caches that the first one left, and the first one finds
memory that the system has to provide anew; on a virtual machine that alone can cost seconds per
GiB. So before every timed run, whosever it is, the same is done.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

from tools.benchmarks.process import BenchError

_STEP: Final = 1 << 20
_MARGIN: Final = 1 << 30  # bytes that stay free on the disk whatever is measured
# Runs in a process of its own: its memory goes back to the system, ready for use, when it ends.
_TOUCH: Final = """
import mmap, sys
size = int(sys.argv[1])
memory = mmap.mmap(-1, size)
for offset in range(0, size, 4096):
    memory[offset] = 1
"""


def need_space(folder: Path, size: int) -> None:
    """See that ``size`` bytes fit with some to spare.

    Raises:
        BenchError: They do not.
    """
    free = shutil.disk_usage(folder).free
    if free < size + _MARGIN:
        msg = f"{folder} has {free / 1e9:.1f} GB free, {(size + _MARGIN) / 1e9:.1f} GB are needed"
        raise BenchError(msg)


def settle(folder: Path, files: tuple[Path, ...], *, cold: bool, size: int) -> None:
    """Bring disk and memory into the same state before a timed run.

    Args:
        folder: Its file system gets written out.
        files: What the timed run will read: in the page cache afterwards, or not.
        cold: Whether they shall not be.
        size: Bytes that the timed run will write; as much memory and half again is made ready.
    """
    _sync_file_system(folder)
    available = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    ready = min(size * 3 // 2, available // 2)
    if ready >= _STEP:
        subprocess.run([sys.executable, "-S", "-c", _TOUCH, str(ready)], check=True)
    for file in files:
        (_evict if cold else _load)(file)


def _sync_file_system(folder: Path) -> None:
    subprocess.run(["sync", "--file-system", str(folder)], check=True)


def _evict(path: Path) -> None:
    with path.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _load(path: Path) -> None:
    buffer = bytearray(_STEP)
    with path.open("rb", buffering=0) as file:
        while file.readinto(buffer):
            pass
