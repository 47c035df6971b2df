"""A publisher's folder out of an old backup, brought up to date from the newest bundle."""

from __future__ import annotations

from collections.abc import Mapping

from bundler.trust import closedworld
from bundler.trust.keyring import Secrets
from bundler.trust.publisher import Publisher
from bundler.trust.repository import Repository
from registry.digest import Digest
from registry.records import TrustState
from schemas.errors import AlreadyExists, KeyUnavailable


def signed_target(members: Mapping[str, bytes], role: str, path: str) -> tuple[Digest, int] | None:
    """Digest and size of a target in a bundle's metadata; None where it has none.

    Raises:
        StoreDamaged, ContentError: It is no whole set of metadata.
    """
    entry = Repository(members).targets_of(role).get(path)
    return None if entry is None else (Digest("sha256", entry.hashes["sha256"]), entry.length)


def recover(
    publisher: Publisher, members: Mapping[str, bytes], sequence: int, withdrawn: bytes | None
) -> None:
    """Take a bundle's metadata as the folder's own; private keys stay as they are.

    Args:
        publisher: The folder.
        members: File name to bytes.
        sequence: Of the bundle; its descriptor was compared with what was signed.
        withdrawn: The list that it carries, compared likewise.

    Raises:
        TrustMissing: The bundle is another publisher's.
        TrustError, ContentError: It is not signed as it should be.
        AlreadyExists: The folder is as new as the bundle, or newer in part.
        StoreBusy: Another process is signing.
        StorageFailure: Or :class:`~schemas.errors.StorageFull`; nothing was changed then.
    """
    first = publisher.roots[1]
    state = TrustState("this publisher", Digest.of(first), {1: first})
    closedworld.check_members(members, state)
    found = Repository(members)
    with publisher.signing(Secrets(_no_key)) as opened:
        have = opened.repository.versions
        if any(found.versions.get(role, 0) < version for role, version in have.items()) or (
            found.versions == have
        ):
            raise AlreadyExists(
                "the publisher's folder is not older than this bundle",
                hint="Give the newest bundle that was made",
            )
        opened.repository = found
        opened.commit(sequence=max(sequence, opened.generation.sequence), withdrawn=withdrawn)


def _no_key() -> bytes:
    raise KeyUnavailable("no key is needed here")
