"""The file that leaves a site: a DSSE envelope as JSON, with a few lines for people before it.

::

    {
     "schemaVersion": 1,
     "about": ["…", …],                 lines for people; follow from the payload
     "payload": "…",                    base64 of the document's JSON
     "payloadType": "application/vnd.sealift.inventory.v1+json",
     "publicKey": "…",                  base64 of the site key's SubjectPublicKeyInfo
     "signatures": [{"keyid": "…", "sig": "…"}]
    }

Any DSSE tool verifies it. The text follows from payload, key and signature, and is compared with
what they give when it is read: nothing can be slipped in beside what is signed.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

from registry.digest import Digest
from schemas import documents, limits
from schemas.documents import Kind
from schemas.errors import FingerprintMismatch, MalformedDocument

if TYPE_CHECKING:
    from bundler.trust.site import Signed, SiteKey

_TYPES: Final = {
    Kind.INVENTORY: "application/vnd.sealift.inventory.v1+json",
    Kind.WANT_LIST: "application/vnd.sealift.want-list.v1+json",
    Kind.RECEIPT: "application/vnd.sealift.receipt.v2+json",
    Kind.CHECKPOINT: "application/vnd.sealift.checkpoint.v1+json",
    Kind.AUDIT_EXPORT: "application/vnd.sealift.audit-export.v1+json",
}
_KINDS: Final = {name: kind for kind, name in _TYPES.items()}

# The lines for people, from a document that its schema has checked.
About = Callable[[dict[str, Any]], Sequence[str]]


def write(kind: Kind, document: dict[str, Any], key: SiteKey, about: About) -> bytes:
    """Sign a document and make the file.

    Raises:
        MalformedDocument: The document does not follow its schema, or is too large.
    """
    from bundler.trust.site import sign

    data = render(sign(key, documents.dump(kind, document), _TYPES[kind]), about(document))
    if len(data) > limits.REPORT_BYTES:
        raise MalformedDocument(
            f"{kind.title} is too large",
            why=f"{len(data)} > {limits.REPORT_BYTES} bytes",
            hint="Leave small blobs out",
        )
    return data


def read(kind: Kind, data: bytes, trusted: Digest | None, about: About) -> dict[str, Any]:
    """Verify a file and give its document, of which ``site`` is the signing key's fingerprint.

    Args:
        kind: What it must be.
        data: The file.
        trusted: Fingerprint of the site's key, known from before. Without it the signature proves
            only that whoever has the named key made the file.
        about: As for :func:`write`.

    Raises:
        MalformedDocument: Anything but exactly such a file.
        BadSignature: The signature is wrong.
        FingerprintMismatch: Another site's.
    """
    from bundler.trust.site import check

    signed = parse(data)
    if signed.kind != _TYPES[kind]:
        found = _KINDS[signed.kind].title
        raise MalformedDocument(f"this is no {kind.title}", why=f"it is a {found}")
    check(signed)
    if trusted is not None and signed.site != trusted:
        raise FingerprintMismatch(
            f"the {kind.title} is of another site",
            why=f"its key is {signed.site.short}, expected {trusted.short}",
            hint="See which site sent it",
        )
    document = documents.load(kind, signed.payload)
    if documents.dump(kind, document) != signed.payload:
        raise MalformedDocument(f"{kind.title} is not in its one canonical form")
    if document["site"] != signed.site.hex:
        raise MalformedDocument(f"{kind.title} names another site than the one that signed it")
    if render(signed, about(document)) != data:
        raise MalformedDocument(f"{kind.title} has text around it that does not follow from it")
    return document


def parse(data: bytes) -> Signed:
    """Take a file apart; nothing is verified.

    Raises:
        MalformedDocument: It does not follow the schema.
    """
    from bundler.trust.site import Signed

    document = documents.load(Kind.REPORT, data)
    signed = Signed(
        _decode64(document["payload"]),
        document["payloadType"],
        _decode64(document["publicKey"]),
        _decode64(document["signatures"][0]["sig"]),
    )
    if document["signatures"][0]["keyid"] != signed.site.hex:
        raise MalformedDocument("the report names another key than it brings along")
    return signed


def render(signed: Signed, about: Sequence[str]) -> bytes:
    """The file's bytes."""
    document = {
        "schemaVersion": 1,
        "about": list(about),
        "payload": _encode64(signed.payload),
        "payloadType": signed.kind,
        "publicKey": _encode64(signed.public),
        "signatures": [{"keyid": signed.site.hex, "sig": _encode64(signed.signature)}],
    }
    documents.validate(Kind.REPORT, document)
    return json.dumps(document, indent=1, ensure_ascii=True).encode("ascii") + b"\n"


def about_of(kind: str) -> About:
    """How the lines for people of a payload type are made.

    Raises:
        MalformedDocument: No report of ours is of this type.
    """
    from bundler.inventory import held, wanted

    known = {_TYPES[Kind.INVENTORY]: held.about, _TYPES[Kind.WANT_LIST]: wanted.about}
    if kind not in known:
        raise MalformedDocument("the report is of an unknown kind")
    return known[kind]


def about_payload(kind: str, payload: bytes) -> Sequence[str]:
    """The lines for people of a payload that is not verified yet.

    Raises:
        MalformedDocument: It does not follow its schema.
    """
    return about_of(kind)(documents.load(_KINDS[kind], payload))


def fingerprint_text(site: str) -> str:
    """A fingerprint in groups of four, for people to compare."""
    return " ".join(site[at : at + 4] for at in range(0, len(site), 4))


def _encode64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _decode64(text: str) -> bytes:
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        data = b""
    if _encode64(data) != text:
        raise MalformedDocument("the report has text that is not base64")
    return data
