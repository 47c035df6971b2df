"""Collection of what nothing leads to, and scrubbing of what rots."""

from __future__ import annotations

from dataclasses import dataclass

from registry.digest import Digest
from registry.store import Store
from registry.sweep import GCReport, sweep
from registry.verify import storage_errors
from schemas import limits
from schemas.errors import NotFound, StorageFailure

__all__ = ["GCReport", "ScrubReport", "collect", "scrub"]


@dataclass(frozen=True, slots=True)
class ScrubReport:
    """What re-hashing found.

    Attributes:
        checked: Blobs that were read.
        bytes: How much that was.
        rotted: Blobs that are no longer what their names say; now in quarantine.
        missing: Blobs that the catalogue knows and the disk does not have.
    """

    checked: int
    bytes: int
    rotted: tuple[Digest, ...]
    missing: tuple[Digest, ...]

    @property
    def clean(self) -> bool:
        """Whether all is well."""
        return not self.rotted and not self.missing


def collect(
    store: Store,
    *,
    grace_seconds: float = limits.GC_GRACE_SECONDS,
    dry_run: bool = False,
) -> GCReport:
    """Remove every blob that no name leads to and that is older than the grace time.

    Live staging areas are never touched; those of dead processes are cleared away.

    Args:
        store: Its writer lock is held meanwhile.
        grace_seconds: Measured from when the blob was installed, or last claimed by an import.
        dry_run: Only tell what would go.

    Raises:
        StoreBusy: Another process holds the store.
        StorageFailure: A file cannot be removed.
    """
    with store.lock():
        if not dry_run:
            store.blobs.clear_abandoned()
        report = sweep(store.catalogue, store.blobs, grace_seconds=grace_seconds, dry_run=dry_run)
        if report.removed and not dry_run:
            detail = {"blobs": len(report.removed), "bytes": report.bytes}
            with store.catalogue.transaction() as tx:
                tx.add_audit_event(store.audit_event("gc", "store", detail))
    return report


def scrub(store: Store) -> ScrubReport:
    """Hash every blob again; move what rotted to ``quarantine/``, so that an import brings it anew.

    The store stays usable meanwhile: the lock is held only to move a file.

    Raises:
        StoreBusy: Another process holds the store.
        StorageFailure: Something rotted and cannot be moved.
    """
    checked = total = 0
    rotted = []
    for digest in store.blobs:
        try:
            total += store.blobs.size(digest)
            good = store.blobs.verify(digest)
        except NotFound:
            continue  # collected meanwhile
        except StorageFailure:
            good = False  # bytes that the disk does not give back are lost as well
        checked += 1
        if not good:
            _quarantine(store, digest)
            rotted.append(digest)
    known = store.catalogue.blob_sizes().keys()
    missing = sorted(d for d in known if not store.blobs.has(d) and d not in rotted)
    return ScrubReport(checked, total, tuple(rotted), tuple(missing))


def _quarantine(store: Store, digest: Digest) -> None:
    folder = store.home / "quarantine"
    with store.lock(), storage_errors(f"cannot move blob {digest.short} to quarantine"):
        folder.mkdir(mode=0o700, exist_ok=True)
        store.blobs.path(digest).replace(folder / f"{digest.algorithm}-{digest.hex}")
