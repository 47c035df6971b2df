"""The publisher's metadata in memory: what to sign next, under which version, for how long.

No files and no folders here: bytes of the last state in, bytes of the next one out. What was signed
once is kept as the bytes that were signed, never written anew.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Any, Final, Protocol

from securesystemslib.signer import Signer
from tuf.api.metadata import (
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
from bundler.trust.roles import Changes, RoleKeys, delegate, lifetime, retire, set_root_roles
from schemas.errors import BadSignature, KeyUnavailable, NotFound, StoreDamaged

# No bundle may be cut short by a role that is signed rarely, not even one that comes three months
# late. The root is reissued yearly.
RENEW_BEFORE: Final = timedelta(days=270)
RENEW_ROOT_BEFORE: Final = lifetime(names.ROOT) - timedelta(days=365)


class Signers(Protocol):
    """Where private keys come from."""

    def signers(self, role: str, keyids: Collection[str]) -> Sequence[Signer]:
        """Those of a role's keys that are at hand, each once.

        Raises:
            KeyUnavailable: One is there but does not open.
        """


class Repository:
    """All current metadata of one publisher, and the next versions of it.

    Args:
        files: File name to bytes, as :attr:`files` gave them.
        partly: Sign with the keys at hand even if they are too few, for others to add theirs.
        whole: False for an excerpt: roots, targets, and some of the roles below.

    Raises:
        StoreDamaged: They are not what this class wrote.
    """

    def __init__(
        self, files: Mapping[str, bytes], *, partly: bool = False, whole: bool = True
    ) -> None:
        self._partly = partly
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
            self._check_whole(whole=whole)

    @classmethod
    def create(cls, roles: Mapping[str, RoleKeys], signers: Signers, now: datetime) -> Repository:
        """First versions of root, targets and all roles that they delegate to.

        Args:
            roles: The keys of every role; delegations are made in this order.
            signers: Gives all of them.
            now: The clock, with a time zone.
        """
        new = cls({})
        root = Root(consistent_snapshot=True)
        set_root_roles(root, {role: roles[role] for role in names.TOP_LEVEL})
        new._sign_root(root, signers, now)
        targets = Targets(delegations=Delegations({}, {}))
        delegated = {role: keys for role, keys in roles.items() if role not in names.TOP_LEVEL}
        delegate(targets, delegated)
        new._sign(names.TARGETS, targets, signers, now)
        for role in delegated:
            if role != names.BUNDLE_ROLE:  # has nothing to say before the first bundle
                new._sign(role, Targets(), signers, now)
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
        found = ((role, names.namespace_of(role)) for role in self.delegated)
        return tuple(name for role, name in found if name is not None and not self.retired(role))

    def retired(self, role: str) -> bool:
        """Whether a publisher's role has been shut down: it may sign for no model any more."""
        if role in names.TOP_LEVEL:
            return False
        delegated = (self._delegations().roles or {}).get(role)
        return delegated is not None and delegated.paths == list(names.retired_paths(role))

    @property
    def roots(self) -> Mapping[int, Envelope]:
        """All versions, from 1."""
        return MappingProxyType(self._roots)

    def find(self, role: str) -> Envelope | None:
        """The newest metadata of a role, if there is any."""
        return self.root if role == names.ROOT else self._roles.get(role)

    def wanted(self, role: str) -> tuple[RoleKeys, ...]:
        """Who must sign a role's newest version; a root has two: its predecessor and itself."""
        found = []
        for delegator in self._delegators(role, self.newest(role)):
            each = delegator.get_delegated_role(role)
            found.append(RoleKeys(tuple(map(delegator.get_key, each.keyids)), each.threshold))
        return tuple(found)

    def check_signatures_so_far(self, role: str) -> None:
        """See that the signatures of a role are right, even if they are too few yet.

        Raises:
            BadSignature: One is wrong, or by a key that may not sign it.
        """
        item = self.newest(role)
        envelope.check_signatures(item, *self._delegators(role, item), enough=False)

    def role_keys(self, role: str) -> RoleKeys | None:
        """Who may sign a role; None where there is no such role."""
        root = self.root.payload(Root)
        delegator: Root | Targets = root
        if role not in root.roles:
            delegator = self._roles[names.TARGETS].payload(Targets)
        if delegator is not root and role not in self.delegated:
            return None
        found = delegator.get_delegated_role(role)
        return RoleKeys(tuple(map(delegator.get_key, found.keyids)), found.threshold)

    @property
    def has_advisories(self) -> bool:
        """Whether there is a role for withdrawals; folders of early releases have none."""
        return names.ADVISORIES in self.delegated

    @property
    def delegated(self) -> tuple[str, ...]:
        """Roles that the targets role delegates to, in order of precedence."""
        return tuple(envelope.delegations(self._roles[names.TARGETS].signed))

    def require(self, role: str, signers: Signers) -> None:
        """See that enough keys of a role are at hand, before anything is changed.

        Raises:
            KeyUnavailable: They are not.
        """
        wanted = self.role_keys(role)
        if wanted is None:
            raise NotFound(f"there is no role {role}")
        found = {signer.public_key.keyid for signer in self._at_hand(role, wanted.keyids, signers)}
        if len(found) < wanted.threshold:
            raise _too_few(role, len(found), wanted.threshold, set(wanted.keyids) - found)

    def apply(self, changes: Changes, signers: Signers, now: datetime) -> None:
        """Sign the next versions of whatever the changes touch, bottom of the chain included.

        A role whose signatures are by keys that lose their right is signed again by the others.

        Raises:
            KeyUnavailable: Too few keys are at hand, unless this is done partly.
        """
        top = {role: keys for role, keys in changes.roles.items() if role in names.TOP_LEVEL}
        below = {role: keys for role, keys in changes.roles.items() if role not in top}
        if top or names.ROOT in changes.renewed:
            root = _copy(self.root).payload(Root)
            set_root_roles(root, top)
            self._sign_root(root, signers, now)
        targets = self._targets(names.TARGETS)
        stale = names.TARGETS in changes.renewed or not self._fits(names.TARGETS)
        retired = {role for role in self.delegated if self.retired(role)} if top else set()
        retired = (retired | changes.retired) - set(below)
        if below or retired or stale:
            delegate(targets, below)
            retire(targets, retired, self.role_keys(names.TARGETS))
            self._sign(names.TARGETS, targets, signers, now)
        for role in self.delegated:
            self._apply_below(role, changes, signers, now)

    def _apply_below(self, role: str, changes: Changes, signers: Signers, now: datetime) -> None:
        wanted = {} if role in changes.retired else changes.targets.get(role)
        if role == names.BUNDLE_ROLE:
            return  # signed anew with every bundle
        again = role not in self._roles or role in changes.renewed or not self._fits(role)
        if wanted is not None or again:
            before = self.targets_of(role)
            self.set_targets(role, before if wanted is None else wanted, signers, now)

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
            KeyUnavailable: A role has expired and its keys are not at hand.
        """
        if self.root.expires <= now + RENEW_ROOT_BEFORE and self._can_renew(
            self.root, signers, now
        ):
            self._sign_root(_copy(self.root).payload(Root), signers, now)
        online = (names.TIMESTAMP, names.SNAPSHOT, names.BUNDLE_ROLE)
        for role in [role for role in self._roles if role not in online]:
            item = self._roles[role]
            if item.expires <= now + RENEW_BEFORE and self._can_renew(item, signers, now):
                self._sign(role, self._targets(role), signers, now)

    def _can_renew(self, item: Envelope, signers: Signers, now: datetime) -> bool:
        """Whether its keys are at hand; if not, it has to wait for them, as long as it can."""
        try:
            self.require(item.role, signers)
        except KeyUnavailable:
            if item.expires > now:
                return False
            raise
        return True

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

    def _check_whole(self, *, whole: bool) -> None:
        """Every root from 1, targets and, but in an excerpt, all delegated roles."""
        wanted = {names.TARGETS}
        if names.TARGETS in self._roles and whole:
            wanted |= set(self.delegated) - {names.BUNDLE_ROLE}
        chain = list(range(1, len(self._roots) + 1))
        if not chain or sorted(self._roots) != chain or not wanted <= set(self._roles):
            raise StoreDamaged(
                "the publisher's folder lacks a metadata file", hint="Restore it from a backup"
            )

    def missing(self, role: str) -> int:
        """How many more signatures a role's newest version needs; 0 if it is complete."""
        signers = set(self.newest(role).signers)
        lacks = (each.threshold - len(signers & set(each.keyids)) for each in self.wanted(role))
        return max(0, *lacks)

    def check_signed(self) -> None:
        """See that every role is signed as its delegator asks, the root chain from 1 on.

        Raises:
            BadSignature: A wrong, stray or missing signature, or a role that nobody delegates to.
        """
        known = {*names.TOP_LEVEL, *self.delegated}
        if stray := set(self._roles) - known:
            raise BadSignature(f"nobody delegates to {min(stray)}")
        for number in sorted(self._roots):
            item = self._roots[number]
            envelope.check_signatures(item, *self._delegators(names.ROOT, item))
        for role in (names.TARGETS, *self.delegated):
            if role in self._roles and role != names.BUNDLE_ROLE:
                item = self._roles[role]
                envelope.check_signatures(item, *self._delegators(role, item))

    def newest(self, role: str) -> Envelope:
        """The newest metadata of a role that has some."""
        return self.root if role == names.ROOT else self._roles[role]

    def _fits(self, role: str) -> bool:
        """Whether a role's signatures still are what its delegator asks for."""
        item = self._roles[role]
        try:
            envelope.check_signatures(item, *self._delegators(role, item))
        except BadSignature:
            return False
        return True

    def _delegators(self, role: str, item: Envelope) -> tuple[Root | Targets, ...]:
        """Whom a role's signatures must satisfy."""
        if role == names.ROOT:
            own = item.payload(Root)
            before = self._roots.get(item.version - 1)
            return (own,) if before is None else (before.payload(Root), own)
        if role in names.TOP_LEVEL:
            return (self.root.payload(Root),)
        return (self._roles[names.TARGETS].payload(Targets),)

    def _at_hand(self, role: str, keyids: Collection[str], signers: Signers) -> Sequence[Signer]:
        return signers.signers(names.TARGETS if self.retired(role) else role, keyids)

    def _sign_root(self, root: Root, signers: Signers, now: datetime) -> None:
        version = len(self._roots) + 1
        item = self._signed(names.ROOT, root, version, signers, now)
        self._roots[item.version] = item

    def _sign(
        self, role: str, signed: Targets | Snapshot | Timestamp, signers: Signers, now: datetime
    ) -> None:
        version = self._roles[role].version + 1 if role in self._roles else 1
        self._roles[role] = self._signed(role, signed, version, signers, now)

    def _signed(
        self,
        role: str,
        signed: Root | Targets | Snapshot | Timestamp,
        version: int,
        signers: Signers,
        now: datetime,
    ) -> Envelope:
        signed.version = version
        signed.expires = _moment(now) + lifetime(role)
        metadata: Metadata[Any] = Metadata(signed)
        delegators = self._delegators(role, Envelope(role, b"", metadata))
        wanted = [delegator.get_delegated_role(role) for delegator in delegators]
        keyids = tuple(dict.fromkeys(keyid for each in wanted for keyid in each.keyids))
        for signer in self._at_hand(role, keyids, signers):
            envelope.add_signature(metadata, signer)
        for each in wanted if not self._partly else ():
            found = metadata.signatures.keys() & set(each.keyids)
            if len(found) < each.threshold:
                raise _too_few(role, len(found), each.threshold, set(each.keyids) - found)
        # Read back as the far side will read it: what fails there must not be published.
        return envelope.read(role, metadata.to_bytes(), version=version)

    def _targets(self, role: str) -> Targets:
        """A copy to change; the original's bytes stay what was signed."""
        return _copy(self._roles[role]).payload(Targets)

    def _delegations(self) -> Delegations:
        return self._roles[names.TARGETS].payload(Targets).delegations or Delegations({}, {})


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


def _moment(now: datetime) -> datetime:
    return now.astimezone(UTC).replace(microsecond=0)


def _too_few(role: str, found: int, threshold: int, absent: Collection[str]) -> KeyUnavailable:
    others = ", ".join(keyid[:16] for keyid in sorted(absent)[:5])
    return KeyUnavailable(
        f"not enough keys of {role} are at hand",
        why=f"{found} of {threshold} signatures can be made here; the other keys are {others}",
        hint="Give them with --sign-with, or have others sign: bundle sign request",
    )
