"""A model as an OCI artifact: CNCF ModelPack (model-spec v0.0.7).

The manifest is a function of the model's bytes, its file's name and its tag alone, so the same file
gives the same digest on every machine and every day.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

from bundler.attestations.artifacts import Referrer
from bundler.sources import LocalBlob, LocalModel
from registry import oci
from registry.modelpack import config_bytes, file_descriptor, spdx
from registry.oci import Descriptor, Manifest

__all__ = ["PackedModel", "pack", "spdx"]


@dataclass(frozen=True, slots=True)
class PackedModel:
    """A model with its manifest and config.

    Attributes:
        source: Where its weights come from.
        manifest: Parsed form of ``manifest_bytes``.
        manifest_bytes: The exact bytes that are signed.
        config_bytes: The exact bytes of the config blob.
        referrers: What other tools check; made by :func:`bundler.attestations.making.attest`.
    """

    source: LocalModel
    manifest: Manifest
    manifest_bytes: bytes
    config_bytes: bytes
    referrers: tuple[Referrer, ...] = ()

    @property
    def descriptor(self) -> Descriptor:
        """Of the manifest."""
        return Descriptor.for_bytes(oci.IMAGE_MANIFEST, self.manifest_bytes)

    @property
    def closure_bytes(self) -> int:
        """Manifest, config and layers together."""
        return len(self.manifest_bytes) + sum(blob.size for blob in self.manifest.blobs)


def pack(source: LocalModel) -> PackedModel:
    """Describe a local model as a ModelPack artifact: one raw layer per file."""
    layers = tuple(map(_layer, source.blobs))
    config = config_bytes(asdict(source.facts), source.found.format, source.reference.tag, layers)
    manifest = Manifest(
        config=Descriptor.for_bytes(oci.MODEL_CONFIG, config),
        layers=layers,
        artifact_type=oci.MODEL_ARTIFACT,
    )
    return PackedModel(source, manifest, manifest.to_bytes(), config)


def _layer(source: LocalBlob) -> Descriptor:
    return file_descriptor(source.file.media_type, source.digest, source.size, source.file.name)
