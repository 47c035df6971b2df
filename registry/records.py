"""What the catalogue hands out and takes in: frozen values, no connection behind them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType
from typing import Any

from registry.digest import Digest
from registry.oci import Descriptor, Manifest
from registry.reference import Reference
from schemas import limits
from schemas.errors import InvalidName, MalformedDocument


@dataclass(frozen=True, slots=True)
class ModelRecord:
    """A model that has a name in this store.

    Attributes:
        reference: Its local name, with the tag.
        descriptor: Of the manifest, whose exact bytes are a blob.
        manifest: Parsed.
        created: When the manifest entered the store, UTC.
        modified: When this name was last set, UTC.
        size: Bytes of config and layers together, each blob counted once.
        facts: What was learnt from the model file at import: metadata summary, licence.
    """

    reference: Reference
    descriptor: Descriptor
    manifest: Manifest
    created: datetime
    modified: datetime
    size: int
    facts: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "facts", MappingProxyType(dict(self.facts)))


@dataclass(frozen=True, slots=True)
class Anchor:
    """A pinned root of trust.

    Attributes:
        name: What this site calls it.
        fingerprint: Digest of the pinned root's bytes, as it stands on the paper.
        added: UTC.
    """

    name: str
    fingerprint: Digest
    added: datetime


@dataclass(frozen=True, slots=True)
class Supplement:
    """What a bundle showed that tops up an older one, which has yet to come.

    Attributes:
        bundle: Id of the older one.
        versions: Role to version of the newer one's metadata.
        names: Model to manifest digest, as the newer one named them.
    """

    bundle: str
    versions: Mapping[str, int] = field(hash=False)
    names: Mapping[str, str] = field(hash=False)


@dataclass(frozen=True, slots=True)
class TrustState:
    """All TUF metadata that this site trusts under one anchor.

    Attributes:
        anchor: Its name.
        fingerprint: Digest of the pinned root's bytes.
        roots: Version to bytes; every root from the pinned one on.
        metadata: Role to bytes: ``timestamp``, ``snapshot``, ``targets`` and delegated roles.
        least_timestamp: The version that the first timestamp must have at least, as the card says;
            0 for any, and once there is a timestamp.
    """

    anchor: str
    fingerprint: Digest
    roots: Mapping[int, bytes] = field(hash=False)
    metadata: Mapping[str, bytes] = field(default_factory=dict, hash=False)
    least_timestamp: int = 0

    def __post_init__(self) -> None:
        if not self.anchor or len(self.anchor) > limits.NAME_CHARS:
            raise InvalidName(f"{self.anchor[:40]!r} cannot name an anchor")
        if any(version < 1 for version in self.roots) or "root" in self.metadata:
            raise MalformedDocument("trusted metadata is not in order", why=self.anchor)
        object.__setattr__(self, "roots", MappingProxyType(dict(self.roots)))
        object.__setattr__(self, "metadata", MappingProxyType(dict(self.metadata)))


@dataclass(frozen=True, slots=True)
class ImportRecord:
    """One import, as its receipt tells it.

    Attributes:
        id: 32 hexadecimal digits.
        bundle: Id of the bundle, likewise.
        publisher: Who made the bundle.
        sequence: The publisher's running number.
        verdict: ``accepted`` or ``rejected``.
        at: Reference time of the import, UTC.
        receipt: The receipt's bytes.
        signature: The site's, over it (DSSE); empty for a receipt from before they were signed.
        public: The key that signed, as SubjectPublicKeyInfo in DER; empty likewise.
    """

    id: str
    bundle: str
    publisher: str
    sequence: int
    verdict: str
    at: datetime
    receipt: bytes
    signature: bytes = b""
    public: bytes = b""


@dataclass(frozen=True, slots=True)
class SignedReceipt:
    """A receipt as it goes into the catalogue.

    Attributes:
        document: Its bytes (``receipt.v2``).
        signature: The site's, over them (DSSE).
        public: The key that signed, as SubjectPublicKeyInfo in DER.
    """

    document: bytes
    signature: bytes
    public: bytes


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One line of the audit log.

    Attributes:
        seq: Rising, never used twice.
        event: As in ``audit-event.v2``, or v1 from before the log was a tree.
    """

    seq: int
    event: Mapping[str, Any] = field(hash=False)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A signed note about the audit log at some size.

    Attributes:
        size: Entries that it speaks of.
        root: Of the Merkle tree over them.
        signer: SHA-256 of ``public``, in hexadecimal.
        own: Whether the site itself made it; else somebody countersigned it.
        public: The key that signed, as SubjectPublicKeyInfo in DER.
        note: The signed note (c2sp.org/signed-note).
    """

    size: int
    root: bytes
    signer: str
    own: bool
    public: bytes
    note: bytes
