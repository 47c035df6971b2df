"""Reading, writing and hashing at once, in constant memory: what makes an import fast.

One thread reads and writes, one hashes (``hashlib`` and the system calls all release the GIL), and
the kernel already writes out what is behind. A small ring of buffers goes round between them.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import TYPE_CHECKING, Final, Protocol

from schemas import limits

if TYPE_CHECKING:
    from hashlib import _Hash

_RING: Final = 4  # buffers under way: one being filled, one written, two waiting for the hash
_WRITEBACK_STRIDE: Final = 32 * limits.MIB  # dirty bytes between two nudges to the kernel
# Bytes per write. The page cache takes memory in pieces as large as a write; of a virtual machine's
# large free pieces the host may have taken the memory back, and giving it anew doubled the time.
_WRITE: Final = 128 * limits.KIB


class Readable(Protocol):
    """Anything with a binary ``read``; ``readinto`` is used where it exists."""

    def read(self, n: int, /) -> bytes:
        """Return up to ``n`` bytes, and none only at the end."""


def hash_through(
    source: Readable,
    size: int,
    algorithm: str,
    *,
    sink_fd: int | None = None,
    progress: Callable[[int], None] | None = None,
    seed: _Hash | None = None,
    durable: Callable[[int], None] | None = None,
) -> tuple[int, str]:
    """Read ``size`` bytes, each once; what is hashed is what is written.

    Args:
        source: Read from where it stands.
        size: In bytes; fewer come only if the source ends.
        algorithm: For ``hashlib``.
        sink_fd: File descriptor to write to, from where it stands; None to hash only.
        progress: Called with the number of bytes of each step, in the calling thread.
        seed: A hash that has seen what comes before these bytes; taken over.
        durable: Called every ``limits.SEGMENT_BYTES`` with the number of bytes that a power loss
            cannot take any more; costs a sync each.

    Returns:
        How many bytes came, and their digest in lower-case hexadecimal.

    Raises:
        OSError: A read or write failed.
    """
    step = min(limits.IO_CHUNK, max(size, 1))
    seed = seed or hashlib.new(algorithm)
    hasher = _HashThread(seed, step) if size > step else _HashInline(seed, step)
    try:
        came = _pump(source, size, hasher, sink_fd, progress, durable)
    finally:
        hashed = hasher.finish()
    return came, hashed.hexdigest()


def read_some(source: Readable, view: memoryview) -> int:
    """Fill the front of a buffer by one read; returns how many bytes came, 0 at the end."""
    readinto: Callable[[memoryview], int | None] | None = getattr(source, "readinto", None)
    if readinto is not None:
        return readinto(view) or 0
    data = source.read(len(view))
    view[: len(data)] = data
    return len(data)


class _HashInline:
    """For what fits into one buffer: a thread would cost more than it saves."""

    def __init__(self, seed: _Hash, step: int) -> None:
        self._hash = seed
        self._view = memoryview(bytearray(step))

    def buffer(self) -> memoryview:
        return self._view

    def put(self, filled: memoryview) -> None:
        self._hash.update(filled)

    def finish(self) -> _Hash:
        return self._hash


class _HashThread:
    """Hashes filled buffers in order, then puts them back into the ring."""

    def __init__(self, seed: _Hash, step: int) -> None:
        self._hash = seed
        self._filled: SimpleQueue[memoryview | None] = SimpleQueue()
        self._free: SimpleQueue[memoryview] = SimpleQueue()
        for _ in range(_RING):
            self._free.put(memoryview(bytearray(step)))
        self._thread = threading.Thread(target=self._run, name="sealift-hash", daemon=True)
        self._thread.start()

    def buffer(self) -> memoryview:
        """The next buffer to fill; waits where the hash is behind."""
        return self._free.get()

    def put(self, filled: memoryview) -> None:
        """Hand over the filled front of the last buffer; it may still be read, not written to."""
        self._filled.put(filled)

    def finish(self) -> _Hash:
        """Wait until all is hashed and the thread is gone."""
        self._filled.put(None)
        self._thread.join()
        return self._hash

    def _run(self) -> None:
        while (view := self._filled.get()) is not None:
            self._hash.update(view)
            self._free.put(view)


def _pump(
    source: Readable,
    size: int,
    hasher: _HashInline | _HashThread,
    sink_fd: int | None,
    progress: Callable[[int], None] | None,
    durable: Callable[[int], None] | None,
) -> int:
    writeback = None if sink_fd is None or size <= _WRITEBACK_STRIDE else _Writeback(sink_fd)
    done = 0
    while done < size:
        view = hasher.buffer()[: size - done]
        count = _fill(source, view)
        hasher.put(view[:count])
        if sink_fd is not None:
            _write_all(sink_fd, view[:count])
        done += count
        if progress is not None and count:
            progress(count)
        if writeback is not None:
            writeback.written(count)
        if durable is not None and sink_fd is not None and done % limits.SEGMENT_BYTES == 0:
            os.fdatasync(sink_fd)
            durable(done)
        if count < len(view):
            break
    return done


class _Writeback:
    """Has the kernel write out in strides, so that the ``fsync`` at the end finds little left."""

    def __init__(self, fd: int) -> None:
        from registry import linuxio

        self._fd = fd
        self._begun = linuxio.position(fd)
        self._dirty = 0

    def written(self, count: int) -> None:
        from registry import linuxio

        self._dirty += count
        if self._begun is not None and self._dirty >= _WRITEBACK_STRIDE:
            linuxio.start_writeback(self._fd, self._begun, self._dirty)
            self._begun += self._dirty
            self._dirty = 0


def _fill(source: Readable, view: memoryview) -> int:
    done = 0
    while done < len(view):
        count = read_some(source, view[done:])
        if count == 0:
            break
        done += count
    return done


def _write_all(fd: int, view: memoryview) -> None:
    done = 0
    while done < len(view):
        done += os.write(fd, view[done : done + _WRITE])
