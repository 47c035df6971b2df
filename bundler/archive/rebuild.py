"""Carrying a recipe out: runs of stored blobs and literals become a new blob.

Runs are shared with the base where the file system can do that (reflinks of btrfs and XFS, whole
blocks only), else copied inside the kernel, else read and written. The result is hashed from the
new file itself, on a second thread, close behind.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import struct
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Final

from bundler.archive.recipe import Recipe
from registry.digest import Digest
from registry.verify import storage_errors
from schemas import limits
from schemas.errors import ContentMismatch, MalformedArchive

_FICLONERANGE: Final = 0x4020940D  # linux/fs.h: _IOW(0x94, 13, struct file_clone_range)
_CLONE_RANGE: Final = struct.Struct("=qQQQ")  # source, its offset, length, own offset
_COPY_STEP: Final = 8 * limits.MIB  # copied between two reports of progress
_NOT_HERE: Final = frozenset(
    {errno.EXDEV, errno.EOPNOTSUPP, errno.ENOTTY, errno.EINVAL, errno.ENOSYS, errno.EPERM}
)
"""What the kernel says where files cannot be shared, or copied inside it."""

_DAMAGED_BASE: Final = (
    "A stored blob that this bundle builds on may be damaged: run `sealift doctor`, "
    "or have a bundle made without --against"
)

Bytes = bytes | bytearray | memoryview
Progress = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """Where the bytes of a finished blob came from.

    Attributes:
        shared: Bytes that take no room of their own, as a base has them too.
        copied: Bytes copied from bases.
        literal: Bytes that the bundle brought.
    """

    shared: int
    copied: int
    literal: int


def rebuild(
    recipe: Recipe,
    bases: Sequence[int],
    literals: Iterable[Bytes],
    out: int,
    digest: Digest,
    *,
    start: int = 0,
    progress: Progress | None = None,
) -> Rebuilt:
    """Make a blob and verify it.

    Args:
        recipe: Checked against the sizes of these bases.
        bases: Open files, in the order of the descriptor's list.
        literals: The recipe's literals from ``recipe.literals_before(start)`` on, in any portions.
        out: A file open for reading and writing; its first ``start`` bytes are there already.
        digest: What the whole must hash to.
        start: Where to go on after an interruption; what is there is hashed again.
        progress: Called with the number of bytes of each step, in the calling thread.

    Raises:
        ContentMismatch: A base or the literals end early, or other bytes came out: a base is not
            what it was, or the recipe is wrong. What was written must be discarded.
        MalformedArchive: There are more literals than the recipe takes.
        StorageFull, StorageFailure: The disk says no.
    """
    with storage_errors(f"cannot store blob {digest.short}"):
        follower = _Follower(out, digest.algorithm)
        try:
            done = _carry_out(recipe, bases, literals, out, start, follower, progress)
        finally:
            hashed, found = follower.finish()
        length = os.fstat(out).st_size
    if length != recipe.size or hashed != recipe.size or found != digest.hex:
        raise ContentMismatch(
            f"blob {digest.short} came out wrong",
            why=f"{length} bytes that hash to {found[:12]}",
            hint=_DAMAGED_BASE,
        )
    return done


def _carry_out(
    recipe: Recipe,
    bases: Sequence[int],
    literals: Iterable[Bytes],
    out: int,
    start: int,
    follower: _Follower,
    progress: Progress | None,
) -> Rebuilt:
    if len(bases) != recipe.bases:
        raise ValueError(f"{len(bases)} files for {recipe.bases} bases")
    sources = [_Base(base, out) for base in bases]
    stream = _Literals(literals)
    follower.written_to(start)
    for position, operation in recipe.since(start):
        if operation.base is None:
            steps = stream.write(out, position, operation.length)
        else:
            steps = sources[operation.base].copy(operation.offset, position, operation.length)
        done = position
        for step in steps:
            done += step
            follower.written_to(done)
            if progress is not None:
                progress(step)
    stream.finish()
    return Rebuilt(
        shared=sum(source.shared for source in sources),
        copied=sum(source.copied for source in sources),
        literal=stream.written,
    )


class _Base:
    """A base, and what has been found out about how it can be copied.

    Attributes:
        shared: Bytes shared so far.
        copied: Bytes copied so far.
    """

    def __init__(self, fd: int, out: int) -> None:
        self._fd = fd
        self._out = out
        self._block = max(os.fstat(out).st_blksize, 512)
        self._can_share = True
        self._can_copy = True
        self.shared = 0
        self.copied = 0

    def copy(self, offset: int, to: int, length: int) -> Iterator[int]:
        """Copy a run; yields the bytes of each step."""
        if self._can_share and offset % self._block == to % self._block:
            head = min(-offset % self._block, length)
            middle = (length - head) // self._block * self._block
            if middle and self._share(offset + head, to + head, middle):
                yield from self._copy(offset, to, head)
                yield middle
                offset, to = offset + head + middle, to + head + middle
                length -= head + middle
        yield from self._copy(offset, to, length)

    def _share(self, offset: int, to: int, length: int) -> bool:
        request = _CLONE_RANGE.pack(self._fd, offset, length, to)
        try:
            fcntl.ioctl(self._out, _FICLONERANGE, request)
        except OSError as error:
            if error.errno not in _NOT_HERE:
                raise
            self._can_share = False
            return False
        self.shared += length
        return True

    def _copy(self, offset: int, to: int, length: int) -> Iterator[int]:
        end = offset + length
        while offset < end:
            count = self._copy_some(offset, to, min(end - offset, _COPY_STEP))
            if count == 0:
                raise ContentMismatch(
                    "a stored blob ends too early",
                    why=f"{end - offset} bytes are missing",
                    hint=_DAMAGED_BASE,
                )
            offset, to = offset + count, to + count
            self.copied += count
            yield count

    def _copy_some(self, offset: int, to: int, length: int) -> int:
        if self._can_copy:
            try:
                return os.copy_file_range(self._fd, self._out, length, offset, to)
            except OSError as error:
                if error.errno not in _NOT_HERE:
                    raise
                self._can_copy = False
        data = os.pread(self._fd, min(length, limits.IO_CHUNK), offset)
        _write_at(self._out, to, memoryview(data))
        return len(data)


class _Literals:
    """The literals, in whatever portions they come.

    Attributes:
        written: Bytes so far.
    """

    def __init__(self, portions: Iterable[Bytes]) -> None:
        self._portions = iter(portions)
        self._left = memoryview(b"")
        self.written = 0

    def write(self, out: int, to: int, length: int) -> Iterator[int]:
        """Write the next ``length`` bytes; yields the bytes of each step."""
        while length:
            if not self._left and not self._more():
                raise ContentMismatch("the literals end too early", why=f"{length} bytes missing")
            portion = self._left[: min(length, limits.IO_CHUNK)]
            self._left = self._left[len(portion) :]
            _write_at(out, to, portion)
            to += len(portion)
            length -= len(portion)
            self.written += len(portion)
            yield len(portion)

    def finish(self) -> None:
        """See that nothing is left."""
        if self._left or self._more():
            raise MalformedArchive("a delta has more literals than its recipe takes")

    def _more(self) -> bool:
        for portion in self._portions:
            self._left = memoryview(portion).cast("B")
            if self._left:
                return True
        return False


class _Follower:
    """Hashes a file from its start on a thread of its own, as far as it has been written."""

    def __init__(self, fd: int, algorithm: str) -> None:
        self._fd = fd
        self._hash = hashlib.new(algorithm)
        self._hashed = 0
        self._ends: SimpleQueue[int | None] = SimpleQueue()
        self._error: OSError | None = None
        self._thread = threading.Thread(target=self._run, name="sealift-follow", daemon=True)
        self._thread.start()

    def written_to(self, end: int) -> None:
        """Tell that all bytes before ``end`` are there."""
        self._ends.put(end)

    def finish(self) -> tuple[int, str]:
        """Wait for the rest.

        Returns:
            How many bytes were hashed, and their digest in lower-case hexadecimal.

        Raises:
            OSError: The file cannot be read.
        """
        self._ends.put(None)
        self._thread.join()
        if self._error is not None:
            raise self._error
        return self._hashed, self._hash.hexdigest()

    def _run(self) -> None:
        buffer = memoryview(bytearray(limits.IO_CHUNK))
        while (end := self._ends.get()) is not None:
            try:
                self._catch_up(end, buffer)
            except OSError as error:
                self._error = error
                return

    def _catch_up(self, end: int, buffer: memoryview) -> None:
        while self._hashed < end:
            count = os.preadv(self._fd, [buffer[: end - self._hashed]], self._hashed)
            if count == 0:
                return
            self._hash.update(buffer[:count])
            self._hashed += count


def _write_at(fd: int, to: int, view: memoryview) -> None:
    while view:
        count = os.pwrite(fd, view, to)
        to += count
        view = view[count:]
