"""Who may sign what, and for how long: the parts of metadata that people decide on."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

from securesystemslib.signer import Key
from tuf.api.metadata import DelegatedRole, Role, Root, TargetFile, Targets

from bundler.trust import names
from schemas.errors import StoreDamaged

# How long a signature holds. Timestamp and snapshot say how long a bundle may be under way; all
# others outlast them, so that a bundle which is late is late for these two alone: only they have a
# grace, and only they can be accepted by a person where no policy says more.
ROOT_LIFETIME: Final = timedelta(days=4 * 365)
TARGETS_LIFETIME: Final = timedelta(days=2 * 365)
ADVISORIES_LIFETIME: Final = timedelta(days=365)
PUBLISHER_LIFETIME: Final = timedelta(days=365)
BUNDLE_LIFETIME: Final = timedelta(days=365)
SNAPSHOT_LIFETIME: Final = timedelta(days=180)
TIMESTAMP_LIFETIME: Final = timedelta(days=180)

_LIFETIMES: Final = {
    names.ROOT: ROOT_LIFETIME,
    names.TARGETS: TARGETS_LIFETIME,
    names.ADVISORIES: ADVISORIES_LIFETIME,
    names.SNAPSHOT: SNAPSHOT_LIFETIME,
    names.TIMESTAMP: TIMESTAMP_LIFETIME,
    names.BUNDLE_ROLE: BUNDLE_LIFETIME,
}


def lifetime(role: str) -> timedelta:
    """How long a signature for a role holds."""
    return _LIFETIMES.get(role, PUBLISHER_LIFETIME)


@dataclass(frozen=True, slots=True)
class RoleKeys:
    """Who may sign a role.

    Attributes:
        keys: Public keys, each once.
        threshold: How many of them must.
    """

    keys: tuple[Key, ...]
    threshold: int = 1

    @property
    def keyids(self) -> tuple[str, ...]:
        """Ids of the keys."""
        return tuple(key.keyid for key in self.keys)


@dataclass(frozen=True, slots=True)
class Changes:
    """What is to be different afterwards.

    Attributes:
        roles: Role to its new keys; a delegated role that is not there is made.
        retired: Publishers' roles that shall sign for nothing from now on.
        renewed: Roles to be signed again for the sake of their expiry.
        targets: Role to all that it shall sign for.
    """

    roles: Mapping[str, RoleKeys] = field(default_factory=dict)
    retired: frozenset[str] = frozenset()
    renewed: frozenset[str] = frozenset()
    targets: Mapping[str, Mapping[str, TargetFile]] = field(default_factory=dict)


def set_root_roles(root: Root, roles: Mapping[str, RoleKeys]) -> None:
    """Set the keys of top-level roles; keys that no role uses are dropped."""
    pool = root.keys | {key.keyid: key for each in roles.values() for key in each.keys}
    for role, each in roles.items():
        root.roles[role] = Role(list(each.keyids), each.threshold)
    used = {keyid for each in root.roles.values() for keyid in each.keyids}
    root.keys = {keyid: pool[keyid] for keyid in pool if keyid in used}


def delegate(targets: Targets, roles: Mapping[str, RoleKeys]) -> None:
    """Set the keys of delegated roles; new ones come last, that for withdrawals first."""
    delegations = targets.delegations
    if delegations is None or delegations.roles is None:
        raise StoreDamaged("the publisher's targets metadata has no delegations")
    pool = delegations.keys | {key.keyid: key for each in roles.values() for key in each.keys}
    for role, each in roles.items():
        delegations.roles[role] = DelegatedRole(
            role,
            list(each.keyids),
            each.threshold,
            terminating=True,
            paths=list(names.role_paths(role)),
        )
    first = {r: d for r, d in delegations.roles.items() if r == names.ADVISORIES}
    delegations.roles = first | delegations.roles
    used = {keyid for each in delegations.roles.values() for keyid in each.keyids}
    delegations.keys = {keyid: pool[keyid] for keyid in pool if keyid in used}


def retire(targets: Targets, roles: Collection[str], owner: RoleKeys | None) -> None:
    """Shut roles down: the targets keys take them over, for paths that no model has.

    They stay, since what a snapshot listed once must not disappear (TUF 1.0.34 section 5.5.5).
    """
    if not roles or owner is None:
        return
    delegate(targets, dict.fromkeys(roles, owner))
    delegations = targets.delegations
    for role, delegated in ((delegations.roles if delegations else None) or {}).items():
        if role in roles:
            delegated.paths = list(names.retired_paths(role))
