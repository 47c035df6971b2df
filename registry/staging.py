"""Staging areas: one folder per import under ``staging/``, with a lock that dies with its process.

An area ``NAME`` is the file ``NAME.lock``, held with ``flock``, and the folder ``NAME/``. The lock
comes first and goes last, so a folder without one, or with one that nobody holds, is abandoned.

A *kept* area outlives its process: an import that was interrupted goes on in it. It is abandoned
only when nobody has touched it for ``limits.RESUME_SECONDS``.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import time
from collections.abc import Callable, Collection
from collections.abc import Set as AbstractSet
from contextlib import nullcontext, suppress
from pathlib import Path
from types import TracebackType
from typing import Final, Protocol, Self

from registry import linuxio
from registry.digest import Digest
from registry.locks import try_lock
from registry.pipeline import write_all
from registry.verify import Readable, copy_verified, storage_errors
from schemas import limits
from schemas.errors import AlreadyExists, InvalidName, StorageFailure, StoreBusy

_LOCK: Final = ".lock"
_PART: Final = ".part"
_FEW: Final = 16  # files that are as quickly synced one by one
_LOOSE_BLOBS: Final = 4096  # unsynced at most; what an interruption costs, with their bytes
_LOOSE_BYTES: Final = 32 * limits.MIB
_KEPT: Final = "kept-"
_BATCH: Final = re.compile(r"[a-z0-9-]{1,64}")
_NO_LINKS: Final = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK})
_STAGED: Final = re.compile(r"(sha256)-([0-9a-f]{64})|(sha512)-([0-9a-f]{128})")
_REOPEN: Final = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
_CREATE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class Destination(Protocol):
    """Where blobs go once they are verified; see :class:`registry.blobs.BlobStore`."""

    def path(self, digest: Digest) -> Path:
        """Where the blob lies, or would lie."""

    def has(self, digest: Digest, size: int | None = None) -> bool:
        """Whether the blob is there, and of this size in bytes if one is given."""


class StagingArea:
    """The incoming bytes of one import.

    Leaving the context without :meth:`install` removes all of it, so a failed import leaves the
    store byte for byte as it was. Keep the context open until the catalogue's transaction is
    committed: as long as it is, nothing is pruned.

    Args:
        blobs: Where the blobs go in the end.
        staging: The folder of all areas.
        batch: Begins the area's name; of a kept area, it is the name.
        kept: Whether the area outlives this process; leave it for good with :meth:`discard`.
    """

    def __init__(
        self, blobs: Destination, staging: Path, batch: str | None = None, *, kept: bool = False
    ) -> None:
        if batch is not None and not _BATCH.fullmatch(batch):
            raise InvalidName(f"{batch!r} cannot name a staging area")
        if kept and batch is None:
            raise InvalidName("a kept staging area needs a name")
        self._kept = kept
        self._batch = batch
        self._blobs = blobs
        self._staging = staging
        self._prefix = f"{batch}-" if batch else ""
        self._folder: Path | None = None
        self._lock_fd = -1
        self._waiting: set[Digest] = set()
        self._loose: set[Digest] = set()  # of these, not synced yet
        self._loose_bytes = 0
        self._bytes_added = 0

    def __enter__(self) -> Self:
        with storage_errors("cannot make a staging area"):
            make_folder(self._staging)
            try:
                if self._kept:
                    self._reopen(kept_folder(self._staging, self._batch or ""))
                while self._folder is None:
                    self._claim_name()
            except BaseException:
                if self._lock_fd >= 0:  # else nobody could enter it as long as this process lives
                    os.close(self._lock_fd)
                raise
        return self

    def _reopen(self, folder: Path) -> None:
        fd = os.open(_lock_path(folder), _REOPEN, 0o600)
        if not try_lock(fd) or os.fstat(fd).st_nlink == 0:
            os.close(fd)
            raise StoreBusy(
                "another process imports this bundle", hint="Wait until it is done and retry"
            )
        self._lock_fd = fd
        os.utime(fd)
        make_folder(folder)
        self._folder = folder
        for entry in os.scandir(folder):
            if match := _STAGED.fullmatch(entry.name):
                self._waiting.add(Digest(match[1] or match[3], match[2] or match[4]))

    def _claim_name(self) -> None:
        folder = self._staging / (self._prefix + secrets.token_hex(8))
        fd = os.open(_lock_path(folder), _CREATE, 0o600)
        # Between creation and lock a sweep may have taken it for abandoned: then try another name.
        if not try_lock(fd) or os.fstat(fd).st_nlink == 0:
            os.close(fd)
            return
        self._lock_fd = fd
        self._folder = folder
        folder.mkdir(mode=0o700)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if self._kept and self._folder is not None:
                with suppress(StorageFailure) if error else nullcontext():
                    self.settle()
        finally:
            self._leave()

    def _leave(self) -> None:
        folder, self._folder = self._folder, None
        if folder is None:
            return
        try:
            if not self._kept:
                with storage_errors(f"cannot clear {folder}"):
                    _remove(folder)
        finally:
            os.close(self._lock_fd)
            self._waiting.clear()
            self._loose.clear()

    @property
    def folder(self) -> Path:
        """Where the area lies.

        Raises:
            StorageFailure: Outside the context.
        """
        if self._folder is None:
            raise StorageFailure("the staging area is not open")
        return self._folder

    @property
    def digests(self) -> AbstractSet[Digest]:
        """Of the blobs that wait here, verified or claimed; grows with the area."""
        return self._waiting  # no copy: it is asked for every blob of an import

    @property
    def bytes_added(self) -> int:
        """Sizes of all blobs ever added here, together; claimed ones do not count."""
        return self._bytes_added

    def path(self, digest: Digest) -> Path:
        """Where the blob waits, or would wait; :meth:`settle` may move it."""
        return Path(self._waits_in(digest))

    def _waits_in(self, digest: Digest) -> str:
        return self._part(digest) if digest in self._loose else self._settled(digest)

    def _settled(self, digest: Digest) -> str:
        return f"{self.folder}/{digest.algorithm}-{digest.hex}"

    def _part(self, digest: Digest) -> str:
        return f"{self._settled(digest)}{_PART}"

    def add(
        self,
        source: Readable,
        digest: Digest,
        size: int,
        progress: Callable[[int], None] | None = None,
        *,
        at_end: bool = False,
        durable: bool = True,
    ) -> Path:
        """Take exactly ``size`` bytes from ``source``, verified and on the disk when it returns.

        After an error nothing of this blob is left; the others stay. What need not be ``durable``
        yet is so after :meth:`settle`.

        Raises:
            AlreadyExists: The blob is here already.
            ContentMismatch: Short, wrong, or (``at_end``) long.
            StorageFull: No room for it.
            StorageFailure: It cannot be written.
        """
        if digest in self._waiting:
            raise AlreadyExists(f"blob {digest.short} comes twice")
        path = self._part(digest)
        with storage_errors(f"cannot store blob {digest.short}"):
            fd = _create(path)
            try:
                copy_verified(source, fd, digest, size, progress=progress, at_end=at_end)
                if durable:
                    os.fsync(fd)
            except BaseException:
                os.unlink(path)
                raise
            finally:
                os.close(fd)
        self.accept(digest, size, durable=durable)
        return self.path(digest)

    def discard(self) -> None:
        """Let the area go when the context ends, kept or not."""
        self._kept = False

    def part(self, digest: Digest) -> Path:
        """Where an unfinished blob grows; :meth:`accept` makes it one that waits."""
        return Path(self._part(digest))

    def accept(self, digest: Digest, size: int, *, durable: bool = True) -> None:
        """Take over a blob that grew in :meth:`part`; the caller has verified it.

        Args:
            digest: Of the blob.
            size: In bytes.
            durable: Whether the caller has synced it, too; else :meth:`settle` will. For small
                blobs, of which many are synced together in the time that each alone would take.

        Raises:
            StorageFailure: It cannot be renamed.
        """
        if durable:
            with storage_errors(f"cannot store blob {digest.short}"):
                self._name(digest)
                sync_folder(self.folder)
        else:
            self._loose.add(digest)
            self._loose_bytes += size
        self._waiting.add(digest)
        self._bytes_added += size
        if len(self._loose) > _LOOSE_BLOBS or self._loose_bytes > _LOOSE_BYTES:
            self.settle()

    def settle(self) -> None:
        """Make durable what was accepted without; only then it gets the name of one that waits.

        Raises:
            StorageFull, StorageFailure: It cannot be written out, or renamed.
        """
        if not self._loose:
            return
        with storage_errors("cannot store the blobs"):
            if len(self._loose) <= _FEW or not linuxio.sync_file_system(self._lock_fd):
                for digest in self._loose:
                    _sync_file(self._part(digest))
            for digest in self._loose:
                self._name(digest)
            sync_folder(self.folder)
        self._loose.clear()
        self._loose_bytes = 0

    def _name(self, digest: Digest) -> None:
        part = self._part(digest)
        os.chmod(part, 0o444)
        os.replace(part, self._settled(digest))

    def add_bytes(self, data: bytes) -> Digest:
        """Take bytes at hand, to be settled; returns their digest. Equal bytes may come again."""
        digest = Digest.of(data)
        if digest not in self._waiting:
            with storage_errors(f"cannot store blob {digest.short}"):
                fd = _create(self._part(digest))
                try:
                    write_all(fd, memoryview(data))
                finally:
                    os.close(fd)
            self.accept(digest, len(data), durable=False)
        return digest

    def claim(self, digest: Digest, size: int) -> bool:
        """Hold on to a blob that the store has, so that no collection takes it meanwhile.

        Returns:
            False if the store has none of this size; then :meth:`add` it.
        """
        if digest in self._waiting:
            return True
        if not self._blobs.has(digest, size):
            return False
        with storage_errors(f"cannot claim blob {digest.short}"):
            try:
                os.link(self._blobs.path(digest), self._waits_in(digest))
            except FileNotFoundError:
                return False
            except OSError as error:
                if error.errno not in _NO_LINKS:
                    raise
                os.utime(self._blobs.path(digest))  # then the grace time has to do
                return True
        self._waiting.add(digest)
        return True

    def install(self, only: Collection[Digest] | None = None) -> None:
        """Move blobs to their places under ``blobs/``; those already there stay as they are.

        Args:
            only: Leave others waiting; None moves all.

        Do it, and the catalogue's transaction after it, while holding the store's lock. If the
        process dies on the way, what was moved is unreferenced and collected after the grace time.

        Raises:
            StorageFailure: A rename or fsync failed.
        """
        self.settle()
        folders: set[str] = set()
        with storage_errors("cannot install the blobs"):
            moved = sorted(self._waiting if only is None else self._waiting & set(only))
            for digest in moved:
                target = os.fspath(self._blobs.path(digest))
                if (folder := os.path.dirname(target)) not in folders:
                    make_folder(Path(folder))
                    folders.add(folder)
                staged = self._settled(digest)
                os.utime(staged)  # the grace time begins now
                if self._blobs.has(digest, os.stat(staged).st_size):
                    os.utime(target)
                    os.unlink(staged)
                else:
                    os.replace(staged, target)
            for folder in sorted(folders):
                sync_folder(Path(folder))
        self._waiting.difference_update(moved)


def kept_folder(staging: Path, batch: str) -> Path:
    """Where a kept area lies."""
    return staging / f"{_KEPT}{batch}"


def make_folder(folder: Path) -> None:
    """Make a folder with mode 0700, durably, unless it is there; its parent must be.

    Raises:
        OSError: It cannot be made, or its name is taken by something else.
    """
    if not folder.is_dir():
        folder.mkdir(mode=0o700, exist_ok=True)
        sync_folder(folder.parent)


def _create(path: str) -> int:
    """A new file for a blob's bytes, in place of what an interruption left of it."""
    try:
        return os.open(path, _CREATE, 0o444)
    except FileExistsError:
        os.unlink(path)
        return os.open(path, _CREATE, 0o444)


def _sync_file(path: str) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def sweep_abandoned(staging: Path) -> int:
    """Remove the areas of dead processes; returns how many there were."""
    removed = 0
    with storage_errors(f"cannot clear {staging}"):
        for folder in _areas(staging):
            # O_CREAT: a folder whose lock is gone is abandoned too, and gets one for the removal.
            fd = _open_lock(folder, os.O_CREAT)
            if fd is None:
                continue
            if not try_lock(fd) or _resumable(folder, fd):
                os.close(fd)
                continue
            try:
                _remove(folder)
            finally:
                os.close(fd)
            removed += 1
    return removed


def _resumable(folder: Path, lock_fd: int) -> bool:
    age = time.time() - os.fstat(lock_fd).st_mtime
    return folder.name.startswith(_KEPT) and age < limits.RESUME_SECONDS


def live_areas(staging: Path) -> int:
    """How many areas have a living process."""
    live = 0
    with storage_errors(f"cannot look into {staging}"):
        for folder in _areas(staging):
            fd = _open_lock(folder)
            if fd is not None:
                live += not try_lock(fd)
                os.close(fd)
    return live


def _areas(staging: Path) -> list[Path]:
    try:
        names = {entry.name.removesuffix(_LOCK) for entry in os.scandir(staging)}
    except FileNotFoundError:
        return []
    return [staging / name for name in sorted(names)]


def _open_lock(folder: Path, flags: int = 0) -> int | None:
    try:
        return os.open(
            _lock_path(folder), os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC | flags, 0o600
        )
    except FileNotFoundError:
        return None


def _remove(folder: Path) -> None:
    """Areas are flat, so no recursion follows what somebody else may have put there."""
    if folder.is_dir() and not folder.is_symlink():
        for entry in list(os.scandir(folder)):
            Path(entry.path).unlink()
        folder.rmdir()
    else:
        folder.unlink(missing_ok=True)
    _lock_path(folder).unlink(missing_ok=True)


def _lock_path(folder: Path) -> Path:
    return folder.with_name(folder.name + _LOCK)
