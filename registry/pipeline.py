"""Reading, writing and hashing at once, in constant memory: what makes an import fast.

One thread reads and writes, one hashes (``hashlib`` and the system calls all release the GIL), and
the kernel already writes out what is behind. A small ring of buffers goes round between them. Who
wants the same bytes for more (chunks, say) gets them in a thread of its own.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
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
    also: Sequence[Callable[[memoryview], object]] = (),
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
        also: Each is called with all bytes in portions, in order, in one other thread, and may not
            keep them; what it raises is raised here.

    Returns:
        How many bytes came, and their digest in lower-case hexadecimal.

    Raises:
        OSError: A read or write failed.
    """
    step = min(limits.IO_CHUNK, max(size, 1))
    seed = seed or hashlib.new(algorithm)
    takers = (seed.update, *also)
    behind = _Threads(takers, step) if size > step else _Inline(takers, step)
    try:
        came = _pump(source, size, behind, sink_fd, progress, durable)
    finally:
        behind.finish()
    behind.check()
    return came, seed.hexdigest()


def read_some(source: Readable, view: memoryview) -> int:
    """Fill the front of a buffer by one read; returns how many bytes came, 0 at the end."""
    readinto: Callable[[memoryview], int | None] | None = getattr(source, "readinto", None)
    if readinto is not None:
        return readinto(view) or 0
    data = source.read(len(view))
    view[: len(data)] = data
    return len(data)


class _Inline:
    """For what fits into one buffer: threads would cost more than they save."""

    def __init__(self, takers: Sequence[Callable[[memoryview], object]], step: int) -> None:
        self._takers = takers
        self._view = memoryview(bytearray(step))

    def buffer(self) -> memoryview:
        return self._view

    def put(self, filled: memoryview) -> None:
        for take in self._takers:
            take(filled)

    def finish(self) -> None:
        """Nothing is under way."""

    def check(self) -> None:
        """Nothing has failed unseen."""


class _Threads:
    """Hands filled buffers to takers, each in its own thread, then puts them back into the ring."""

    def __init__(self, takers: Sequence[Callable[[memoryview], object]], step: int) -> None:
        self._step = step
        self._free: SimpleQueue[memoryview] = SimpleQueue()
        for _ in range(_RING):
            self._free.put(_take_spare(step))
        self._lock = threading.Lock()
        self._failed: BaseException | None = None
        self._queues: list[SimpleQueue[_Filled | None]] = [SimpleQueue() for _ in takers]
        self._threads = [
            threading.Thread(target=self._run, args=pair, name="sealift-hash", daemon=True)
            for pair in zip(takers, self._queues, strict=True)
        ]
        for thread in self._threads:
            thread.start()

    def buffer(self) -> memoryview:
        """The next buffer to fill; waits where a taker is behind."""
        self.check()
        self._buffer = self._free.get()
        return self._buffer

    def put(self, filled: memoryview) -> None:
        """Hand over the filled front of the last buffer; it may still be read, not written to."""
        item = _Filled(self._buffer, filled, len(self._queues))
        for queue in self._queues:
            queue.put(item)

    def finish(self) -> None:
        """Wait until all is taken and the threads are gone."""
        for queue in self._queues:
            queue.put(None)
        for thread in self._threads:
            thread.join()
        while not self._free.empty():
            _give_spare(self._free.get(), self._step)

    def check(self) -> None:
        """Raise what a taker raised."""
        if self._failed is not None:
            raise self._failed

    def _run(
        self, take: Callable[[memoryview], object], queue: SimpleQueue[_Filled | None]
    ) -> None:
        while (item := queue.get()) is not None:
            if self._failed is None:
                try:
                    take(item.filled)
                except BaseException as error:  # noqa: BLE001 - raised again by `check`
                    self._failed = error
            with self._lock:
                item.waiting -= 1
                done = item.waiting == 0
            if done:
                self._free.put(item.buffer)


@dataclass(slots=True)
class _Filled:
    """A buffer under way.

    Attributes:
        buffer: All of it.
        filled: Its front, that counts.
        waiting: How many takers have yet to be done with it.
    """

    buffer: memoryview
    filled: memoryview
    waiting: int


# Rings are used again: a bundle in volumes has many short segments, and new pages from the kernel
# cost as much as hashing what they are filled with.
_spare: deque[memoryview] = deque(maxlen=2 * _RING)


def _take_spare(step: int) -> memoryview:
    if step == limits.IO_CHUNK:
        with suppress(IndexError):
            return _spare.pop()
    return memoryview(bytearray(step))


def _give_spare(buffer: memoryview, step: int) -> None:
    if step == limits.IO_CHUNK:
        _spare.append(buffer)


def _pump(
    source: Readable,
    size: int,
    behind: _Inline | _Threads,
    sink_fd: int | None,
    progress: Callable[[int], None] | None,
    durable: Callable[[int], None] | None,
) -> int:
    writeback = None if sink_fd is None or size <= _WRITEBACK_STRIDE else _Writeback(sink_fd)
    done = 0
    while done < size:
        view = behind.buffer()[: size - done]
        count = _fill(source, view)
        behind.put(view[:count])
        if sink_fd is not None:
            write_all(sink_fd, view[:count])
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


def write_all(fd: int, view: memoryview) -> None:
    """Write all of it from where the descriptor stands."""
    done = 0
    while done < len(view):
        done += os.write(fd, view[done : done + _WRITE])
