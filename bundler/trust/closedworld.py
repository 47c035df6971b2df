"""A bundle's metadata as one closed set: complete, nothing beside it, every byte accounted for.

TUF's client takes what it needs and ignores the rest. Here the rest matters too: a bundle with one
byte changed anywhere is refused. The checks, in order:

1. Names follow the grammar; count and total size are bounded.
2. Roots form a chain from version 1 without a gap; each is signed by its predecessor and by itself.
3. The chain runs through the roots that this site trusts, byte for byte.
4. The timestamp is signed by the newest root's keys.
5. The snapshot is the one that the timestamp names by version, length and SHA-256, and is signed.
6. Targets and every role delegated from there likewise, as the snapshot names them, and each is
   signed by the keys of the role that delegates to it.
7. No file is left over.

Freshness and rollback are the updater's (see :mod:`bundler.trust.verifier`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tuf.api.metadata import MetaFile, Root, Snapshot, Targets, Timestamp

from bundler.trust import envelope, names
from bundler.trust.envelope import Envelope
from registry.digest import Digest
from registry.records import TrustState
from schemas import limits
from schemas.errors import (
    BadSignature,
    ContentMismatch,
    MalformedArchive,
    MalformedDocument,
    RollbackDetected,
    TrustMissing,
)


@dataclass(frozen=True, slots=True)
class MemberSet:
    """Metadata that passed all seven checks.

    Attributes:
        roots: Every root by version, from 1.
        roles: Timestamp, snapshot, targets and delegated roles, in the order they were loaded.
        parents: The role that delegates to each targets role.
    """

    roots: Mapping[int, Envelope]
    roles: Mapping[str, Envelope]
    parents: Mapping[str, str]

    @property
    def root(self) -> Envelope:
        """The newest root."""
        return self.roots[len(self.roots)]


def check_members(members: Mapping[str, bytes], state: TrustState) -> MemberSet:
    """Check a bundle's metadata files against each other and against the pinned root.

    Args:
        members: File name to bytes, as under ``sealift/trust/`` in the bundle.
        state: What this site trusts.

    Raises:
        MalformedArchive: A file is missing, unexpected or misnamed, or there are too many.
        MalformedDocument: A file is not in the one accepted form.
        ContentMismatch: A file is not the one that snapshot or timestamp names.
        BadSignature: A signature is wrong, stray or missing.
        TrustMissing: The roots are not those that this site pinned.
        RollbackDetected: The root chain ends before the root that this site trusts.
    """
    files = _Files(members)
    roots = _root_chain(files)
    _check_anchor(roots, state)
    root = roots[len(roots)].payload(Root)
    timestamp = files.take(names.TIMESTAMP, None)
    envelope.check_signatures(timestamp, root)
    listed = timestamp.payload(Timestamp).snapshot_meta
    snapshot = files.take_listed(names.SNAPSHOT, listed, timestamp)
    envelope.check_signatures(snapshot, root)
    roles, parents = _targets(files, root, snapshot)
    files.expect_none_left()
    return MemberSet(
        roots, {names.TIMESTAMP: timestamp, names.SNAPSHOT: snapshot, **roles}, parents
    )


class _Files:
    """The members, each to be taken once (checks 1 and 7)."""

    def __init__(self, members: Mapping[str, bytes]) -> None:
        if len(members) > limits.TRUST_MEMBERS:
            raise MalformedArchive(
                "trust metadata has too many files", why=f"{len(members)} > {limits.TRUST_MEMBERS}"
            )
        total = sum(map(len, members.values()))
        if total > limits.TRUST_TOTAL_BYTES:
            raise MalformedArchive(
                "trust metadata is too large", why=f"{total} > {limits.TRUST_TOTAL_BYTES} bytes"
            )
        for name in members:
            names.parse_member(name)
        self._left = dict(members)

    def take(self, role: str, version: int | None) -> Envelope:
        return envelope.read(role, self._pop(role, version), version=version)

    def take_listed(self, role: str, meta: MetaFile, lister: Envelope) -> Envelope:
        data = self._pop(role, meta.version)
        wanted = Digest("sha256", (meta.hashes or {})["sha256"])  # the schema requires it
        if meta.length != len(data) or wanted != Digest.of(data):
            raise ContentMismatch(
                f"{role} metadata is not the file that {lister.title} lists",
                why=f"{len(data)} bytes, {Digest.of(data)}",
                hint="The bundle is damaged or was put together from several: fetch it again",
            )
        return envelope.read(role, data, version=meta.version)

    def has(self, role: str, version: int) -> bool:
        return names.member_name(role, version) in self._left

    def _pop(self, role: str, version: int | None) -> bytes:
        name = names.member_name(role, version or 0)
        if name not in self._left:
            raise MalformedArchive("trust metadata is incomplete", why=f"there is no {name}")
        return self._left.pop(name)

    def expect_none_left(self) -> None:
        if self._left:
            raise MalformedArchive(
                "trust metadata has a file too many", why=f"nothing names {min(self._left)}"
            )


def _root_chain(files: _Files) -> dict[int, Envelope]:
    """Check 2. Signatures are checked as the chain is walked, so that no gap is jumped."""
    first = files.take(names.ROOT, 1)
    previous = first.payload(Root)
    envelope.check_signatures(first, previous)
    chain = {1: first}
    while files.has(names.ROOT, len(chain) + 1):
        if len(chain) > limits.TUF_ROOT_ROTATIONS:
            raise MalformedArchive("trust metadata has too many root versions")
        following = files.take(names.ROOT, len(chain) + 1)
        envelope.check_signatures(following, previous, following.payload(Root))
        previous = following.payload(Root)
        chain[following.version] = following
    return chain


def _check_anchor(roots: Mapping[int, Envelope], state: TrustState) -> None:
    """Check 3."""
    pinned, newest = min(state.roots), max(state.roots)
    if pinned in roots and roots[pinned].data != state.roots[pinned]:
        raise TrustMissing(
            "the bundle comes from a publisher that this site does not trust",
            why=f"its root v{pinned} is not the one pinned as {state.anchor}",
            hint="If it should be trusted, pin its root with: bundle trust init",
        )
    if newest not in roots:
        raise RollbackDetected(
            "the bundle is older than what this site already trusts",
            why=f"its newest root is v{len(roots)}, this site has v{newest}",
            hint="Import the newest bundle instead",
        )
    for version, data in state.roots.items():
        # Not the bytes: anyone can respell an ECDSA signature, or put several in another order,
        # and whoever did so with a stick must not lock out the true file.
        known = envelope.read(names.ROOT, data).metadata.signed_bytes
        if roots[version].metadata.signed_bytes != known:
            raise BadSignature(
                f"there are two different roots v{version}",
                why="the bundle's is not the one that this site accepted before",
                hint="Ask the publisher: somebody may hold their root keys",
            )


def _targets(
    files: _Files, root: Root, snapshot: Envelope
) -> tuple[dict[str, Envelope], dict[str, str]]:
    """Check 6, breadth first from the top-level targets."""
    meta = snapshot.payload(Snapshot).meta
    roles: dict[str, Envelope] = {}
    parents: dict[str, str] = {}
    queue: list[tuple[str, str, Root | Targets]] = [(names.TARGETS, names.ROOT, root)]
    for role, parent, delegator in queue:  # grows while it is walked
        if (role in names.TOP_LEVEL and parent != names.ROOT) or role in roles:
            raise MalformedDocument(f"two roles delegate to {role}", why=f"one is {parent}")
        listed = meta.get(f"{role}.json")
        if listed is None:
            raise MalformedArchive(f"{snapshot.title} does not list {role}")
        loaded = files.take_listed(role, listed, snapshot)
        envelope.check_signatures(loaded, delegator)
        roles[role], parents[role] = loaded, parent
        delegating = loaded.payload(Targets)
        queue += [(child, role, delegating) for child in envelope.delegations(delegating)]
    unknown = {name.removesuffix(".json") for name in meta} - set(roles)
    if unknown:
        raise MalformedArchive(
            f"{snapshot.title} lists a role that nobody delegates to", why=min(unknown)
        )
    return roles, parents
