"""What ``bundle create`` adds to each model for other tools."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from bundler.attestations import artifacts, bom, sigstore, statements
from bundler.descriptor import BundleDescriptor
from bundler.modelpack import PackedModel
from bundler.trust.attesting import AttestationKey
from bundler.trust.keyring import Secrets
from bundler.trust.publisher import Publisher
from registry import oci
from schemas import documents
from schemas.documents import Kind


def attest(
    models: Iterable[PackedModel], publisher: Publisher, passphrase: Secrets | bytes
) -> list[PackedModel]:
    """Add a bill of materials to every model, and signatures where the key is at hand.

    Nothing of the models is read: what is signed follows from their manifests.

    Args:
        models: Of namespaces that the publisher may sign for, or not: then it says so later.
        publisher: Whose keys sign.
        passphrase: Of the keys.

    Raises:
        KeyUnavailable: The passphrase is wrong, or a key does not sign.
    """
    found = list(models)
    namespaces = {model.source.reference.namespace for model in found}
    keys = {each: publisher.attestation_key(each, passphrase) for each in sorted(namespaces)}
    return [attested(model, keys[model.source.reference.namespace]) for model in found]


def attested(model: PackedModel, key: AttestationKey | None) -> PackedModel:
    """The model with what refers to it."""
    reference, subject = model.source.reference, model.descriptor
    document = bom.model_bom(model)
    found = [artifacts.bill(subject, documents.dump(Kind.MODEL_BOM, document))]
    if key is not None:
        for kind, payload, title in (
            (statements.COSIGN, statements.cosign(reference, subject.digest), ""),
            (
                statements.MODEL_SIGNING,
                statements.model_signing(reference, model.manifest),
                statements.SIGNATURE_FILE,
            ),
            (statements.CYCLONEDX, statements.cyclonedx(reference, subject.digest, document), ""),
        ):
            signed = sigstore.sign(key, payload)
            found.append(artifacts.signature(subject, signed, kind, title))
    return replace(model, referrers=tuple(found))


def bill_of(descriptor: BundleDescriptor, models: Sequence[PackedModel]) -> bytes:
    """The bundle's bill of materials: a function of what it holds, when and by whom."""
    bills = [
        next((r.layer for r in m.referrers if r.manifest.artifact_type == oci.CYCLONEDX_JSON), None)
        for m in models
    ]
    return bom.bundle_bom(
        descriptor.id,
        descriptor.issued_at,
        descriptor.publisher,
        [
            (b, m.manifest, bill)
            for b, m, bill in zip(descriptor.models, models, bills, strict=True)
        ],
    )
