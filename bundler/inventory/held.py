"""The inventory: what a site holds, so that the connected side need not send it again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType
from typing import Any, Final

from bundler.clock import parse_rfc3339, rfc3339
from bundler.inventory import report
from bundler.inventory.blobset import pack, unpack
from registry.digest import Digest
from registry.records import Anchor
from registry.reference import Reference
from registry.store import Store
from schemas import limits, strictjson
from schemas.documents import Kind
from schemas.errors import MalformedDocument
from schemas.render import bytes_text
from schemas.version import TOOL, VERSION

_SHOWN: Final = 40  # models in the lines for people
_ROLES: Final = ("timestamp", "snapshot", "targets")


@dataclass(frozen=True, slots=True)
class KnownPublisher:
    """A pinned root and the versions that the site trusts under it.

    Attributes:
        fingerprint: Of the pinned root.
        versions: Role to version; ``root`` always, the others after the first import.
    """

    fingerprint: Digest
    versions: Mapping[str, int] = field(hash=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "versions", MappingProxyType(dict(self.versions)))


@dataclass(frozen=True, slots=True)
class HeldModel:
    """A name that stands for a model there.

    Attributes:
        reference: With the tag.
        manifest: Which manifest.
    """

    reference: Reference
    manifest: Digest


@dataclass(frozen=True, slots=True)
class Inventory:
    """What a site held at one time.

    Attributes:
        site: Fingerprint of its key.
        time: By its clock, UTC.
        clock_floor: The highest time that it was told in a signed way; None before an import.
        publishers: Whom it trusts, and how far it has come with them.
        models: By name.
        blobs: Digest to size in bytes. What is not listed may be there all the same.
    """

    site: Digest
    time: datetime
    clock_floor: datetime | None
    publishers: tuple[KnownPublisher, ...]
    models: tuple[HeldModel, ...]
    blobs: Mapping[Digest, int] = field(hash=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "blobs", MappingProxyType(dict(self.blobs)))

    def holds(self, digest: Digest, size: int) -> bool:
        """Whether the site has a blob, of this size."""
        return self.blobs.get(digest) == size

    @property
    def total(self) -> int:
        """Bytes of all blobs."""
        return sum(self.blobs.values())

    def document(self) -> dict[str, Any]:
        """As it is signed (``inventory.v1``)."""
        document: dict[str, Any] = {
            "schemaVersion": 1,
            "site": self.site.hex,
            "time": rfc3339(self.time),
            "tool": {"name": TOOL, "version": VERSION},
            "publishers": [
                {"fingerprint": str(known.fingerprint), **known.versions}
                for known in self.publishers
            ],
            "models": [
                {"name": str(model.reference), "manifest": str(model.manifest)}
                for model in self.models
            ],
            "blobs": pack(self.blobs),
        }
        if self.clock_floor is not None:
            document["clockFloor"] = rfc3339(self.clock_floor)
        return document

    def listing(self) -> dict[str, Any]:
        """As people and scripts want to see it: every blob by name."""
        return {
            **self.document(),
            "totalBytes": self.total,
            "blobs": [{"digest": str(d), "size": self.blobs[d]} for d in sorted(self.blobs)],
        }

    @classmethod
    def from_document(cls, document: dict[str, Any]) -> Inventory:
        """Read a document that its schema has checked.

        Raises:
            MalformedDocument: It contradicts itself.
            InvalidName: A model's name does not parse.
        """
        models = tuple(
            HeldModel(Reference.parse(model["name"]), Digest.parse(model["manifest"]))
            for model in document["models"]
        )
        if len({model.reference for model in models}) != len(models):
            raise MalformedDocument("the inventory names a model twice")
        if any(
            str(m.reference) != d["name"] for m, d in zip(models, document["models"], strict=True)
        ):
            raise MalformedDocument("the inventory names a model in an unusual way")
        floor = document.get("clockFloor")
        return cls(
            site=Digest("sha256", document["site"]),
            time=_time(document["time"]),
            clock_floor=None if floor is None else _time(floor),
            publishers=tuple(
                KnownPublisher(
                    Digest.parse(known["fingerprint"]),
                    {role: known[role] for role in ("root", *_ROLES) if role in known},
                )
                for known in document["publishers"]
            ),
            models=models,
            blobs=unpack(document["blobs"], "inventory"),
        )


def export(store: Store, *, now: datetime, least_size: int = 0) -> bytes:
    """The site's inventory as the file that leaves it; recorded in the audit log.

    The site's key is made at the first use.

    Args:
        store: What is told of; blobs whose files are gone are not.
        now: The clock.
        least_size: Bytes; smaller blobs are left out. Manifests and configs always travel, so a
            series of QR codes need not tell of them.

    Raises:
        MalformedDocument: There is more than one inventory may hold.
        KeyUnavailable: The site's key cannot be used.
        StorageFull, StorageFailure, StoreDamaged: As they come.
    """
    from bundler.trust.site import site_key

    with store.lock():
        key = site_key(store.home)
        inventory = collect(store, key.fingerprint, now=now, least_size=least_size)
        data = report.write(Kind.INVENTORY, inventory.document(), key, about)
        with store.catalogue.transaction() as tx:
            tx.add_audit_event(
                store.audit_event(
                    "inventory.export",
                    key.fingerprint.hex,
                    {"digest": str(Digest.of(data)), "blobs": len(inventory.blobs)},
                )
            )
    return data


def collect(store: Store, site: Digest, *, now: datetime, least_size: int = 0) -> Inventory:
    """What the store holds now.

    Raises:
        StoreDamaged, StorageFailure: The store cannot be read.
    """
    catalogue = store.catalogue
    models = sorted(catalogue.models(), key=lambda record: str(record.reference))
    return Inventory(
        site=site,
        time=now,
        clock_floor=catalogue.clock_floor(),
        publishers=tuple(_publisher(store, anchor) for anchor in catalogue.anchors()),
        models=tuple(HeldModel(m.reference, m.descriptor.digest) for m in models),
        blobs={
            digest: size
            for digest, size in catalogue.blob_sizes().items()
            if digest.algorithm == "sha256" and size >= least_size and store.blobs.has(digest, size)
        },
    )


def _publisher(store: Store, anchor: Anchor) -> KnownPublisher:
    state = store.catalogue.trust(anchor.name)
    versions = {"root": 1}
    if state is not None:
        versions["root"] = max(state.roots, default=1)
        versions |= {
            role: _version(state.metadata[role]) for role in _ROLES if role in state.metadata
        }
    return KnownPublisher(anchor.fingerprint, versions)


def _version(metadata: bytes) -> int:
    document = strictjson.parse_object(
        metadata, what="trusted metadata", max_bytes=limits.TUF_TARGETS_BYTES
    )
    version: int = document["signed"]["version"]
    return version


def read(data: bytes, trusted: Digest | None = None) -> Inventory:
    """Verify an inventory that came from a site.

    Args:
        data: The file; hostile.
        trusted: Fingerprint of the site's key, known from before. Without it the signature proves
            only that whoever has the key named in it made the file.

    Raises:
        MalformedDocument: Anything but exactly an inventory.
        InvalidName: A model's name does not parse.
        BadSignature: The signature is wrong.
        FingerprintMismatch: Another site's.
    """
    return Inventory.from_document(report.read(Kind.INVENTORY, data, trusted, about))


def about(document: dict[str, Any]) -> list[str]:
    """What a person reads who opens the file."""
    blobs = unpack(document["blobs"], "inventory")
    names = [model["name"] for model in document["models"]]
    lines = [
        "What an isolated site holds; to be carried to the connected side.",
        f"Site: {report.fingerprint_text(document['site'])}",
        f"Time: {document['time']}",
        f"Blobs: {len(blobs)}, {bytes_text(sum(blobs.values()))} (digests and sizes only)",
        f"Publishers: {len(document['publishers'])}",
        f"Models: {len(names)}",
        *(f"  {name}" for name in names[:_SHOWN]),
    ]
    if len(names) > _SHOWN:
        lines.append(f"  and {len(names) - _SHOWN} more")
    lines.append("All of it: bundle inventory show FILE")
    return lines


def _time(text: str) -> datetime:
    try:
        return parse_rfc3339(text)
    except ValueError as error:
        raise MalformedDocument("the inventory is of no time", why=str(error)) from None
