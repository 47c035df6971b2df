r"""Signed notes (c2sp.org/signed-note): a text, and one line for each who signed it.

::

    note ::= text "\n" line+            the text ends with a newline of its own
    line ::= "— " name " " base64(key id (4 bytes) || signature) "\n"

Two types of signature: ECDSA P-256 with SHA-256, an ECDSA-Sig-Value (type 0x02, whose key id is the
beginning of the SHA-256 of the SubjectPublicKeyInfo), and Ed25519 (type 0x01). Read strictly: what
is not in the one form that :meth:`Note.to_bytes` writes, is refused.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import (
    ECDSA,
    SECP256R1,
    EllipticCurvePublicKey,
)
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_public_key,
)

from registry.digest import Digest
from schemas import limits
from schemas.errors import BadSignature, MalformedDocument

# Bytes to a raw signature over them.
Sign = Callable[[bytes], bytes]

_KEY_ID_BYTES: Final = 4
_ED25519: Final = b"\x01"
_DASH: Final = "\N{EM DASH} "
_NAME: Final = re.compile(r"[!-*,-~]{1,255}")  # printable ASCII without space and "+"
_TEXT: Final = re.compile(r"(?:[ -~]+\n)+")


@dataclass(frozen=True, slots=True)
class NoteSignature:
    """One line below a note.

    Attributes:
        name: Of the key.
        key_id: Four bytes; tells keys of one name apart, and proves nothing.
        signature: Raw.
    """

    name: str
    key_id: bytes
    signature: bytes

    def line(self) -> str:
        """As it stands in the note, with its newline."""
        blob = base64.b64encode(self.key_id + self.signature).decode()
        return f"{_DASH}{self.name} {blob}\n"


@dataclass(frozen=True, slots=True)
class Note:
    """A text and who signed it; nothing is verified by reading one.

    Attributes:
        text: ASCII lines, the last with its newline; none is empty.
        signatures: One or more.
    """

    text: str
    signatures: tuple[NoteSignature, ...]

    def to_bytes(self) -> bytes:
        """The note's one form."""
        return f"{self.text}\n{''.join(s.line() for s in self.signatures)}".encode()

    def signed(self, name: str, public: bytes, sign: Sign) -> Note:
        """The same with one more signature, unless the key is there already.

        Args:
            name: Of the key.
            public: Its SubjectPublicKeyInfo, DER.
            sign: Signs with it.
        """
        wanted = key_id(name, public)
        if any((s.name, s.key_id) == (name, wanted) for s in self.signatures):
            return self
        fresh = NoteSignature(name, wanted, sign(self.text.encode()))
        return Note(self.text, (*self.signatures, fresh))

    def check(self, name: str, public: bytes) -> None:
        """See that a key signed it.

        Raises:
            BadSignature: It did not.
        """
        wanted = key_id(name, public)
        for each in self.signatures:
            if (each.name, each.key_id) == (name, wanted):
                if _verifies(public, self.text.encode(), each.signature):
                    return
                break
        raise BadSignature(
            "the note is not signed by the key that it should be signed by",
            why=f"no valid signature of {Digest.of(public).short}",
            hint="Have it made again; if it stays so, it was tampered with",
        )


def parse(data: bytes) -> Note:
    """Read a note.

    Raises:
        MalformedDocument: It is none, or not in its one form.
    """
    try:
        text, _, lines = data[: limits.NOTE_BYTES + 1].decode().rpartition("\n\n")
    except UnicodeDecodeError:
        raise MalformedDocument("the signed note is no text") from None
    text += "\n"
    found = lines.splitlines()
    if not _TEXT.fullmatch(text) or not 0 < len(found) <= limits.NOTE_SIGNATURES:
        raise MalformedDocument("this is no signed note")
    note = Note(text, tuple(map(_line, found)))
    if len(data) > limits.NOTE_BYTES or note.to_bytes() != data:
        raise MalformedDocument("the signed note is not in its one form")
    return note


def key_id(name: str, public: bytes) -> bytes:
    """How a note names a key.

    Raises:
        BadSignature: No P-256 or ed25519 key.
        MalformedDocument: No key may have this name.
    """
    if not _NAME.fullmatch(name):
        raise MalformedDocument(f"{name[:80]!r} cannot name a key")
    key = _public_key(public)
    if isinstance(key, Ed25519PublicKey):
        raw = key.public_bytes(Encoding.Raw, PublicFormat.Raw)
        public = name.encode() + b"\n" + _ED25519 + raw
    return hashlib.sha256(public).digest()[:_KEY_ID_BYTES]


def _line(line: str) -> NoteSignature:
    name, _, blob = line.removeprefix(_DASH).partition(" ")
    try:
        data = base64.b64decode(blob, validate=True)
    except (binascii.Error, ValueError):
        data = b""
    if not line.startswith(_DASH) or not _NAME.fullmatch(name) or len(data) <= _KEY_ID_BYTES:
        raise MalformedDocument("the note has a line below it that is no signature")
    return NoteSignature(name, data[:_KEY_ID_BYTES], data[_KEY_ID_BYTES:])


def _public_key(public: bytes) -> EllipticCurvePublicKey | Ed25519PublicKey:
    try:
        key = load_der_public_key(public)
    except (ValueError, UnsupportedAlgorithm):
        key = None
    curve = isinstance(key, EllipticCurvePublicKey) and isinstance(key.curve, SECP256R1)
    if not isinstance(key, EllipticCurvePublicKey | Ed25519PublicKey) or not (
        curve or isinstance(key, Ed25519PublicKey)
    ):
        raise BadSignature("the note's key is no P-256 or ed25519 public key")
    # A key has one spelling, or it would have a second key id, and count as two.
    if key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo) != public:
        raise BadSignature("the note's key is not in its one form")
    return key


def _verifies(public: bytes, text: bytes, signature: bytes) -> bool:
    key = _public_key(public)
    try:
        if isinstance(key, Ed25519PublicKey):
            key.verify(signature, text)
        else:
            key.verify(signature, text, ECDSA(SHA256()))
    except InvalidSignature:
        return False
    return True
