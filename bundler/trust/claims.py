"""What a bundle's metadata says of itself, read strictly and believed not at all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from tuf.api.metadata import Snapshot, Targets

from bundler.trust import envelope, names
from registry.digest import Digest
from schemas.errors import MalformedArchive


@dataclass(frozen=True, slots=True)
class ClaimedRoot:
    """One root of a bundle's chain.

    Attributes:
        version: From 1.
        fingerprint: Of its file: what a site would compare with the publisher's paper.
        expires: UTC.
    """

    version: int
    fingerprint: Digest
    expires: datetime


@dataclass(frozen=True, slots=True)
class Claims:
    """What the metadata files say; no signature was looked at.

    Attributes:
        roots: By rising version.
        roles: Every other role, to version and expiry (UTC).
    """

    roots: tuple[ClaimedRoot, ...]
    roles: Mapping[str, tuple[int, datetime]]


def read_claims(files: Mapping[str, bytes]) -> Claims:
    """Parse metadata files without believing them.

    Args:
        files: Name to bytes, without their folder; bounded by the reader.

    Raises:
        MalformedArchive: A name that no metadata file has, a role twice, or a file too few or too
            many by what the snapshot lists.
        MalformedDocument: A file is not in the one accepted form.
    """
    roots: list[ClaimedRoot] = []
    listed: set[str] = set()
    roles: dict[str, tuple[int, datetime]] = {}
    for name, data in files.items():
        role, version = names.parse_member(name)
        read = envelope.read(role, data, version=version)
        if role == names.ROOT:
            roots.append(ClaimedRoot(read.version, Digest.of(data), read.expires))
        elif role in roles:
            raise MalformedArchive("trust metadata has a role twice", why=role)
        else:
            roles[role] = (read.version, read.expires)
        if role == names.SNAPSHOT:
            listed = {file.removesuffix(".json") for file in read.payload(Snapshot).meta}
    roots.sort(key=lambda root: root.version)
    wanted = {names.TIMESTAMP, names.SNAPSHOT, names.TARGETS} | listed
    if roles.keys() != wanted or [root.version for root in roots] != list(_chain(roots)):
        raise MalformedArchive(
            "the bundle's trust metadata is not a closed set",
            why="it has other files than its root chain and its snapshot name",
        )
    return Claims(tuple(roots), roles)


def claimed_withdrawn(files: Mapping[str, bytes]) -> tuple[Digest, int] | None:
    """Digest and size of the list of withdrawals that metadata speak of, without believing them.

    Args:
        files: Name to bytes, without their folder; bounded by the reader.

    Raises:
        MalformedArchive: A name that no metadata file has.
        MalformedDocument: The role's file is not in the one accepted form.
    """
    for name, data in files.items():
        role, version = names.parse_member(name)
        if role != names.ADVISORIES:
            continue
        targets = envelope.read(role, data, version=version).payload(Targets).targets
        found = targets.get(names.WITHDRAWN_TARGET)
        if found is not None:
            return Digest("sha256", found.hashes["sha256"]), found.length
    return None


def _chain(roots: Sequence[ClaimedRoot]) -> range:
    """The versions that there must be: from 1 on, without a gap."""
    return range(1, max(1, len(roots)) + 1)
