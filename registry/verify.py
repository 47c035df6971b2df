"""The one verifying reader and writer, used for every byte from anywhere.

Short, long or wrong content raises one :class:`~schemas.errors.ContentMismatch`. The last byte of
a blob is never handed out before the digest of the whole was compared.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from queue import SimpleQueue
from typing import TYPE_CHECKING, Final, Protocol

from registry.digest import Digest
from schemas import limits
from schemas.errors import ContentMismatch, StorageFailure, StorageFull

if TYPE_CHECKING:
    from hashlib import _Hash

_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_RING: Final = 4  # buffers under way: one being filled, one written, two waiting for the hash
_WRITEBACK_STRIDE: Final = 32 * limits.MIB  # dirty bytes between two nudges to the kernel


class Readable(Protocol):
    """Anything with a binary ``read``; ``readinto`` is used where it exists."""

    def read(self, n: int, /) -> bytes:
        """Return up to ``n`` bytes, and none only at the end."""


class Writable(Protocol):
    """Anything with a binary ``write``."""

    def write(self, data: bytes, /) -> int | None:
        """Take the bytes; return how many were taken, or None for all."""


@contextmanager
def storage_errors(what: str) -> Iterator[None]:
    """Translate an ``OSError`` of the local file system.

    Args:
        what: What was being done, as in ``"cannot write blob 0123"``.

    Raises:
        StorageFull: No space, quota or file-size limit left.
        StorageFailure: Any other failed read, write or permission.
    """
    try:
        yield
    except OSError as error:
        why = error.strerror or type(error).__name__
        if error.errno in _FULL:
            raise StorageFull(what, why=why, hint="Free some space and run it again") from error
        raise StorageFailure(what, why=why) from error


class VerifyingReader:
    """A source of which every byte is hashed, and whose end is checked.

    Args:
        source: Read from where it stands.
        digest: What the bytes must hash to.
        size: How many bytes there must be.
        at_end: Whether the source must end there too; False for a member inside a stream.
    """

    def __init__(self, source: Readable, digest: Digest, size: int, *, at_end: bool = True) -> None:
        self._source = source
        self._digest = digest
        self._size = size
        self._left = size
        self._at_end = at_end
        self._hash = digest.hasher()
        self._verified = False

    @property
    def verified(self) -> bool:
        """Whether all of it was read and is what it claims to be."""
        return self._verified

    def read(self, n: int = -1) -> bytes:
        """Read up to ``n`` bytes; the rest, at most the expected size, if negative.

        Returns:
            Nothing only after all was read and found right.

        Raises:
            ContentMismatch: Before the last bytes of wrong content would be returned.
        """
        if n < 0:
            parts = []
            while data := self.read(limits.IO_CHUNK):
                parts.append(data)
            return b"".join(parts)
        if n == 0:
            return b""
        wanted = min(n, self._left)
        data = self._source.read(wanted) if wanted else b""
        self._account(data, wanted)
        return data

    def readinto(self, buffer: bytearray | memoryview) -> int:
        """As :meth:`read`, into memory of the caller's; returns the number of bytes."""
        view = memoryview(buffer).cast("B")
        if not len(view):
            return 0
        wanted = min(len(view), self._left)
        count = _read_some(self._source, view[:wanted]) if wanted else 0
        self._account(view[:count], wanted)
        return count

    def _account(self, data: bytes | memoryview, wanted: int) -> None:
        if wanted and not len(data):
            raise short_content(self._digest, self._size, self._size - self._left)
        self._hash.update(data)
        self._left -= len(data)
        if self._left == 0 and not self._verified:
            _compare(self._hash, self._digest)
            if self._at_end:
                _expect_end(self._source, self._digest, self._size)
            self._verified = True


class DigestWriter:
    """Hashes what passes through on its way to a sink.

    Args:
        sink: Where the bytes go; None to hash only.
        algorithm: As in :class:`~registry.digest.Digest`.
    """

    def __init__(self, sink: Writable | None = None, *, algorithm: str = "sha256") -> None:
        import hashlib

        self._sink = sink
        self._algorithm = algorithm
        self._hash = hashlib.new(algorithm)
        self.size = 0

    def write(self, data: bytes | bytearray | memoryview) -> int:
        """Hash and pass on all of it; returns its length in bytes.

        Raises:
            StorageFull: The sink has no room left.
            StorageFailure: The sink failed otherwise.
        """
        view = memoryview(data).cast("B")
        if self._sink is not None:
            _write_to(self._sink, view)
        self._hash.update(view)
        self.size += len(view)
        return len(view)

    @property
    def digest(self) -> Digest:
        """Of all bytes so far."""
        return Digest(self._algorithm, self._hash.hexdigest())


def read_exact_verified(
    source: Readable, digest: Digest, size: int, *, at_end: bool = False
) -> bytes:
    """Read a small blob into memory; the caller has bounded ``size``.

    Args:
        source: Read from where it stands.
        digest: What the bytes must hash to.
        size: In bytes.
        at_end: Whether the source must end after them.

    Raises:
        ContentMismatch: Short, wrong, or (``at_end``) long.
    """
    return VerifyingReader(source, digest, size, at_end=at_end).read()


def copy_verified(
    source: Readable,
    sink_fd: int,
    digest: Digest,
    size: int,
    *,
    progress: Callable[[int], None] | None = None,
    at_end: bool = False,
) -> None:
    """Copy exactly ``size`` bytes into a file, hashing them on the way; the hot path of an import.

    Each byte is read once: what was hashed is what was written. One thread reads and writes, one
    hashes, over a small ring of buffers, while the kernel already writes out what is behind. Does
    not ``fsync``.

    Args:
        source: Read from where it stands; may go on after the blob, as a tar does.
        sink_fd: File descriptor, written from where it stands.
        digest: What the bytes must hash to.
        size: In bytes.
        progress: Called with the number of bytes of each step, in the calling thread.
        at_end: Whether the source must end after them.

    Raises:
        ContentMismatch: Short, wrong, or (``at_end``) long. What was written must be discarded.
        StorageFull: No room for ``size`` bytes; told before the first one where possible.
        StorageFailure: Any other failed read or write.
    """
    what = f"cannot store blob {digest.short}"
    with storage_errors(what):
        if size <= limits.IO_CHUNK:
            data = read_exact_verified(source, digest, size, at_end=at_end)
            _write_all(sink_fd, memoryview(data))
            if progress is not None:
                progress(size)
            return
        from registry import linuxio

        linuxio.preallocate(sink_fd, size)
        hasher = _HashThread(digest)
        try:
            _pump(source, sink_fd, digest, size, hasher, progress)
        finally:
            hashed = hasher.finish()
        _compare(hashed, digest)
        if at_end:
            _expect_end(source, digest, size)


def hash_stream(
    source: Readable,
    digest: Digest,
    size: int,
    progress: Callable[[int], None] | None = None,
) -> None:
    """Read exactly ``size`` bytes and compare their digest; as :func:`copy_verified`, to nowhere.

    Raises:
        ContentMismatch: Short or wrong.
        StorageFailure: A failed read.
    """
    with storage_errors(f"cannot read blob {digest.short}"):
        _compare(_hash_only(source, digest, size, progress), digest)


def digest_stream(
    source: Readable, size: int, progress: Callable[[int], None] | None = None
) -> Digest:
    """The SHA-256 digest of the next ``size`` bytes.

    Raises:
        ContentMismatch: The source ends early: it changes while it is read.
        StorageFailure: A failed read.
    """
    unknown = Digest.of(b"")
    with storage_errors("cannot read the file"):
        return Digest("sha256", _hash_only(source, unknown, size, progress).hexdigest())


def _hash_only(
    source: Readable, digest: Digest, size: int, progress: Callable[[int], None] | None
) -> _Hash:
    hasher = _HashThread(digest)
    try:
        done = 0
        while done < size:
            view = hasher.buffer()[: size - done]
            count = _fill(source, view)
            hasher.put(view[:count])
            done += count
            if progress is not None:
                progress(count)
            if count < len(view):
                raise short_content(digest, size, done)
    finally:
        hashed = hasher.finish()
    return hashed


def short_content(digest: Digest, size: int, came: int) -> ContentMismatch:
    """The error of a source that ends too early."""
    return ContentMismatch(
        f"content of {digest.short} ends too early", why=f"{came} of {size} bytes came"
    )


class _HashThread:
    """Hashes filled buffers in order, then puts them back into the ring."""

    def __init__(self, digest: Digest) -> None:
        self._hash = digest.hasher()
        self._filled: SimpleQueue[memoryview | None] = SimpleQueue()
        self._free: SimpleQueue[memoryview] = SimpleQueue()
        for _ in range(_RING):
            self._free.put(memoryview(bytearray(limits.IO_CHUNK)))
        self._thread = threading.Thread(target=self._run, name="sealift-hash", daemon=True)
        self._thread.start()

    def buffer(self) -> memoryview:
        """The next buffer to fill; waits for the hash where it is behind."""
        return self._free.get()

    def put(self, filled: memoryview) -> None:
        """Hand over a buffer, or the filled front of the last one."""
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
    sink_fd: int,
    digest: Digest,
    size: int,
    hasher: _HashThread,
    progress: Callable[[int], None] | None,
) -> None:
    from registry import linuxio

    start = os.lseek(sink_fd, 0, os.SEEK_CUR) if _seekable(sink_fd) else 0
    done = nudged = 0
    while done < size:
        view = hasher.buffer()[: size - done]
        count = _fill(source, view)
        hasher.put(view[:count])
        _write_all(sink_fd, view[:count])
        done += count
        if progress is not None:
            progress(count)
        if count < len(view):
            raise short_content(digest, size, done)
        if done - nudged >= _WRITEBACK_STRIDE:
            linuxio.start_writeback(sink_fd, start + nudged, done - nudged)
            nudged = done


def _seekable(fd: int) -> bool:
    try:
        os.lseek(fd, 0, os.SEEK_CUR)
    except OSError:
        return False
    return True


def _fill(source: Readable, view: memoryview) -> int:
    done = 0
    while done < len(view):
        count = _read_some(source, view[done:])
        if count == 0:
            break
        done += count
    return done


def _read_some(source: Readable, view: memoryview) -> int:
    readinto: Callable[[memoryview], int | None] | None = getattr(source, "readinto", None)
    if readinto is not None:
        return readinto(view) or 0
    data = source.read(len(view))
    view[: len(data)] = data
    return len(data)


def _write_all(fd: int, view: memoryview) -> None:
    done = 0
    while done < len(view):
        done += os.write(fd, view[done:])


def _write_to(sink: Writable, view: memoryview) -> None:
    with storage_errors("cannot write"):
        done = 0
        while done < len(view):
            count = sink.write(view[done:])  # type: ignore[arg-type]  # memoryview is a buffer
            done += len(view) - done if count is None else count


def _compare(hashed: _Hash, digest: Digest) -> None:
    if hashed.hexdigest() != digest.hex:
        raise ContentMismatch(
            f"content of {digest.short} has another digest",
            why=f"it hashes to {hashed.hexdigest()[:12]}",
        )


def _expect_end(source: Readable, digest: Digest, size: int) -> None:
    if source.read(1):
        raise ContentMismatch(f"content of {digest.short} is longer than its {size} bytes")
