"""The connected side: a publisher's folder, its keys, and what it signs for each bundle."""

from __future__ import annotations

from collections.abc import Callable, Collection, Container, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Final

from securesystemslib.signer import CryptoSigner

from bundler.trust import closedworld, keys, names
from bundler.trust.attesting import AttestationKey, attestation_key
from bundler.trust.clock import BUILD_DATE
from bundler.trust.health import SOON, RoleHealth, examine
from bundler.trust.keyring import KeyRing, Secrets
from bundler.trust.modelentries import SignedModel, manifest_custom, targets_with
from bundler.trust.names import model_target, publisher_role
from bundler.trust.repository import Repository, model_target_file
from bundler.trust.roles import RoleKeys
from bundler.trust.signing import Signing, load_repository, signing
from bundler.trust.workspace import Generation, Workspace
from registry.digest import Digest
from registry.records import TrustState
from registry.reference import Reference
from schemas import limits
from schemas.errors import (
    AlreadyExists,
    EnvironmentFault,
    MalformedDocument,
    NotFound,
    UsageError,
)

__all__ = ["Publisher", "SignedModel", "TrustMetadata", "manifest_custom"]

_ROLES: Final = (*names.TOP_LEVEL, names.BUNDLE_ROLE, names.ADVISORIES)
_OFFLINE: Final = (names.ROOT, names.TARGETS)
_NO_NAMES: Final[Mapping[str, str]] = MappingProxyType({})
_NO_CUSTOM: Final[Mapping[str, str | int]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class TrustMetadata:
    """What was signed for one bundle, complete.

    Attributes:
        members: File name and bytes, in the order in which the bundle carries them.
        sequence: Of the bundle.
        descriptor: The bundle descriptor that was signed.
        versions: Role to version.
        expires: When the first of the roles runs out, UTC: how long the bundle may be under way.
        withdrawn: Bytes of the target ``advisories/withdrawn.json`` that the bundle must carry;
            None while nothing was ever withdrawn.
    """

    members: tuple[tuple[str, bytes], ...] = field(repr=False)
    sequence: int
    descriptor: bytes = field(repr=False)
    versions: Mapping[str, int] = field(hash=False)
    expires: datetime
    withdrawn: bytes | None = field(default=None, repr=False)


class Publisher:
    """A publisher's folder. Made by :meth:`init` or :meth:`open`."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._generation = workspace.load()
        self._repository = load_repository(self._generation)
        self._ring: tuple[Secrets | bytes, KeyRing] | None = None

    @classmethod
    def init(
        cls,
        folder: Path,
        *,
        name: str,
        namespaces: Sequence[str],
        passphrase: bytes,
        key_type: str = keys.ECDSA_P256,
        offline: Path | None = None,
        now: datetime | None = None,
        kdf_rounds: int = keys.KDF_ROUNDS,
    ) -> Publisher:
        """Make keys and first metadata: all of it or, after a failure, nothing.

        Args:
            folder: Must not exist yet.
            name: The publisher's, for people.
            namespaces: Each gets a role and a key of its own.
            passphrase: Encrypts every private key.
            key_type: ``ecdsa-p256`` or ``ed25519``.
            offline: A folder, on a stick say, for the keys of root and targets, which no bundle
                needs; None keeps them with the others.
            now: The clock; None reads it.
            kdf_rounds: PBKDF2 rounds; lower ones are for tests.

        Raises:
            AlreadyExists: There is such a folder, or such keys in ``offline``.
            InvalidName: A bad name, namespace or key type.
            KeyUnavailable: The passphrase is empty.
            NotFound: There is no folder ``offline``.
            StorageFailure: Or :class:`~schemas.errors.StorageFull`: the disk's reason.
        """
        if len(set(namespaces)) != len(namespaces):
            raise UsageError("a namespace is given twice", why=", ".join(namespaces))
        if offline is not None and not offline.is_dir():
            raise NotFound(f"there is no folder {offline}", hint="Is the stick in?")
        roles = (*_ROLES, *map(publisher_role, namespaces))
        made = {role: keys.generate(key_type) for role in roles}
        public = {role: RoleKeys((signer.public_key,)) for role, signer in made.items()}
        repository = Repository.create(public, _Made(made), now or datetime.now(UTC))
        first = {role: signer.public_key.keyid for role, signer in made.items()}
        generation = Generation(name, 0, repository.files, first_keys=first)
        with ExitStack() as undo, Workspace.being_built(folder) as new:
            workspace = Workspace(new)
            for role, signer in made.items():
                path = workspace.key_path(role)
                if offline is not None and role in _OFFLINE:
                    path = offline / path.name
                keys.save(path, signer, passphrase, rounds=kdf_rounds)
                if path.parent == offline:
                    undo.callback(path.unlink, missing_ok=True)
            workspace.commit(generation)
            undo.pop_all()
        return cls.open(folder)

    @classmethod
    def open(cls, folder: Path) -> Publisher:
        """Open an existing folder; no key is touched.

        Raises:
            NotFound: There is none.
            StoreDamaged: It is incomplete.
        """
        return cls(Workspace(folder))

    @property
    def folder(self) -> Path:
        """Where it is."""
        return self._workspace.folder

    @property
    def name(self) -> str:
        """For people."""
        return self._generation.name

    @property
    def sequence(self) -> int:
        """Of the last bundle signed; 0 before the first."""
        return self._generation.sequence

    @property
    def namespaces(self) -> tuple[str, ...]:
        """Those that this folder may sign models for."""
        return self._repository.namespaces

    @property
    def root_bytes(self) -> bytes:
        """The newest root: the file that an isolated site pins."""
        return self._repository.root.data

    @property
    def fingerprint(self) -> Digest:
        """SHA-256 of :attr:`root_bytes`: what goes on paper."""
        return Digest.of(self.root_bytes)

    @property
    def metadata_size(self) -> int:
        """Bytes of all that was signed so far, as a bundle carries it."""
        return sum(map(len, self._generation.files.values()))

    @property
    def versions(self) -> Mapping[str, int]:
        """Role to version, of what was signed last."""
        return MappingProxyType(self._repository.versions)

    @property
    def expires(self) -> datetime:
        """When the first role of what was signed last runs out, UTC."""
        return self._repository.expires

    @property
    def withdrawn(self) -> bytes | None:
        """The signed list of what is withdrawn; None before the first."""
        return self._generation.withdrawn

    def signed(self, reference: Reference) -> tuple[Digest, Mapping[str, str | int]] | None:
        """The manifest that a name stands for at present, and what was signed about it."""
        role = publisher_role(reference.namespace)
        file = self._repository.targets_of(role).get(model_target(reference))
        if file is None:
            return None
        return Digest("sha256", file.hashes["sha256"]), dict(file.custom or {})

    def health(self, now: datetime, soon: timedelta = SOON) -> list[RoleHealth]:
        """All roles, their keys, and what runs out when; no key is opened."""
        return examine(self._workspace, self._generation, self._repository, now, soon)

    def count_targets(self, role: str) -> int:
        """For how many targets a role signs."""
        return len(self._repository.targets_of(role))

    @property
    def roots(self) -> Mapping[int, bytes]:
        """All versions of the root, from 1."""
        return {number: item.data for number, item in self._repository.roots.items()}

    @contextmanager
    def signing(self, secret: Secrets | bytes, *, partly: bool = False) -> Iterator[Signing]:
        """As :func:`bundler.trust.signing.signing`; afterwards this object is up to date."""
        with self._signing(KeyRing(self._workspace, Secrets.of(secret)), partly=partly) as opened:
            yield opened

    @contextmanager
    def _signing(self, ring: KeyRing, *, partly: bool = False) -> Iterator[Signing]:
        with signing(self._workspace, ring, partly=partly) as opened:
            yield opened
            if opened.committed:
                self._generation, self._repository = opened.generation, opened.repository

    def _ring_for(self, secret: Secrets | bytes) -> KeyRing:
        """The ring of this secret for one bundle after another: each key takes a while to open."""
        if self._ring is None or self._ring[0] != secret:
            self._ring = secret, KeyRing(self._workspace, Secrets.of(secret))
        return self._ring[1]

    def add_namespace(
        self,
        namespace: str,
        passphrase: Secrets | bytes,
        *,
        key_type: str = keys.ECDSA_P256,
        now: datetime | None = None,
        kdf_rounds: int = keys.KDF_ROUNDS,
    ) -> None:
        """Make a key for one more namespace and delegate to it.

        Args:
            namespace: One component of the reference grammar.
            passphrase: That of the other keys: the targets role signs the delegation.
            key_type: As in :meth:`init`.
            now: As in :meth:`init`.
            kdf_rounds: As in :meth:`init`.

        Raises:
            AlreadyExists: It has a role already.
            InvalidName: It is no namespace.
            KeyUnavailable: The passphrase is wrong, or the targets key is not at hand.
        """
        role = publisher_role(namespace)
        with self.signing(passphrase) as opened:
            if role in opened.repository.delegated:
                raise AlreadyExists(f"namespace {namespace} has a key already")
            opened.delegate_here(role, key_type, now or datetime.now(UTC), kdf_rounds)
            opened.commit()

    def withdraw(
        self,
        make_list: Callable[[bytes | None], bytes],
        passphrase: Secrets | bytes,
        *,
        now: datetime | None = None,
        kdf_rounds: int = keys.KDF_ROUNDS,
    ) -> None:
        """Sign a new list of what is withdrawn; the next bundle carries it.

        A folder of an early release gets the role for it, which the targets role must sign.

        Args:
            make_list: Gets the signed list, None before the first; returns the next one.
            passphrase: Of the private keys.
            now: As in :meth:`init`.
            kdf_rounds: As in :meth:`init`.

        Raises:
            KeyUnavailable: The passphrase is wrong, or a key is not at hand.
            MalformedDocument: The list is larger than a site would read.
            EnvironmentFault: The clock is behind this release's build date.
            StoreBusy: Another process is signing.
            StorageFailure: Or :class:`~schemas.errors.StorageFull`; nothing was signed then.
        """
        moment = now or datetime.now(UTC)
        check_clock(moment)
        with self.signing(passphrase) as opened:
            if not opened.repository.has_advisories:
                opened.delegate_here(names.ADVISORIES, keys.ECDSA_P256, moment, kdf_rounds)
            opened.repository.require(names.ADVISORIES, opened.ring)
            data = make_list(opened.generation.withdrawn)
            if len(data) > limits.WITHDRAWN_BYTES:
                raise MalformedDocument("the list of withdrawals is too large")
            entries = {names.WITHDRAWN_TARGET: model_target_file(names.WITHDRAWN_TARGET, data)}
            opened.repository.set_targets(names.ADVISORIES, entries, opened.ring, moment)
            opened.commit(withdrawn=data)

    def check_ready(
        self, models: Sequence[Reference], passphrase: Secrets | bytes, now: datetime
    ) -> None:
        """See that all is at hand to sign for a bundle of such models; nothing is signed.

        Asked before the models are read, which may take hours.

        Args:
            models: Their names.
            passphrase: Of the private keys.
            now: The clock, with a time zone.

        Raises:
            NotFound: No role here may sign for a model's namespace.
            KeyUnavailable: A key is not at hand or the passphrase is wrong.
            EnvironmentFault: The clock is behind this release's build date.
        """
        check_clock(now)
        roles = {names.TIMESTAMP}
        signed: dict[str, Container[str]] = {}
        for model in models:
            _check_namespace(model.namespace, self.namespaces)
            role = publisher_role(model.namespace)
            if role not in signed:
                signed[role] = self._repository.targets_of(role)
            if model_target(model) not in signed[role]:
                roles.add(role)  # else it may be signed already, by keys that are not here
        ring = self._ring_for(passphrase)
        for role in sorted(roles):
            self._repository.require(role, ring)

    def attestation_key(self, namespace: str, passphrase: Secrets | bytes) -> AttestationKey | None:
        """A key of a namespace's that can sign what other tools check.

        Args:
            namespace: Whose; there need be none of that name.
            passphrase: Of the private keys.

        Returns:
            None where none is at hand, or none of a kind that those tools know.

        Raises:
            KeyUnavailable: The passphrase is wrong.
        """
        role = publisher_role(namespace)
        wanted = self._repository.role_keys(role)
        if wanted is None:
            return None
        signers = self._ring_for(passphrase).signers(role, wanted.keyids)
        found = map(attestation_key, signers)
        return next((key for key in found if key is not None), None)

    def publish(
        self,
        models: Sequence[SignedModel],
        make_descriptor: Callable[[int], bytes],
        passphrase: Secrets | bytes,
        now: datetime,
    ) -> TrustMetadata:
        """Sign for one bundle: its models, its descriptor, and the set of all metadata.

        Models that were signed for earlier stay so. The versions are on disk before this returns,
        so none is ever given twice, whatever happens to the bundle afterwards.

        Args:
            models: May be empty.
            make_descriptor: Gets the bundle's sequence number, returns the descriptor's bytes.
            passphrase: Of the private keys.
            now: The clock, with a time zone.

        Raises:
            NotFound: No role here may sign for a model's namespace.
            UsageError: Two models of one name.
            MalformedDocument: A manifest that is none, or more targets than a role may hold.
            KeyUnavailable: A key is not at hand or the passphrase is wrong.
            EnvironmentFault: The clock is behind this release's build date.
            StoreBusy: Another process is signing.
            TrustError: What is in the folder would not be believed; nothing was published then.
            StorageFailure: Or :class:`~schemas.errors.StorageFull`; nothing was published then.
        """
        check_clock(now)
        with self._signing(self._ring_for(passphrase)) as opened:
            repository, ring, generation = opened.repository, opened.ring, opened.generation
            sequence = generation.sequence + 1
            by_role = _by_role(models, repository.namespaces)
            for role in (names.TIMESTAMP, names.SNAPSHOT, names.BUNDLE_ROLE):
                repository.require(role, ring)  # before any work: tells a wrong passphrase at once
            for role, group in by_role.items():
                after = targets_with(repository, role, group, sequence)
                if after != repository.targets_of(role):
                    repository.set_targets(role, after, ring, now)
            descriptor = make_descriptor(sequence)
            entry = model_target_file(names.BUNDLE_TARGET, descriptor)
            repository.set_targets(names.BUNDLE_ROLE, {names.BUNDLE_TARGET: entry}, ring, now)
            repository.renew(ring, now)
            repository.seal(ring, now)
            _check_as_a_site_would(repository)
            opened.commit(sequence=sequence)
        return TrustMetadata(
            tuple(repository.files.items()),
            sequence,
            descriptor,
            MappingProxyType(repository.versions),
            repository.expires,
            generation.withdrawn,
        )


def _by_role(models: Sequence[SignedModel], known: Sequence[str]) -> dict[str, list[SignedModel]]:
    groups: dict[str, list[SignedModel]] = {}
    seen: set[str] = set()
    for model in models:
        namespace = model.reference.namespace
        _check_namespace(namespace, known)
        if model.target in seen:
            raise UsageError(f"{model.reference} is given twice")
        seen.add(model.target)
        groups.setdefault(publisher_role(namespace), []).append(model)
    return groups


def _check_namespace(namespace: str, known: Sequence[str]) -> None:
    if namespace not in known:
        raise NotFound(
            f"no key here may sign models of namespace {namespace}",
            why=f"there are keys for {', '.join(known) or 'none'}",
            hint=f"Add one with: bundle keys add-namespace {namespace}",
        )


def check_clock(now: datetime) -> None:
    """See that this machine may date signatures: made far behind, they would arrive expired.

    Raises:
        EnvironmentFault: The clock is behind this release's build date.
    """
    if now < BUILD_DATE:
        raise EnvironmentFault(
            f"this machine's clock says {now:%Y-%m-%d}, which cannot be",
            why=f"this tool was built on {BUILD_DATE:%Y-%m-%d}",
            hint="Set the clock, then sign",
        )


def _check_as_a_site_would(repository: Repository) -> None:
    """No bundle leaves that would be refused: a damaged or foreign file here is found now."""
    first = repository.files[names.member_name(names.ROOT, 1)]
    pinned = TrustState("this publisher", Digest.of(first), {1: first})
    closedworld.check_members(repository.files, pinned)


class _Made:
    """Keys that were just made and are on no disk yet."""

    def __init__(self, made: Mapping[str, CryptoSigner]) -> None:
        self._made = made

    def signers(self, role: str, keyids: Collection[str]) -> Sequence[CryptoSigner]:
        return [self._made[role]] if self._made[role].public_key.keyid in keyids else []
