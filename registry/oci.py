"""OCI image-spec v1.1 types: descriptor and image manifest, and the media types that we use."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

from registry.digest import Digest
from schemas import limits, strictjson
from schemas.errors import InvalidName, MalformedDocument

IMAGE_MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
IMAGE_INDEX: Final = "application/vnd.oci.image.index.v1+json"
EMPTY_JSON: Final = (
    "application/vnd.oci.empty.v1+json"  # manifest.md "Guidelines for Artifact Usage"
)
LAYOUT_FILE: Final = b'{"imageLayoutVersion":"1.0.0"}'  # image-layout.md "oci-layout file"

# CNCF ModelPack (model-spec v0.0.7)
MODEL_ARTIFACT: Final = "application/vnd.cncf.model.manifest.v1+json"
MODEL_CONFIG: Final = "application/vnd.cncf.model.config.v1+json"
WEIGHT_RAW: Final = "application/vnd.cncf.model.weight.v1.raw"
WEIGHT_CONFIG_RAW: Final = "application/vnd.cncf.model.weight.config.v1.raw"
DOC_RAW: Final = "application/vnd.cncf.model.doc.v1.raw"
CODE_RAW: Final = "application/vnd.cncf.model.code.v1.raw"
DATASET_RAW: Final = "application/vnd.cncf.model.dataset.v1.raw"
LAYER_KINDS: Final = (WEIGHT_RAW, WEIGHT_CONFIG_RAW, DOC_RAW, CODE_RAW, DATASET_RAW)
FILEPATH: Final = "org.cncf.model.filepath"
FILE_METADATA: Final = "org.cncf.model.file.metadata+json"

# Ollama's form of the same (docker manifest v2 with a media type per part)
DOCKER_MANIFEST: Final = "application/vnd.docker.distribution.manifest.v2+json"
OLLAMA_LAYER: Final = "application/vnd.ollama.image."

CYCLONEDX_JSON: Final = "application/vnd.cyclonedx+json"  # IANA
SIGSTORE_BUNDLE: Final = "application/vnd.dev.sigstore.bundle.v0.3+json"  # Sigstore bundle format

TITLE: Final = "org.opencontainers.image.title"
CREATED: Final = "org.opencontainers.image.created"
REF_NAME: Final = "org.opencontainers.image.ref.name"
# annotations.md "Pre-Defined Annotation Keys": what a model was made from
BASE_DIGEST: Final = "org.opencontainers.image.base.digest"
BASE_NAME: Final = "org.opencontainers.image.base.name"

_NO_ANNOTATIONS: Final[Mapping[str, str]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Descriptor:
    """What a blob is, which bytes, how many (descriptor.md).

    Attributes:
        media_type: RFC 6838 media type.
        digest: Of the raw bytes.
        size: In bytes.
        annotations: Strings only.
        artifact_type: For manifests of artifacts.
    """

    media_type: str
    digest: Digest
    size: int
    annotations: Mapping[str, str] = field(default_factory=dict, hash=False)
    artifact_type: str | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.size <= limits.BLOB_BYTES:
            raise MalformedDocument(f"descriptor of {self.digest.short} has size {self.size}")
        object.__setattr__(self, "annotations", _frozen(self.annotations))

    @classmethod
    def for_bytes(
        cls, media_type: str, data: bytes, annotations: Mapping[str, str] = _NO_ANNOTATIONS
    ) -> Descriptor:
        """The descriptor of bytes at hand, by SHA-256."""
        return cls(media_type, Digest.of(data), len(data), annotations)

    @classmethod
    def from_document(cls, document: object, *, what: str) -> Descriptor:
        """Read one out of a parsed JSON document.

        Raises:
            MalformedDocument: A field is missing or of the wrong type.
        """
        fields = _object(document, what)
        try:
            digest = Digest.parse(_text(fields, "digest", what))
        except InvalidName as error:
            raise MalformedDocument(f"{what} has a bad digest", why=error.what) from None
        size = fields.get("size")
        if not isinstance(size, int) or isinstance(size, bool):
            raise MalformedDocument(f"{what} has no integer size")
        artifact_type = fields.get("artifactType")
        if artifact_type is not None and not isinstance(artifact_type, str):
            raise MalformedDocument(f"{what} has an artifactType that is no string")
        return cls(
            _text(fields, "mediaType", what),
            digest,
            size,
            _annotations(fields, what),
            artifact_type,
        )

    def document(self) -> dict[str, Any]:
        """The JSON object, empty fields left out."""
        result: dict[str, Any] = {
            "mediaType": self.media_type,
            "digest": str(self.digest),
            "size": self.size,
        }
        if self.artifact_type:
            result["artifactType"] = self.artifact_type
        if self.annotations:
            result["annotations"] = dict(self.annotations)
        return result


@dataclass(frozen=True, slots=True)
class Manifest:
    """An image manifest (manifest.md), which is also what a ModelPack artifact is."""

    config: Descriptor
    layers: tuple[Descriptor, ...]
    artifact_type: str | None = None
    subject: Descriptor | None = None
    annotations: Mapping[str, str] = field(default_factory=dict, hash=False)
    media_type: str = IMAGE_MANIFEST

    def __post_init__(self) -> None:
        object.__setattr__(self, "annotations", _frozen(self.annotations))

    @classmethod
    def parse(cls, data: bytes, *, media_type: str = IMAGE_MANIFEST) -> Manifest:
        """Parse a manifest's exact bytes.

        The media type must stand inside the document and be the one its descriptor announced, and
        ``manifests`` must not stand beside ``layers`` or ``config`` (CVE-2021-41190).

        Raises:
            MalformedDocument: Anything else.
        """
        what = "manifest"
        fields = strictjson.parse_object(data, what=what, max_bytes=limits.MANIFEST_BYTES)
        if fields.get("schemaVersion") != 2:
            raise MalformedDocument("manifest has a schemaVersion other than 2")
        if fields.get("mediaType") != media_type:
            raise MalformedDocument("manifest is not of the announced type", why=media_type)
        if "manifests" in fields:
            raise MalformedDocument("manifest is an image and an index at once")
        layers = fields.get("layers")
        if not isinstance(layers, list):
            raise MalformedDocument("manifest has no list of layers")
        artifact_type = fields.get("artifactType")
        if artifact_type is not None and not isinstance(artifact_type, str):
            raise MalformedDocument("manifest has an artifactType that is no string")
        subject = fields.get("subject")
        return cls(
            config=Descriptor.from_document(fields.get("config"), what="manifest config"),
            layers=tuple(Descriptor.from_document(x, what="manifest layer") for x in layers),
            artifact_type=artifact_type,
            subject=None
            if subject is None
            else Descriptor.from_document(subject, what="manifest subject"),
            annotations=_annotations(fields, what),
            media_type=media_type,
        )

    def to_bytes(self) -> bytes:
        """Serialise deterministically; the digest of a manifest is the digest of these bytes."""
        document: dict[str, Any] = {
            "schemaVersion": 2,
            "mediaType": self.media_type,
            "config": self.config.document(),
            "layers": [layer.document() for layer in self.layers],
        }
        if self.artifact_type:
            document["artifactType"] = self.artifact_type
        if self.subject:
            document["subject"] = self.subject.document()
        if self.annotations:
            document["annotations"] = dict(self.annotations)
        return strictjson.dumps(document)

    @property
    def blobs(self) -> tuple[Descriptor, ...]:
        """Config and layers: all that the manifest points to by digest."""
        return (self.config, *self.layers)


def _frozen(annotations: Mapping[str, str]) -> Mapping[str, str]:
    """A copy that stays as it is; most have none, and share one."""
    return MappingProxyType(dict(annotations)) if annotations else _NO_ANNOTATIONS


def _object(value: object, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise MalformedDocument(f"{what} is not an object")
    return value


def _text(fields: Mapping[str, Any], key: str, what: str) -> str:
    value = fields.get(key)
    if not isinstance(value, str) or not value:
        raise MalformedDocument(f"{what} has no {key}")
    return value


def _annotations(fields: Mapping[str, Any], what: str) -> Mapping[str, str]:
    value = fields.get("annotations", {})
    if not isinstance(value, dict) or not all(isinstance(v, str) for v in value.values()):
        raise MalformedDocument(f"{what} has annotations that are not strings")
    return value
