"""The catalogue's one way to write: an open transaction and its typed methods."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from registry.auditlog import AuditLog, append
from registry.database import database_errors, from_microseconds, microseconds, now, rfc3339
from registry.digest import Digest
from registry.oci import Descriptor, Manifest
from registry.records import Checkpoint, SignedReceipt, Supplement, TrustState
from registry.reference import Reference
from registry.withdrawals import WithdrawalWriter
from schemas import limits, strictjson
from schemas.documents import Kind, dump, load
from schemas.errors import (
    AlreadyExists,
    ContentMismatch,
    MalformedDocument,
    NotFound,
    TrustMissing,
    UsageError,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

_WHAT = "cannot write the catalogue"


class Transaction:
    """What one commit will change, all or nothing; see :meth:`Catalogue.transaction`."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._open = True
        self._sizes: dict[Digest, int] = {}  # of blobs that are registered for certain
        self._repositories: dict[str, int] = {}
        self.at = now()  # one time for everything in it

    def finish(self) -> None:
        """End of the transaction; any later call is a defect and says so."""
        self._open = False

    def _execute(self, sql: str, *values: object) -> sqlite3.Cursor:
        if not self._open:
            raise UsageError("the transaction is over")
        with database_errors(_WHAT):
            return self._connection.execute(sql, values)

    @property
    def withdrawals(self) -> WithdrawalWriter:
        """Writes what may no longer be served."""
        return WithdrawalWriter(self._execute, self.at)

    # -- models ---------------------------------------------------------------------------------

    def put_blob(self, descriptor: Descriptor) -> None:
        """Register a blob that lies in the store; again is fine.

        Raises:
            ContentMismatch: It is registered with another size.
        """
        size = self._size(descriptor.digest)
        if size is None:
            self._execute(
                "INSERT INTO blobs VALUES (?, ?, ?)",
                str(descriptor.digest),
                descriptor.size,
                self.at,
            )
            self._sizes[descriptor.digest] = descriptor.size
        elif size != descriptor.size:
            raise ContentMismatch(
                f"blob {descriptor.digest.short} has two sizes",
                why=f"{size} bytes here, {descriptor.size} bytes there",
            )

    def _size(self, digest: Digest) -> int | None:
        """Of a registered blob; a bundle's blobs are asked for several times each."""
        if digest not in self._sizes:
            found = self._execute("SELECT size FROM blobs WHERE digest = ?", str(digest)).fetchone()
            if found is None:
                return None
            self._sizes[digest] = int(found[0])
        return self._sizes[digest]

    def put_manifest(
        self,
        repository: str,
        descriptor: Descriptor,
        manifest: Manifest,
        facts: Mapping[str, Any] | None = None,
    ) -> None:
        """Add a manifest to a repository; again is fine, and replaces the facts.

        Args:
            repository: ``namespace/name``.
            descriptor: Of the manifest's exact bytes, which are a blob; registers that blob too.
            manifest: Parsed from those bytes.
            facts: See :class:`~registry.records.ModelRecord`; None leaves them as they are.

        Raises:
            NotFound: A blob that it points to was not registered.
            ContentMismatch: Such a blob is registered with another size.
        """
        self.put_blob(descriptor)
        digest = str(descriptor.digest)
        new = self._execute(
            "INSERT INTO manifests VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
            digest,
            descriptor.media_type,
            manifest.artifact_type,
            descriptor.size,
            manifest.to_bytes(),
            self.at,
        ).rowcount
        if new:
            self._link(digest, manifest)
        self._execute(
            "INSERT INTO repository_manifests VALUES (?, ?) ON CONFLICT DO NOTHING",
            self._repository(repository),
            digest,
        )
        if facts is not None:
            self._execute(
                "INSERT INTO model_facts VALUES (?, ?)"
                " ON CONFLICT (manifest) DO UPDATE SET document = excluded.document",
                digest,
                _facts_document(facts),
            )

    def _link(self, digest: str, manifest: Manifest) -> None:
        for position, blob in enumerate(manifest.blobs):
            size = self._size(blob.digest)
            if size is None:
                raise NotFound(f"blob {blob.digest.short} of the manifest is not in the store")
            if size != blob.size:
                raise ContentMismatch(f"the manifest tells a wrong size of {blob.digest.short}")
            self._execute(
                "INSERT INTO manifest_blobs VALUES (?, ?, ?, ?)",
                digest,
                position,
                str(blob.digest),
                blob.media_type,
            )
        if manifest.subject is not None:
            self._execute(
                "INSERT INTO referrers VALUES (?, ?, ?)",
                str(manifest.subject.digest),
                digest,
                manifest.artifact_type or manifest.config.media_type,
            )

    def _repository(self, name: str) -> int:
        if name not in self._repositories:
            self._execute("INSERT INTO repositories (name) VALUES (?) ON CONFLICT DO NOTHING", name)
            row = self._execute("SELECT id FROM repositories WHERE name = ?", name).fetchone()
            self._repositories[name] = int(row[0])
        return self._repositories[name]

    def set_tag(self, reference: Reference, digest: Digest) -> None:
        """Let a name stand for a manifest of its repository, whatever it stood for before.

        Raises:
            NotFound: The repository has no such manifest.
        """
        repository = self._repository(reference.repository)
        known = self._execute(
            "SELECT 1 FROM repository_manifests WHERE repository = ? AND manifest = ?",
            repository,
            str(digest),
        ).fetchone()
        if known is None:
            raise NotFound(f"manifest {digest.short} is not in {reference.repository}")
        self._execute(
            "INSERT INTO tags VALUES (?, ?, ?, ?) ON CONFLICT (repository, tag)"
            " DO UPDATE SET manifest = excluded.manifest, updated_at = excluded.updated_at",
            repository,
            reference.tag,
            str(digest),
            self.at,
        )

    def remove_tag(self, reference: Reference) -> None:
        """Take a name away; what it stood for is left to collection.

        Raises:
            NotFound: There is no such name.
        """
        removed = self._execute(
            "DELETE FROM tags WHERE tag = ?"
            " AND repository = (SELECT id FROM repositories WHERE name = ?)",
            reference.tag,
            reference.repository,
        ).rowcount
        if not removed:
            raise NotFound(f"model '{reference.local.shortest}' not found")

    def forget(self, manifests: Iterable[Digest], blobs: Iterable[Digest]) -> None:
        """Drop rows that nothing refers to any more; for collection only.

        Raises:
            StoreDamaged: Something still refers to one of them.
        """
        self._sizes.clear()
        self._repositories.clear()
        for digest in manifests:
            self._execute("DELETE FROM manifests WHERE digest = ?", str(digest))
        for digest in blobs:
            self._execute("DELETE FROM blobs WHERE digest = ?", str(digest))
        self._execute(
            "DELETE FROM repositories WHERE id NOT IN (SELECT repository FROM repository_manifests)"
        )

    # -- trust ----------------------------------------------------------------------------------

    def add_anchor(self, name: str, fingerprint: Digest) -> None:
        """Pin a root; :meth:`set_trust` then stores its metadata.

        Raises:
            AlreadyExists: An anchor has this name.
        """
        added = self._execute(
            "INSERT INTO trust_anchors VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
            name,
            str(fingerprint),
            self.at,
        ).rowcount
        if not added:
            raise AlreadyExists(
                f"there is a trust anchor {name!r} already",
                hint="Remove it first, or choose another name",
            )

    def remove_anchor(self, name: str) -> None:
        """Unpin a root and forget all that was trusted under it.

        Raises:
            TrustMissing: There is no such anchor.
        """
        if not self._execute("DELETE FROM trust_anchors WHERE name = ?", name).rowcount:
            raise TrustMissing(f"there is no trust anchor {name!r}")

    def set_trust(self, anchor: str, state: TrustState) -> None:
        """Replace all that is trusted under an anchor.

        Raises:
            TrustMissing: There is no such anchor, or it is pinned to another root.
            MalformedDocument: The state is another anchor's.
        """
        if state.anchor != anchor:
            raise MalformedDocument("trusted metadata of another anchor", why=state.anchor)
        row = self._execute(
            "SELECT fingerprint FROM trust_anchors WHERE name = ?", anchor
        ).fetchone()
        if row is None or row[0] != str(state.fingerprint):
            raise TrustMissing(f"no trust anchor {anchor!r} with this fingerprint")
        self._execute("DELETE FROM trust_roots WHERE anchor = ?", anchor)
        self._execute("DELETE FROM trust_metadata WHERE anchor = ?", anchor)
        for version, document in state.roots.items():
            self._execute("INSERT INTO trust_roots VALUES (?, ?, ?)", anchor, version, document)
        for role, document in state.metadata.items():
            self._execute("INSERT INTO trust_metadata VALUES (?, ?, ?)", anchor, role, document)
        self._execute("DELETE FROM trust_minimums WHERE anchor = ?", anchor)
        if state.least_timestamp:
            self._execute("INSERT INTO trust_minimums VALUES (?, ?)", anchor, state.least_timestamp)

    def put_supplement(self, anchor: str, supplement: Supplement) -> None:
        """Note what a bundle showed that tops up an older one, in place of an earlier note."""
        self._execute(
            "INSERT OR REPLACE INTO supplements VALUES (?, ?, ?, ?)",
            anchor,
            supplement.bundle,
            json.dumps(dict(supplement.versions), sort_keys=True),
            json.dumps(dict(supplement.names), sort_keys=True),
        )

    def remove_supplement(self, anchor: str, bundle: str) -> None:
        """Forget it: the trusted state has come so far."""
        self._execute("DELETE FROM supplements WHERE anchor = ? AND bundle = ?", anchor, bundle)

    def claim_namespace(self, namespace: str, fingerprint: Digest) -> Digest:
        """Whose a namespace is from now on: who claims it first has it.

        Args:
            namespace: As in ``namespace/name:tag``.
            fingerprint: Of the pinned root of who brings models of it.

        Returns:
            The fingerprint of whose it is.
        """
        self._execute(
            "INSERT INTO namespaces VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
            namespace,
            str(fingerprint),
            self.at,
        )
        row = self._execute(
            "SELECT fingerprint FROM namespaces WHERE name = ?", namespace
        ).fetchone()
        return Digest.parse(row[0])

    def release_namespaces(self, fingerprint: Digest) -> list[str]:
        """Let go of all namespaces of a publisher; returns their names."""
        rows = self._execute(
            "DELETE FROM namespaces WHERE fingerprint = ? RETURNING name", str(fingerprint)
        ).fetchall()
        return sorted(name for (name,) in rows)

    def set_clock_floor(self, reference_time: datetime, signed: datetime | None = None) -> None:
        """Raise the floor to a committed reference time (aware); a lower one changes nothing.

        Args:
            reference_time: That of the import.
            signed: A time that a publisher signed and that is to be believed, if there is one.
        """
        self._execute(
            "INSERT INTO clock_floor (id, reference_time, signed) VALUES (1, ?, ?)"
            " ON CONFLICT (id) DO UPDATE SET"
            " reference_time = max(reference_time, excluded.reference_time),"
            " signed = max(signed, excluded.signed)",
            microseconds(reference_time),
            microseconds(signed) if signed is not None else 0,
        )

    def lower_clock_floor(self, reference_time: datetime) -> None:
        """Set the floor to an earlier time, because a person says that the clock was ahead."""
        self._execute(
            "UPDATE clock_floor SET reference_time = ?, lowered = lowered + 1",
            microseconds(reference_time),
        )

    def use_request(self, request: str) -> None:
        """Note that something was done which a second operator had approved once.

        Raises:
            AlreadyExists: It was done before.
        """
        added = self._execute(
            "INSERT INTO used_requests VALUES (?, ?) ON CONFLICT DO NOTHING", request, self.at
        ).rowcount
        if not added:
            raise AlreadyExists(
                "this approval was used before", hint="Write a new request and have it approved"
            )

    # -- evidence -------------------------------------------------------------------------------

    def add_receipt(self, signed: SignedReceipt) -> None:
        """Keep a receipt and list its import.

        Raises:
            MalformedDocument: It does not follow its schema.
            AlreadyExists: There is one with this id.
        """
        receipt = load(Kind.RECEIPT, signed.document)
        bundle = receipt.get("bundle", {})
        added = self._execute(
            "INSERT INTO imports VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
            receipt["id"],
            bundle.get("id", ""),
            bundle.get("publisher", ""),
            bundle.get("sequence", 0),
            receipt["verdict"]["outcome"],
            microseconds(_moment(receipt["time"]["reference"])),
        ).rowcount
        if not added:
            raise AlreadyExists(f"there is a receipt {receipt['id']} already")
        self._execute(
            "INSERT INTO receipts VALUES (?, ?, ?, ?, ?)",
            receipt["id"],
            receipt["id"],
            signed.document,
            signed.signature,
            signed.public,
        )

    def add_audit_event(self, event: dict[str, Any]) -> int:
        """Append to the audit log and its tree.

        Args:
            event: As in ``audit-event.v2``; ``reference`` is filled in where it is missing: the
                event's own time, or the clock floor where the clock is behind.

        Returns:
            The entry's index, from 0 on.

        Raises:
            MalformedDocument: It does not follow its schema.
            StoreDamaged: Log and tree do not fit together.
        """
        floor = self._execute("SELECT reference_time FROM clock_floor").fetchone()
        complete = dict(event)
        if "reference" not in complete:
            latest = str(event.get("at", ""))
            if floor is not None:  # text of one form and one zone sorts as the times do
                latest = max(latest, rfc3339(from_microseconds(floor[0])))
            complete["reference"] = latest
        return append(self._execute, self.at, dump(Kind.AUDIT_EVENT, complete))

    def add_checkpoint(self, checkpoint: Checkpoint) -> None:
        """Keep a signed note about the audit log; the same one again is fine."""
        self._execute(
            "INSERT INTO audit_checkpoints VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
            checkpoint.size,
            checkpoint.signer,
            checkpoint.root,
            int(checkpoint.own),
            checkpoint.public,
            checkpoint.note,
            self.at,
        )

    @property
    def audit(self) -> AuditLog:
        """The audit log as it is in this transaction."""
        return AuditLog(self._execute)

    @property
    def time(self) -> datetime:
        """The one time of this transaction, UTC."""
        return from_microseconds(self.at)


def _facts_document(facts: Mapping[str, Any]) -> bytes:
    try:
        document = strictjson.dumps(dict(facts))
    except (TypeError, ValueError) as error:
        raise MalformedDocument("the model's facts are no JSON", why=str(error)) from None
    if len(document) > limits.CONFIG_BYTES:
        raise MalformedDocument(
            "the model's facts are too large", why=f"more than {limits.CONFIG_BYTES} bytes"
        )
    return document


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text)
