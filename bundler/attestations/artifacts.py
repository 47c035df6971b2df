"""A statement or a bill of materials as an OCI artifact that refers to a model's manifest.

OCI image-spec 1.1, manifest.md "Guidelines for Artifact Usage": an image manifest with a subject,
an empty config and one layer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from registry import oci
from registry.digest import Digest
from registry.oci import Descriptor, Manifest
from schemas import limits
from schemas.errors import MalformedDocument, OutsideClosure

EMPTY: Final = b"{}"
CONFIG: Final = Descriptor.for_bytes(oci.EMPTY_JSON, EMPTY)
KINDS: Final = (oci.SIGSTORE_BUNDLE, oci.CYCLONEDX_JSON)

# cosign, pkg/oci/remote/write.go
CONTENT: Final = "dev.sigstore.bundle.content"
PREDICATE_TYPE: Final = "dev.sigstore.bundle.predicateType"


@dataclass(frozen=True, slots=True)
class Referrer:
    """One artifact.

    Attributes:
        manifest: Parsed form of ``manifest_bytes``.
        manifest_bytes: The exact bytes.
        layer: The document itself.
    """

    manifest: Manifest
    manifest_bytes: bytes
    layer: bytes

    @property
    def descriptor(self) -> Descriptor:
        """Of the manifest."""
        return Descriptor.for_bytes(oci.IMAGE_MANIFEST, self.manifest_bytes)

    @property
    def blobs(self) -> tuple[bytes, ...]:
        """All that it consists of."""
        return (self.manifest_bytes, EMPTY, self.layer)


def signature(subject: Descriptor, bundle: bytes, predicate_type: str, title: str = "") -> Referrer:
    """A Sigstore bundle, annotated as cosign does."""
    annotations = {CONTENT: "dsse-envelope", PREDICATE_TYPE: predicate_type}
    return _referrer(subject, oci.SIGSTORE_BUNDLE, bundle, title, annotations)


def bill(subject: Descriptor, bom: bytes) -> Referrer:
    """A bill of materials as it is."""
    return _referrer(subject, oci.CYCLONEDX_JSON, bom, "bom.cdx.json", {})


def check(manifest: Manifest, subject: Descriptor) -> Descriptor:
    """See that a manifest is such an artifact, for this subject.

    Returns:
        Its layer.

    Raises:
        MalformedDocument: It is something else, or too large.
        OutsideClosure: It refers to something else.
    """
    named = manifest.subject
    if named is None or (named.media_type, named.digest, named.size) != (
        subject.media_type,
        subject.digest,
        subject.size,
    ):
        raise OutsideClosure(
            f"what came with model {subject.digest.short} refers to another one",
            why="its subject is " + (named.digest.short if named else "missing"),
        )
    config = manifest.config
    if manifest.artifact_type not in KINDS or (config.media_type, config.digest, config.size) != (
        CONFIG.media_type,
        CONFIG.digest,
        CONFIG.size,
    ):
        raise MalformedDocument(
            f"what came with model {subject.digest.short} is no attestation that is known here",
            why=f"of type {(manifest.artifact_type or 'none')[:80]}",
        )
    if len(manifest.layers) != 1 or manifest.layers[0].media_type != manifest.artifact_type:
        raise MalformedDocument(
            f"an attestation of model {subject.digest.short} has not one layer of its own type"
        )
    layer = manifest.layers[0]
    if not 0 < layer.size <= limits.ATTESTATION_BYTES:
        raise MalformedDocument(
            f"an attestation of model {subject.digest.short} is too large",
            why=f"{layer.size} > {limits.ATTESTATION_BYTES} bytes",
        )
    return layer


def predicate_type(manifest: Manifest) -> str | None:
    """What a Sigstore bundle is annotated to state; proves nothing."""
    return manifest.annotations.get(PREDICATE_TYPE)


def _referrer(
    subject: Descriptor, kind: str, layer: bytes, title: str, annotations: Mapping[str, str]
) -> Referrer:
    titled = {oci.TITLE: title} if title else {}
    manifest = Manifest(
        config=CONFIG,
        layers=(Descriptor(kind, Digest.of(layer), len(layer), titled),),
        artifact_type=kind,
        subject=subject,
        annotations=annotations,
    )
    return Referrer(manifest, manifest.to_bytes(), layer)
