"""One document, one signature, in one file: a DSSE envelope (DSSE v1, "envelope" and "protocol").

Narrower than DSSE: exactly one signature, strict JSON, no other field. Who may sign is the caller's
question; a person's key is P-256 or ed25519, and goes by the SHA-256 of its SubjectPublicKeyInfo.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_public_key,
    load_pem_private_key,
)
from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import VerificationError
from securesystemslib.signer import CryptoSigner, Signature, SSlibKey

from bundler.trust import keys
from registry.digest import Digest
from schemas import strictjson
from schemas.errors import BadSignature, MalformedDocument

_FIELDS: Final = {"payload", "payloadType", "signatures"}


@dataclass(frozen=True, slots=True)
class PersonKey:
    """A person's key pair.

    Attributes:
        public: SubjectPublicKeyInfo, DER.
        signer: Holds the private key.
    """

    public: bytes
    signer: CryptoSigner = field(repr=False, compare=False)

    @property
    def fingerprint(self) -> Digest:
        """SHA-256 of :attr:`public`."""
        return Digest.of(self.public)


@dataclass(frozen=True, slots=True)
class Sealed:
    """An envelope that was read; its signature is not checked yet.

    Attributes:
        payload: What was signed.
        kind: The payload type.
        keyid: Which key it claims to be by.
        signature: Raw.
        data: The file.
    """

    payload: bytes = field(repr=False)
    kind: str
    keyid: str
    signature: bytes = field(repr=False)
    data: bytes = field(repr=False)

    def check(self, public: bytes, what: str) -> None:
        """See that it was signed with a key.

        Args:
            public: SubjectPublicKeyInfo, DER.
            what: The document's name, for the message.

        Raises:
            BadSignature: It was not, or that is no key of an accepted kind.
        """
        key = check_public(public)
        signatures = {self.keyid: Signature(self.keyid, self.signature.hex())}
        try:
            Envelope(self.payload, self.kind, signatures).verify([key], 1)
        except VerificationError:
            raise BadSignature(
                f"the signature of {what} is wrong",
                why=f"it does not verify with key {Digest.of(public).short}",
                hint="Have it made again; if it stays so, it was tampered with",
            ) from None


def load_key(path: Path, passphrase: bytes) -> PersonKey:
    """Read and decrypt a person's private key.

    Raises:
        KeyUnavailable: No file, another passphrase, or no key that this tool signs with.
    """
    return person(keys.load(path, passphrase))


def make_key(key_type: str) -> PersonKey:
    """Make a fresh key pair for a person; :func:`bundler.trust.keys.save` keeps it."""
    return person(keys.generate(key_type))


def person(signer: CryptoSigner) -> PersonKey:
    """A signer under the name that envelopes know it by."""
    private = load_pem_private_key(signer.private_bytes, None)
    public = private.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return PersonKey(public, CryptoSigner(private, check_public(public)))


def check_public(public: bytes) -> SSlibKey:
    """A public key from its SubjectPublicKeyInfo, which must be in its one form.

    Raises:
        BadSignature: No P-256 or ed25519 key.
    """
    try:
        key = load_der_public_key(public)
    except (ValueError, UnsupportedAlgorithm):
        key = None
    curve = isinstance(key, EllipticCurvePublicKey) and isinstance(key.curve, SECP256R1)
    if not isinstance(key, EllipticCurvePublicKey | Ed25519PublicKey) or not (
        curve or isinstance(key, Ed25519PublicKey)
    ):
        raise BadSignature("this is no P-256 or ed25519 public key")
    if key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo) != public:
        raise BadSignature("this public key is not written in its one form")
    return SSlibKey.from_crypto(key, keyid=Digest.of(public).hex)


def seal(key: PersonKey, payload: bytes, kind: str) -> bytes:
    """Sign a payload of a type; returns the file."""
    envelope = Envelope(payload, kind, {})
    signature = bytes.fromhex(envelope.sign(key.signer).signature)
    return strictjson.dumps(
        {
            "payload": base64.b64encode(payload).decode(),
            "payloadType": kind,
            "signatures": [
                {"keyid": key.fingerprint.hex, "sig": base64.b64encode(signature).decode()}
            ],
        }
    )


def unseal(data: bytes, kind: str, what: str, max_bytes: int) -> Sealed:
    """Read an envelope strictly; its signature is for :meth:`Sealed.check`.

    Args:
        data: The file.
        kind: The payload type that it must have.
        what: The document's name, for messages.
        max_bytes: Of the file.

    Raises:
        MalformedDocument: It is nothing of the kind.
    """
    document = strictjson.parse_object(data, what=what, max_bytes=max_bytes)
    signatures = document.get("signatures")
    if document.keys() != _FIELDS or not isinstance(signatures, list) or len(signatures) != 1:
        raise MalformedDocument(f"{what} is no envelope with one signature")
    if document["payloadType"] != kind:
        raise MalformedDocument(
            f"{what} is something else", why=f"its type is {str(document['payloadType'])[:80]}"
        )
    (signature,) = signatures
    if not isinstance(signature, dict) or signature.keys() != {"keyid", "sig"}:
        raise MalformedDocument(f"{what} has a malformed signature")
    keyid = Digest("sha256", str(signature["keyid"])).hex
    return Sealed(
        _decoded(document["payload"], what), kind, keyid, _decoded(signature["sig"], what), data
    )


def _decoded(text: object, what: str) -> bytes:
    """Base64 in its one form."""
    try:
        data = base64.b64decode(str(text), validate=True)
    except (binascii.Error, ValueError):
        data = None
    if data is None or base64.b64encode(data).decode() != text:
        raise MalformedDocument(f"{what} has something that is not base64")
    return data
