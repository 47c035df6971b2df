"""A model as an OCI artifact: CNCF ModelPack (model-spec v0.0.7).

The manifest is a function of the model's bytes, its file's name and its tag alone, so the same file
gives the same digest on every machine and every day.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final

from bundler.attestations.artifacts import Referrer
from bundler.sources import LocalBlob, LocalModel
from registry import oci
from registry.oci import Descriptor, Manifest
from registry.weights import GGUF
from schemas import documents, strictjson
from schemas.documents import Kind

_EPOCH: Final = "1970-01-01T00:00:00Z"


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
    config = documents.dump(Kind.MODEL_CONFIG, _config(source))
    manifest = Manifest(
        config=Descriptor.for_bytes(oci.MODEL_CONFIG, config),
        layers=tuple(map(_layer, source.blobs)),
        artifact_type=oci.MODEL_ARTIFACT,
    )
    return PackedModel(source, manifest, manifest.to_bytes(), config)


def spdx(name: str) -> str:
    """A licence as SPDX writes it: ``mit`` → ``MIT``, ``gemma`` → ``LicenseRef-gemma``.

    Model hubs write SPDX ids in lower case, and names of their own beside them.
    """
    from packaging.licenses import InvalidLicenseExpression, canonicalize_license_expression

    try:
        return str(canonicalize_license_expression(name))
    except InvalidLicenseExpression:
        return "LicenseRef-" + re.sub(r"[^A-Za-z0-9.-]+", "-", name)


def _layer(source: LocalBlob) -> Descriptor:
    metadata = strictjson.dumps(
        {
            "name": source.label,
            "mode": 0o644,
            "uid": 0,
            "gid": 0,
            "size": source.size,
            "mtime": _EPOCH,
            "typeflag": ord("0"),
        }
    ).decode()
    return Descriptor(
        source.file.media_type,
        source.digest,
        source.size,
        {
            oci.FILEPATH: source.file.name,
            oci.FILE_METADATA: metadata,
            oci.TITLE: source.file.name,
        },
    )


def _config(source: LocalModel) -> dict[str, Any]:
    facts = source.facts
    return {
        "descriptor": _present(
            name=facts.name,
            family=facts.architecture,
            version=source.reference.tag,
            title=facts.name,
            licenses=[spdx(facts.license)] if facts.license else None,
        ),
        "config": _present(
            architecture=facts.architecture,
            format=source.found.format,
            paramSize=facts.size_label,
            capabilities=_capabilities(source),
            **{"quantization" if source.found.format == GGUF else "precision": facts.quantization},
        ),
        "modelfs": {"type": "layers", "diffIds": [str(blob.digest) for blob in source.blobs]},
    }


def _capabilities(source: LocalModel) -> dict[str, Any]:
    if not source.facts.capabilities:  # only a GGUF file tells
        return {}
    embedding = "embedding" in source.facts.capabilities
    return {
        "inputTypes": ["text"],
        "outputTypes": ["embedding" if embedding else "text"],
        "toolUsage": "tools" in source.facts.capabilities,
    }


def _present(**fields: object) -> dict[str, Any]:
    """What is unknown is left out, never guessed."""
    return {key: value for key, value in fields.items() if value}
