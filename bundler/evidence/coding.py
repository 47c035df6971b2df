"""Base64 in the one form that it has, as evidence files carry bytes."""

from __future__ import annotations

import base64
import binascii

from bundler.trust.dsse import check_public
from schemas.errors import MalformedDocument


def encode(data: bytes) -> str:
    """Bytes as text."""
    return base64.b64encode(data).decode("ascii")


def decode(text: str) -> bytes:
    """The inverse of :func:`encode`.

    Raises:
        MalformedDocument: The text is not what it writes.
    """
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        data = b""
    if encode(data) != text:
        raise MalformedDocument("something is not base64 in its one form")
    return data


def public_key(text: str) -> bytes:
    """A public key in a document: SubjectPublicKeyInfo, DER.

    Raises:
        MalformedDocument: Not base64.
        BadSignature: No P-256 or ed25519 key.
    """
    data = decode(text)
    check_public(data)
    return data
