"""The one verifying reader and writer, used for every byte from anywhere.

Short, long or wrong content raises one :class:`~schemas.errors.ContentMismatch`. The last byte of
a blob is never handed out before the digest of the whole was compared.
"""

from __future__ import annotations

import errno
import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final, Protocol

from registry.digest import Digest
from registry.pipeline import Readable, hash_through, read_some
from schemas import limits
from schemas.errors import ContentMismatch, StorageFailure, StorageFull

__all__ = [
    "DigestWriter",
    "Readable",
    "VerifyingReader",
    "Writable",
    "copy_verified",
    "digest_stream",
    "hash_stream",
    "read_exact_verified",
    "storage_errors",
]

_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class Writable(Protocol):
    """Anything with a binary ``write``."""

    def write(self, data: memoryview, /) -> int | None:
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
        hint = "Check the path, its permissions and the disk"
        raise StorageFailure(what, why=why, hint=hint) from error


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
        count = read_some(self._source, view[:wanted]) if wanted else 0
        self._account(view[:count], wanted)
        return count

    def _account(self, data: bytes | memoryview, wanted: int) -> None:
        if wanted and not len(data):
            raise _short(self._digest, self._size, self._size - self._left)
        self._hash.update(data)
        self._left -= len(data)
        if self._left == 0 and not self._verified:
            _compare(self._hash.hexdigest(), self._digest)
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

    Each byte is read once: what was hashed is what was written; see :mod:`registry.pipeline`. Does
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
    from registry import linuxio

    with storage_errors(f"cannot store blob {digest.short}"):
        if size > limits.IO_CHUNK:
            linuxio.preallocate(sink_fd, size)
        came, encoded = hash_through(
            source, size, digest.algorithm, sink_fd=sink_fd, progress=progress
        )
        _check(source, digest, size, came, encoded, at_end=at_end)


def hash_stream(
    source: Readable,
    digest: Digest,
    size: int,
    progress: Callable[[int], None] | None = None,
    *,
    at_end: bool = False,
) -> None:
    """Read exactly ``size`` bytes and compare their digest; as :func:`copy_verified`, to nowhere.

    Raises:
        ContentMismatch: Short, wrong, or (``at_end``) long.
        StorageFailure: A failed read.
    """
    with storage_errors(f"cannot read blob {digest.short}"):
        came, encoded = hash_through(source, size, digest.algorithm, progress=progress)
        _check(source, digest, size, came, encoded, at_end=at_end)


def digest_stream(
    source: Readable,
    size: int,
    progress: Callable[[int], None] | None = None,
    *,
    also: Sequence[Callable[[memoryview], object]] = (),
) -> Digest:
    """The SHA-256 digest of the next ``size`` bytes, which are not known yet.

    Args:
        source: Read from where it stands.
        size: In bytes.
        progress: Called with the number of bytes of each step.
        also: See :func:`registry.pipeline.hash_through`.

    Raises:
        ContentMismatch: The source ends early: it changes while it is read.
        StorageFailure: A failed read.
    """
    with storage_errors("cannot read the file"):
        came, encoded = hash_through(source, size, "sha256", progress=progress, also=also)
    if came < size:
        raise ContentMismatch("the file ends too early", why=f"{came} of {size} bytes came")
    return Digest("sha256", encoded)


def _check(
    source: Readable, digest: Digest, size: int, came: int, encoded: str, *, at_end: bool
) -> None:
    if came < size:
        raise _short(digest, size, came)
    _compare(encoded, digest)
    if at_end:
        _expect_end(source, digest, size)


def _short(digest: Digest, size: int, came: int) -> ContentMismatch:
    return ContentMismatch(
        f"content of {digest.short} ends too early", why=f"{came} of {size} bytes came"
    )


def _compare(encoded: str, digest: Digest) -> None:
    if encoded != digest.hex:
        raise ContentMismatch(
            f"content of {digest.short} has another digest", why=f"it hashes to {encoded[:12]}"
        )


def _expect_end(source: Readable, digest: Digest, size: int) -> None:
    if source.read(1):
        raise ContentMismatch(f"content of {digest.short} is longer than its {size} bytes")


def _write_to(sink: Writable, view: memoryview) -> None:
    with storage_errors("cannot write"):
        done = 0
        while done < len(view):
            count = sink.write(view[done:])
            done += len(view) - done if count is None else count
