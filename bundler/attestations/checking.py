"""Checks what came with the models for other tools, while a bundle is read.

Pure functions of documents, but for the keys: these come out of verified TUF metadata. Whoever only
looks at a bundle has none; then everything but the signatures is checked.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey

from bundler.attestations import artifacts, bom, sigstore, statements
from bundler.descriptor import BundleDescriptor, BundledModel
from registry import oci
from registry.digest import Digest
from registry.oci import Manifest
from schemas.errors import MalformedDocument

KeysOf = Callable[[BundledModel], Sequence[EllipticCurvePublicKey]]
"""The keys that may sign for a model."""


class Checker:
    """Is given every small blob that belongs to a referrer, and refuses what does not fit.

    Args:
        descriptor: Says which referrers belong to which model.
        manifests: Of the models, by digest.
        referrers: Their manifests, by digest.
        keys: Whose signatures are believed; None to leave signatures alone.

    Raises:
        MalformedDocument, OutsideClosure: A referrer is none, or belongs to another model.
    """

    def __init__(
        self,
        descriptor: BundleDescriptor,
        manifests: Mapping[Digest, Manifest],
        referrers: Mapping[Digest, Manifest],
        keys: KeysOf | None,
    ) -> None:
        self._manifests = manifests
        self._keys = keys
        self._waiting: dict[Digest, list[tuple[BundledModel, Manifest]]] = {}
        for model in descriptor.models:
            for each in model.referrers:
                manifest = referrers[each.digest]
                layer = artifacts.check(manifest, model.manifest)
                self._waiting.setdefault(layer.digest, []).append((model, manifest))

    def checked(self, data: bytes) -> bytes:
        """Check one config or layer, compared with its digest already; returns it.

        Raises:
            MalformedDocument: It is not what it should be.
            OutsideClosure: It is about another model.
            BadSignature: It is not signed by those who may.
        """
        for model, manifest in self._waiting.pop(Digest.of(data), ()):
            digest = model.manifest.digest
            if manifest.artifact_type == oci.CYCLONEDX_JSON:
                bom.check_model_bom(data, digest, self._manifests[digest])
            else:
                self._check_signature(model, manifest, data)
        return data

    def _check_signature(self, model: BundledModel, manifest: Manifest, data: bytes) -> None:
        signed = sigstore.read(data)
        if self._keys is not None:
            what = f"an attestation of {model.reference}"
            sigstore.verify(signed, self._keys(model), what)
        statement = statements.read(signed.payload)
        kind = statement["predicateType"]
        if artifacts.predicate_type(manifest) != kind:
            raise MalformedDocument(
                f"an attestation of {model.reference} states something else than it says",
                why=f"{kind[:80]} signed, {(artifacts.predicate_type(manifest) or 'nothing')[:80]}",
            )
        digest = model.manifest.digest
        described = self._manifests[digest]
        statements.check_subject(statement, digest, described)
        if kind == statements.CYCLONEDX:
            bom.check_model_document(statement["predicate"], digest, described)
