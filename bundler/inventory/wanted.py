"""The want-list: what a bundle needs and a site lacks, for the connected side to send after it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any

from bundler.clock import parse_rfc3339, rfc3339
from bundler.inventory import report
from bundler.inventory.blobset import pack, unpack
from registry.digest import Digest
from schemas.documents import Kind
from schemas.errors import MalformedDocument
from schemas.render import bytes_text
from schemas.version import TOOL, VERSION


@dataclass(frozen=True, slots=True)
class WantList:
    """Blobs that a site needs to take a bundle in.

    Attributes:
        site: Fingerprint of its key.
        time: By its clock, UTC.
        bundle: Id of the bundle, 32 hexadecimal digits.
        sequence: The bundle's number, as its publisher counts.
        blobs: Digest to size in bytes; never empty.
    """

    site: Digest
    time: datetime
    bundle: str
    sequence: int
    blobs: Mapping[Digest, int] = field(hash=False)

    def __post_init__(self) -> None:
        if not self.blobs:
            raise MalformedDocument("a want-list wants nothing")
        object.__setattr__(self, "blobs", MappingProxyType(dict(self.blobs)))

    @property
    def total(self) -> int:
        """Bytes of all blobs."""
        return sum(self.blobs.values())

    def document(self) -> dict[str, Any]:
        """As it is signed (``want-list.v1``)."""
        return {
            "schemaVersion": 1,
            "site": self.site.hex,
            "time": rfc3339(self.time),
            "tool": {"name": TOOL, "version": VERSION},
            "bundle": {"id": self.bundle, "sequence": self.sequence},
            "blobs": pack(self.blobs),
        }

    def listing(self) -> dict[str, Any]:
        """As people and scripts want to see it: every blob by name."""
        return {
            **self.document(),
            "totalBytes": self.total,
            "blobs": [{"digest": str(d), "size": self.blobs[d]} for d in sorted(self.blobs)],
        }

    @classmethod
    def from_document(cls, document: dict[str, Any]) -> WantList:
        """Read a document that its schema has checked.

        Raises:
            MalformedDocument: It contradicts itself.
        """
        try:
            time = parse_rfc3339(document["time"])
        except ValueError as error:
            raise MalformedDocument("the want-list is of no time", why=str(error)) from None
        return cls(
            site=Digest("sha256", document["site"]),
            time=time,
            bundle=document["bundle"]["id"],
            sequence=document["bundle"]["sequence"],
            blobs=unpack(document["blobs"], "want-list"),
        )


def export_want_list(
    home: Path, bundle: str, sequence: int, blobs: Mapping[Digest, int], *, now: datetime
) -> bytes:
    """A want-list as the file that leaves the site; the site's key is made at the first use.

    Args:
        home: ``$SEALIFT_HOME``.
        bundle: Id of the bundle that cannot be taken in.
        sequence: Its number.
        blobs: What is missing, digest to size in bytes.
        now: The clock.

    Raises:
        MalformedDocument: Nothing is missing, or more than one list may hold.
        KeyUnavailable: The site's key cannot be used.
        StorageFull, StorageFailure: As the disk says.
    """
    from bundler.trust.site import site_key

    key = site_key(home)
    wanted = WantList(key.fingerprint, now, bundle, sequence, blobs)
    return report.write(Kind.WANT_LIST, wanted.document(), key, about)


def read_want_list(data: bytes, trusted: Digest | None = None) -> WantList:
    """Verify a want-list that came from a site; arguments and errors as for an inventory.

    Raises:
        MalformedDocument: Anything but exactly a want-list.
        BadSignature: The signature is wrong.
        FingerprintMismatch: Another site's.
    """
    return WantList.from_document(report.read(Kind.WANT_LIST, data, trusted, about))


def about(document: dict[str, Any]) -> list[str]:
    """What a person reads who opens the file."""
    blobs = unpack(document["blobs"], "want-list")
    return [
        "What an isolated site lacks to take a bundle in; to be carried to the connected side.",
        f"Site: {report.fingerprint_text(document['site'])}",
        f"Time: {document['time']}",
        f"Bundle: {document['bundle']['id']}, number {document['bundle']['sequence']}",
        f"Blobs: {len(blobs)}, {bytes_text(sum(blobs.values()))} (digests and sizes only)",
        "To send them: bundle create --want FILE",
    ]
