"""A publisher's folder while it is being changed: locked, read anew, its keys at hand."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from types import MappingProxyType
from typing import Final

from bundler.trust import keys, names
from bundler.trust.keyring import KeyRing, forget
from bundler.trust.repository import Repository
from bundler.trust.roles import Changes, RoleKeys
from bundler.trust.workspace import Generation, Workspace
from registry.digest import Digest
from schemas.errors import StoreDamaged

_NO_NAMES: Final[Mapping[str, str]] = MappingProxyType({})


@dataclass(slots=True)
class Signing:
    """A publisher's folder while it is being changed.

    Attributes:
        workspace: The folder, locked.
        generation: What was there.
        repository: Its metadata, to be changed.
        ring: The keys at hand.
        committed: Whether the repository is the folder's state now.
    """

    workspace: Workspace
    generation: Generation
    repository: Repository
    ring: KeyRing
    committed: bool = False

    def delegate_here(self, role: str, key_type: str, now: datetime, rounds: int) -> None:
        """Delegate to a role whose key is made and kept in this folder."""
        self.repository.require(names.TARGETS, self.ring)  # a wrong passphrase seals no new key
        path = self.workspace.key_path(role)
        if not path.exists():  # it does after a crash between key and metadata
            self.ring.keep(path, keys.generate(key_type), rounds=rounds)
        made = RoleKeys((self.ring.open(path).public_key,))
        self.repository.apply(Changes({role: made}), self.ring, now)

    def commit(
        self,
        *,
        sequence: int | None = None,
        withdrawn: bytes | None = None,
        key_names: Mapping[str, str] = _NO_NAMES,
    ) -> None:
        """Make the repository as it is now the folder's state; durable when this returns.

        Private keys that lost their right to sign are deleted then.

        Raises:
            StorageFailure: Or :class:`~schemas.errors.StorageFull`; nothing changed then.
        """
        before = self.generation
        generation = replace(
            before,
            sequence=before.sequence if sequence is None else sequence,
            files=self.repository.files,
            withdrawn=before.withdrawn if withdrawn is None else withdrawn,
            first_keys={**before.first_keys, **self.ring.first_keys},
            key_names={**before.key_names, **key_names},
        )
        self.workspace.commit(generation)
        self.generation, self.committed = generation, True
        for role in (*names.TOP_LEVEL, *self.repository.delegated):
            wanted = self.repository.role_keys(role)
            if wanted is not None:
                first = generation.first_keys.get(role)
                forget(self.workspace, role, wanted.keyids, first)


@contextmanager
def signing(workspace: Workspace, ring: KeyRing, *, partly: bool = False) -> Iterator[Signing]:
    """Keep other processes out, read what is there now, and find keys for it.

    Args:
        workspace: The folder.
        ring: Finds private keys.
        partly: Sign with too few keys, for others to add theirs.

    Raises:
        StoreBusy: Another process is signing.
        StoreDamaged: The folder is incomplete.
    """
    with workspace.locked():
        generation = workspace.load()
        yield Signing(workspace, generation, load_repository(generation, partly=partly), ring)


def load_repository(generation: Generation, *, partly: bool = False) -> Repository:
    """Read a generation's metadata, and see that its list of withdrawals is the signed one."""
    repository = Repository(generation.files, partly=partly)
    entry = repository.targets_of(names.ADVISORIES).get(names.WITHDRAWN_TARGET)
    data = generation.withdrawn
    signed = None if entry is None else Digest("sha256", entry.hashes["sha256"])
    if signed != (None if data is None else Digest.of(data)):
        raise StoreDamaged(
            "the publisher's folder holds another list of withdrawals than was signed",
            hint="Restore it from a backup",
        )
    return repository
