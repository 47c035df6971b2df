"""The connected side: a publisher's folder, its keys, and what it signs for each bundle."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Final

from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import TargetFile

from bundler.trust import closedworld, keys, names
from bundler.trust.clock import BUILD_DATE
from bundler.trust.names import model_target, publisher_role
from bundler.trust.repository import Repository, model_target_file
from bundler.trust.workspace import Generation, Workspace
from registry.digest import Digest
from registry.oci import Manifest
from registry.records import TrustState
from registry.reference import Reference
from schemas import limits
from schemas.errors import (
    AlreadyExists,
    EnvironmentFault,
    KeyUnavailable,
    MalformedDocument,
    NotFound,
    StoreDamaged,
    UsageError,
)

_ROLES: Final = (*names.TOP_LEVEL, names.BUNDLE_ROLE, names.ADVISORIES)
_NO_CUSTOM: Final[Mapping[str, str | int]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class SignedModel:
    """A model to be signed for.

    Attributes:
        reference: Its name; the namespace decides which role signs.
        manifest: The manifest's exact bytes.
        licence: SPDX id, empty where unknown.
        custom: More fields for the signed entry. Those of :func:`manifest_custom` and ``seq``,
            the sequence of the bundle that first carried it, are filled in and win.
    """

    reference: Reference
    manifest: bytes = field(repr=False)
    licence: str = ""
    custom: Mapping[str, str | int] = field(default_factory=lambda: _NO_CUSTOM, hash=False)

    @property
    def target(self) -> str:
        """The path under which it is signed."""
        return model_target(self.reference)


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
        self._repository = _load(self._generation)

    @classmethod
    def init(
        cls,
        folder: Path,
        *,
        name: str,
        namespaces: Sequence[str],
        passphrase: bytes,
        key_type: str = keys.ECDSA_P256,
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
            now: The clock; None reads it.
            kdf_rounds: PBKDF2 rounds; lower ones are for tests.

        Raises:
            AlreadyExists: There is such a folder.
            InvalidName: A bad name, namespace or key type.
            KeyUnavailable: The passphrase is empty.
            StorageFailure: Or :class:`~schemas.errors.StorageFull`: the disk's reason.
        """
        if len(set(namespaces)) != len(namespaces):
            raise UsageError("a namespace is given twice", why=", ".join(namespaces))
        roles = (*_ROLES, *map(publisher_role, namespaces))
        made = {role: keys.generate(key_type) for role in roles}
        repository = Repository.create(_Made(made), namespaces, now or datetime.now(UTC))
        generation = Generation(name, 0, repository.files)
        with Workspace.being_built(folder) as new:
            workspace = Workspace(new)
            for role, signer in made.items():
                keys.save(workspace.key_path(role), signer, passphrase, rounds=kdf_rounds)
            workspace.commit(generation)
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
    def versions(self) -> Mapping[str, int]:
        """Role to version, of what was signed last."""
        return MappingProxyType(self._repository.versions)

    @property
    def withdrawn(self) -> bytes | None:
        """The signed list of what is withdrawn; None before the first."""
        return self._generation.withdrawn

    def add_namespace(
        self,
        namespace: str,
        passphrase: bytes,
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
        with self._workspace.locked():
            generation = self._workspace.load()
            repository = _load(generation)
            if namespace in repository.namespaces:
                raise AlreadyExists(f"namespace {namespace} has a key already")
            ring = _KeyRing(self._workspace, repository, passphrase)
            ring.signer(names.TARGETS)  # first: a wrong passphrase must not seal a new key
            path = self._workspace.key_path(role)
            if not path.exists():  # it does after a crash between key and metadata
                keys.save(path, keys.generate(key_type), passphrase, rounds=kdf_rounds)
            repository.add_namespace(namespace, ring, now or datetime.now(UTC))
            self._commit(repository, generation)

    def withdraw(
        self,
        make_list: Callable[[bytes | None], bytes],
        passphrase: bytes,
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
        _check_clock(moment)
        with self._workspace.locked():
            generation = self._workspace.load()
            repository = _load(generation)
            ring = _KeyRing(self._workspace, repository, passphrase)
            if not repository.has_advisories:
                ring.signer(names.TARGETS)  # first: a wrong passphrase must not seal a new key
                path = self._workspace.key_path(names.ADVISORIES)
                if not path.exists():  # it does after a crash between key and metadata
                    keys.save(path, keys.generate(), passphrase, rounds=kdf_rounds)
                repository.add_advisories(ring, moment)
            ring.signer(names.ADVISORIES)
            data = make_list(generation.withdrawn)
            if len(data) > limits.WITHDRAWN_BYTES:
                raise MalformedDocument("the list of withdrawals is too large")
            entry = model_target_file(names.WITHDRAWN_TARGET, data)
            repository.set_targets(names.ADVISORIES, {names.WITHDRAWN_TARGET: entry}, ring, moment)
            self._commit(repository, replace(generation, withdrawn=data))

    def publish(
        self,
        models: Sequence[SignedModel],
        make_descriptor: Callable[[int], bytes],
        passphrase: bytes,
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
        _check_clock(now)
        with self._workspace.locked():
            generation = self._workspace.load()
            repository = _load(generation)
            ring = _KeyRing(self._workspace, repository, passphrase)
            sequence = generation.sequence + 1
            by_role = _by_role(models, repository.namespaces)
            for role in (names.TIMESTAMP, names.SNAPSHOT, names.BUNDLE_ROLE):
                ring.signer(role)  # before any work, to tell a wrong passphrase at once
            for role, group in by_role.items():
                before = repository.targets_of(role)
                after = before | {m.target: _model_entry(m, sequence, before) for m in group}
                if after != before:
                    repository.set_targets(role, after, ring, now)
            descriptor = make_descriptor(sequence)
            entry = model_target_file(names.BUNDLE_TARGET, descriptor)
            repository.set_targets(names.BUNDLE_ROLE, {names.BUNDLE_TARGET: entry}, ring, now)
            repository.renew(ring, now)
            repository.seal(ring, now)
            _check_as_a_site_would(repository)
            self._commit(repository, replace(generation, sequence=sequence))
        return TrustMetadata(
            tuple(repository.files.items()),
            sequence,
            descriptor,
            MappingProxyType(repository.versions),
            repository.expires,
            generation.withdrawn,
        )

    def _commit(self, repository: Repository, generation: Generation) -> None:
        generation = replace(generation, files=repository.files)
        self._workspace.commit(generation)
        self._generation, self._repository = generation, repository


def manifest_custom(manifest: bytes) -> dict[str, str | int]:
    """What a signed entry says about a model, computed from the manifest alone.

    The importer computes it again and compares: name, digest, type and size must agree.

    Returns:
        ``mediaType``, ``artifactType``, ``blob_count`` (distinct blobs) and ``closure_bytes`` (they
        and the manifest).

    Raises:
        MalformedDocument: It is no image manifest.
    """
    parsed = Manifest.parse(manifest)
    sizes = {blob.digest: blob.size for blob in parsed.blobs}
    return {
        "mediaType": parsed.media_type,
        "artifactType": parsed.artifact_type or "",
        "closure_bytes": len(manifest) + sum(sizes.values()),
        "blob_count": len(sizes),
    }


def _by_role(models: Sequence[SignedModel], known: Sequence[str]) -> dict[str, list[SignedModel]]:
    groups: dict[str, list[SignedModel]] = {}
    seen: set[str] = set()
    for model in models:
        namespace = model.reference.namespace
        if namespace not in known:
            raise NotFound(
                f"no key here may sign models of namespace {namespace}",
                why=f"there are keys for {', '.join(known) or 'none'}",
                hint=f"Add one with: bundle keys add-namespace {namespace}",
            )
        if model.target in seen:
            raise UsageError(f"{model.reference} is given twice")
        seen.add(model.target)
        groups.setdefault(publisher_role(namespace), []).append(model)
    return groups


def _check_clock(now: datetime) -> None:
    """Signatures made by a clock far behind would have expired before they arrive."""
    if now < BUILD_DATE:
        raise EnvironmentFault(
            f"this machine's clock says {now:%Y-%m-%d}, which cannot be",
            why=f"this tool was built on {BUILD_DATE:%Y-%m-%d}",
            hint="Set the clock, then sign",
        )


def _load(generation: Generation) -> Repository:
    """Read a generation's metadata, and see that its list of withdrawals is the signed one."""
    repository = Repository(generation.files)
    entry = repository.targets_of(names.ADVISORIES).get(names.WITHDRAWN_TARGET)
    data = generation.withdrawn
    signed = None if entry is None else Digest("sha256", entry.hashes["sha256"])
    if signed != (None if data is None else Digest.of(data)):
        raise StoreDamaged(
            "the publisher's folder holds another list of withdrawals than was signed",
            hint="Restore it from a backup",
        )
    return repository


def _check_as_a_site_would(repository: Repository) -> None:
    """No bundle leaves that would be refused: a damaged or foreign file here is found now."""
    first = repository.files[names.member_name(names.ROOT, 1)]
    pinned = TrustState("this publisher", Digest.of(first), {1: first})
    closedworld.check_members(repository.files, pinned)


def _model_entry(model: SignedModel, sequence: int, before: Mapping[str, TargetFile]) -> TargetFile:
    """The signed entry; an unchanged model keeps the one it has."""
    custom = {"licence": model.licence, **model.custom, **manifest_custom(model.manifest)}
    known = before.get(model.target)
    if known is not None:
        same = model_target_file(
            model.target, model.manifest, {**custom, "seq": (known.custom or {}).get("seq", 0)}
        )
        if same == known:
            return known
    return model_target_file(model.target, model.manifest, {**custom, "seq": sequence})


class _Made:
    """Keys that were just made and are on no disk yet."""

    def __init__(self, made: Mapping[str, CryptoSigner]) -> None:
        self._made = made

    def signer(self, role: str) -> CryptoSigner:
        return self._made[role]


class _KeyRing:
    """Keys of a folder, each decrypted once and only when it is asked for."""

    def __init__(self, workspace: Workspace, repository: Repository, passphrase: bytes) -> None:
        self._workspace = workspace
        self._repository = repository
        self._passphrase = passphrase
        self._loaded: dict[str, CryptoSigner] = {}

    def signer(self, role: str) -> CryptoSigner:
        if role not in self._loaded:
            signer = keys.load(self._workspace.key_path(role), self._passphrase)
            allowed = self._repository.key_ids(role)
            if allowed and signer.public_key.keyid not in allowed:
                raise KeyUnavailable(
                    f"the key file of {role} holds another key than the signed metadata names"
                )
            self._loaded[role] = signer
        return self._loaded[role]
