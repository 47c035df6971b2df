"""The bundle descriptor: what a bundle holds, in which order. A TUF target, so signed.

The archive is a function of it: index, member names, sizes and order all follow, on both sides.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from bundler.clock import parse_rfc3339
from bundler.contents import Entry, Part
from registry import oci
from registry.digest import Digest
from registry.oci import Descriptor
from registry.reference import Reference
from schemas import documents, strictjson
from schemas.documents import Kind
from schemas.errors import MalformedDocument
from schemas.version import TOOL, VERSION


@dataclass(frozen=True, slots=True)
class BundledModel:
    """One model of a bundle.

    Attributes:
        reference: Its name, without host or digest.
        target: Path of its manifest among the TUF targets.
        manifest: Which manifest.
        referrers: Manifests of what other tools check; see :mod:`bundler.attestations`.
    """

    reference: Reference
    target: str
    manifest: Descriptor
    referrers: tuple[Descriptor, ...] = ()


@dataclass(frozen=True, slots=True)
class Parity:
    """Reed-Solomon parity over the volumes' files; see :mod:`bundler.parity`.

    Attributes:
        volumes: How many parity volumes there are.
        block: Bytes per block.
        table: ``sealift/parity.bin`` in the head: the digest of every block of every volume.
        table_size: Its bytes.
    """

    volumes: int
    block: int
    table: Digest
    table_size: int


@dataclass(frozen=True, slots=True)
class BundleDescriptor:
    """See ``schemas/files/bundle-descriptor.v1.schema.json`` for each field.

    Attributes:
        contents: In archive order: manifests, configs, then the large entries.
        requires: Blobs that the far side must hold: left out of the bundle, or bases of deltas.
        volumes: The parts of each volume; empty when all lies in one file.
        parity: If there are parity volumes.
        supplements: Id of the bundle for which this one sends what a site lacked. It leaves the
            trusted versions as they are, so that the other bundle can still be imported after it.
        countersigned: Checkpoints of sites' audit logs that somebody outside countersigned; for
            those sites to keep (``countersignature.v1``).
        bom: Digest and size of ``sealift/bom.cdx.json``, the bundle's bill of materials.
    """

    id: str
    sequence: int
    issued_at: str
    publisher: str
    models: tuple[BundledModel, ...]
    contents: tuple[Entry, ...]
    requires: tuple[tuple[Digest, int], ...] = ()
    volumes: tuple[tuple[Part, ...], ...] = ()
    parity: Parity | None = None
    supplements: str | None = None
    bom: tuple[Digest, int] | None = None
    countersigned: tuple[Mapping[str, Any], ...] = ()

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Parse and validate.

        Raises:
            MalformedDocument: It does not follow the schema, or contradicts itself.
            InvalidName: A reference outside the grammar.
        """
        document = documents.load(Kind.BUNDLE, data)
        contents = tuple(Entry.from_document(item) for item in document["contents"])
        parity, bom = document.get("parity"), document.get("bom")
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
                    tuple(
                        Descriptor.from_document(each, what="referrer")
                        for each in model.get("referrers", ())
                    ),
                )
                for model in document["models"]
            ),
            contents=contents,
            requires=tuple((Digest.parse(r["digest"]), r["size"]) for r in document["requires"]),
            volumes=tuple(_volume(item["parts"], contents) for item in document["volumes"]),
            parity=None
            if parity is None
            else Parity(
                parity["volumes"],
                parity["block"],
                Digest.parse(parity["table"]["digest"]),
                parity["table"]["size"],
            ),
            supplements=document.get("supplements"),
            bom=None if bom is None else (Digest.parse(bom["digest"]), bom["size"]),
            countersigned=tuple(document.get("countersigned", ())),
        )
        _check_entries(descriptor)
        _refuse_twins("model", [str(model.reference) for model in descriptor.models])
        _refuse_twins("blob", [str(entry.digest) for entry in contents])
        descriptor.check_bases()
        return descriptor

    def check_bases(self) -> None:
        """See that every base of a delta is required of the far side.

        Raises:
            MalformedDocument: One is not; then no order of reading could make the blob.
        """
        required = {digest for digest, _ in self.requires}
        for entry in self.contents:
            if missing := set(entry.bases) - required:
                raise MalformedDocument(
                    "a delta has a base that the bundle does not require",
                    why=min(missing).short,
                )

    def to_bytes(self) -> bytes:
        """Serialise deterministically."""
        numbers = {entry.digest: number for number, entry in enumerate(self.contents)}
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
                    **(
                        {"referrers": [each.document() for each in model.referrers]}
                        if model.referrers
                        else {}
                    ),
                }
                for model in self.models
            ],
            "contents": [entry.document() for entry in self.contents],
            "requires": [{"digest": str(digest), "size": size} for digest, size in self.requires],
            "volumes": [
                {"parts": [[numbers[p.entry.digest], p.first, p.count] for p in parts]}
                for parts in self.volumes
            ],
        }
        if self.parity is not None:
            document["parity"] = {
                "volumes": self.parity.volumes,
                "block": self.parity.block,
                "table": {"digest": str(self.parity.table), "size": self.parity.table_size},
            }
        if self.countersigned:
            document["countersigned"] = [dict(each) for each in self.countersigned]
        if self.supplements is not None:
            document["supplements"] = self.supplements
        if self.bom is not None:
            digest, size = self.bom
            document["bom"] = {"digest": str(digest), "size": size}
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


def _check_entries(descriptor: BundleDescriptor) -> None:
    """What the schema cannot say of one entry."""
    manifests = {model.manifest.digest for model in descriptor.models}
    try:
        parse_rfc3339(descriptor.issued_at)
    except ValueError as error:
        raise MalformedDocument("the bundle was issued at no time", why=str(error)) from None
    for model in descriptor.models:
        for each in (model.manifest, *model.referrers):
            if each.media_type != oci.IMAGE_MANIFEST:
                raise MalformedDocument(
                    f"{model.reference} is no image manifest", why=each.media_type
                )
        _refuse_twins("referrer", [str(each.digest) for each in model.referrers])
        if not manifests.isdisjoint(each.digest for each in model.referrers):
            raise MalformedDocument(f"{model.reference} refers to a model")
        if model.reference.host is not None or model.reference.digest is not None:
            raise MalformedDocument(
                f"the bundle names a model {model.reference}", why="with a host or a digest"
            )


def _volume(parts: list[list[int]], contents: Sequence[Entry]) -> tuple[Part, ...]:
    if any(number >= len(contents) for number, _, _ in parts):
        raise MalformedDocument("a volume has an entry that the bundle has not")
    return tuple(Part(contents[number], first, count) for number, first, count in parts)


def _refuse_twins(what: str, names: list[str]) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise MalformedDocument(
                f"the bundle descriptor names a {what} twice", why=f"it is {name}"
            )
        seen.add(name)
