"""The connected side countersigns checkpoints: from then on that part of a log is fixed.

It remembers, per site, the largest log that it countersigned, and signs a later one only with a
proof that it continues that. A site whose log was rewritten cannot bring one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from bundler.evidence import checkpoints
from bundler.evidence.checkpoints import Head
from bundler.evidence.coding import decode, encode, public_key
from bundler.evidence.exporting import read_checkpoint
from bundler.files import open_regular, write_file
from registry import merkle
from registry.digest import Digest
from registry.staging import make_folder
from registry.verify import storage_errors
from schemas import documents, limits
from schemas.documents import Kind
from schemas.errors import AuditBroken, MalformedDocument, NotFound

if TYPE_CHECKING:
    from bundler.trust.dsse import PersonKey
    from registry.store import Store
    from registry.transaction import Transaction

_SUFFIX: Final = ".note"


@dataclass(frozen=True, slots=True)
class Countersigned:
    """A checkpoint that somebody outside vouches for.

    Attributes:
        head: With the site's and the witness's signature.
        public: The witness's key: SubjectPublicKeyInfo, DER.
    """

    head: Head
    public: bytes

    @property
    def witness(self) -> Digest:
        """Fingerprint of the witness's key."""
        return Digest.of(self.public)

    def document(self) -> dict[str, Any]:
        """As it stands in a file, and in a bundle's descriptor."""
        return {
            "schemaVersion": 1,
            "note": self.head.note.to_bytes().decode(),
            "publicKey": encode(self.public),
        }

    def to_bytes(self) -> bytes:
        """The file."""
        document = self.document()
        documents.validate(Kind.COUNTERSIGNATURE, document)
        return json.dumps(document, indent=1, sort_keys=True, ensure_ascii=True).encode() + b"\n"

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Countersigned:
        """Read one; its own signature is checked, the site's is not.

        Raises:
            MalformedDocument, BadSignature: It is none, or a wrong one.
        """
        public = public_key(document["publicKey"])
        head = checkpoints.read(document["note"].encode())
        head.check_witness(public)
        return cls(head, public)

    @classmethod
    def from_bytes(cls, data: bytes) -> Countersigned:
        """Read a file; as :meth:`from_document`."""
        found = cls.from_document(documents.load(Kind.COUNTERSIGNATURE, data))
        if found.to_bytes() != data:
            raise MalformedDocument("the countersignature is not in its one form")
        return found


def countersign(folder: Path, data: bytes, key: PersonKey, site: Digest | None) -> Countersigned:
    """Countersign a site's checkpoint, and remember it.

    Args:
        folder: Where what was countersigned is remembered.
        data: The site's file; hostile.
        key: Signs.
        site: Fingerprint of the site's key, known from before.

    Raises:
        MalformedDocument, BadSignature, FingerprintMismatch: The file is not believed.
        AuditBroken: The log does not continue what was countersigned before.
    """
    head, document = read_checkpoint(data, site)
    path = folder / f"{head.site.hex}{_SUFFIX}"
    before = _remembered(path)
    if before is not None:
        _check_continues(before, head, document.get("since"))
    signed = Countersigned(checkpoints.countersign(head, key), key.public)
    if before is None or head.size > before.size:
        with storage_errors(f"cannot remember the checkpoint in {folder}"):
            folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            make_folder(folder)
        write_file(path, signed.head.note.to_bytes())
    return signed


def _remembered(path: Path) -> Head | None:
    try:
        with open_regular(path) as file, storage_errors(f"cannot read {path}"):
            return checkpoints.read(file.read(limits.NOTE_BYTES + 1))
    except NotFound:
        return None


def _check_continues(before: Head, head: Head, since: dict[str, Any] | None) -> None:
    if head.size == before.size and head.root == before.root:
        return
    why = ""
    if head.size <= before.size:
        why = f"it had {before.size} entries with another root then, and has {head.size} now"
    elif since is None or since["size"] != before.size:
        why = f"it brings no proof that it continues the log of {before.size} entries"
    elif not merkle.continues(
        before.size, head.size, [decode(p) for p in since["proof"]], before.root, head.root
    ):
        why = f"the first {before.size} entries are not what they were"
    if why:
        raise AuditBroken(
            "the site's log does not continue what was countersigned before",
            why=why,
            hint=f"Ask the site for: sealift audit checkpoint --since {before.size}",
        )


def take_in(tx: Transaction, store: Store, found: Countersigned, own: bytes) -> str:
    """Keep a countersignature at the site that it is about; a wrong one most of all.

    Args:
        tx: Keeps it.
        store: Of the site.
        found: Its witness's signature is checked.
        own: The site's public key.

    Returns:
        What is wrong with the log by it; empty for nothing.

    Raises:
        BadSignature, FingerprintMismatch: It is not about a checkpoint of this site.
    """
    head = found.head
    head.check_site(own)
    size = tx.audit.size
    wrong = ""
    if head.size > size:
        wrong = f"it had {head.size} entries then, and has {size} now"
    elif tx.audit.root(head.size) != head.root:
        wrong = f"its first {head.size} entries are not what they were"
    fresh = head.stored(found.public, own=False)
    if tx.audit.has_checkpoint(fresh):  # it comes with every bundle until there is a newer one
        return wrong
    tx.add_checkpoint(fresh)
    detail: dict[str, str | int] = {"size": head.size, "witness": found.witness.hex}
    if wrong:
        detail["wrong"] = wrong
    tx.add_audit_event(
        store.audit_event(
            "audit.countersigned",
            found.witness.hex,
            detail,
            outcome="refused" if wrong else "done",
        )
    )
    return wrong
