"""What ``bundle create`` adds to each model for other tools."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from bundler.attestations import artifacts, bom, sigstore, statements
from bundler.attestations.artifacts import Referrer
from bundler.modelpack import PackedModel
from bundler.trust.attesting import AttestationKey
from schemas import documents
from schemas.documents import Kind


@dataclass(frozen=True, slots=True)
class Attested:
    """A model with what refers to it.

    Attributes:
        model: The model.
        bom: Its bill of materials.
        referrers: That, and the signatures that could be made.
    """

    model: PackedModel
    bom: bytes
    referrers: tuple[Referrer, ...]


def attest(
    models: Iterable[PackedModel], keys: Mapping[str, AttestationKey]
) -> tuple[Attested, ...]:
    """Make bills of materials for all models, signatures for those whose key is at hand.

    Args:
        models: Hashed already; nothing of them is read.
        keys: Of publishers, by namespace.

    Raises:
        KeyUnavailable: A key does not sign.
    """
    return tuple(_attest(model, keys.get(model.source.reference.namespace)) for model in models)


def _attest(model: PackedModel, key: AttestationKey | None) -> Attested:
    reference, subject = model.source.reference, model.descriptor
    document = bom.model_bom(model)
    listed = documents.dump(Kind.MODEL_BOM, document)
    found = [artifacts.bill(subject, listed)]
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
    return Attested(model, listed, tuple(found))
