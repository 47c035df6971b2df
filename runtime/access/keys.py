"""API keys: made once, shown once, kept as hashes. Pure but for the drawing of random numbers.

A key is ``sealift_<id>_<secret>``: 12 hexadecimal digits that find its record and may be logged,
and 256 random bits. What is kept is the SHA-256 of the whole: guessing 256 random bits is hopeless
however fast it is, so a slow password hash would protect nothing, and cost time per request.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from runtime.access.roles import Role
from schemas import limits
from schemas.errors import InvalidName, MalformedDocument

_PREFIX: Final = "sealift"
_ID_BYTES: Final = 6
_SECRET_BYTES: Final = 32
# sealift_ 12HEXDIG _ 43( ALPHA / DIGIT / "-" / "_" )
_FORM: Final = re.compile(rf"{_PREFIX}_([0-9a-f]{{12}})_[A-Za-z0-9_-]{{43}}")
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
_NO_HASH: Final = "sha256:" + "0" * 64  # compared with where there is no such key: the same work


@dataclass(frozen=True, slots=True)
class ApiKey:
    """One key, as the site keeps it.

    Attributes:
        id: Its public part, 12 hexadecimal digits.
        name: What people call it, and what logs say; unique among keys in force.
        roles: At least one.
        hash: ``sha256:`` and the SHA-256 of the whole key, in hexadecimal.
        created: UTC.
        expires: UTC; None: never.
        revoked: UTC; None: in force.
        requests_per_minute: None leaves that to the settings.
        tokens_per_minute: Prompt and output tokens; None leaves that to the settings.
    """

    id: str
    name: str
    roles: frozenset[Role]
    hash: str
    created: datetime
    expires: datetime | None = None
    revoked: datetime | None = None
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise InvalidName(
                f"{self.name[:64]!r} cannot name a key",
                why="letters, digits and . _ @ -, at most 64",
            )
        if not self.roles:
            raise InvalidName("a key needs a role", hint="Give --role infer, for one")

    def in_force(self, now: datetime) -> bool:
        """Whether it may be used at this time."""
        return self.revoked is None and (self.expires is None or now < self.expires)

    def document(self) -> dict[str, Any]:
        """As it is kept (``api-keys.v1``)."""
        found: dict[str, Any] = {
            "id": self.id,
            "name": self.name,
            "roles": sorted(role.value for role in self.roles),
            "hash": self.hash,
            "created": _text(self.created),
        }
        times = {"expires": self.expires, "revoked": self.revoked}
        found |= {name: _text(time) for name, time in times.items() if time is not None}
        bounds = {
            "requestsPerMinute": self.requests_per_minute,
            "tokensPerMinute": self.tokens_per_minute,
        }
        return found | {name: bound for name, bound in bounds.items() if bound is not None}

    @classmethod
    def from_document(cls, document: dict[str, Any]) -> ApiKey:
        """The inverse of :meth:`document`; follows its schema already."""
        return cls(
            id=document["id"],
            name=document["name"],
            roles=frozenset(Role(role) for role in document["roles"]),
            hash=document["hash"],
            created=_moment(document["created"]),
            expires=_time(document.get("expires")),
            revoked=_time(document.get("revoked")),
            requests_per_minute=document.get("requestsPerMinute"),
            tokens_per_minute=document.get("tokensPerMinute"),
        )


def new_key(
    name: str,
    roles: Iterable[Role],
    *,
    now: datetime,
    expires: datetime | None = None,
    requests_per_minute: int | None = None,
    tokens_per_minute: int | None = None,
) -> tuple[str, ApiKey]:
    """Draw a key.

    Returns:
        The key itself, which is nowhere else, and its record.

    Raises:
        InvalidName: The name cannot be one, or there is no role.
    """
    number = secrets.token_hex(_ID_BYTES)
    key = f"{_PREFIX}_{number}_{secrets.token_urlsafe(_SECRET_BYTES)}"
    record = ApiKey(
        id=number,
        name=name,
        roles=frozenset(roles),
        hash=_hash(key),
        created=now,
        expires=expires,
        requests_per_minute=requests_per_minute,
        tokens_per_minute=tokens_per_minute,
    )
    return key, record


class KeySet:
    """All keys of a site, for looking one up.

    Args:
        keys: Revoked and expired ones too.
    """

    def __init__(self, keys: Iterable[ApiKey] = ()) -> None:
        self._by_id = {key.id: key for key in keys}

    def __len__(self) -> int:
        return len(self._by_id)

    def usable(self, now: datetime) -> bool:
        """Whether any key is in force."""
        return any(key.in_force(now) for key in self._by_id.values())

    def find(self, presented: str, now: datetime) -> ApiKey | None:
        """The record of a key that somebody presents; None unless it is right and in force.

        Takes as long for a wrong secret as for a right one, and for an id that is not there.
        """
        if len(presented) > limits.API_KEY_CHARS:
            return None
        match = _FORM.fullmatch(presented)
        record = self._by_id.get(match[1]) if match else None
        wanted = record.hash if record is not None else _NO_HASH
        right = hmac.compare_digest(_hash(presented), wanted)
        return record if record is not None and right and record.in_force(now) else None


def _hash(key: str) -> str:
    return "sha256:" + hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()


def _text(moment: datetime) -> str:
    return moment.astimezone(UTC).replace(microsecond=0, tzinfo=None).isoformat() + "Z"


def _time(text: str | None) -> datetime | None:
    return None if text is None else _moment(text)


def _moment(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text)
    except ValueError:  # a leap second, for one: RFC 3339 has them, Python has not
        raise MalformedDocument("a time in the API keys is none", why=text) from None
