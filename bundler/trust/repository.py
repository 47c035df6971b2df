"""The publisher's metadata in memory: what to sign next, under which version, for how long.

No files and no folders here: bytes of the last state in, bytes of the next one out. What was signed
once is kept as the bytes that were signed, never written anew.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Protocol

from securesystemslib.signer import CryptoSigner, Key
from tuf.api.metadata import (
    DelegatedRole,
    Delegations,
    Metadata,
    MetaFile,
    Root,
    Snapshot,
    TargetFile,
    Targets,
    Timestamp,
)

from bundler.trust import envelope, names
from bundler.trust.envelope import Envelope
from schemas.errors import KeyUnavailable, StoreDamaged

# How long a signature holds. Online roles are renewed with every bundle, so theirs say how long a
# bundle may be under way; the others are renewed on the way when they come close to that.
ROOT_LIFETIME: Final = timedelta(days=4 * 365)
TARGETS_LIFETIME: Final = timedelta(days=2 * 365)
ADVISORIES_LIFETIME: Final = timedelta(days=365)
PUBLISHER_LIFETIME: Final = timedelta(days=365)
BUNDLE_LIFETIME: Final = timedelta(days=180)
SNAPSHOT_LIFETIME: Final = timedelta(days=180)
TIMESTAMP_LIFETIME: Final = timedelta(days=180)

# No bundle may be cut short by a role that is signed rarely. The root is reissued yearly.
RENEW_BEFORE: Final = timedelta(days=200)
RENEW_ROOT_BEFORE: Final = ROOT_LIFETIME - timedelta(days=365)

_LIFETIMES: Final = {
    names.ROOT: ROOT_LIFETIME,
    names.TARGETS: TARGETS_LIFETIME,
    names.ADVISORIES: ADVISORIES_LIFETIME,
    names.SNAPSHOT: SNAPSHOT_LIFETIME,
    names.TIMESTAMP: TIMESTAMP_LIFETIME,
    names.BUNDLE_ROLE: BUNDLE_LIFETIME,
}


class Signers(Protocol):
    """Where private keys come from."""

    def signer(self, role: str) -> CryptoSigner:
        """The key of a role.

        Raises:
            KeyUnavailable: It is not at hand or does not open.
        """


class Repository:
    """All current metadata of one publisher, and the next versions of it.

    Args:
        files: File name to bytes, as :attr:`files` gave them.

    Raises:
        StoreDamaged: They are not what this class wrote.
    """

    def __init__(self, files: Mapping[str, bytes]) -> None:
        self._roots: dict[int, Envelope] = {}
        self._roles: dict[str, Envelope] = {}
        for name, data in files.items():
            role, version = names.parse_member(name)
            item = envelope.read(role, data, version=version)
            if role == names.ROOT:
                self._roots[item.version] = item
            else:
                self._roles[role] = item
        if files:
            self._check_whole()

    @classmethod
    def create(cls, signers: Signers, namespaces: Sequence[str], now: datetime) -> Repository:
        """First versions of root, targets and the publishers' roles.

        Args:
            signers: Gives the key of every role, publishers included.
            namespaces: Each gets a role of its own.
            now: The clock, with a time zone.
        """
        new = cls({})
        root = Root(consistent_snapshot=True)
        for role in names.TOP_LEVEL:
            root.add_key(signers.signer(role).public_key, role)
        new._sign_root(root, signers, now)
        targets = Targets(delegations=Delegations({}, {}))
        _delegate(
            targets,
            names.BUNDLE_ROLE,
            names.BUNDLE_PATHS,
            signers.signer(names.BUNDLE_ROLE).public_key,
        )
        new._sign(names.TARGETS, targets, signers, now)
        new.add_advisories(signers, now)
        for namespace in namespaces:
            new.add_namespace(namespace, signers, now)
        return new

    @property
    def files(self) -> dict[str, bytes]:
        """File name to bytes, in the order in which a bundle carries them."""
        first = (names.TIMESTAMP, names.SNAPSHOT, names.TARGETS)
        delegated = sorted(set(self._roles) - set(first))
        items = [self._roles[role] for role in (*first, *delegated) if role in self._roles]
        return {
            names.member_name(item.role, item.version): item.data
            for item in (*(self._roots[n] for n in sorted(self._roots)), *items)
        }

    @property
    def root(self) -> Envelope:
        """The newest root."""
        return self._roots[len(self._roots)]

    @property
    def versions(self) -> dict[str, int]:
        """Role to version."""
        return {names.ROOT: self.root.version} | {r: e.version for r, e in self._roles.items()}

    @property
    def expires(self) -> datetime:
        """When the first of all roles runs out, UTC."""
        return min(item.expires for item in (self.root, *self._roles.values()))

    @property
    def namespaces(self) -> tuple[str, ...]:
        """Those that have a publisher's role, in order of delegation."""
        found = map(names.namespace_of, self.delegated)
        return tuple(namespace for namespace in found if namespace is not None)

    def key_ids(self, role: str) -> tuple[str, ...]:
        """Ids of the keys that may sign a role; empty for a role that is not delegated."""
        root = self.root.payload(Root)
        if role in root.roles:
            return tuple(root.roles[role].keyids)
        delegated = self._delegations().roles or {}
        return tuple(delegated[role].keyids) if role in delegated else ()

    def add_namespace(self, namespace: str, signers: Signers, now: datetime) -> None:
        """Delegate a namespace to a role of its own, which signs for nothing yet.

        Raises:
            KeyUnavailable: The key of targets or of the new role is not at hand.
        """
        role = names.publisher_role(namespace)
        targets = self._targets(names.TARGETS)
        _delegate(targets, role, names.publisher_paths(namespace), signers.signer(role).public_key)
        self._sign(names.TARGETS, targets, signers, now)
        self._sign(role, Targets(), signers, now)

    @property
    def has_advisories(self) -> bool:
        """Whether there is a role for withdrawals; folders of early releases have none."""
        return names.ADVISORIES in self.delegated

    @property
    def delegated(self) -> tuple[str, ...]:
        """Roles that the targets role delegates to, in order of precedence."""
        return tuple(envelope.delegations(self._targets(names.TARGETS)))

    def add_advisories(self, signers: Signers, now: datetime) -> None:
        """Delegate withdrawals to a role of their own, before all others.

        Raises:
            KeyUnavailable: The key of targets or of the new role is not at hand.
        """
        role = names.ADVISORIES
        targets = self._targets(names.TARGETS)
        key = signers.signer(role).public_key
        _delegate(targets, role, names.ADVISORIES_PATHS, key)
        delegations = targets.delegations
        if delegations is not None and delegations.roles is not None:
            first = {role: delegations.roles.pop(role)}
            delegations.roles = first | delegations.roles
        self._sign(names.TARGETS, targets, signers, now)
        self._sign(role, Targets(), signers, now)

    def targets_of(self, role: str) -> dict[str, TargetFile]:
        """What a role signs for at present: path to target."""
        return dict(self._targets(role).targets) if role in self._roles else {}

    def set_targets(
        self, role: str, targets: Mapping[str, TargetFile], signers: Signers, now: datetime
    ) -> None:
        """Sign the next version of a role with exactly these targets."""
        signed = self._targets(role) if role in self._roles else Targets()
        signed.targets = dict(targets)
        self._sign(role, signed, signers, now)

    def renew(self, signers: Signers, now: datetime) -> None:
        """Sign again what would run out while a bundle of today is still good.

        A key that is kept elsewhere is not asked for as long as its role still holds.

        Raises:
            KeyUnavailable: A role has expired and its key is not at hand.
        """
        if self.root.expires <= now + RENEW_ROOT_BEFORE:
            self._renew_root(signers, now)
        online = (names.TIMESTAMP, names.SNAPSHOT, names.BUNDLE_ROLE)
        for role in [role for role in self._roles if role not in online]:
            item = self._roles[role]
            if item.expires > now + RENEW_BEFORE or _postponed(item, signers, now):
                continue
            self._sign(role, self._targets(role), signers, now)

    def seal(self, signers: Signers, now: datetime) -> None:
        """Sign the next snapshot over all roles and the next timestamp over that."""
        listed = {
            f"{role}.json": MetaFile.from_data(item.version, item.data, ["sha256"])
            for role, item in self._roles.items()
            if role not in (names.TIMESTAMP, names.SNAPSHOT)
        }
        self._sign(names.SNAPSHOT, Snapshot(meta=listed), signers, now)
        snapshot = self._roles[names.SNAPSHOT]
        meta = MetaFile.from_data(snapshot.version, snapshot.data, ["sha256"])
        self._sign(names.TIMESTAMP, Timestamp(snapshot_meta=meta), signers, now)

    def _check_whole(self) -> None:
        """Every root from 1, targets and the role of every namespace; the rest comes and goes."""
        wanted = {names.TARGETS}
        if names.TARGETS in self._roles:
            wanted |= {names.publisher_role(namespace) for namespace in self.namespaces}
        chain = list(range(1, len(self._roots) + 1))
        if not chain or sorted(self._roots) != chain or not wanted <= set(self._roles):
            raise StoreDamaged(
                "the publisher's folder lacks a metadata file", hint="Restore it from a backup"
            )

    def _renew_root(self, signers: Signers, now: datetime) -> None:
        if _postponed(self.root, signers, now):
            return
        self._sign_root(_copy(self.root).payload(Root), signers, now)

    def _sign_root(self, root: Root, signers: Signers, now: datetime) -> None:
        item = _signed(names.ROOT, root, len(self._roots) + 1, signers, now)
        self._roots[item.version] = item

    def _sign(
        self, role: str, signed: Targets | Snapshot | Timestamp, signers: Signers, now: datetime
    ) -> None:
        version = self._roles[role].version + 1 if role in self._roles else 1
        self._roles[role] = _signed(role, signed, version, signers, now)

    def _targets(self, role: str) -> Targets:
        """A copy to change; the original's bytes stay what was signed."""
        return _copy(self._roles[role]).payload(Targets)

    def _delegations(self) -> Delegations:
        return self._targets(names.TARGETS).delegations or Delegations({}, {})


def model_target_file(
    path: str, data: bytes, custom: Mapping[str, str | int] | None = None
) -> TargetFile:
    """A target of these bytes, with our own fields if there are any."""
    target = TargetFile.from_data(path, data, ["sha256"])
    if custom:
        target.unrecognized_fields["custom"] = dict(custom)
    return target


def _copy(item: Envelope) -> Envelope:
    return Envelope(item.role, item.data, Metadata.from_bytes(item.data))


def _delegate(targets: Targets, role: str, paths: Sequence[str], key: Key) -> None:
    if targets.delegations is None or targets.delegations.roles is None:
        raise StoreDamaged("the publisher's targets metadata has no delegations")
    targets.delegations.roles[role] = DelegatedRole(
        role, [], threshold=1, terminating=True, paths=list(paths)
    )
    targets.add_key(key, role)


def _postponed(item: Envelope, signers: Signers, now: datetime) -> bool:
    """Whether a role that should be renewed has to wait for its key, and still can."""
    try:
        signers.signer(item.role)
    except KeyUnavailable:
        if item.expires > now + TIMESTAMP_LIFETIME:
            return True
        raise
    return False


def _signed(
    role: str,
    signed: Root | Targets | Snapshot | Timestamp,
    version: int,
    signers: Signers,
    now: datetime,
) -> Envelope:
    signed.version = version
    lifetime = _LIFETIMES.get(role, PUBLISHER_LIFETIME)
    signed.expires = now.astimezone(UTC).replace(microsecond=0) + lifetime
    metadata: Metadata[Any] = Metadata(signed)
    metadata.sign(signers.signer(role))
    # Read back as the far side will read it: what fails there must not be published.
    return envelope.read(role, metadata.to_bytes(), version=version)
