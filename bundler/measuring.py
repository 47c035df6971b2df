"""How fast this machine's disks are and how much they hold, found out with a few MiB."""

from __future__ import annotations

import hashlib
import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bundler.files import free_space, open_regular
from registry.pipeline import hash_through
from registry.verify import storage_errors
from schemas import limits

PROBE_BYTES: Final = 16 * limits.MIB  # read, and written, to see how fast that goes
_PROBES: Final = 4  # places of the source that are read


@dataclass(frozen=True, slots=True)
class Speed:
    """Bytes per second, measured with little; None where it could not be measured.

    Attributes:
        read: Read from the source, past the page cache where the kernel heeds that, and hashed.
        write: Written to the target, and synced.
        encode: Encoded, if anything will be.
        copy: Written, hashed on the way, and synced.
    """

    read: float | None = None
    write: float | None = None
    encode: float | None = None
    copy: float | None = None


def read_speed(path: Path) -> float | None:
    """How fast a file is read and hashed: a few pieces of it, none of them from memory."""
    done = 0
    hasher = hashlib.sha256()
    with open_regular(path) as file, storage_errors(f"cannot read {path}"):
        fd = file.fileno()
        size = os.fstat(fd).st_size
        piece = PROBE_BYTES // _PROBES
        offsets = {max(0, (size - piece) * number // max(1, _PROBES - 1)) for number in range(4)}
        for offset in offsets:
            os.posix_fadvise(fd, offset, piece, os.POSIX_FADV_DONTNEED)
        begun = time.perf_counter()
        for offset in sorted(offsets):
            data = os.pread(fd, piece, offset)
            hasher.update(data)
            done += len(data)
    spent = time.perf_counter() - begun
    return done / spent if done and spent > 0 else None


def copy_speed(folder: Path) -> float | None:
    """As :func:`write_speed`, of data that are hashed on their way."""
    return write_speed(folder, hashed=True)


def write_speed(folder: Path, *, hashed: bool = False) -> float | None:
    """How fast a disk takes data: a nameless file, synced; None where none can be written."""
    if (free_space(folder) or 0) < 2 * PROBE_BYTES:
        return None
    block = os.urandom(limits.MIB)
    try:
        with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
            begun = time.perf_counter()
            if hashed:
                source = _Repeated(block)
                hash_through(source, PROBE_BYTES, "sha256", sink_fd=file.fileno())
            else:
                for _ in range(PROBE_BYTES // len(block)):
                    file.write(block)
            os.fsync(file.fileno())
            return PROBE_BYTES / max(time.perf_counter() - begun, 1e-9)
    except OSError:
        return None  # the plan holds without it; what writes will say what is wrong


class _Repeated:
    """The same bytes over and over."""

    def __init__(self, block: bytes) -> None:
        self._block = block

    def read(self, n: int, /) -> bytes:
        return self._block[:n]


def existing_folder(path: Path) -> Path:
    """The folder, or the one in which it would be made."""
    path = path.absolute()
    while not path.is_dir():
        path = path.parent
    return path
