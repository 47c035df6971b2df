"""Which keys a publisher has, and what runs out when."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum
from typing import Final

from bundler.trust import names
from bundler.trust.keyring import key_files, key_id_of, read_token_file
from bundler.trust.repository import Repository
from bundler.trust.roles import RoleKeys
from bundler.trust.workspace import Generation, Workspace

SOON: Final = timedelta(days=60)
_ONLINE: Final = (names.TIMESTAMP, names.SNAPSHOT, names.BUNDLE_ROLE)


class State(Enum):
    """How a role stands."""

    FRESH = "fresh"
    SOON = "soon"
    EXPIRED = "expired"


@dataclass(frozen=True, slots=True)
class HeldKey:
    """A key that may sign a role.

    Attributes:
        keyid: SHA-256 over the public key as TUF writes it.
        scheme: Such as ``ecdsa-sha2-nistp256``.
        name: What people call it; empty for none.
        place: Where the private key is found here; empty where it is kept elsewhere.
    """

    keyid: str
    scheme: str
    name: str
    place: str


@dataclass(frozen=True, slots=True)
class RoleHealth:
    """A role, its keys, and how long what it signed holds.

    Attributes:
        role: Its name.
        threshold: How many keys must sign.
        keys: Those that may.
        version: Of what was signed last; 0 for nothing yet.
        expires: UTC; None where nothing was signed yet.
        renewed: Whether every bundle signs it anew, so that its expiry is the bundle's.
        retired: Whether it may sign for no model any more.
        state: As of the time that was asked about.
    """

    role: str
    threshold: int
    keys: tuple[HeldKey, ...]
    version: int
    expires: datetime | None
    renewed: bool
    retired: bool
    state: State

    @property
    def at_hand(self) -> int:
        """How many of the keys are kept here."""
        return sum(bool(key.place) for key in self.keys)

    def days_left(self, now: datetime) -> int | None:
        """Whole days until it expires, negative afterwards."""
        return None if self.expires is None else (self.expires - now).days


def examine(
    workspace: Workspace,
    generation: Generation,
    repository: Repository,
    now: datetime,
    soon: timedelta = SOON,
) -> list[RoleHealth]:
    """Look at all roles; no key is opened.

    Args:
        workspace: Where private keys may lie.
        generation: Its state.
        repository: The same, read.
        now: The clock.
        soon: From when on an expiry is near.
    """
    found = []
    for role in (*names.TOP_LEVEL, *repository.delegated):
        wanted = repository.role_keys(role)
        if wanted is not None:
            found.append(_role(role, wanted, workspace, generation, repository, now, soon))
    return found


def _role(
    role: str,
    wanted: RoleKeys,
    workspace: Workspace,
    generation: Generation,
    repository: Repository,
    now: datetime,
    soon: timedelta,
) -> RoleHealth:
    item = repository.find(role)
    renewed = role in _ONLINE
    state = State.FRESH
    if item is not None and not renewed:
        near = State.SOON if item.expires <= now + soon else State.FRESH
        state = State.EXPIRED if item.expires <= now else near
    retired = repository.retired(role)
    places = places_of(names.TARGETS if retired else role, wanted.keyids, workspace, generation)
    return RoleHealth(
        role,
        wanted.threshold,
        tuple(
            HeldKey(
                key.keyid,
                str(key.scheme),
                generation.key_names.get(key.keyid, ""),
                places.get(key.keyid, ""),
            )
            for key in wanted.keys
        ),
        0 if item is None else item.version,
        None if item is None else item.expires,
        renewed,
        retired,
        state,
    )


def places_of(
    role: str, keyids: Sequence[str], workspace: Workspace, generation: Generation
) -> dict[str, str]:
    """Key id to where the private key is."""
    first = generation.first_keys.get(role)
    if first is None and len(keyids) == 1:
        first = keyids[0]  # a folder of an early release, where nothing was written down
    places: dict[str, str] = {}
    for path in key_files(workspace, role):
        begin = key_id_of(path) or first
        place = read_token_file(path) if path.suffix == ".p11" else f"keys/{path.name}"
        for keyid in keyids:
            if begin is not None and keyid.startswith(begin):
                places.setdefault(keyid, place)
    return places
