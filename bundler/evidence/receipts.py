"""Receipts: what an import did, or why a bundle was refused, signed by the site (DSSE)."""

from __future__ import annotations

import base64
import os
import secrets
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from bundler.clock import rfc3339
from bundler.descriptor import BundleDescriptor
from bundler.evidence.attempt import Attempt, host, tool_digest
from bundler.inventory import report
from bundler.supplements import holds_back
from bundler.trust.clock import reference_time
from bundler.trust.envelope import read as read_metadata
from bundler.trust.names import ROOT
from registry.auditlog import AuditLog
from registry.digest import Digest
from registry.records import ImportRecord, TrustState
from registry.store import actor
from schemas import documents
from schemas.documents import Kind
from schemas.errors import NotFound, SealiftError
from schemas.version import TOOL, VERSION

if TYPE_CHECKING:
    from datetime import datetime

    from bundler.importer import Verified
    from bundler.policy.overrides import Overrides

TYPE: Final = "application/vnd.sealift.receipt.v2+json"
_WORDS: Final = 1024


def accepted(
    attempt: Attempt,
    verified: Verified,
    added: Mapping[Digest, int],
    reused: int,
    waiting: Sequence[str],
) -> dict[str, Any]:
    """What the receipt of an import says; :func:`complete` adds the rest.

    Args:
        attempt: How it came.
        verified: What was believed, and why.
        added: Blobs that are new to the store, with their sizes in bytes.
        reused: How many blobs it had.
        waiting: Names of models that have yet to come.
    """
    trust = verified.trust
    document = {
        **_common(attempt),
        "verdict": {"outcome": "accepted"},
        "models": [
            {
                "name": str(model.bundled.reference),
                "path": model.bundled.target,
                "manifest": str(model.bundled.manifest.digest),
                "signer": model.signer,
                "keys": list(trust.signers(model.signer)),
            }
            for model in verified.models
        ],
        "blobs": {
            "added": len(added),
            "reused": reused,
            "missing": 0,
            "bytesAdded": sum(added.values()),
        },
    }
    if waiting:
        document["waiting"] = list(waiting)
    if not holds_back(verified.descriptor, trust.versions, verified.trusted_before):
        document["trust"]["after"] = _versions(trust.new_state)
    return document


def rejected(attempt: Attempt, error: SealiftError) -> dict[str, Any]:
    """What the receipt of a refusal says; :func:`complete` adds the rest."""
    words = f"{error.what}: {error.why}" if error.why else error.what
    return {
        **_common(attempt),
        "verdict": {"outcome": "rejected", "code": error.code, "words": words[:_WORDS]},
        "models": [],
        "blobs": {"added": 0, "reused": 0, "missing": attempt.missing, "bytesAdded": 0},
    }


def complete(
    document: dict[str, Any],
    *,
    log: AuditLog,
    floor: datetime | None,
    clock: datetime,
    previous: ImportRecord | None,
) -> dict[str, Any]:
    """Add what is known only inside the transaction that keeps it.

    Args:
        document: So far.
        log: As it is before the import's own entry.
        floor: Of the clock, before the import.
        clock: As it was read for this import.
        previous: The last import from the same publisher.
    """
    size = log.size
    time = reference_time(clock, floor)
    document["log"] = {"size": size, "root": base64.b64encode(log.root(size)).decode()}
    document["time"] = {
        "clock": rfc3339(clock),
        "reference": rfc3339(time.time),
        "verdict": time.verdict,
    }
    if floor is not None:
        document["time"]["floor"] = rfc3339(floor)
    if previous is not None and previous.bundle:
        document["previous"] = {"id": previous.bundle, "sequence": previous.sequence}
    return document


def _common(attempt: Attempt) -> dict[str, Any]:
    overrides = attempt.gate.overrides if attempt.gate is not None else None
    document: dict[str, Any] = {
        "schemaVersion": 2,
        "id": secrets.token_hex(16),
        "site": attempt.key.fingerprint.hex,
        "host": host(),
        "operators": _operators(overrides),
        "tool": {"name": TOOL, "version": VERSION, "digest": str(tool_digest())},
        "media": [medium.document() for medium in attempt.media],
    }
    if attempt.descriptor is not None:
        document["bundle"] = _bundle(attempt, attempt.descriptor)
    if attempt.head is not None:
        before = attempt.head.trusted_before
        document["trust"] = {
            "anchor": before.anchor,
            "fingerprint": str(before.fingerprint),
            "before": _versions(before),
        }
    if attempt.withdrawals:
        document["withdrawals"] = [
            {"digest": str(digest), "action": action}
            for digest, action in sorted(attempt.withdrawals.items())
        ]
    if overrides is not None:
        document["policy"] = overrides.document()
    return document


def _bundle(attempt: Attempt, data: bytes) -> dict[str, Any]:
    """What the descriptor says; of one that is not believed, only if it can be read."""
    document: dict[str, Any] = {
        "descriptor": str(Digest.of(data)),
        "believed": attempt.head is not None,
    }
    try:
        believed = attempt.head.descriptor if attempt.head is not None else None
        descriptor = believed or BundleDescriptor.from_bytes(data)
    except SealiftError:
        return document
    document |= {
        "id": descriptor.id,
        "sequence": descriptor.sequence,
        "issuedAt": descriptor.issued_at,
        "publisher": descriptor.publisher,
    }
    if descriptor.volumes:
        document["volumes"] = sorted(attempt.volumes)
    if attempt.lost is not None:
        document |= {"parity": True, "lost": sorted(attempt.lost)}
    return document


def _operators(overrides: Overrides | None) -> list[dict[str, Any]]:
    """Who runs this process, and whom the approvals name."""
    persons: list[dict[str, Any]] = [{"name": actor(), "uid": os.getuid(), "part": "operator"}]
    if overrides is not None:
        if overrides.requester:
            persons.append({"name": overrides.requester, "part": "requester"})
        persons += (
            {"name": each.name, "part": "approver", "key": str(each.key)}
            for each in overrides.approvers
        )
    return persons


def _versions(state: TrustState) -> dict[str, Any]:
    newest = max(state.roots)
    found = {ROOT: {"version": newest, "digest": str(Digest.of(state.roots[newest]))}}
    for role, data in state.metadata.items():
        version = read_metadata(role, data).version
        found[role] = {"version": version, "digest": str(Digest.of(data))}
    return found


# -- files ----------------------------------------------------------------------------------------


def exported(record: ImportRecord) -> bytes:
    """A kept receipt as a file that leaves the site.

    Raises:
        NotFound: It is from before receipts were signed.
    """
    from bundler.trust.site import Signed

    if not record.signature:
        raise NotFound(
            f"receipt {record.id[:12]} was never signed",
            why="it is from before this site signed its receipts",
            hint="Show it with: bundle receipt show",
        )
    document = documents.load(Kind.RECEIPT, record.receipt)
    return report.render(
        Signed(record.receipt, TYPE, record.public, record.signature), about(document)
    )


def read(data: bytes, site: Digest | None = None) -> dict[str, Any]:
    """Verify a receipt's file; hostile.

    Args:
        data: The file.
        site: Fingerprint of the site's key, known from before. Without it the signature proves
            only that whoever has the named key made the file.

    Raises:
        MalformedDocument: Anything but exactly a receipt.
        BadSignature: The signature is wrong.
        FingerprintMismatch: Another site's.
    """
    return report.read(Kind.RECEIPT, data, site, about)


def about(document: dict[str, Any]) -> list[str]:
    """What a person reads who opens the file.

    These lines never change again: receipts are kept for years, and the lines are compared.
    """
    return [
        "The receipt of an import at an isolated site.",
        f"Site: {report.fingerprint_text(document['site'])}",
        f"Receipt: {document['id']}",
        f"Time: {document['time']['reference']}",
        f"Verdict: {document['verdict']['outcome']}",
        "All of it: bundle receipt verify FILE",
    ]
