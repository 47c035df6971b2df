"""Files that a command writes: complete under their name, or not there."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from registry.staging import sync_folder
from registry.verify import storage_errors
from schemas.errors import AlreadyExists, NotFound


def check_output(output: Path, *, overwrite: bool) -> None:
    """See that a bundle may be written there.

    Raises:
        AlreadyExists: Something is there, and may not be overwritten.
        NotFound: Its folder is not there.
    """
    if not output.parent.is_dir():
        raise NotFound(f"there is no folder {output.parent}", hint="Make it first")
    if output.is_dir() or (output.exists() and not overwrite):
        raise AlreadyExists(f"{output} is there already", hint="Give --force to replace a file")


@contextmanager
def new_file(path: Path) -> Iterator[BinaryIO]:
    """A file that appears under its name when the block ends well, on disk; else not at all.

    Raises:
        StorageFull, StorageFailure: The disk says no.
    """
    what = f"cannot write {path}"
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
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
