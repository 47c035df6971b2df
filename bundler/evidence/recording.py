"""Leaves a receipt, an audit entry and a checkpoint behind, in one transaction."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from types import MappingProxyType
from typing import Any, Final

from bundler.clock import now
from bundler.evidence import checkpoints, receipts, witness
from bundler.evidence.attempt import Attempt
from registry.digest import Digest
from registry.records import SignedReceipt
from registry.store import Store
from registry.transaction import Transaction
from schemas import documents
from schemas.documents import Kind
from schemas.errors import (
    BlobsMissing,
    ContentError,
    IncompleteBundle,
    KeyUnavailable,
    SealiftError,
    TrustError,
)

# Not said about the bundle: volumes have yet to come; the site's own key is unusable.
_NO_VERDICT: Final = (IncompleteBundle, KeyUnavailable)


def begin(store: Store, clock: datetime) -> Attempt:
    """Start to take notes of an import.

    Args:
        store: Of the site, whose key is made where there is none.
        clock: The clock, read once.

    Raises:
        KeyUnavailable: The site's key cannot be used: what cannot be recorded is not done.
        StorageFull, StorageFailure: As the disk says.
    """
    from bundler.trust.site import site_key

    return Attempt(site_key(store.home), clock)


@contextmanager
def recorded(store: Store) -> Iterator[Attempt]:
    """Take notes of an import; where the bundle is refused, record that.

    Nothing else of the store changes by a refusal.

    Raises:
        KeyUnavailable, StorageFull, StorageFailure: As for :func:`begin`.
    """
    attempt = begin(store, now())
    try:
        yield attempt
    except _NO_VERDICT:
        raise
    except (ContentError, TrustError) as error:
        if isinstance(error, BlobsMissing):
            attempt.missing = len(error.blobs)
        try:
            with store.catalogue.transaction() as tx:
                keep(store, tx, attempt, receipts.rejected(attempt, error))
        except SealiftError as trouble:
            hint = f"{error.hint}; this refusal could not be recorded: {trouble.what}"
            raise type(error)(error.what, why=error.why, hint=hint) from error
        raise


def keep(
    store: Store,
    tx: Transaction,
    attempt: Attempt,
    document: dict[str, Any],
    noted: Mapping[str, str] = MappingProxyType({}),
) -> dict[str, Any]:
    """Sign and keep a receipt, append to the audit log, and sign what the log is then.

    To be called before the transaction raises the clock's floor.

    Args:
        store: The site's.
        tx: Commits the import, or nothing else.
        attempt: How it came.
        document: Of :mod:`bundler.evidence.receipts`, incomplete.
        noted: More for the audit entry.

    Returns:
        The complete receipt.
    """
    from bundler.trust.site import sign

    wrong = _countersigned(store, tx, attempt) if "code" not in document["verdict"] else []
    if wrong:
        document["warnings"] = wrong
    bundle = document.get("bundle", {})
    complete = receipts.complete(
        document,
        log=tx.audit,
        floor=store.catalogue.clock_floor(),
        clock=attempt.clock,
        previous=store.catalogue.last_accepted(bundle.get("publisher", "")),
    )
    signed = sign(attempt.key, documents.dump(Kind.RECEIPT, complete), receipts.TYPE)
    tx.add_receipt(SignedReceipt(signed.payload, signed.signature, signed.public))
    tx.add_audit_event(_event(store, complete, Digest.of(signed.payload), noted))
    checkpoints.keep(tx, attempt.key)
    return complete


def _countersigned(store: Store, tx: Transaction, attempt: Attempt) -> list[str]:
    """Keep what the bundle brings back about this site's log; say where the log contradicts it."""
    wrong = []
    for document in attempt.head.descriptor.countersigned if attempt.head is not None else ():
        head = checkpoints.read(document["note"].encode())
        if head.site != attempt.key.fingerprint:
            continue
        found = witness.Countersigned.from_document(document)
        text = witness.take_in(tx, store, found, attempt.key.public)
        if text:
            wrong.append(f"the audit log is not what was countersigned: {text}"[:1024])
    return wrong


def _event(
    store: Store, receipt: dict[str, Any], digest: Digest, noted: Mapping[str, str]
) -> dict[str, Any]:
    detail = {"receipt": receipt["id"], "digest": str(digest), **noted}
    verdict = receipt["verdict"]
    if "code" in verdict:
        detail["code"] = verdict["code"]
    event = store.audit_event(
        "import",
        receipt.get("bundle", {}).get("id", "unknown"),
        detail,
        outcome="done" if verdict["outcome"] == "accepted" else "refused",
    )
    return {**event, "at": receipt["time"]["clock"], "reference": receipt["time"]["reference"]}
