"""The catalogue: what the store's blobs mean, what this site trusts, what was done.

SQLite. Every write goes through one explicit transaction, which is the commit point of an import;
reads see the last commit.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

from registry.arrivals import Arrival, arrivals_of
from registry.auditlog import AuditLog
from registry.database import connect, database_errors, from_microseconds, microseconds
from registry.digest import Digest
from registry.oci import Descriptor, Manifest
from registry.records import (
    Anchor,
    AuditEntry,
    ImportRecord,
    ModelRecord,
    Supplement,
    TrustState,
)
from registry.reference import Reference
from registry.withdrawals import Withdrawals
from schemas import limits
from schemas.errors import InvalidName, NotFound, StorageFailure

if TYPE_CHECKING:
    from registry.transaction import Transaction

__all__ = ["Anchor", "AuditEntry", "Catalogue", "ImportRecord", "ModelRecord", "TrustState"]

_WHAT: Final = "cannot read the catalogue"
_AUDIT_PAGE: Final = 10_000  # events returned at once
_SMALL: Final = 64 * limits.KIB  # bytes of a manifest that is kept parsed
_LATEST: Final = 2**63 - 1  # microseconds; later than any time

_MODEL: Final = """
    SELECT r.name, coalesce(t.tag, ''), m.digest, m.media_type, m.artifact_type, m.size,
           m.document, m.created_at, coalesce(t.updated_at, m.created_at), f.document
      FROM repository_manifests AS rm
      JOIN repositories AS r ON r.id = rm.repository
      JOIN manifests AS m ON m.digest = rm.manifest
      LEFT JOIN tags AS t ON t.repository = rm.repository AND t.manifest = rm.manifest
      LEFT JOIN model_facts AS f ON f.manifest = m.digest
"""

_IMPORT: Final = """
    SELECT i.id, bundle, publisher, sequence, verdict, at, document,
           coalesce(signature, x''), coalesce(public, x'')
      FROM imports AS i JOIN receipts AS r ON r.id = i.id
"""


class Catalogue:
    """One handle on ``catalog.db``; threads may share it and take turns.

    Open it with :meth:`open`; close it, or use it as a context manager.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._turn = threading.RLock()
        self._in_transaction = False

    @classmethod
    def open(cls, path: Path, *, create: bool = True) -> Catalogue:
        """Open, and where needed create or migrate.

        Raises:
            NotFound: There is none and ``create`` is False.
            StoreDamaged: It is no catalogue, or one of a newer Sealift.
            StoreBusy: Another process writes for too long.
            StorageFailure: It cannot be opened.
        """
        return cls(connect(path, create=create))

    def close(self) -> None:
        """Give the file back; again is fine."""
        with self._turn, database_errors("cannot close the catalogue"):
            self._connection.close()

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
    def transaction(self) -> Iterator[Transaction]:
        """All writes inside are committed together at the end, or none if anything is raised.

        Waits for another writer up to ``STORE_LOCK_SECONDS``.

        Raises:
            StoreBusy: The other writer took longer.
            StorageFull: No space for the commit; nothing was changed.
            StorageFailure: The commit failed; nothing was changed.
        """
        from registry.transaction import Transaction

        with self._turn:
            if self._in_transaction:
                raise StorageFailure("a transaction is open already")
            with database_errors("cannot write the catalogue"):
                self._connection.execute("BEGIN IMMEDIATE")
            transaction = Transaction(self._connection)
            self._in_transaction = True
            try:
                yield transaction
                with database_errors("cannot commit to the catalogue"):
                    self._connection.execute("COMMIT")
            finally:
                self._in_transaction = False
                transaction.finish()
                # Some failures, as a full disk, have rolled back by themselves.
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")

    @contextmanager
    def view(self) -> Iterator[None]:
        """All reads inside see one state, whatever others commit meanwhile; other threads wait."""
        with self._turn:
            with database_errors(_WHAT):
                self._connection.execute("BEGIN")
            try:
                yield
            finally:
                with database_errors(_WHAT):
                    self._connection.execute("COMMIT")

    def _rows(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        with self._turn, database_errors(_WHAT):
            return self._connection.execute(sql, values).fetchall()

    # -- models ---------------------------------------------------------------------------------

    def resolve(self, reference: Reference) -> ModelRecord | None:
        """Look a model up by name or, where the reference has one, by the manifest's digest.

        The host is not looked at: what is here, is here.
        """
        if reference.digest is None:
            where = " WHERE r.name = ? AND t.tag = ?"
            rows = self._rows(_MODEL + where, reference.repository, reference.tag)
        else:
            where = " WHERE r.name = ? AND m.digest = ? ORDER BY t.tag = ? DESC LIMIT 1"
            rows = self._rows(
                _MODEL + where, reference.repository, str(reference.digest), reference.tag
            )
        return _model(rows[0], reference.tag) if rows else None

    def models(self) -> list[ModelRecord]:
        """Every name in the store, the newest first."""
        rows = self._rows(_MODEL + " WHERE t.tag IS NOT NULL ORDER BY t.updated_at DESC, r.name")
        return [_model(row) for row in rows]

    def manifests_with(self, blob: Digest) -> list[Digest]:
        """The manifests that point to a blob."""
        rows = self._rows(
            "SELECT DISTINCT manifest FROM manifest_blobs WHERE digest = ? ORDER BY manifest",
            str(blob),
        )
        return [Digest.parse(row[0]) for row in rows]

    def referrers(self, subject: Digest) -> list[Descriptor]:
        """Manifests that name ``subject`` (OCI distribution-spec 1.1 "Listing Referrers")."""
        rows = self._rows(
            "SELECT m.media_type, m.digest, m.size, f.artifact_type FROM referrers AS f"
            " JOIN manifests AS m ON m.digest = f.manifest WHERE f.subject = ? ORDER BY m.digest",
            str(subject),
        )
        return [
            Descriptor(row[0], Digest.parse(row[1]), row[2], artifact_type=row[3]) for row in rows
        ]

    def blob_sizes(self) -> dict[Digest, int]:
        """Every registered blob with its size in bytes."""
        return {Digest.parse(d): s for d, s in self._rows("SELECT digest, size FROM blobs")}

    def references(self) -> dict[Digest, frozenset[Digest]]:
        """Every manifest with all blobs that it needs, its own included."""
        needs: dict[Digest, set[Digest]] = {}
        for manifest, digest in self._rows(
            "SELECT digest, digest FROM manifests"
            " UNION ALL SELECT manifest, digest FROM manifest_blobs"
        ):
            needs.setdefault(Digest.parse(manifest), set()).add(Digest.parse(digest))
        return {manifest: frozenset(digests) for manifest, digests in needs.items()}

    def unreachable(self, before: datetime | None = None) -> frozenset[Digest]:
        """Manifests that no name leads to.

        One that refers to a reachable one (its OCI subject) is reachable too.

        Args:
            before: Those added later count as reachable; None to ask regardless of age.
        """
        rows = self._rows(
            """
            WITH RECURSIVE live (digest) AS (
                SELECT manifest FROM tags
                UNION SELECT digest FROM manifests WHERE created_at > ?
                UNION SELECT f.manifest FROM referrers AS f JOIN live ON f.subject = live.digest
            )
            SELECT digest FROM manifests WHERE digest NOT IN (SELECT digest FROM live)
            """,
            _LATEST if before is None else microseconds(before),
        )
        return frozenset(Digest.parse(row[0]) for row in rows)

    # -- trust ----------------------------------------------------------------------------------

    def anchors(self) -> list[Anchor]:
        """The pinned roots, by name."""
        rows = self._rows("SELECT name, fingerprint, added_at FROM trust_anchors ORDER BY name")
        return [Anchor(n, Digest.parse(f), from_microseconds(at)) for n, f, at in rows]

    def trust(self, anchor: str) -> TrustState | None:
        """All that is trusted under an anchor; None if there is no such anchor."""
        with self._turn:
            found = self._rows("SELECT fingerprint FROM trust_anchors WHERE name = ?", anchor)
            roots = self._rows(
                "SELECT version, document FROM trust_roots WHERE anchor = ? ORDER BY version",
                anchor,
            )
            others = self._rows(
                "SELECT role, document FROM trust_metadata WHERE anchor = ? ORDER BY role", anchor
            )
            least = self._rows(
                "SELECT timestamp_version FROM trust_minimums WHERE anchor = ?", anchor
            )
        if not found:
            return None
        fingerprint = Digest.parse(found[0][0])
        return TrustState(
            anchor, fingerprint, dict(roots), dict(others), least[0][0] if least else 0
        )

    def supplements(self, anchor: str) -> list[Supplement]:
        """What was seen of bundles that top up older ones, by the older one's id."""
        rows = self._rows(
            "SELECT bundle, versions, names FROM supplements WHERE anchor = ? ORDER BY bundle",
            anchor,
        )
        return [Supplement(b, json.loads(v), json.loads(n)) for b, v, n in rows]

    @property
    def withdrawals(self) -> Withdrawals:
        """What may no longer be served."""
        return Withdrawals(self._rows)

    def arrivals(self, manifest: Digest, most: int = 16) -> list[Arrival]:
        """The imports that brought a model, the newest first; no more than ``most``."""
        return arrivals_of(self._rows, manifest, most)

    def namespaces(self) -> dict[str, Digest]:
        """Every namespace that models came under, to its publisher's pinned fingerprint."""
        return {
            name: Digest.parse(fingerprint)
            for name, fingerprint in self._rows("SELECT name, fingerprint FROM namespaces")
        }

    def clock_floor(self) -> datetime | None:
        """The highest committed reference time, UTC."""
        rows = self._rows("SELECT reference_time FROM clock_floor")
        return from_microseconds(rows[0][0]) if rows else None

    def signed_time(self) -> datetime | None:
        """The latest time that a publisher signed and this site believed, UTC."""
        rows = self._rows("SELECT signed FROM clock_floor WHERE signed > 0")
        return from_microseconds(rows[0][0]) if rows else None

    def request_used(self, request: str) -> bool:
        """Whether what a second operator approved was done; see :meth:`Transaction.use_request`."""
        return bool(self._rows("SELECT 1 FROM used_requests WHERE id = ?", request))

    # -- evidence -------------------------------------------------------------------------------

    def receipts(self) -> list[ImportRecord]:
        """Every import with its receipt, the one that was recorded last first.

        Not by time, which a wrong clock may have told: each names the size of the log before it.
        """
        return self._imports(
            "ORDER BY CASE WHEN json_valid(CAST(document AS TEXT))"
            " THEN json_extract(CAST(document AS TEXT), '$.log.size') END DESC, at DESC, i.id"
        )

    def receipt(self, beginning: str) -> ImportRecord:
        """The receipt whose id begins so.

        Raises:
            NotFound: None does.
            InvalidName: Several do.
        """
        prefix = beginning.lower()
        # Ids are hexadecimal: "g" comes behind all that begin so.
        found = self._imports("WHERE i.id >= ? AND i.id < ? LIMIT 2", prefix, f"{prefix}g")
        if not found or not prefix:
            raise NotFound(
                f"there is no receipt {beginning[:40]!r}", hint="See: bundle receipt list"
            )
        if len(found) > 1:
            raise InvalidName(
                f"several receipts begin with {beginning[:40]}", hint="Give more of it"
            )
        return found[0]

    def last_accepted(self, publisher: str) -> ImportRecord | None:
        """The newest import of a publisher's bundle."""
        found = self._imports(
            "WHERE publisher = ? AND verdict = 'accepted' ORDER BY at DESC, sequence DESC LIMIT 1",
            publisher,
        )
        return found[0] if found else None

    def unlogged_receipts(self) -> list[str]:
        """Ids of signed receipts whose entry in the audit log does not name them."""
        rows = self._rows(
            """
            WITH told AS (
                SELECT r.id, CASE WHEN json_valid(CAST(r.document AS TEXT))
                             THEN json_extract(CAST(r.document AS TEXT), '$.log.size') END AS place
                  FROM receipts AS r WHERE r.signature IS NOT NULL
            )
            SELECT told.id FROM told LEFT JOIN audit_log AS a ON a.seq = told.place + 1
             WHERE a.seq IS NULL OR told.id IS NOT CASE WHEN json_valid(CAST(a.document AS TEXT))
                   THEN json_extract(CAST(a.document AS TEXT), '$.detail.receipt') END
             ORDER BY told.id LIMIT ?
            """,
            _AUDIT_PAGE,
        )
        return [row[0] for row in rows]

    def _imports(self, rest: str, *values: object) -> list[ImportRecord]:
        rows = self._rows(
            _IMPORT + rest,
            *values,
        )
        return [
            ImportRecord(i, bundle, publisher, sequence, verdict, from_microseconds(at), *more)
            for i, bundle, publisher, sequence, verdict, at, *more in rows
        ]

    @property
    def audit(self) -> AuditLog:
        """The audit log with its Merkle tree."""
        return AuditLog(self._rows)

    def audit_events(self, after: int = 0) -> list[AuditEntry]:
        """The audit log in order, from behind sequence number ``after``; 10,000 at most."""
        rows = self._rows(
            "SELECT seq, document FROM audit_log WHERE seq > ? ORDER BY seq LIMIT ?",
            after,
            _AUDIT_PAGE,
        )
        return [AuditEntry(seq, json.loads(document)) for seq, document in rows]


@lru_cache(maxsize=256)
def _known(document: bytes, *, media_type: str) -> Manifest:
    """A manifest that was parsed before: every request asks for its model's."""
    return Manifest.parse(document, media_type=media_type)


def _model(row: tuple[Any, ...], asked_tag: str = "") -> ModelRecord:
    name, tag, digest, media_type, artifact_type, size, document, created, modified, facts = row
    namespace, _, name = name.partition("/")
    manifest = (_known if len(document) <= _SMALL else Manifest.parse)(
        document, media_type=media_type
    )
    return ModelRecord(
        reference=Reference(namespace, name, tag or asked_tag),
        descriptor=Descriptor(media_type, Digest.parse(digest), size, artifact_type=artifact_type),
        manifest=manifest,
        created=from_microseconds(created),
        modified=from_microseconds(modified),
        size=sum({blob.digest: blob.size for blob in manifest.blobs}.values()),
        facts=json.loads(facts) if facts else {},
    )
