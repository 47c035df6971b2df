"""Who signs what in a bundle's metadata, as a tree; read strictly, and proven by nobody here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime

from tuf.api.metadata import DelegatedRole, Role, Root, Targets

from bundler.trust import envelope, names
from bundler.trust.envelope import Envelope
from schemas.errors import MalformedArchive


@dataclass(frozen=True, slots=True)
class ChartedRole:
    """One role: who may sign it, and who did.

    Attributes:
        role: Its name.
        parent: The role that says who may sign it; empty for the root.
        version: Of its file.
        expires: UTC.
        threshold: How many keys must sign.
        keyids: The keys that may.
        signers: Those that did, by the file.
        paths: What it may sign for; empty for roles of the top level.
        targets: How many things it signs for.
    """

    role: str
    parent: str
    version: int
    expires: datetime
    threshold: int
    keyids: tuple[str, ...]
    signers: tuple[str, ...]
    paths: tuple[str, ...] = ()
    targets: int = 0


@dataclass(frozen=True, slots=True)
class Chart:
    """All roles of a bundle.

    Attributes:
        roles: By name; a role comes after the one that delegates to it.
        roots: Versions of the chain, rising.
    """

    roles: Mapping[str, ChartedRole]
    roots: tuple[int, ...]

    def children(self, role: str) -> list[ChartedRole]:
        """The roles that a role delegates to, in the order in which they are asked."""
        return [each for each in self.roles.values() if each.parent == role]

    def shared(self) -> dict[str, tuple[str, ...]]:
        """Keys that may sign more than one role, with these roles."""
        holders: dict[str, list[str]] = {}
        for each in self.roles.values():
            for keyid in each.keyids:
                holders.setdefault(keyid, []).append(each.role)
        return {keyid: tuple(roles) for keyid, roles in holders.items() if len(roles) > 1}


def draw(files: Mapping[str, bytes]) -> Chart:
    """Read a bundle's metadata files.

    Args:
        files: Name to bytes, without their folder; bounded by the reader.

    Raises:
        MalformedArchive: There is no root, or a name that no metadata file has.
        MalformedDocument: A file is not in the one accepted form.
    """
    newest: dict[str, Envelope] = {}
    roots: list[int] = []
    for name, data in files.items():
        role, version = names.parse_member(name)
        read = envelope.read(role, data, version=version)
        if role == names.ROOT:
            roots.append(read.version)
        if role not in newest or newest[role].version < read.version:
            newest[role] = read
    if names.ROOT not in newest:
        raise MalformedArchive("trust metadata is incomplete", why="there is no root")
    root = newest[names.ROOT].payload(Root)
    found: dict[str, ChartedRole] = {
        str(role): _charted(
            newest[role], "" if role == names.ROOT else names.ROOT, root.roles[role]
        )
        for role in (names.ROOT, names.TIMESTAMP, names.SNAPSHOT, names.TARGETS)
        if role in newest
    }
    queue: list[str] = [names.TARGETS] if names.TARGETS in newest else []
    for parent in queue:  # grows while it is walked
        for each in _delegated(newest[parent]):
            if each.name in newest and each.name not in found:
                found[each.name] = _charted(newest[each.name], parent, each)
                queue.append(each.name)
    return Chart(found, tuple(sorted(roots)))


def root_threshold(data: bytes) -> ChartedRole:
    """Who may sign the successor of a root.

    Args:
        data: A root that was believed before.
    """
    read = envelope.read(names.ROOT, data)
    return _charted(read, "", read.payload(Root).roles[names.ROOT])


def _delegated(item: Envelope) -> Iterator[DelegatedRole]:
    delegations = item.payload(Targets).delegations
    if delegations is not None:
        yield from (delegations.roles or {}).values()


def _charted(item: Envelope, parent: str, keys: Role) -> ChartedRole:
    signed = item.signed
    return ChartedRole(
        item.role,
        parent,
        item.version,
        item.expires,
        keys.threshold,
        tuple(keys.keyids),
        item.signers,
        tuple(keys.paths or ()) if isinstance(keys, DelegatedRole) else (),
        len(signed.targets) if isinstance(signed, Targets) else 0,
    )
