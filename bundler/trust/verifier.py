"""The isolated side: is what a bundle says signed, fresh, and newer than what was seen before?

Two layers. :mod:`.closedworld` accounts for every byte of the metadata. Then python-tuf's updater
decides freshness, rollback and delegation (TUF 1.0.34 §5) on a copy of the trusted state, over the
members as its only "network"; what comes out is swapped in by the importer's last transaction.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Final

from tuf.api import exceptions as tuf_errors
from tuf.api.metadata import Root, TargetFile

from bundler.trust import closedworld, envelope, names
from bundler.trust.clock import SKEW, ReferenceTime, reference_time
from bundler.trust.closedworld import MemberSet
from bundler.trust.staleness import FRESHNESS, STRICT, Allowance, StaleRole, excused
from bundler.trust.updater import run_updater
from registry.digest import Digest
from registry.records import TrustState
from schemas import limits
from schemas.errors import (
    BadSignature,
    ContentMismatch,
    ExpiredMetadata,
    FingerprintMismatch,
    MalformedArchive,
    MalformedDocument,
    OutsideClosure,
    RollbackDetected,
    SealiftError,
    StoreDamaged,
    TrustMissing,
)

_MOMENT: Final = timedelta(microseconds=1)
_WHOLE: Final = frozenset({names.TIMESTAMP, names.SNAPSHOT, names.TARGETS})


@dataclass(frozen=True, slots=True)
class PinnedRoot:
    """A root whose fingerprint was compared with the one on paper.

    Attributes:
        data: The file's bytes.
        fingerprint: Their SHA-256.
        version: Of the root.
        expires: UTC; bundles carry newer roots on.
        threshold: How many keys must sign the next root.
        keyids: The keys that may.
    """

    data: bytes = field(repr=False)
    fingerprint: Digest
    version: int
    expires: datetime
    threshold: int
    keyids: tuple[str, ...]

    def trust_state(self, anchor: str, least_timestamp: int = 0) -> TrustState:
        """What a site trusts that has pinned this root and imported nothing yet."""
        roots = {self.version: self.data}
        return TrustState(anchor, self.fingerprint, roots, {}, least_timestamp)


@dataclass(frozen=True, slots=True)
class VerifiedTarget:
    """What somebody with the right to do so signed about one path.

    Attributes:
        path: The target's name.
        digest: SHA-256 of its bytes.
        size: In bytes.
        role: Who signed.
        custom: Our own fields: strings and integers.
    """

    path: str
    digest: Digest
    size: int
    role: str
    custom: Mapping[str, str | int] = field(hash=False)


@dataclass(frozen=True, slots=True)
class VerifiedTrust:
    """A bundle's trust metadata after all checks.

    Attributes:
        new_state: To be swapped in when, and only when, the import commits.
        versions: Role to version: root, timestamp, snapshot, targets, delegated roles.
        expires: Role to the moment from which its metadata is invalid, UTC.
        reference_time: The time that all of it was judged at, UTC; the next floor.
        clock: What the host's clock said, UTC.
        time_verdict: ``clock`` or ``clock_rollback``.
        stale: What had expired, and counts all the same.
    """

    new_state: TrustState
    versions: Mapping[str, int]
    expires: Mapping[str, datetime]
    reference_time: datetime
    clock: datetime
    time_verdict: str
    stale: tuple[StaleRole, ...]
    _signers: Mapping[str, tuple[str, ...]] = field(repr=False)
    _find: Callable[[str], tuple[TargetFile, str] | None] = field(repr=False, compare=False)

    def target(self, path: str) -> VerifiedTarget:
        """Look a target up along the delegations.

        Raises:
            OutsideClosure: Nobody who may sign for this path did.
        """
        found = self._find(path)
        if found is None:
            raise OutsideClosure(f"nobody signed for {path[:200]}")
        file, role = found
        return VerifiedTarget(
            path,
            Digest("sha256", file.hashes["sha256"]),
            file.length,
            role,
            MappingProxyType(dict(file.custom or {})),
        )

    def has(self, path: str) -> bool:
        """Whether anybody who may signed for a path."""
        return self._find(path) is not None

    def signers(self, role: str) -> tuple[str, ...]:
        """Ids of the keys that signed a role's metadata; empty for a role that is not there."""
        return self._signers.get(role, ())


def pin_root(root_bytes: bytes, fingerprint: Digest) -> PinnedRoot:
    """Check a root file before it becomes this site's source of trust.

    Args:
        root_bytes: The file.
        fingerprint: What came by the second channel.

    Raises:
        FingerprintMismatch: It is not the file on the paper.
        MalformedDocument: It is no root metadata in the accepted form.
        BadSignature: It is not signed by its own keys.
    """
    if len(root_bytes) > limits.TUF_ROOT_BYTES:
        raise MalformedDocument("the root file is too large", why=f"{len(root_bytes)} bytes")
    seen = fingerprint.hasher()
    seen.update(root_bytes)
    if seen.hexdigest() != fingerprint.hex:
        raise FingerprintMismatch(
            "the root file is not the one that the fingerprint names",
            why=f"it has {fingerprint.algorithm}:{seen.hexdigest()}",
            hint="Compare with the publisher by telephone or paper, not over the same stick",
        )
    root = envelope.read(names.ROOT, root_bytes)
    signed = root.payload(Root)
    envelope.check_signatures(root, signed, foreign=True)
    own = signed.roles[names.ROOT]
    return PinnedRoot(
        root_bytes,
        Digest.of(root_bytes),
        root.version,
        root.expires,
        own.threshold,
        tuple(own.keyids),
    )


def choose_anchor(
    states: Iterable[TrustState], members: Mapping[str, bytes], name: str | None = None
) -> TrustState:
    """Which of several pinned publishers a bundle claims to be from; proves nothing yet.

    Args:
        states: Of all publishers of the site.
        members: The bundle's metadata.
        name: The one that it shall be from; None for any.

    Raises:
        TrustMissing: None of them; or two, for then what one has seen would not protect the other.
    """
    known = list(states)
    fits = [state for state in known if _continues(members, state)]
    if len(fits) > 1:
        raise TrustMissing(
            "the bundle's publisher is trusted twice here",
            why=", ".join(state.anchor for state in fits),
            hint="Keep one of them: bundle trust remove NAME",
        )
    chosen = [state for state in fits or known if name in (None, state.anchor)]
    if fits and chosen:
        return chosen[0]
    if len(chosen) == 1 and (name is not None or len(known) == 1):
        return chosen[0]  # verification says precisely what is wrong
    raise TrustMissing(
        "the bundle comes from a publisher that this site does not trust"
        if known
        else "this site trusts no publisher yet",
        hint="Pin a publisher's root with: bundle trust init --root FILE --fingerprint SHA256",
    )


def _continues(members: Mapping[str, bytes], state: TrustState) -> bool:
    pinned = min(state.roots, default=0)
    return pinned > 0 and members.get(names.member_name(names.ROOT, pinned)) == state.roots[pinned]


def verify_bundle_trust(
    state: TrustState,
    members: Mapping[str, bytes],
    *,
    now: datetime,
    floor: datetime | None,
    allowance: Allowance = STRICT,
) -> VerifiedTrust:
    """Verify a bundle's metadata against what a site trusts. Changes nothing anywhere.

    Args:
        state: The trusted state of one anchor, from the catalogue.
        members: File name to bytes, without the folder that they have in the bundle.
        now: The host's clock, with a time zone.
        floor: The latest reference time that this site committed; None before the first.
        allowance: What may have expired.

    Raises:
        MalformedArchive: A file is missing, unexpected or misnamed.
        MalformedDocument: A file is not in the one accepted form.
        ContentMismatch: A file is not the one that signed metadata lists (length or hash).
        BadSignature: Wrong, stray or too few signatures; or two files of one version.
        TrustMissing: The bundle's root is not the pinned one.
        RollbackDetected: Older than what the site already accepted.
        ExpiredMetadata: Signed once, no longer valid at the reference time.
        StoreDamaged: The trusted state contradicts itself.
    """
    trusted = _check_state(state)
    reference = reference_time(now, floor)
    checked = closedworld.check_members(members, state)
    carried = {names.ROOT: checked.root, **checked.roles}
    lapses = {role: (item.version, item.expires) for role, item in carried.items()}
    stale = excused(lapses, reference.time, allowance)
    # The updater knows one time for all roles. With what is excused it runs before the first lapse;
    # the others are judged here, at the reference time.
    before = min((each.expires - _MOMENT for each in stale), default=reference.time)
    try:
        updater = run_updater(state, members, checked, before)
    except (tuf_errors.RepositoryError, tuf_errors.DownloadError, ValueError) as error:
        raise _explained(error, _older(trusted, checked), checked, reference) from error
    _check_expiry(checked, reference, stale)
    _check_least(state, checked)
    return VerifiedTrust(
        new_state=_new_state(state, checked),
        versions=MappingProxyType({role: item.version for role, item in carried.items()}),
        expires=MappingProxyType({role: item.expires for role, item in carried.items()}),
        reference_time=reference.time,
        clock=reference.clock,
        time_verdict=reference.verdict,
        stale=stale,
        _signers=MappingProxyType({role: item.signers for role, item in carried.items()}),
        _find=updater.find,
    )


def _check_expiry(
    checked: MemberSet, reference: ReferenceTime, stale: tuple[StaleRole, ...]
) -> None:
    """See that nothing has expired but what is excused."""
    excused_roles = {each.role for each in stale}
    for role, item in {names.ROOT: checked.root, **checked.roles}.items():
        if item.expires <= reference.time and role not in excused_roles:
            raise _expired(checked, reference, excused_roles)


def _check_least(state: TrustState, checked: MemberSet) -> None:
    """A fresh site has seen nothing yet; the card says what it would have seen."""
    version = checked.roles[names.TIMESTAMP].version
    if version < state.least_timestamp:
        raise RollbackDetected(
            "the bundle is older than the card with the fingerprint says",
            why=f"its timestamp is v{version}, the card says v{state.least_timestamp} at least",
            hint="Import the newest bundle instead",
        )


def _explained(
    error: Exception, older: str, checked: MemberSet, reference: ReferenceTime
) -> SealiftError:
    """Say in our terms, with names and numbers, what the updater decided."""
    if isinstance(error, tuf_errors.ExpiredMetadataError):
        return _expired(checked, reference)
    if isinstance(error, tuf_errors.BadVersionNumberError) or older:
        return RollbackDetected(
            "the bundle is older than what this site already trusts",
            why=older or str(error),
            hint="Import the newest bundle instead",
        )
    if isinstance(error, tuf_errors.LengthOrHashMismatchError):
        return ContentMismatch("trust metadata is not what its snapshot lists")
    if isinstance(error, tuf_errors.DownloadError):
        return MalformedArchive("trust metadata is incomplete", why=str(error))
    return BadSignature("trust metadata does not verify", why=str(error))


def _expired(
    checked: MemberSet, reference: ReferenceTime, excused_roles: Collection[str] = ()
) -> ExpiredMetadata:
    carried = {names.ROOT: checked.root, **checked.roles}
    role, item = next(
        (
            (role, item)
            for role, item in carried.items()
            if item.expires <= reference.time and role not in excused_roles
        ),
        (names.TIMESTAMP, checked.roles[names.TIMESTAMP]),
    )
    hint = "Make a new bundle on the connected side; if the clock here is wrong, set it first"
    if reference.floored and reference.time - reference.clock > SKEW:
        hint = (
            "Make a new bundle on the connected side; if the clock here is right and was ahead"
            " before, see `bundle trust set-time`"
        )
    elif role in FRESHNESS:
        hint += "; or take it late, with --accept-stale --reason"
    return ExpiredMetadata(
        f"the bundle's {role} metadata (v{item.version}) expired on {_text(item.expires)}",
        why=reference.words(),
        hint=hint,
    )


def _older(trusted: Mapping[str, int], checked: MemberSet) -> str:
    """Which role of the bundle is behind the trusted state; empty if none."""
    for role, had in trusted.items():
        item = checked.roles.get(role)
        if item is None:
            return f"it has no {role}, this site has v{had}"
        if item.version < had:
            return f"its {role} is v{item.version}, this site has v{had}"
    return ""


def _check_state(state: TrustState) -> dict[str, int]:
    """See that the trusted state is whole; return its versions by role.

    The updater passes over cached files that it cannot use, and with them over the versions that
    protect from rollback. So a damaged state must stop the import instead.
    """
    if not state.roots:
        raise TrustMissing(f"no root is pinned as {state.anchor}")
    versions: dict[str, int] = {}
    pinned = state.fingerprint.hasher()
    pinned.update(state.roots[min(state.roots)])
    sound = (
        pinned.hexdigest() == state.fingerprint.hex
        and sorted(state.roots) == list(range(min(state.roots), max(state.roots) + 1))
        and all(map(names.is_role, state.metadata))
        and set(state.metadata).issuperset(_WHOLE if state.metadata else ())
    )
    try:
        for role, data in state.metadata.items() if sound else ():
            versions[role] = envelope.read(role, data).version
    except MalformedDocument:
        sound = False
    if not sound:
        raise StoreDamaged(
            f"the trusted state of {state.anchor} contradicts itself",
            hint="Run sealift doctor; restore the catalogue from a backup",
        )
    return versions


def _new_state(state: TrustState, checked: MemberSet) -> TrustState:
    # Roots before the pinned one prove nothing here, so they are not remembered: a forged one
    # would otherwise make this site refuse the true one later.
    pinned = min(state.roots)
    return replace(
        state,
        roots={n: item.data for n, item in checked.roots.items() if n >= pinned},
        metadata={role: item.data for role, item in checked.roles.items()},
        least_timestamp=0,  # from now on the trusted timestamp itself protects
    )


def _text(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")
