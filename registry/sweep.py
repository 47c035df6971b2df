"""Mark and sweep over the catalogue and the blobs; the caller holds the store's lock."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from registry.blobs import BlobStore
from registry.catalogue import Catalogue
from registry.digest import Digest
from registry.verify import storage_errors


@dataclass(frozen=True, slots=True)
class GCReport:
    """What a collection did, or in a dry run would do.

    Attributes:
        removed: Blobs with their sizes in bytes.
        kept: How many blobs stay.
    """

    removed: tuple[tuple[Digest, int], ...] = ()
    kept: int = 0

    @property
    def bytes(self) -> int:
        """Room gained."""
        return sum(size for _, size in self.removed)


def sweep(
    catalogue: Catalogue,
    blobs: BlobStore,
    *,
    grace_seconds: float,
    dry_run: bool = False,
    only: frozenset[Digest] | None = None,
) -> GCReport:
    """Remove what no name leads to: tags → manifests → blobs.

    Rows go first, in one transaction, then the files: a crash in between leaves files that nobody
    refers to, never rows without their file.

    Args:
        catalogue: Read and written.
        blobs: Read and written; staging areas are not looked at.
        grace_seconds: Younger blobs and manifests stay.
        dry_run: Only tell.
        only: Look at these alone, whatever their age.

    Raises:
        StoreBusy: Somebody writes to the catalogue for too long.
        StorageFailure: A file cannot be removed.
    """
    if dry_run:
        _, doomed = _mark(catalogue, blobs, grace_seconds, only)
    else:
        with catalogue.transaction() as tx:
            manifests, doomed = _mark(catalogue, blobs, grace_seconds, only)
            tx.forget(sorted(manifests), sorted(doomed))
        for digest in doomed:
            with storage_errors(f"cannot remove blob {digest.short}"):
                blobs.path(digest).unlink(missing_ok=True)
    removed = tuple((digest, size) for digest, size in sorted(doomed.items()) if size >= 0)
    return GCReport(removed, sum(1 for digest in blobs if digest not in doomed))


def _mark(
    catalogue: Catalogue, blobs: BlobStore, grace_seconds: float, only: frozenset[Digest] | None
) -> tuple[frozenset[Digest], dict[Digest, int]]:
    """The manifests and blobs to remove, these with their sizes; -1: a row without its file."""
    now = datetime.now(UTC)
    if only is None:
        dead = catalogue.unreachable(now - timedelta(seconds=grace_seconds))
        candidates = frozenset(blobs) | catalogue.blob_sizes().keys()
    else:
        dead = catalogue.unreachable() & only
        candidates = only
    needs = catalogue.references()
    kept = frozenset[Digest]().union(*(needs[manifest] for manifest in needs.keys() - dead))
    doomed = {}
    for digest in candidates - kept:
        size, age = _look(blobs, digest, now.timestamp())
        if only is not None or age >= grace_seconds:
            doomed[digest] = size
    return dead, doomed


def _look(blobs: BlobStore, digest: Digest, now: float) -> tuple[int, float]:
    with storage_errors(f"cannot look at blob {digest.short}"):
        try:
            status = blobs.path(digest).stat()
        except FileNotFoundError:
            return -1, math.inf
    return status.st_size, now - status.st_mtime
