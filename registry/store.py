"""The store: blobs and catalogue under one home, and the lock that writers take turns by."""

from __future__ import annotations

import os
import pwd
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from registry.blobs import BlobStore
from registry.catalogue import Catalogue
from registry.database import rfc3339
from registry.digest import Digest
from registry.locks import holder, lock_within
from registry.records import ModelRecord
from registry.reference import Reference
from registry.sweep import GCReport, sweep
from registry.verify import storage_errors
from registry.withdrawals import SITE, Action, Withdrawal
from schemas import limits
from schemas.errors import AlreadyExists, InvalidName, NotFound, StoreBusy

_LOCK_FLAGS: Final = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC


class Store:
    """``$SEALIFT_HOME``, opened; use it as a context manager or close it.

    Attributes:
        home: The folder.
        blobs: See :class:`~registry.blobs.BlobStore`.
        catalogue: See :class:`~registry.catalogue.Catalogue`.
    """

    def __init__(self, home: Path, blobs: BlobStore, catalogue: Catalogue) -> None:
        self.home = home
        self.blobs = blobs
        self.catalogue = catalogue
        self._turn = threading.RLock()
        self._depth = 0
        self._lock_fd = -1

    @classmethod
    def open(cls, home: Path, *, create: bool = True) -> Store:
        """Open the store, and clear away what dead imports left behind.

        Args:
            home: The folder of all state; made with mode 0700 where it is not there.
            create: False for those that only use a store: nothing is made or cleared.

        Raises:
            NotFound: No store there and ``create`` is False.
            StorageFailure: The place cannot be used.
            StoreDamaged: The catalogue is not readable, or a newer Sealift's.
        """
        blobs = BlobStore(home)
        if create:
            with storage_errors(f"cannot make a store at {home}"):
                home.mkdir(mode=0o700, parents=True, exist_ok=True)
                os.close(os.open(home / "lock", _LOCK_FLAGS | os.O_CREAT, 0o600))
            blobs.prepare()
        elif not (home / "catalog.db").is_file():
            raise NotFound(f"no store at {home}", hint="Import a bundle first, or set SEALIFT_HOME")
        return cls(home, blobs, Catalogue.open(home / "catalog.db", create=create))

    def close(self) -> None:
        """Close the catalogue; again is fine."""
        self.catalogue.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @contextmanager
    def lock(self, timeout: float = limits.STORE_LOCK_SECONDS) -> Iterator[None]:
        """Exclude every other writer, in this process and outside; may be nested.

        An import holds it from installing its blobs to the catalogue's commit, and collection
        throughout, so that neither sees the other half-way.

        Args:
            timeout: Seconds to wait for the one before.

        Raises:
            StoreBusy: It took longer; tells who holds it.
        """
        if not self._turn.acquire(timeout=timeout):
            raise _busy(os.getpid())
        try:
            if self._depth == 0:
                self._lock_fd = self._take(timeout)
            self._depth += 1
            try:
                yield
            finally:
                self._depth -= 1
                if self._depth == 0:
                    os.close(self._lock_fd)
        finally:
            self._turn.release()

    def _take(self, timeout: float) -> int:
        with storage_errors(f"cannot lock the store at {self.home}"):
            fd = os.open(self.home / "lock", _LOCK_FLAGS | os.O_CREAT, 0o600)
            taken = False
            try:
                taken = lock_within(fd, timeout)
                owner = None if taken else holder(fd)
            finally:
                if not taken:
                    os.close(fd)
        if not taken:
            raise _busy(owner)
        return fd

    def remove_model(self, reference: Reference, *, prune: bool = True) -> GCReport:
        """Take a model's name away, in one transaction with its audit event.

        Args:
            reference: Its name; with a digest, only if the name stands for that manifest.
            prune: Also remove, at once, the blobs that only this model needed. Where an import is
                under way nothing is pruned, for it may count on them: collection does it later.

        Returns:
            What was pruned.

        Raises:
            NotFound: There is no such model.
            StoreBusy: Another process holds the store.
        """
        with self.lock():
            record = self._named(reference)
            manifest = record.descriptor.digest
            with self.catalogue.transaction() as tx:
                tx.remove_tag(reference)
                subject, detail = str(record.reference), {"manifest": str(manifest)}
                tx.add_audit_event(self.audit_event("model.remove", subject, detail))
            if not prune or self.blobs.live_areas():
                return GCReport()
            only = self._needed_by({manifest})
            return sweep(self.catalogue, self.blobs, grace_seconds=0, only=only)

    def _needed_by(self, manifests: set[Digest]) -> frozenset[Digest]:
        """These manifests, what refers to them, and all blobs of both."""
        for manifest in tuple(manifests):
            manifests |= {each.digest for each in self.catalogue.referrers(manifest)}
        needs = self.catalogue.references()
        return frozenset[Digest]().union(*(needs[manifest] for manifest in manifests))

    def copy_model(self, source: Reference, target: Reference) -> ModelRecord:
        """Give a model a second name, in one transaction with its audit event.

        No bytes are copied. A model that had the target's name loses it.

        Returns:
            The model under its new name.

        Raises:
            NotFound: There is no model ``source``.
            InvalidName: The target has a host or a digest.
            AlreadyExists: The target is a signed model, and the source is not.
            StoreBusy: Another process holds the store.
        """
        if target.host is not None or target.digest is not None:
            raise InvalidName(f"{target} cannot name a copy", hint="Leave host and digest out")
        with self.lock():
            record = self.catalogue.resolve(source)
            if record is None:
                raise _no_model(source)
            self.check_name(target, record.descriptor.digest)
            with self.catalogue.transaction() as tx:
                tx.put_manifest(target.repository, record.descriptor, record.manifest)
                tx.set_tag(target, record.descriptor.digest)
                detail = {"to": str(target), "manifest": str(record.descriptor.digest)}
                tx.add_audit_event(self.audit_event("model.copy", str(record.reference), detail))
            return self._named(target)

    def check_name(self, reference: Reference, manifest: Digest) -> None:
        """Whether a model may have a name: an unsigned one never that of a signed one.

        Raises:
            AlreadyExists: Who asks for the name must get what a publisher signed.
        """
        record = self.catalogue.resolve(replace(reference, digest=None))
        if record is None or record.descriptor.digest == manifest:
            return
        vouched = self.catalogue.withdrawals.vouched
        if vouched(record.descriptor.digest) and not vouched(manifest):
            raise AlreadyExists(
                f"model '{reference.local.shortest}' came signed in a bundle",
                why="what nobody signed may not take its name",
                hint="Choose another name",
            )

    def withdrawal_of(self, manifest: Digest) -> Withdrawal | None:
        """Why a model must not be loaded or given out, or should be with a warning; None if not.

        Quick enough to be asked for every request.
        """
        return self.catalogue.withdrawals.of(manifest)

    def deny(self, digest: Digest, label: str, reason: str) -> None:
        """Put a manifest or blob on this site's deny list, with its audit event."""
        with self.lock(), self.catalogue.transaction() as tx:
            tx.withdrawals.deny(digest, label, reason, actor())
            detail = {"reason": reason, "label": label}
            tx.add_audit_event(self.audit_event("deny.add", str(digest), detail))

    def allow(self, digest: Digest, reason: str) -> None:
        """Take a manifest or blob off this site's deny list, with its audit event.

        Raises:
            NotFound: It is not on it.
        """
        with self.lock(), self.catalogue.transaction() as tx:
            tx.withdrawals.allow(digest)
            tx.add_audit_event(self.audit_event("deny.remove", str(digest), {"reason": reason}))

    def release(self, reference: Reference, reason: str) -> Withdrawal:
        """Let a model out of quarantine, until a later advisory names it again.

        Raises:
            NotFound: There is no such model, or it is in no quarantine.
            ModelWithdrawn: It is blocked; that is not for this site to undo.
        """
        with self.lock():
            found = self.releasable(reference)
            record = self._named(reference)
            manifest = record.descriptor.digest
            with self.catalogue.transaction() as tx:
                tx.withdrawals.release(manifest, found.source, found.number, reason, actor())
                detail = {"manifest": str(manifest), "reason": reason, "advisory": found.number}
                event = self.audit_event("quarantine.release", str(record.reference), detail)
                tx.add_audit_event(event)
            return found

    def releasable(self, reference: Reference) -> Withdrawal:
        """What :meth:`release` would end, and with the same errors."""
        found = self.withdrawal_of(self._named(reference).descriptor.digest)
        if found is None or not found.stops:
            raise NotFound(f"model '{reference.shortest}' is in no quarantine")
        if found.action is Action.BLOCK and (found.source == SITE or found.publisher):
            raise found.refusal(reference.shortest)
        return found

    def _named(self, reference: Reference) -> ModelRecord:
        record = self.catalogue.resolve(replace(reference, digest=None))
        wanted = reference.digest
        if record is None or wanted not in (None, record.descriptor.digest):
            raise _no_model(reference)
        return record

    @staticmethod
    def audit_event(
        action: str, subject: str, detail: dict[str, Any], *, outcome: str = "done"
    ) -> dict[str, Any]:
        """An event that happened now, by the user of this process (``audit-event.v2``).

        Args:
            action: A few words of lower-case letters with dots or dashes: ``model.remove``.
            subject: What it was done to.
            detail: Strings, integers and truth values by name.
            outcome: ``done`` or ``refused``.
        """
        return {
            "schemaVersion": 2,
            "at": rfc3339(datetime.now(UTC)),
            "actor": actor(),
            "uid": os.getuid(),
            "action": action,
            "subject": subject,
            "outcome": outcome,
            "detail": detail,
        }


def actor() -> str:
    """Name of the user whose process this is."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # containers run with ids that have no name
        return f"uid {os.getuid()}"


def _no_model(reference: Reference) -> NotFound:
    return NotFound(f"model '{reference.shortest}' not found")


def _busy(pid: int | None) -> StoreBusy:
    return StoreBusy(
        "another process holds the store",
        why=f"process {pid}" if pid else "",
        hint="Wait until it is done and retry",
    )
