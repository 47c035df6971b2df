"""Files that a command reads, and those that it writes: complete under their name, or not there."""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final

from registry.staging import sync_folder
from registry.verify import storage_errors
from schemas import limits
from schemas.errors import AlreadyExists, NotFound, UsageError

_NAME_CHARS: Final = 40  # of the name in that of the unfinished file, which must not be too long


Source = Path | Callable[[], BinaryIO]
"""A file's path, or what opens something that reads like one."""


def open_source(source: Source) -> BinaryIO:
    """Open it, as :func:`open_regular` does."""
    return open_regular(source) if isinstance(source, Path) else source()


def open_regular(path: Path) -> BinaryIO:
    """Open a regular file, unbuffered; a FIFO or device is refused before it can block.

    Raises:
        NotFound, UsageError, StorageFailure: It is not there, not a file, not readable.
    """
    with storage_errors(f"cannot read {path}"):
        try:
            fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError):
            raise NotFound(
                f"cannot read {path}", why="there is no such file", hint="Check the path"
            ) from None
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise UsageError(
            f"cannot read {path}",
            why="it is not a regular file",
            hint="Give the path of a file",
        )
    return os.fdopen(fd, "rb", buffering=0)


def free_space(folder: Path, what: str | None = None) -> int:
    """Bytes that this user may still write there.

    Args:
        folder: On the disk in question.
        what: What cannot be done if it cannot be looked at, for the message.

    Raises:
        StorageFailure: It cannot be looked at.
    """
    with storage_errors(what or f"cannot look at {folder}"):
        stats = os.statvfs(folder)
    return stats.f_bavail * stats.f_frsize


def check_output(output: Path, *, overwrite: bool) -> None:
    """See that a bundle may be written there.

    Raises:
        AlreadyExists: Something is there, and may not be overwritten.
        UsageError: No regular file is there; replacing a device would be a disaster.
        NotFound: Its folder is not there.
        StorageFailure: It cannot even be looked at.
    """
    with storage_errors(f"cannot write {output}"):
        if not output.parent.is_dir():
            raise NotFound(
                f"cannot write {output}",
                why=f"there is no folder {output.parent}",
                hint="Make it first",
            )
        if not output.exists():
            return
        if not output.is_file():
            raise UsageError(
                f"cannot write {output}",
                why="it is not a regular file",
                hint="Give the path of a file",
            )
        if not overwrite:
            raise AlreadyExists(
                f"cannot write {output}",
                why="there is such a file",
                hint="Give --force to replace it",
            )


def write_file(path: Path, data: bytes) -> None:
    """Write a small file, as :func:`new_file` does.

    Raises:
        StorageFull, StorageFailure: The disk says no.
    """
    with new_file(path) as file, storage_errors(f"cannot write {path}"):
        view = memoryview(data)
        while view:
            view = view[file.write(view) :]


@contextmanager
def new_file(path: Path) -> Iterator[BinaryIO]:
    """A file that appears under its name when the block ends well, on disk; else not at all.

    Raises:
        StorageFull, StorageFailure: The disk says no.
    """
    what = f"cannot write {path}"
    partial = path.with_name(f".{path.name[:_NAME_CHARS]}.{secrets.token_hex(4)}.partial")
    with storage_errors(what):
        file = partial.open("xb", buffering=0)
    try:
        with file:
            yield file
            with storage_errors(what):
                os.fsync(file.fileno())
        with storage_errors(what):
            partial.replace(path)
            sync_folder(path.parent)
    finally:
        partial.unlink(missing_ok=True)


def read_bounded(path: Path, most: int) -> bytes:
    """All bytes of a file that must be small.

    Args:
        path: A regular file.
        most: How many bytes it may have.

    Raises:
        UsageError: It has more.
        NotFound, UsageError, StorageFailure: It cannot be read.
    """
    with open_regular(path) as file, storage_errors(f"cannot read {path}"):
        parts, size = [], 0
        while size <= most and (data := file.read(limits.IO_CHUNK)):
            parts.append(data)
            size += len(data)
    if size > most:
        raise UsageError(f"{path.name} is too large", why=f"over {most} bytes")
    return b"".join(parts)
