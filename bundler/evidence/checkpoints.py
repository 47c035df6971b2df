"""Checkpoints (c2sp.org/tlog-checkpoint): signed notes that tell size and root of the audit log.

::

    sealift/site/<SHA-256 of the site's key, hexadecimal>
    <entries>
    <base64 of the root of the Merkle tree over them>

Signed by the site when they are made. Somebody outside countersigns one by adding a line; its key's
name is ``sealift/witness/<SHA-256 of that key>``.
"""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from bundler.trust import notes
from registry.digest import Digest
from registry.records import Checkpoint
from schemas.errors import FingerprintMismatch, MalformedDocument

if TYPE_CHECKING:
    from bundler.trust.dsse import PersonKey
    from bundler.trust.site import SiteKey
    from registry.transaction import Transaction

_ORIGIN: Final = "sealift/site/"
_WITNESS: Final = "sealift/witness/"
_TEXT: Final = re.compile(
    _ORIGIN
    + r"(?P<site>[0-9a-f]{64})\n(?P<size>0|[1-9][0-9]{0,17})\n(?P<root>[A-Za-z0-9+/]{43}=)\n"
)


@dataclass(frozen=True, slots=True)
class Head:
    """What a checkpoint says; believed once a signature was checked.

    Attributes:
        site: SHA-256 of the site's key.
        size: Entries of the log.
        root: Of the tree over them.
        note: With its signatures.
    """

    site: Digest
    size: int
    root: bytes
    note: notes.Note

    def check_site(self, public: bytes) -> None:
        """See that the site of this key made it.

        Raises:
            FingerprintMismatch: It is about another site's log.
            BadSignature: The signature is wrong or missing.
        """
        if self.site != Digest.of(public):
            raise FingerprintMismatch(
                "the checkpoint is of another site's log",
                why=f"of {self.site.short}, not of {Digest.of(public).short}",
                hint="See which site sent it",
            )
        self.note.check(_ORIGIN + self.site.hex, public)

    def check_witness(self, public: bytes) -> None:
        """See that the key's owner countersigned it.

        Raises:
            BadSignature: The signature is wrong or missing.
        """
        self.note.check(_WITNESS + Digest.of(public).hex, public)

    def stored(self, public: bytes, *, own: bool) -> Checkpoint:
        """As the catalogue keeps it."""
        signer = Digest.of(public).hex
        return Checkpoint(self.size, self.root, signer, own, public, self.note.to_bytes())


def make(key: SiteKey, size: int, root: bytes) -> Checkpoint:
    """Sign what the log is now."""
    name = _ORIGIN + key.fingerprint.hex
    text = f"{name}\n{size}\n{base64.b64encode(root).decode()}\n"
    note = notes.Note(text, ()).signed(name, key.public, _signer(key))
    return read(note.to_bytes()).stored(key.public, own=True)


def keep(tx: Transaction, key: SiteKey) -> None:
    """Sign what the log is in a transaction, and keep that in it."""
    tx.add_checkpoint(make(key, tx.audit.size, tx.audit.root()))


def countersign(head: Head, key: PersonKey) -> Head:
    """Add a line of somebody who is not the site."""
    name = _WITNESS + key.fingerprint.hex
    return Head(head.site, head.size, head.root, head.note.signed(name, key.public, _signer(key)))


def read(data: bytes) -> Head:
    """Read a checkpoint; no signature is checked.

    Raises:
        MalformedDocument: It is none, or not in its one form.
    """
    note = notes.parse(data)
    match = _TEXT.fullmatch(note.text)
    if match is None:
        raise MalformedDocument("the signed note is no checkpoint of a site's audit log")
    root = base64.b64decode(match["root"])
    if base64.b64encode(root).decode() != match["root"]:
        raise MalformedDocument("the checkpoint's root is not in its one form")
    return Head(Digest("sha256", match["site"]), int(match["size"]), root, note)


def _signer(key: SiteKey | PersonKey) -> notes.Sign:
    return lambda data: bytes.fromhex(key.signer.sign(data).signature)
