"""What other tools check, made by hand: DSSE, in-toto, Sigstore bundles, OCI referrers.

Written against those specifications, not with ``bundler.attestations``. Each maker takes the model's
manifest and the edits of an attacker, and returns a :class:`Artifact`.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from securesystemslib.signer import CryptoSigner

from tests.support.bundle_simulator import (
    MANIFEST,
    Artifact,
    Edit,
    Forgery,
    describe,
    digest,
    dump,
    untouched,
)

SIGSTORE: Final = "application/vnd.dev.sigstore.bundle.v0.3+json"
CYCLONEDX: Final = "application/vnd.cyclonedx+json"
EMPTY: Final = "application/vnd.oci.empty.v1+json"
COSIGN_PREDICATE: Final = "https://sigstore.dev/cosign/sign/v1"
SIGNING_PREDICATE: Final = "https://model_signing/signature/v1.0"
BOM_PREDICATE: Final = "https://cyclonedx.org/bom"


@dataclass(frozen=True)
class Attachment:
    """An artifact beside a model, and what an attacker does to it.

    Attributes:
        kind: ``cosign``, ``signing``, ``bom`` or ``signed-bom``.
        about: Whose manifest it is about, where that is not the model itself.
        key: Who signs; None for nobody.
        statement: Edits the in-toto statement, or the bill of materials of ``bom``.
        bundle: Edits the Sigstore bundle.
        layer: Edits the layer's bytes.
        manifest: Edits the artifact's manifest.
        entry: Edits its descriptor in the model's entry.
    """

    kind: str
    key: CryptoSigner | None = None
    about: Forgery | None = None
    statement: Edit = untouched
    bundle: Edit = untouched
    layer: Callable[[bytes], bytes] = field(default=lambda data: data)
    manifest: Edit = untouched
    entry: Edit = untouched

    def __call__(self, model: Forgery, subject: bytes) -> Artifact:
        """The artifact for a model whose manifest has these bytes."""
        about = self.about or model
        about_bytes = subject if self.about is None else dump(about.manifest_document())
        document = self._document(about, about_bytes)
        annotations = {}
        if self.kind == "bom":
            self.statement(document)
            layer, kind = dump(document), CYCLONEDX
        else:
            layer, kind = self._signed(document), SIGSTORE
            annotations = {
                "dev.sigstore.bundle.content": "dsse-envelope",
                "dev.sigstore.bundle.predicateType": document["predicateType"],
            }
        layer = self.layer(layer)
        manifest: dict[str, Any] = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "artifactType": kind,
            "config": describe(EMPTY, b"{}"),
            "layers": [describe(kind, layer)],
            "subject": describe(MANIFEST, subject),
            "annotations": annotations,
        }
        self.manifest(manifest)
        described = describe(MANIFEST, dump(manifest))
        self.entry(described)
        return Artifact(dump(manifest), described, manifest, (b"{}", layer))

    def _document(self, about: Forgery, manifest: bytes) -> dict[str, Any]:
        if self.kind == "bom":
            return bom(about, manifest)
        predicate: dict[str, Any] = {}
        subject, kind = hashlib.sha256(manifest).hexdigest(), COSIGN_PREDICATE
        if self.kind == "signed-bom":
            predicate, kind = bom(about, manifest), BOM_PREDICATE
        if self.kind == "signing":
            weights = hashlib.sha256(about.weights)
            subject, kind = hashlib.sha256(weights.digest()).hexdigest(), SIGNING_PREDICATE
            predicate = {
                "serialization": {
                    "method": "files",
                    "hash_type": "sha256",
                    "allow_symlinks": False,
                    "ignore_paths": ["model.sig"],
                },
                "resources": [
                    {"name": about.file, "algorithm": "sha256", "digest": weights.hexdigest()}
                ],
            }
        statement = {
            "_type": "https://in-toto.io/Statement/v1",
            "subject": [{"name": about.name, "digest": {"sha256": subject}}],
            "predicateType": kind,
            "predicate": predicate,
        }
        self.statement(statement)
        return statement

    def _signed(self, statement: dict[str, Any]) -> bytes:
        payload, kind = json.dumps(statement).encode(), "application/vnd.in-toto+json"
        signed = b"DSSEv1 %d %s %d %s" % (len(kind), kind.encode(), len(payload), payload)
        signature, pem = b"no signature", b"no key"
        if self.key is not None:
            signature = bytes.fromhex(self.key.sign(signed).signature)
            pem = str(self.key.public_key.keyval["public"]).encode()
        bundle = {
            "mediaType": SIGSTORE,
            "verificationMaterial": {
                "publicKey": {"hint": hashlib.sha256(pem).hexdigest()},
                "tlogEntries": [],
            },
            "dsseEnvelope": {
                "payload": base64.b64encode(payload).decode(),
                "payloadType": kind,
                "signatures": [{"sig": base64.b64encode(signature).decode(), "keyid": ""}],
            },
        }
        self.bundle(bundle)
        return dump(bundle)


def bom(model: Forgery, manifest: bytes) -> dict[str, Any]:
    """A bill of materials with no more than it must have."""
    content = hashlib.sha256(model.weights).hexdigest()
    hashes = [{"alg": "SHA-256", "content": content}]
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": "urn:uuid:3e671687-395b-41f5-a30f-a58921a69b79",
        "version": 1,
        "metadata": {
            "component": {
                "type": "machine-learning-model",
                "bom-ref": digest(manifest),
                "name": "tiny",
                "components": [{"type": "file", "name": model.file, "hashes": hashes}],
            }
        },
    }


def all_of(key: CryptoSigner) -> tuple[Attachment, ...]:
    """What a bundle usually has."""
    kinds = ("bom", "cosign", "signing", "signed-bom")
    return tuple(Attachment(kind, key) for kind in kinds)
