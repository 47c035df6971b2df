"""Where a bundle is made, so that an interrupted `bundle create` goes on instead of starting anew.

A folder beside the output, ``.<output's name>.create``, locked while somebody works in it::

    lock              held with flock; dies with its process
    plan.json         what was asked for, and what the bundle was called then
    <hex>.entry       how a blob is stored; written when that is settled, and durable
    <hex>.stored      its encoded bytes, if it is encoded
    <hex>.pieces      of an encoding that is not finished: the pieces that are durable
    signed.json head  what was signed, and the head's bytes
    out-<number>      the head or the one file (0), then the volumes, while they grow
    journal           how many bytes of each of them are durable
    placing           all are complete and being renamed

Nothing in it is believed by anybody else: the bundle says by signatures and digests what it is.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Final, Self

from bundler.contents import Entry
from bundler.files import open_regular, write_file
from registry.digest import Digest
from registry.locks import try_lock
from registry.staging import sync_folder
from registry.verify import storage_errors
from schemas import limits, strictjson
from schemas.errors import (
    ContentError,
    SealiftError,
    StorageFailure,
    StorageFull,
    StoreBusy,
    UsageError,
)

_NAME_BYTES: Final = 200  # of the output's name in the folder's
_PLAN: Final = "plan.json"
_SIGNED: Final = "signed.json"
_HEAD: Final = "head"
_JOURNAL: Final = "journal"
_PLACING: Final = "placing"
_LOCK: Final = "lock"
_FIRST: Final = "out-0"
_IDLE: Final = frozenset({_LOCK, _PLAN, _JOURNAL})
_LINE: Final = re.compile(rb"([0-9]{1,6}) ([0-9]{1,18})")
_OPEN: Final = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
_HEAD_BYTES: Final = limits.TRUST_TOTAL_BYTES + limits.DESCRIPTOR_BYTES + 3 * limits.INDEX_BYTES


class Workbench:
    """The folder of one output; use it as a context manager.

    What lies there is gone on with where the same is asked for again, and dropped otherwise. When
    the block ends well, or what was asked for is refused, the folder goes; after an interruption it
    stays, if there is something in it to go on with.

    Args:
        output: The bundle, or its head.
        request: All that decides what will be written, as JSON; see :func:`fingerprint`.

    Raises:
        StoreBusy: Another process is writing this bundle.
    """

    def __init__(self, output: Path, request: Mapping[str, Any]) -> None:
        self._output = output
        self._request = Digest.of(strictjson.dumps(dict(request)))
        self.folder = folder_of(output)
        self._durable: dict[int, int] = {}

    def __enter__(self) -> Self:
        self._lock = _lock(self.folder, self._output)
        plan = self._read(_PLAN)
        if plan is None or plan.get("request") != str(self._request):
            self._clear()
            self._plan: dict[str, Any] = {}
        else:
            self._plan = plan
            self._read_journal()
        with storage_errors(f"cannot write {self.folder}"):
            for path in self.folder.glob(".*.partial"):
                path.unlink()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        refused = isinstance(error, (ContentError, StorageFull))
        # An error of this clean-up must not hide the one that led here.
        try:
            if error is None or refused or not self._worth_keeping():
                _remove(self.folder)
        except OSError:
            if error is None:
                raise StorageFailure(
                    f"the bundle is complete, but {self.folder} cannot be removed",
                    hint="Remove it by hand",
                ) from None
        finally:
            os.close(self._lock)

    def _worth_keeping(self) -> bool:
        return any(path.name not in _IDLE for path in self.folder.iterdir())

    # -- the plan -----------------------------------------------------------------------------

    def plan(self, **first: str) -> dict[str, str]:
        """What the bundle was called when it was begun; these values where it is begun now."""
        if not self._plan:
            self._plan = {"request": str(self._request), **first}
            self._write(_PLAN, strictjson.dumps(self._plan))
        return {name: str(self._plan[name]) for name in first}

    # -- blobs --------------------------------------------------------------------------------

    def entry(self, digest: Digest) -> Entry | None:
        """How a blob is stored, if that is settled already."""
        document = self._read(f"{digest.hex}.entry")
        if document is None:
            return None
        try:
            return Entry.from_document(document)
        except (SealiftError, KeyError, TypeError, ValueError):
            return None  # an earlier version's, or damaged: it is simply made again

    def keep_entry(self, entry: Entry) -> None:
        """Settle it; what is spooled must be durable."""
        self._write(f"{entry.digest.hex}.entry", strictjson.dumps(entry.document()))

    def spool(self, digest: Digest) -> Path:
        """Where a blob's encoded bytes lie, or will lie."""
        return self.folder / f"{digest.hex}.stored"

    def pieces(self, digest: Digest) -> Path:
        """Where it is noted which pieces of an unfinished encoding are durable."""
        return self.folder / f"{digest.hex}.pieces"

    # -- what was signed ----------------------------------------------------------------------

    def signed(self) -> tuple[dict[str, Any], bytes] | None:
        """What was signed for this plan, and the head's bytes."""
        document = self._read(_SIGNED)
        if document is None:
            return None
        with open_regular(self.folder / _HEAD) as file, storage_errors(f"cannot read {_HEAD}"):
            return document, _read_all(file)

    def keep_signed(self, document: Mapping[str, Any], head: bytes) -> None:
        """Keep it; a file that was begun under another head starts anew."""
        self._set_durable(0, 0)
        self._write(_HEAD, head)
        self._write(_SIGNED, strictjson.dumps(dict(document)))

    # -- outputs ------------------------------------------------------------------------------

    def durable(self, number: int) -> int:
        """How many bytes of an output a power loss cannot take any more.

        0 where its file is shorter: then its very name was not durable.
        """
        path, count = self.out_path(number), self._durable.get(number, 0)
        with storage_errors(f"cannot read {path}"):
            return count if count and path.is_file() and path.stat().st_size >= count else 0

    @contextmanager
    def output(self, number: int, *, most: int | None = None) -> Iterator[BinaryIO]:
        """An output, cut to what is durable and open behind that; durable when the block ends.

        Args:
            number: Which.
            most: Go on behind so many bytes though more are durable.
        """
        what = f"cannot write {self._output}"
        path = self.out_path(number)
        with storage_errors(what):
            fd = os.open(path, _OPEN, 0o666)
        with os.fdopen(fd, "r+b", buffering=0) as file:
            with storage_errors(what):
                count = self.durable(number)
                self._set_durable(number, count if most is None else min(count, most))
                os.ftruncate(fd, self.durable(number))
                os.lseek(fd, self.durable(number), os.SEEK_SET)
            yield file
            with storage_errors(what):
                os.fsync(fd)
                sync_folder(self.folder)
                self._set_durable(number, os.fstat(fd).st_size)

    def out_path(self, number: int) -> Path:
        """Where an output grows."""
        return self.folder / f"out-{number}"

    def note_durable(self, number: int, count: int) -> None:
        """Record so many bytes of an output, which are synced."""
        self._set_durable(number, count)

    def place(self, targets: Mapping[int, Path]) -> None:
        """Give the outputs their names, the head's (0) last; all of them are complete.

        Raises:
            StorageFailure: As the disk says; done again, it goes on.
        """
        self._write(_PLACING, b"")
        with storage_errors(f"cannot write {self._output}"):
            for number in sorted(targets, key=lambda n: (n == 0, n)):
                if self.out_path(number).exists():  # else it has its name since the last attempt
                    if number == 0:
                        sync_folder(self._output.parent)
                    self.out_path(number).replace(targets[number])
            sync_folder(self._output.parent)

    @property
    def placing(self) -> bool:
        """Whether all outputs were complete when an earlier attempt ended."""
        return (self.folder / _PLACING).exists()

    @property
    def outputs_used(self) -> int:
        """What outputs take of the disk already."""
        with storage_errors(f"cannot read {self.folder}"):
            return sum(path.stat().st_blocks * 512 for path in self.folder.glob("out-*"))

    # -- files --------------------------------------------------------------------------------

    def _set_durable(self, number: int, count: int) -> None:
        if self._durable.get(number) == count:
            return
        self._durable[number] = count
        with storage_errors(f"cannot write {self.folder}"):
            fd = os.open(self.folder / _JOURNAL, _OPEN | os.O_APPEND, 0o600)
            try:
                if os.fstat(fd).st_size == 0:
                    sync_folder(self.folder)
                os.write(fd, f"{number} {count}\n".encode())
                os.fdatasync(fd)
            finally:
                os.close(fd)

    def _read_journal(self) -> None:
        try:
            with open_regular(self.folder / _JOURNAL) as file:
                text = _read_all(file)
        except SealiftError:
            return
        for line in text.split(b"\n")[:-1]:  # a torn last line says nothing
            if match := _LINE.fullmatch(line):
                self._durable[int(match[1])] = int(match[2])
        if not text.endswith(b"\n"):
            self._write(_JOURNAL, b"".join(b"%d %d\n" % item for item in self._durable.items()))

    def _read(self, name: str) -> dict[str, Any] | None:
        try:
            with open_regular(self.folder / name) as file:
                data = _read_all(file)
            return strictjson.parse_object(data, what=name, max_bytes=limits.DESCRIPTOR_BYTES)
        except SealiftError:
            return None

    def _write(self, name: str, data: bytes) -> None:
        write_file(self.folder / name, data)

    def _clear(self) -> None:
        with storage_errors(f"cannot clear {self.folder}"):
            for path in self.folder.iterdir():
                if path.name != _LOCK:
                    path.unlink()


def folder_of(output: Path) -> Path:
    """Where an output is made."""
    name = output.name
    if len(os.fsencode(name)) > _NAME_BYTES:
        name = f"{name[:40]}-{hashlib.sha256(os.fsencode(name)).hexdigest()[:16]}"
    return output.with_name(f".{name}.create")


def used_by(output: Path) -> int:
    """Bytes of disk that an interrupted attempt at an output has taken already."""
    folder = folder_of(output)
    with storage_errors(f"cannot read {folder}"):
        if not folder.is_dir():
            return 0
        return sum(entry.stat().st_blocks * 512 for entry in os.scandir(folder))


def is_placing(output: Path) -> bool:
    """Whether an attempt ended while it gave complete files their names, the head's last."""
    folder = folder_of(output)
    return (folder / _PLACING).exists() and (folder / _FIRST).exists()


def sweep(output: Path) -> None:
    """Remove what is left of a folder whose bundle is complete: its owner died while removing it.

    Raises:
        StoreBusy: Another process is writing this bundle.
        StorageFailure: It cannot be removed.
    """
    folder = folder_of(output)
    if not folder.is_dir() or is_placing(output):
        return
    if (folder / _PLAN).exists() and not (folder / _PLACING).exists():
        return  # interrupted earlier: to be gone on with
    lock = _lock(folder, output)
    try:
        with storage_errors(f"cannot remove {folder}"):
            _remove(folder)
    finally:
        os.close(lock)


def _remove(folder: Path) -> None:
    """The mark that all is done goes after what it speaks of, the lock last."""
    names = {entry.name for entry in os.scandir(folder)} - {_PLACING, _LOCK}
    for name in [*sorted(names), _PLACING, _LOCK]:
        (folder / name).unlink(missing_ok=True)
    folder.rmdir()


def _lock(folder: Path, output: Path) -> int:
    """Make the folder, if need be, and lock it."""
    with storage_errors(f"cannot write {output}"):
        while True:
            folder.mkdir(mode=0o700, exist_ok=True)
            _check_ours(folder)
            try:
                fd = os.open(folder / _LOCK, _OPEN, 0o600)
            except FileNotFoundError:  # somebody just finished here
                continue
            if not try_lock(fd):
                os.close(fd)
                raise StoreBusy(
                    f"another process is writing {output.name}", hint="Wait until it is done"
                )
            if os.fstat(fd).st_nlink:
                sync_folder(folder.parent)
                return fd
            os.close(fd)


def _check_ours(folder: Path) -> None:
    """In a folder that all may write to, somebody else may have made it."""
    status, me = folder.lstat(), os.geteuid()
    if not stat.S_ISDIR(status.st_mode) or (me and status.st_uid not in (0, me)):
        raise UsageError(
            f"{folder} is not this user's", hint="Remove it, or write to another folder"
        )


def _read_all(file: BinaryIO) -> bytes:
    size = os.fstat(file.fileno()).st_size
    if size > _HEAD_BYTES:
        raise UsageError("a file of an interrupted `bundle create` is too large")
    parts = []
    while size > 0 and (data := file.read(min(size, limits.IO_CHUNK))):
        parts.append(data)
        size -= len(data)
    return b"".join(parts)
