"""in-toto statements about a model: what is signed for each of the other tools.

Each is a function of the manifest, so signing reads no weights: a raw layer's digest is its file's.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, Final

from registry import oci
from registry.digest import Digest
from registry.oci import Manifest
from registry.reference import Reference
from schemas import documents
from schemas.documents import Kind
from schemas.errors import MalformedDocument, OutsideClosure

STATEMENT: Final = "https://in-toto.io/Statement/v1"
MODEL_SIGNING: Final = "https://model_signing/signature/v1.0"  # OpenSSF Model Signing v1.0
COSIGN: Final = "https://sigstore.dev/cosign/sign/v1"  # cosign, pkg/types/predicate.go
CYCLONEDX: Final = "https://cyclonedx.org/bom"  # in-toto attestation, spec/predicates/cyclonedx.md

SIGNATURE_FILE: Final = "model.sig"
BOM_FILE: Final = "bom.cdx.json"
_RAW: Final = ".raw"


def files(manifest: Manifest) -> dict[str, Digest]:
    """The model's files by name, with the digests of their bytes; by name in order."""
    found = {
        layer.annotations[oci.FILEPATH]: layer.digest
        for layer in manifest.layers
        if layer.media_type.endswith(_RAW) and oci.FILEPATH in layer.annotations
    }
    return dict(sorted(found.items()))


def model_signing(reference: Reference, manifest: Manifest) -> bytes:
    """The statement that ``model_signing verify`` wants to see signed.

    model_signing 1.1, ``_signing/signing.py``: the subject's digest is SHA-256 over the files' raw
    digests, one after the other.
    """
    found = files(manifest)
    subject = hashlib.sha256(b"".join(bytes.fromhex(d.hex) for d in found.values()))
    predicate = {
        "serialization": {
            "method": "files",
            "hash_type": "sha256",
            "allow_symlinks": False,
            "ignore_paths": [name for name in (SIGNATURE_FILE, BOM_FILE) if name not in found],
        },
        "resources": _resources(manifest),
    }
    return _statement(reference, subject.hexdigest(), MODEL_SIGNING, predicate)


def cosign(reference: Reference, manifest: Digest) -> bytes:
    """The statement that ``cosign verify`` wants to see signed."""
    return _statement(reference, manifest.hex, COSIGN, {})


def cyclonedx(reference: Reference, manifest: Digest, bom: Mapping[str, Any]) -> bytes:
    """The statement that ``cosign verify-attestation --type cyclonedx`` wants to see signed."""
    return _statement(reference, manifest.hex, CYCLONEDX, bom)


def read(payload: bytes) -> dict[str, Any]:
    """Parse a statement strictly.

    Raises:
        MalformedDocument: It is none.
    """
    return documents.load(Kind.STATEMENT, payload)


def check_subject(statement: Mapping[str, Any], manifest: Digest, model: Manifest) -> None:
    """See that a statement is about this model; one of Model Signing, about its files.

    Raises:
        OutsideClosure: It is about something else.
        MalformedDocument: It contradicts itself.
    """
    wanted = manifest.hex
    if statement["predicateType"] == MODEL_SIGNING:
        predicate = statement["predicate"]
        serialization = predicate.get("serialization")
        if not isinstance(serialization, dict) or (
            serialization.get("method"),
            serialization.get("hash_type"),
        ) != ("files", "sha256"):
            raise MalformedDocument("a model signature is of a kind that we do not make")
        if predicate.get("resources") != _resources(model):
            raise OutsideClosure("a model signature is not for the files of its model")
        digests = b"".join(bytes.fromhex(digest.hex) for digest in files(model).values())
        wanted = hashlib.sha256(digests).hexdigest()
    if statement["subject"][0]["digest"]["sha256"] != wanted:
        raise OutsideClosure("a statement is not about the model that it came with")


def _resources(manifest: Manifest) -> list[dict[str, str]]:
    return [
        {"name": name, "algorithm": "sha256", "digest": digest.hex}
        for name, digest in files(manifest).items()
    ]


def _statement(
    reference: Reference, digest: str, predicate_type: str, predicate: Mapping[str, Any]
) -> bytes:
    return documents.dump(
        Kind.STATEMENT,
        {
            "_type": STATEMENT,
            "subject": [{"name": str(reference), "digest": {"sha256": digest}}],
            "predicateType": predicate_type,
            "predicate": dict(predicate),
        },
    )
