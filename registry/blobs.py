"""The content-addressed files: ``blobs/<algorithm>/<hex>``, exactly the bytes of their names.

Bytes come in through ``staging/``, on the same file system: write while hashing, compare size and
digest, fsync, rename, fsync the folder. A name under ``blobs/`` is therefore never half a file.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from registry.digest import HEX_CHARS, Digest
from registry.staging import StagingArea, kept_folder, live_areas, make_folder, sweep_abandoned
from registry.verify import DigestWriter, read_exact_verified, storage_errors
from schemas import limits
from schemas.errors import ContentMismatch, InvalidName, NotFound

__all__ = ["BlobStore", "StagingArea"]


class BlobStore:
    """Immutable blobs under one folder.

    Args:
        root: ``$SEALIFT_HOME``; holds ``blobs/``, ``staging/`` and ``quarantine/``.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.staging = root / "staging"
        self._blobs = root / "blobs"

    def prepare(self) -> None:
        """Make the folders, and clear away what dead processes left in staging.

        Raises:
            StorageFailure: The place cannot be written.
        """
        with storage_errors(f"cannot prepare {self.root}"):
            for folder in (self._blobs, self._blobs / "sha256", self.staging):
                make_folder(folder)
        self.clear_abandoned()

    def clear_abandoned(self) -> int:
        """Remove staging areas whose process is gone; returns how many there were."""
        return sweep_abandoned(self.staging)

    def live_areas(self) -> int:
        """How many imports are under way, in this process or another."""
        return live_areas(self.staging)

    def path(self, digest: Digest) -> Path:
        """Where the blob lies, or would lie."""
        return Path(self._path(digest))

    def _path(self, digest: Digest) -> str:
        return f"{self._blobs}/{digest.algorithm}/{digest.hex}"

    def has(self, digest: Digest, size: int | None = None) -> bool:
        """Whether the blob is there, and of this size in bytes if one is given."""
        with storage_errors(f"cannot look for blob {digest.short}"):
            try:
                found = os.stat(self._path(digest)).st_size
            except FileNotFoundError:
                return False
        return size is None or found == size

    def size(self, digest: Digest) -> int:
        """Length in bytes.

        Raises:
            NotFound: No such blob.
        """
        with storage_errors(f"cannot look for blob {digest.short}"):
            try:
                return self.path(digest).stat().st_size
            except FileNotFoundError:
                raise _missing(digest) from None

    def open(self, digest: Digest) -> BinaryIO:
        """Open a blob for reading; what is read is not verified again.

        Raises:
            NotFound: No such blob.
            StorageFailure: It cannot be opened.
        """
        with storage_errors(f"cannot open blob {digest.short}"):
            try:
                return self.path(digest).open("rb")
            except FileNotFoundError:
                raise _missing(digest) from None

    def read(self, digest: Digest, max_bytes: int) -> bytes:
        """Read a small blob whole, verified.

        Raises:
            NotFound: No such blob.
            ContentMismatch: It is larger than ``max_bytes``, or rotted.
        """
        with storage_errors(f"cannot read blob {digest.short}"), self.open(digest) as file:
            size = os.fstat(file.fileno()).st_size
            if size > max_bytes:
                raise ContentMismatch(
                    f"blob {digest.short} is too large", why=f"{size} > {max_bytes} bytes"
                )
            return read_exact_verified(file, digest, size, at_end=True)

    def verify(self, digest: Digest) -> bool:
        """Hash the file again; False if it no longer is what its name says.

        Raises:
            NotFound: No such blob.
            StorageFailure: The disk does not give its bytes back.
        """
        hashed = DigestWriter(algorithm=digest.algorithm)
        with storage_errors(f"cannot read blob {digest.short}"), self.open(digest) as file:
            while data := file.read(limits.IO_CHUNK):
                hashed.write(data)
        return hashed.digest == digest

    def __iter__(self) -> Iterator[Digest]:
        for algorithm in HEX_CHARS:
            with storage_errors("cannot list the blobs"):
                try:
                    names = sorted(entry.name for entry in os.scandir(self._blobs / algorithm))
                except FileNotFoundError:
                    continue
            for name in names:
                try:
                    digest = Digest(algorithm, name)
                except InvalidName:
                    continue  # not ours: never counted, never touched
                yield digest

    def kept_area(self, batch: str) -> Path:
        """Where the kept staging area of this name lies, or would lie."""
        return kept_folder(self.staging, batch)

    def stage(self, batch: str | None = None, *, kept: bool = False) -> StagingArea:
        """A place for one import's incoming bytes; use it as a context manager.

        Args:
            batch: Part of the folder's name, for whoever looks; hexadecimal digits.
            kept: Whether it outlives the process, to be gone on with.
        """
        return StagingArea(self, self.staging, batch, kept=kept)


def _missing(digest: Digest) -> NotFound:
    return NotFound(f"blob {digest.short} is not in the store")
