"""Are the files that models are loaded from still what their names say?

A blob was verified when it came in. Disks rot, and people with a shell change files: so it is read
and hashed once more when it is first loaded, and for as long as it stays loaded the file must stay
the one that was hashed, by all that the file system tells about it.
"""

from __future__ import annotations

import logging
import os
import threading
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Final

from registry.digest import Digest
from registry.pipeline import hash_through
from registry.store import Store
from registry.verify import storage_errors
from schemas.errors import Cancelled, SealiftError, StoreDamaged

_HINT: Final = "Run sealift doctor --scrub, then import its bundle again"
_LOG: Final = logging.getLogger("sealift.server")
_WRONG: Final = "its bytes are not those that were imported"
_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC


class Verify(Enum):
    """When a blob is hashed again as it is loaded."""

    OFF = "off"
    FIRST = "first"
    """Once while the server runs, and again after the file has changed."""
    ALWAYS = "always"


@dataclass(frozen=True, slots=True)
class FileState:
    """What tells one state of one file from another, without reading it.

    Attributes:
        device: Of the file system.
        inode: Of the file.
        size: Bytes.
        modified_ns: When its content was last written, as far as it admits.
        changed_ns: When anything about it last changed; only the kernel sets that.
    """

    device: int
    inode: int
    size: int
    modified_ns: int
    changed_ns: int

    @classmethod
    def of(cls, found: os.stat_result) -> FileState:
        """From what the kernel tells."""
        return cls(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


class Integrity:
    """Remembers which blobs were read whole and found right. Safe to use from several threads.

    Args:
        verify: When to hash.
    """

    def __init__(self, verify: Verify = Verify.FIRST) -> None:
        self.verify = verify
        self._known: dict[Path, FileState] = {}
        self._wrong: dict[Path, FileState] = {}
        self._stop = threading.Event()

    def check(self, path: Path) -> bool:
        """Hash a blob, in constant memory, unless that is known already. Touches the disk.

        Args:
            path: ``…/<algorithm>/<hex>``, as the store lays its blobs out.

        Returns:
            Whether it was read for this.

        Raises:
            StoreDamaged: It is not there, or its bytes are not those of its name.
            StorageFailure: The disk does not give them back.
            Cancelled: :meth:`close` was called meanwhile.
        """
        if self.verify is Verify.OFF:
            return False
        digest = Digest(path.parent.name, path.name)
        with storage_errors(f"cannot read blob {digest.short}"):
            try:
                descriptor = os.open(path, _READ)
            except FileNotFoundError:
                raise _damaged(digest, "the file is gone") from None
            with os.fdopen(descriptor, "rb", buffering=0) as file:
                before = FileState.of(os.fstat(descriptor))
                if self.verify is Verify.FIRST and self._known.get(path) == before:
                    return False
                if self._wrong.get(path) == before:  # or asking for it would keep the disk busy
                    raise _damaged(digest, _WRONG)
                self._known.pop(path, None)
                _, found = hash_through(file, before.size, digest.algorithm, progress=self._go_on)
                after = FileState.of(os.fstat(descriptor))
        if found != digest.hex or before != after:
            self._wrong[path] = before
            raise _damaged(digest, _WRONG)
        self._known[path] = after
        return True

    def unchanged(self, path: Path) -> bool:
        """Whether a blob is still in the state that it was hashed in. Touches the disk.

        True too where it never was hashed: then the one who loads it checks.
        """
        known = self._known.get(path)
        if known is None:
            return True
        try:
            return FileState.of(path.lstat()) == known
        except OSError:
            return False

    def close(self) -> None:
        """End what is being hashed."""
        self._stop.set()

    def _go_on(self, _count: int) -> None:
        if self._stop.is_set():
            raise Cancelled("the server is stopping")


def _damaged(digest: Digest, why: str) -> StoreDamaged:
    return StoreDamaged(f"blob {digest.short} is not served", why=why, hint=_HINT)


class Damages:
    """Notes in the audit log which files were found to be no longer what was imported.

    Args:
        store: Whose they are.
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    def __call__(self, path: Path, error: StoreDamaged) -> None:
        """Note one; touches the disk."""
        digest = f"{path.parent.name}:{path.name}"
        detail = {"reason": error.why}
        event = self._store.audit_event("blob.refuse", digest, detail, outcome="refused")
        try:
            with self._store.catalogue.transaction() as tx:
                tx.add_audit_event(event)
        except SealiftError as fault:  # refused all the same
            _LOG.warning("the refusal could not be recorded: %s", fault.line())
