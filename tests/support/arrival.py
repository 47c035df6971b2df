"""A receipt in a store's catalogue, as if a bundle had brought one of its models."""

from __future__ import annotations

from typing import Any

from registry.digest import Digest
from registry.records import SignedReceipt
from registry.reference import Reference
from registry.store import Store
from schemas import documents
from schemas.documents import Kind

ROOT = Digest.of(b"root")
KEY = "ef" * 32


def brought(store: Store, name: str, number: int = 1, *, pinned: bool = True) -> str:
    """Write one; returns the receipt's id.

    Args:
        store: It holds the model.
        name: Of the model.
        number: Of the bundle; the import was on that day of March 2026.
        pinned: Whether its publisher, ``acme``, is trusted.
    """
    record = store.catalogue.resolve(Reference.parse(name))
    assert record is not None
    document = _receipt(number, name, str(record.descriptor.digest))
    data = documents.dump(Kind.RECEIPT, document)
    with store.catalogue.transaction() as tx:
        if pinned and not store.catalogue.anchors():
            tx.add_anchor("acme", ROOT)
        tx.add_receipt(SignedReceipt(data, b"signature", b"public"))
    return str(document["id"])


def _receipt(number: int, name: str, manifest: str) -> dict[str, Any]:
    return {
        "schemaVersion": 2,
        "id": f"{number:032x}",
        "site": "5" * 64,
        "host": "isolated",
        "operators": [{"name": "root", "uid": 0, "part": "operator"}],
        "tool": {"name": "sealift", "version": "0", "digest": str(Digest.of(b"tool"))},
        "verdict": {"outcome": "accepted"},
        "media": [],
        "bundle": {
            "id": "b" * 32,
            "sequence": number,
            "issuedAt": "2026-03-01T00:00:00Z",
            "publisher": "acme",
            "descriptor": str(Digest.of(b"d")),
            "believed": True,
        },
        "trust": {"anchor": "acme", "fingerprint": str(ROOT), "before": {}},
        "time": {
            "clock": f"2026-03-{number:02}T05:06:07Z",
            "reference": f"2026-03-{number:02}T05:06:07Z",
            "verdict": "clock",
        },
        "models": [
            {
                "name": name,
                "path": f"models/{name}",
                "manifest": manifest,
                "signer": name.partition("/")[0],
                "keys": [KEY],
            }
        ],
        "blobs": {"added": 1, "reused": 0, "missing": 0, "bytesAdded": 5},
        "log": {"size": 0, "root": "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="},
    }
