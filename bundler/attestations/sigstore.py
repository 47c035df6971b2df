"""Sigstore bundles v0.3: a statement in a DSSE envelope, signed with a P-256 key, in no log.

https://docs.sigstore.dev/about/bundle/ and the DSSE v1 protocol. Keys are named by the SHA-256 of
their PEM, as OpenSSF Model Signing has it. Written in one form; read strictly, for it is hostile.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, EllipticCurvePublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from bundler.trust.attesting import AttestationKey
from registry import oci
from schemas import documents
from schemas.documents import Kind
from schemas.errors import BadSignature, MalformedDocument

IN_TOTO: Final = "application/vnd.in-toto+json"


@dataclass(frozen=True, slots=True)
class SignedStatement:
    """What a bundle holds; nothing is said about its signature yet.

    Attributes:
        payload: An in-toto statement.
        signature: ECDSA-Sig-Value, DER.
        hint: Which key is said to have made it.
    """

    payload: bytes
    signature: bytes
    hint: str


def pem(key: EllipticCurvePublicKey) -> bytes:
    """As other tools want it in a file."""
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def hint(key: EllipticCurvePublicKey) -> str:
    """What a bundle names the key by."""
    return hashlib.sha256(pem(key)).hexdigest()


def encoding_to_sign(payload: bytes) -> bytes:
    """DSSE v1 protocol, "Signature Definition": PAE."""
    return b"DSSEv1 %d %s %d %s" % (len(IN_TOTO), IN_TOTO.encode(), len(payload), payload)


def sign(key: AttestationKey, payload: bytes) -> bytes:
    """Make a bundle.

    Raises:
        KeyUnavailable: The key does not sign.
    """
    signature = key.sign(encoding_to_sign(payload))
    return documents.dump(
        Kind.SIGSTORE_BUNDLE,
        {
            "mediaType": oci.SIGSTORE_BUNDLE,
            "verificationMaterial": {
                "publicKey": {"hint": hint(key.public)},
                "tlogEntries": [],
            },
            "dsseEnvelope": {
                "payload": base64.b64encode(payload).decode(),
                "payloadType": IN_TOTO,
                "signatures": [{"sig": base64.b64encode(signature).decode(), "keyid": ""}],
            },
        },
    )


def read(data: bytes) -> SignedStatement:
    """Take a bundle apart.

    Raises:
        MalformedDocument: It is none, or one of a kind that we do not make.
    """
    document = documents.load(Kind.SIGSTORE_BUNDLE, data)
    envelope = document["dsseEnvelope"]
    return SignedStatement(
        _decode(envelope["payload"]),
        _decode(envelope["signatures"][0]["sig"]),
        document["verificationMaterial"]["publicKey"]["hint"],
    )


def verify(statement: SignedStatement, keys: Iterable[EllipticCurvePublicKey], what: str) -> None:
    """See that one of these keys signed, and that it is the one which is named.

    Raises:
        BadSignature: Another key, or a wrong signature.
    """
    key = next((key for key in keys if hint(key) == statement.hint), None)
    if key is None:
        raise BadSignature(
            f"{what} is signed with a key that may not sign it", why=f"key {statement.hint[:16]}"
        )
    try:
        key.verify(statement.signature, encoding_to_sign(statement.payload), ECDSA(SHA256()))
    except InvalidSignature:
        raise BadSignature(
            f"{what} carries a wrong signature",
            why=f"it does not verify with key {statement.hint[:16]}",
            hint="Fetch the bundle again; if it stays so, the bundle was tampered with",
        ) from None


def _decode(text: str) -> bytes:
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        data = b""
    if not data or base64.b64encode(data).decode() != text:
        raise MalformedDocument("a Sigstore bundle has a field that is not base64")
    return data
