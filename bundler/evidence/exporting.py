"""What of the audit log leaves the site: a bounded ASCII file of a fixed form, signed by the site.

By default it tells of every entry its hash, times, what kind of thing happened and how it ended: no
name, no word of a person. The receiver recomputes the checkpoint's root from the hashes, so nothing
was left out, changed or reordered on the way.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from bundler.clock import rfc3339
from bundler.evidence import checkpoints
from bundler.evidence.coding import decode, encode
from bundler.inventory import report
from bundler.trust.site import SiteKey, site_key
from registry import merkle
from registry.digest import Digest
from registry.store import Store
from schemas import documents, limits, strictjson
from schemas.documents import Kind
from schemas.errors import BadSignature, MalformedDocument, NotFound, UsageError
from schemas.version import TOOL, VERSION

_TOLD: Final = ("at", "reference", "action", "outcome")  # of every entry


@dataclass(frozen=True, slots=True)
class Told:
    """An export that was verified.

    Attributes:
        site: Fingerprint of the site's key.
        time: By the site's clock, RFC 3339.
        first: Index of the first entry.
        size: Entries of the whole log.
        root: Of the tree over them.
        entries: As ``audit-export.v1`` has them.
    """

    site: Digest
    time: str
    first: int
    size: int
    root: bytes
    entries: tuple[dict[str, Any], ...]


def make_checkpoint(store: Store) -> tuple[SiteKey, checkpoints.Head]:
    """Sign what the log is now, and keep that.

    Raises:
        NotFound: The log is empty.
        KeyUnavailable, StorageFull, StorageFailure: As they come.
    """
    key = site_key(store.home)
    with store.lock(), store.catalogue.transaction() as tx:
        if tx.audit.size == 0:
            raise NotFound("the audit log is empty", hint="Import a bundle first")
        if not tx.audit.has_own_checkpoint(tx.audit.size):
            checkpoints.keep(tx, key)
        newest = tx.audit.newest_checkpoint(own=True)
    if newest is None:
        raise NotFound("the audit log has no checkpoint")
    return key, checkpoints.read(newest.note)


def export_checkpoint(store: Store, now: datetime, since: int | None = None) -> bytes:
    """The log as it is now, for somebody outside to countersign.

    Args:
        store: Of the site.
        now: The clock.
        since: Entries of an earlier log, that this one provably continues; None for that of the
            last countersigned checkpoint which came back.

    Raises:
        NotFound: The log is empty.
        KeyUnavailable, StorageFull, StorageFailure: As they come.
    """
    key, head = make_checkpoint(store)
    document: dict[str, Any] = {
        **_frame(key, now),
        "checkpoint": head.note.to_bytes().decode(),
    }
    log = store.catalogue.audit
    if since is None:
        last = log.newest_checkpoint(own=False)
        since = last.size if last is not None and last.size <= head.size else 0
    if since:
        proof = log.consistency(since, head.size)
        document["since"] = {"size": since, "proof": [encode(each) for each in proof]}
    return report.write(Kind.CHECKPOINT, document, key, about_checkpoint)


def export(store: Store, now: datetime, *, first: int = 0, full: bool = False) -> bytes:
    """Entries from one on, up to a checkpoint that is made now.

    Args:
        store: Of the site.
        now: The clock.
        first: Index of the first.
        full: Whole entries, with names and words of persons.

    Raises:
        NotFound: The log has no such entry.
        UsageError: They are more than one file may hold.
        KeyUnavailable, StorageFull, StorageFailure: As they come.
    """
    key, head = make_checkpoint(store)
    if not 0 <= first < head.size:
        raise NotFound(f"the audit log has no entry {first}", why=f"it has {head.size}")
    if head.size - first > limits.AUDIT_EXPORT_ENTRIES:
        raise UsageError(
            f"{head.size - first} entries are too many for one file",
            hint=f"Give --first {head.size - limits.AUDIT_EXPORT_ENTRIES} or more",
        )
    log = store.catalogue.audit
    document = {
        **_frame(key, now),
        "checkpoint": head.note.to_bytes().decode(),
        "first": first,
        "before": [encode(each) for each in log.peaks(first).hashes],
        "entries": [_entry(data, full=full) for _, data in log.rows(first, head.size)],
    }
    return report.write(Kind.AUDIT_EXPORT, document, key, about_export)


def read_checkpoint(
    data: bytes, site: Digest | None = None
) -> tuple[checkpoints.Head, dict[str, Any]]:
    """Verify a site's checkpoint file; hostile.

    Returns:
        The checkpoint, its own signature checked too; and the whole document.

    Raises:
        MalformedDocument: Anything but exactly that.
        BadSignature, FingerprintMismatch: Not by that site.
    """
    document = report.read(Kind.CHECKPOINT, data, site, about_checkpoint)
    head = checkpoints.read(document["checkpoint"].encode())
    head.check_site(report.parse(data).public)
    return head, document


def read_export(data: bytes, site: Digest | None = None) -> Told:
    """Verify an export; hostile.

    Raises:
        MalformedDocument: Anything but exactly that.
        BadSignature: The signature is wrong, or the entries do not make the checkpoint's root.
        FingerprintMismatch: Another site's.
    """
    document = report.read(Kind.AUDIT_EXPORT, data, site, about_export)
    head = checkpoints.read(document["checkpoint"].encode())
    head.check_site(report.parse(data).public)
    first, before = document["first"], [decode(each) for each in document["before"]]
    if len(before) != first.bit_count():
        raise MalformedDocument("the export does not tell what was before it")
    peaks = merkle.Peaks(first, before)
    for entry in document["entries"]:
        leaf = decode(entry["leaf"])
        if "entry" in entry and _entry(decode(entry["entry"]), full=True) != entry:
            raise BadSignature("an exported entry is not the one whose hash it names")
        peaks.append(leaf)
    if (peaks.size, peaks.root()) != (head.size, head.root):
        raise BadSignature(
            "the exported entries do not make the log that the checkpoint tells of",
            hint="Carry the file again; if it stays so, ask the site",
        )
    return Told(
        head.site, document["time"], first, head.size, head.root, tuple(document["entries"])
    )


def _frame(key: SiteKey, now: datetime) -> dict[str, Any]:
    return {
        "schemaVersion": 1,
        "site": key.fingerprint.hex,
        "time": rfc3339(now),
        "tool": {"name": TOOL, "version": VERSION},
    }


def _entry(data: bytes, *, full: bool) -> dict[str, Any]:
    event = load_event(data)
    told: dict[str, Any] = {"leaf": encode(merkle.leaf_hash(data))}
    told |= {name: event[name] for name in _TOLD if name in event}
    if full:
        told["entry"] = encode(data)
    return told


def load_event(data: bytes) -> dict[str, Any]:
    """An entry of the log, of whichever version.

    Raises:
        MalformedDocument: It is none.
    """
    version = strictjson.parse_object(data, what="audit entry", max_bytes=limits.MIB).get(
        "schemaVersion"
    )
    return documents.load(Kind.AUDIT_EVENT_V1 if version == 1 else Kind.AUDIT_EVENT, data)


def about_checkpoint(document: dict[str, Any]) -> list[str]:
    """What a person reads who opens the file."""
    head = checkpoints.read(document["checkpoint"].encode())
    return [
        "The audit log of an isolated site, to be countersigned on the connected side.",
        f"Site: {report.fingerprint_text(document['site'])}",
        f"Time: {document['time']}",
        f"Entries: {head.size}",
        f"Root: {head.root.hex()}",
        "Next: bundle audit countersign FILE -o FILE",
    ]


def about_export(document: dict[str, Any]) -> list[str]:
    """What a person reads who opens the file."""
    full = any("entry" in entry for entry in document["entries"])
    return [
        "Entries of the audit log of an isolated site.",
        f"Site: {report.fingerprint_text(document['site'])}",
        f"Time: {document['time']}",
        f"Entries: {document['first']} to {document['first'] + len(document['entries']) - 1}",
        "Whole entries, with names." if full else "Hashes, times and kinds of events only.",
        "All of it: bundle audit show --file FILE",
    ]
