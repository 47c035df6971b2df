"""Requests and approvals: made, read, their signatures checked.

An approval carries the whole request, so the file that comes back is all that is needed. Both say
by themselves whose key signed; whether that person counts is for :mod:`bundler.approval.quorum`.
"""

from __future__ import annotations

import base64
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Any, Final

from bundler.clock import parse_rfc3339, rfc3339
from bundler.policy.model import Action
from bundler.trust.dsse import PersonKey, seal, unseal
from registry.digest import Digest
from schemas import documents, limits
from schemas.documents import Kind
from schemas.errors import MalformedDocument, PolicyRefused

REQUEST_TYPE: Final = "application/vnd.sealift.approval-request.v1+json"
APPROVAL_TYPE: Final = "application/vnd.sealift.approval.v1+json"


@dataclass(frozen=True, slots=True)
class Request:
    """A request whose signature is by the key that it names.

    Attributes:
        document: As in ``approval-request.v1``.
        key: Of the one who asks: SubjectPublicKeyInfo, DER.
        data: The file.
    """

    document: Mapping[str, Any] = field(hash=False)
    key: bytes
    data: bytes = field(repr=False)

    @classmethod
    def read(cls, data: bytes) -> Request:
        """Parse and check the signature.

        Raises:
            MalformedDocument: It is no request.
            BadSignature: It is not signed by the key that it names.
        """
        what = "the approval request"
        sealed = unseal(data, REQUEST_TYPE, what, limits.REQUEST_BYTES)
        document = documents.load(Kind.APPROVAL_REQUEST, sealed.payload)
        key = base64.b64decode(document["requester"]["key"])
        sealed.check(key, what)
        for moment in ("requestedAt", "expiresAt"):
            _moment(document[moment], what)
        return cls(MappingProxyType(document), key, data)

    @property
    def id(self) -> str:
        """32 hexadecimal digits."""
        return str(self.document["id"])

    @property
    def action(self) -> Action:
        """What it asks for."""
        return Action(self.document["action"])

    @property
    def requested(self) -> datetime:
        """When, by the site's reference time."""
        return parse_rfc3339(self.document["requestedAt"])

    @property
    def expires(self) -> datetime:
        """From when on it counts no more."""
        return parse_rfc3339(self.document["expiresAt"])

    @property
    def policy(self) -> Digest:
        """Of the policy file that it was made under."""
        return Digest.parse(self.document["policy"])

    @property
    def site(self) -> Digest:
        """Fingerprint of the site's key."""
        return Digest.parse(self.document["site"])


@dataclass(frozen=True, slots=True)
class Approval:
    """An approval whose signatures are by the keys that it names.

    Attributes:
        request: What was approved.
        key: Of the one who approved: SubjectPublicKeyInfo, DER.
        approved: When, by the clock of that machine.
    """

    request: Request
    key: bytes
    approved: datetime

    @classmethod
    def read(cls, data: bytes) -> Approval:
        """Parse and check both signatures.

        Raises:
            MalformedDocument: It is no approval.
            BadSignature: One is not signed by the key that it names.
        """
        what = "the approval"
        sealed = unseal(data, APPROVAL_TYPE, what, limits.APPROVAL_BYTES)
        document = documents.load(Kind.APPROVAL, sealed.payload)
        key = base64.b64decode(document["approver"])
        sealed.check(key, what)
        try:
            request = base64.b64decode(document["request"], validate=True)
        except ValueError:
            raise MalformedDocument(f"{what} has no request in it") from None
        return cls(Request.read(request), key, _moment(document["approvedAt"], what))


@dataclass(frozen=True, slots=True)
class Asking:
    """Who asks, where and when.

    Attributes:
        key: Of the one who asks.
        name: As the policy knows that person.
        site: Fingerprint of the site's key.
        policy: Digest of the policy file.
        now: The site's reference time.
        valid: For how long.
    """

    key: PersonKey
    name: str
    site: Digest
    policy: Digest
    now: datetime
    valid: timedelta

    def request(self, action: Action, reason: str, fields: Mapping[str, Any]) -> bytes:
        """Write and sign a request.

        Args:
            action: What is asked for.
            reason: In words; may be empty.
            fields: What the action needs beside, as in ``approval-request.v1``.
        """
        document = {
            "schemaVersion": 1,
            "id": secrets.token_hex(16),
            "action": action.value,
            "site": str(self.site),
            "policy": str(self.policy),
            "requestedAt": rfc3339(self.now),
            "expiresAt": rfc3339(self.now + self.valid),
            "requester": {"name": self.name, "key": _text(self.key.public)},
            "reason": reason,
            **fields,
        }
        return seal(self.key, documents.dump(Kind.APPROVAL_REQUEST, document), REQUEST_TYPE)


def approve(request: Request, key: PersonKey, now: datetime) -> bytes:
    """Write and sign an approval.

    Args:
        request: What is approved, all of it.
        key: Of the one who approves.
        now: The clock here.

    Raises:
        PolicyRefused: It is the key of the one who asks.
    """
    if key.public == request.key:
        raise PolicyRefused(
            "nobody approves their own request",
            why="this is the key that the request is signed with",
            hint="Another operator has to do it",
        )
    document = {
        "schemaVersion": 1,
        "request": _text(request.data),
        "approver": _text(key.public),
        "approvedAt": rfc3339(now),
    }
    return seal(key, documents.dump(Kind.APPROVAL, document), APPROVAL_TYPE)


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _moment(text: str, what: str) -> datetime:
    try:
        return parse_rfc3339(text)
    except ValueError:
        raise MalformedDocument(f"{what} has no date that exists", why=text) from None
