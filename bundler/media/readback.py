"""Reading what the medium holds, not what the page cache remembers."""

from __future__ import annotations

import errno
import mmap
import os
import stat
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from types import TracebackType
from typing import Final, Protocol, Self

from registry.verify import storage_errors
from schemas import limits
from schemas.errors import StorageFailure, UsageError

SECTOR: Final = 4096  # what direct reads align to, and the smallest unit that is told as bad
WINDOW: Final = 4 * limits.MIB  # one read
_MIDDLE: Final = 64 * limits.KIB
_GIVE_UP: Final = 64  # unreadable sectors in a row; each may cost the kernel seconds of retries
_UNREADABLE: Final = frozenset({errno.EIO, errno.ENODATA, errno.EILSEQ, errno.EREMOTEIO})
_GONE: Final = frozenset({errno.ENODEV, errno.ENXIO, errno.ENOMEDIUM, errno.ESHUTDOWN})
_NO_DIRECT: Final = frozenset({errno.EINVAL, errno.EOPNOTSUPP, errno.ENOTSUP})


class Method(StrEnum):
    """How the page cache was kept out."""

    DIRECT = "direct"  # O_DIRECT: the kernel has no say
    DROPPED = "dropped"  # POSIX_FADV_DONTNEED before each read: the kernel may have kept pages


class ReadBack(Protocol):
    """A file on a medium."""

    @property
    def method(self) -> Method:
        """How it is read."""

    @property
    def size(self) -> int:
        """In bytes."""

    def read_into(self, view: memoryview, offset: int) -> int:
        """Read from an offset that is a multiple of 4 KiB, into as much aligned memory.

        Returns:
            How many bytes there were; fewer than asked for only at the end of the file.

        Raises:
            OSError: As the medium says.
        """

    def close(self) -> None:
        """Let go of it."""


class FileReadBack:
    """A regular file; what waits to be written is written first.

    Args:
        path: The file.

    Raises:
        StorageFailure: It cannot be opened, or the system cannot write it out.
        UsageError: It is no regular file.
    """

    def __init__(self, path: Path) -> None:
        with storage_errors(f"cannot read back {path}"):
            self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
            try:
                self._size = _regular_size(self._fd, path)
                os.fsync(self._fd)
                self._direct = self._open_direct(path)
            except BaseException:
                os.close(self._fd)
                raise

    @staticmethod
    def _open_direct(path: Path) -> int | None:
        flag: int | None = getattr(os, "O_DIRECT", None)
        if flag is None:
            return None
        try:
            return os.open(path, os.O_RDONLY | os.O_CLOEXEC | flag)
        except OSError as error:
            if error.errno in _NO_DIRECT:
                return None
            raise

    @property
    def method(self) -> Method:
        """How it is read; may turn from direct to dropped at the first read."""
        return Method.DROPPED if self._direct is None else Method.DIRECT

    @property
    def size(self) -> int:
        """In bytes."""
        return self._size

    def close(self) -> None:
        """Close it."""
        os.close(self._fd)
        if self._direct is not None:
            os.close(self._direct)
            self._direct = None

    def read_into(self, view: memoryview, offset: int) -> int:
        """See :class:`ReadBack`."""
        if self._direct is not None:
            try:
                return self._fill(self._direct, view, offset)
            except OSError as error:
                if error.errno not in _NO_DIRECT:
                    raise
                os.close(self._direct)
                self._direct = None
        os.posix_fadvise(self._fd, offset, len(view), os.POSIX_FADV_DONTNEED)
        return self._fill(self._fd, view, offset)

    @staticmethod
    def _fill(fd: int, view: memoryview, offset: int) -> int:
        done = 0
        # A direct read that ends off a sector's end was the last one.
        while done < len(view) and done % SECTOR == 0:
            count = os.preadv(fd, [view[done:]], offset + done)
            if not count:
                break
            done += count
        return done


def _regular_size(fd: int, path: Path) -> int:
    found = os.fstat(fd)
    if not stat.S_ISREG(found.st_mode):
        raise UsageError(f"{path} is not a regular file")
    return found.st_size


def read_back(path: Path) -> ReadBack:
    """Open a file for :func:`~bundler.media.check.check_media`."""
    return FileReadBack(path)


@dataclass(frozen=True, slots=True)
class Part:
    """A run of what was read.

    Attributes:
        offset: In the file.
        length: In bytes.
        data: The bytes, valid until the next part is asked for; None where the medium cannot be
            read.
    """

    offset: int
    length: int
    data: memoryview | None


class Windows:
    """Reads a file front to back in large aligned windows, the next one ahead of time.

    Args:
        source: Stays the caller's to close, after this.
    """

    def __init__(self, source: ReadBack) -> None:
        self._source = source
        self._buffers = [memoryview(mmap.mmap(-1, WINDOW)) for _ in range(2)]
        self._pool = ThreadPoolExecutor(1)
        self._current: tuple[int, list[Part]] | None = None
        self._ahead: tuple[int, Future[list[Part]]] | None = None

    def close(self) -> None:
        """Wait for a read under way."""
        self._pool.shutdown()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def parts(self, offset: int, length: int) -> Iterator[Part]:
        """The bytes of a range; it ends early where the file does.

        Raises:
            StorageFailure: The medium is gone, or a read fails otherwise.
        """
        end = min(offset + length, self._source.size)
        while offset < end:
            start = offset - offset % WINDOW
            for part in self._window(start):
                first, last = max(offset, part.offset), min(end, part.offset + part.length)
                if first >= last:
                    continue
                data = part.data
                if data is not None:
                    data = data[first - part.offset : last - part.offset]
                yield Part(first, last - first, data)
            offset = start + WINDOW

    def _window(self, start: int) -> list[Part]:
        if self._current is not None and self._current[0] == start:
            return self._current[1]
        if self._ahead is None or self._ahead[0] != start:
            self._begin(start)
        assert self._ahead is not None  # noqa: S101 - begun above
        parts = self._ahead[1].result()
        self._current, self._ahead = (start, parts), None
        if start + WINDOW < self._source.size:
            self._begin(start + WINDOW)
        return parts

    def _begin(self, start: int) -> None:
        if self._ahead is not None:
            self._ahead[1].result()
        buffer = self._buffers[start // WINDOW % 2]
        if self._current is not None and self._current[0] // WINDOW % 2 == start // WINDOW % 2:
            self._current = None
        self._ahead = (start, self._pool.submit(self._read, buffer, start))

    def _read(self, buffer: memoryview, start: int) -> list[Part]:
        wanted = min(WINDOW, self._source.size - start)
        return list(_merged(self._probe(buffer, start, wanted, WINDOW, [0])))

    def _probe(
        self, buffer: memoryview, start: int, wanted: int, step: int, failures: list[int]
    ) -> Iterator[Part]:
        """Read in steps; what cannot be read in one, in smaller ones."""
        for at in range(0, wanted, step):
            length = min(step, wanted - at)
            view = buffer[at : at + _aligned(length)]
            came = None
            try:
                if failures[0] < _GIVE_UP:
                    came = self._source.read_into(view, start + at)
            except OSError as error:
                if error.errno not in _UNREADABLE:
                    raise self._failure(error) from error
            if came is not None:
                failures[0] = 0
                if came:
                    yield Part(start + at, min(came, length), view[: min(came, length)])
            elif step == SECTOR or failures[0] >= _GIVE_UP:
                failures[0] += 1
                yield Part(start + at, length, None)
            else:
                smaller = _MIDDLE if step > _MIDDLE else SECTOR
                yield from self._probe(view, start + at, length, smaller, failures)

    @staticmethod
    def _failure(error: OSError) -> StorageFailure:
        gone = error.errno in _GONE
        return StorageFailure(
            "the medium is gone" if gone else "cannot read the medium back",
            why=error.strerror or type(error).__name__,
            hint="Put it back and run it again" if gone else "Check how it is mounted",
        )


def _aligned(length: int) -> int:
    return -(-length // SECTOR) * SECTOR


def _merged(parts: Iterator[Part]) -> Iterator[Part]:
    """Neighbouring unreadable sectors become one part."""
    last: Part | None = None
    for part in parts:
        if last is not None and last.data is None and part.data is None:
            last = Part(last.offset, last.length + part.length, None)
            continue
        if last is not None:
            yield last
        last = part
    if last is not None:
        yield last
