"""What is written down about an import."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from bundler.clock import rfc3339
from bundler.trust.names import ROOT, SNAPSHOT, TARGETS, TIMESTAMP
from registry.digest import Digest
from schemas.version import TOOL, VERSION

if TYPE_CHECKING:
    from bundler.importer import Verified


def receipt(
    verified: Verified, added: Mapping[Digest, int], reused: int, now: datetime
) -> dict[str, Any]:
    """The receipt of an accepted import; see ``receipt.v1``.

    Args:
        verified: What was believed, and why.
        added: Blobs that are new to the store, with their sizes in bytes.
        reused: How many blobs it had.
        now: The clock, as it was read once for this import.
    """
    descriptor, trust = verified.descriptor, verified.trust
    versions = trust.versions
    return {
        "schemaVersion": 1,
        "id": secrets.token_hex(16),
        "verdict": "accepted",
        "bundle": {
            "id": descriptor.id,
            "sequence": descriptor.sequence,
            "issuedAt": descriptor.issued_at,
            "publisher": descriptor.publisher,
        },
        "trust": {
            "anchor": trust.new_state.anchor,
            **{role: versions[role] for role in (ROOT, TIMESTAMP, SNAPSHOT, TARGETS)},
        },
        "time": {
            "clock": rfc3339(now),
            "reference": rfc3339(trust.reference_time),
            "verdict": trust.time_verdict,
        },
        "models": [
            {
                "name": str(model.bundled.reference),
                "manifest": str(model.bundled.manifest.digest),
                "signer": model.signer,
            }
            for model in verified.models
        ],
        "blobs": {
            "added": len(added),
            "reused": reused,
            "bytesAdded": sum(added.values()),
        },
        "tool": {"name": TOOL, "version": VERSION},
    }
