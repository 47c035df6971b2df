"""The bundle descriptor: what a bundle holds, in which order. A TUF target, so signed.

The archive is a function of it: index, member names, sizes and order all follow, on both sides.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Self

from bundler.archive import layout
from bundler.clock import parse_rfc3339, rfc3339
from registry import oci
from registry.digest import Digest
from registry.oci import Descriptor, Manifest
from registry.reference import Reference
from schemas import documents, limits, strictjson
from schemas.documents import Kind
from schemas.errors import MalformedDocument
from schemas.version import TOOL, VERSION

IDENTITY: Final = "identity"
_ALGORITHM: Final = "sha256"


@dataclass(frozen=True, slots=True)
class BundledModel:
    """One model of a bundle.

    Attributes:
        reference: Its name, without host or digest.
        target: Path of its manifest among the TUF targets.
        manifest: Which manifest.
    """

    reference: Reference
    target: str
    manifest: Descriptor


@dataclass(frozen=True, slots=True)
class Member:
    """One blob of the archive.

    Attributes:
        digest: Of the finished blob.
        size: Of the finished blob, in bytes.
        encoding: How it travels.
    """

    digest: Digest
    size: int
    encoding: str = IDENTITY

    @property
    def name(self) -> str:
        """The member's name in the archive."""
        return layout.blob_name(str(self.digest))


@dataclass(frozen=True, slots=True)
class BundleDescriptor:
    """See ``schemas/files/bundle-descriptor.v1.schema.json`` for each field."""

    id: str
    sequence: int
    issued_at: str
    publisher: str
    models: tuple[BundledModel, ...]
    contents: tuple[Member, ...]

    @classmethod
    def build(
        cls,
        *,
        bundle_id: str,
        sequence: int,
        issued_at: datetime,
        publisher: str,
        models: Sequence[tuple[BundledModel, Manifest]],
    ) -> Self:
        """Describe a bundle that carries the whole closure of its models."""
        return cls(
            id=bundle_id,
            sequence=sequence,
            issued_at=rfc3339(issued_at),
            publisher=publisher,
            models=tuple(model for model, _ in models),
            contents=closure((model.manifest, manifest) for model, manifest in models),
        )

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Parse and validate.

        Raises:
            MalformedDocument: It does not follow the schema, or names something twice.
            InvalidName: A reference outside the grammar.
        """
        document = documents.load(Kind.BUNDLE, data)
        descriptor = cls(
            id=document["id"],
            sequence=document["sequence"],
            issued_at=document["issuedAt"],
            publisher=document["publisher"],
            models=tuple(
                BundledModel(
                    Reference.parse(model["name"]),
                    model["target"],
                    Descriptor.from_document(model["manifest"], what="model manifest"),
                )
                for model in document["models"]
            ),
            contents=tuple(
                Member(Digest.parse(item["digest"]), item["size"], item["encoding"])
                for item in document["contents"]
            ),
        )
        _check_entries(descriptor)
        _refuse_twins("model", [str(model.reference) for model in descriptor.models])
        _refuse_twins("blob", [member.name for member in descriptor.contents])
        if document["requires"]:
            raise MalformedDocument(
                "the bundle needs blobs that it does not carry",
                why="differential bundles come with a later version of Sealift",
            )
        return descriptor

    def to_bytes(self) -> bytes:
        """Serialise deterministically."""
        document: dict[str, Any] = {
            "schemaVersion": 1,
            "id": self.id,
            "sequence": self.sequence,
            "issuedAt": self.issued_at,
            "publisher": self.publisher,
            "tool": {"name": TOOL, "version": VERSION},
            "models": [
                {
                    "name": str(model.reference),
                    "target": model.target,
                    "manifest": model.manifest.document(),
                }
                for model in self.models
            ],
            "contents": [
                {"digest": str(item.digest), "size": item.size, "encoding": item.encoding}
                for item in self.contents
            ],
            "requires": [],
            "volumes": [],
        }
        return documents.dump(Kind.BUNDLE, document)

    def index(self) -> bytes:
        """``index.json``, for tools that read OCI archives; derived, never trusted."""
        return strictjson.dumps(
            {
                "schemaVersion": 2,
                "mediaType": oci.IMAGE_INDEX,
                "manifests": [
                    {
                        **model.manifest.document(),
                        "artifactType": oci.MODEL_ARTIFACT,
                        "annotations": {oci.REF_NAME: str(model.reference)},
                    }
                    for model in self.models
                ],
            }
        )


def closure(models: Iterable[tuple[Descriptor, Manifest]]) -> tuple[Member, ...]:
    """All blobs that these models consist of, each once, in archive order.

    Manifests first, then configs, then layers: whoever reads in one pass knows what a blob is for
    before it comes.
    """
    pairs = list(models)
    ordered = [
        *(descriptor for descriptor, _ in pairs),
        *(manifest.config for _, manifest in pairs),
        *(layer for _, manifest in pairs for layer in manifest.layers),
    ]
    members: dict[Digest, Member] = {}
    for item in ordered:
        known = members.setdefault(item.digest, Member(item.digest, item.size))
        if known.size != item.size:
            raise MalformedDocument(
                f"blob {item.digest.short} is declared with two sizes",
                why=f"{known.size} and {item.size} bytes",
            )
    return tuple(members.values())


def _check_entries(descriptor: BundleDescriptor) -> None:
    """What the schema cannot say of one entry."""
    try:
        parse_rfc3339(descriptor.issued_at)
    except ValueError as error:
        raise MalformedDocument("the bundle was issued at no time", why=str(error)) from None
    for model in descriptor.models:
        if model.manifest.media_type != oci.IMAGE_MANIFEST:
            raise MalformedDocument(
                f"{model.reference} is no image manifest", why=model.manifest.media_type
            )
        if model.reference.host is not None or model.reference.digest is not None:
            raise MalformedDocument(
                f"the bundle names a model {model.reference}", why="with a host or a digest"
            )
    for member in descriptor.contents:
        # Longer digests do not fit into a member's name; nobody needs them here.
        if member.digest.algorithm != _ALGORITHM:
            raise MalformedDocument(
                f"blob {member.digest.short} has a digest of an unusual kind",
                why=f"{member.digest.algorithm} where bundles use {_ALGORITHM}",
            )
        if member.size > limits.BLOB_BYTES:
            raise MalformedDocument(
                f"blob {member.digest.short} is too large",
                why=f"{member.size} > {limits.BLOB_BYTES} bytes",
            )


def _refuse_twins(what: str, names: list[str]) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise MalformedDocument(
                f"the bundle descriptor names a {what} twice", why=f"it is {name}"
            )
        seen.add(name)
