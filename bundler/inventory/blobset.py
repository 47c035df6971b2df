"""Blobs with their sizes, compactly: digests are random, so 32 bytes each is what they cost.

::

    digests   base64url, no padding, of the raw SHA-256 digests, ascending
    sizes     base64url, no padding, of one unsigned LEB128 integer per digest, in that order

There is one way to write a set; any other is refused.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator, Mapping
from typing import Any, Final

from registry.digest import Digest
from schemas import limits
from schemas.errors import MalformedDocument

_RAW: Final = 32
_ALGORITHM: Final = "sha256"


def pack(blobs: Mapping[Digest, int]) -> dict[str, Any]:
    """The JSON object of a set.

    Raises:
        MalformedDocument: A digest other than SHA-256, or a size that cannot be.
    """
    digests, sizes = bytearray(), bytearray()
    for digest in sorted(blobs):
        if digest.algorithm != _ALGORITHM or not 0 <= blobs[digest] <= limits.BLOB_BYTES:
            raise MalformedDocument(f"blob {digest.short} cannot be listed")
        digests += bytes.fromhex(digest.hex)
        sizes += _varint(blobs[digest])
    return {"count": len(blobs), "digests": encode64(digests), "sizes": encode64(sizes)}


def unpack(document: Mapping[str, Any], what: str) -> dict[Digest, int]:
    """The set of a JSON object that its schema has checked.

    Raises:
        MalformedDocument: Not the one way to write a set.
    """
    raw = decode64(document["digests"], what)
    count = document["count"]
    if len(raw) != count * _RAW:
        raise MalformedDocument(f"{what} does not have as many digests as it says")
    digests = [raw[at : at + _RAW] for at in range(0, len(raw), _RAW)]
    if any(a >= b for a, b in zip(digests, digests[1:], strict=False)):  # noqa: RUF007 - a list
        raise MalformedDocument(f"{what} has digests out of order")
    sizes = list(_integers(decode64(document["sizes"], what), what))
    if len(sizes) != count:
        raise MalformedDocument(f"{what} does not have as many sizes as digests")
    return {Digest(_ALGORITHM, d.hex()): size for d, size in zip(digests, sizes, strict=True)}


def encode64(data: bytes | bytearray) -> str:
    """Base64url without padding (RFC 4648 §5)."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def decode64(text: str, what: str) -> bytes:
    """The inverse, for exactly what :func:`encode64` writes.

    Raises:
        MalformedDocument: Anything else.
    """
    try:
        data = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        data = b""
    if encode64(data) != text:
        raise MalformedDocument(f"{what} has text that is not base64url")
    return data


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value >= 0x80:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def _integers(data: bytes, what: str) -> Iterator[int]:
    value = shift = 0
    for byte in data:
        value |= (byte & 0x7F) << shift
        if byte & 0x80:
            shift += 7
        else:
            # A last byte of zero would be a second way to write the same number.
            if value > limits.BLOB_BYTES or (shift and not byte):
                raise MalformedDocument(f"{what} has a size that cannot be")
            yield value
            value = shift = 0
        if shift > 63:
            raise MalformedDocument(f"{what} has a size that cannot be")
    if shift:
        raise MalformedDocument(f"{what} has sizes that end too early")
