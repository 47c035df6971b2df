"""The same start for everyone: what lies in memory, what waits for the disk, how much is free.

Before every timed run, whosever it is, the same is done. On a virtual machine that includes a
pause: memory that the last run freed goes back to the host some seconds later, and has to be asked
for anew then, which costs seconds per GiB. Without the pause the first run would pay for the next.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Final

from tools.benchmarks.process import BenchError

_STEP: Final = 1 << 20
_MARGIN: Final = 1 << 30  # bytes that stay free on the disk whatever is measured
_LARGE: Final = 64 << 20  # bytes; memory for less costs nobody anything
# Linux mm/page_reporting.c tells the host of free memory 2 s after it became free, in several goes.
_PAUSE_SECONDS: Final = 5


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
        size: Bytes that the timed run will write.
    """
    _sync_file_system(folder)
    for file in files:
        (_evict if cold else _load)(file)
    if size >= _LARGE and _virtual():
        time.sleep(_PAUSE_SECONDS)


def _virtual() -> bool:
    return " hypervisor" in Path("/proc/cpuinfo").read_text()


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
