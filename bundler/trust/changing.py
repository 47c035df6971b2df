"""Changes of keys, thresholds and publishers: planned in full, checked, then signed at one go."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from enum import Enum
from typing import Final

from securesystemslib.signer import CryptoSigner, Key

from bundler.trust import keys, names
from bundler.trust.health import places_of
from bundler.trust.keyring import KeyRing, Secrets, file_name
from bundler.trust.modelentries import SignedModel, targets_with
from bundler.trust.publisher import Publisher, check_clock
from bundler.trust.repository import model_target_file
from bundler.trust.requests import Review, known_roots, propose, review
from bundler.trust.roles import Changes, RoleKeys
from bundler.trust.signing import Signing
from schemas import limits
from schemas.errors import (
    AlreadyExists,
    InvalidName,
    KeyUnavailable,
    MalformedDocument,
    NotFound,
    UsageError,
)

MOST_KEYS: Final = 64  # per role, as in tuf-metadata.v1.schema.json


class Planner:
    """Collects changes, each checked against what is there and what was planned before it.

    Args:
        opened: The folder that they are for.
    """

    def __init__(self, opened: Signing) -> None:
        self._opened = opened
        self._roles: dict[str, RoleKeys] = {}
        self._changes = Changes()
        self._fresh: list[tuple[str, CryptoSigner]] = []
        self._tokens: list[tuple[str, str, str]] = []
        self.key_names: dict[str, str] = {}
        self.withdrawn: bytes | None = None

    @property
    def changes(self) -> Changes:
        """All of them.

        Raises:
            UsageError: A role would need more signatures than it has keys.
        """
        for role, wanted in self._roles.items():
            if not 1 <= wanted.threshold <= len(wanted.keys) <= MOST_KEYS:
                raise UsageError(
                    f"{role} cannot have {len(wanted.keys)} keys and a threshold of"
                    f" {wanted.threshold}",
                    hint="The threshold is from 1 to the number of keys",
                )
        return replace(self._changes, roles=dict(self._roles))

    def generate(self, role: str, key_type: str = keys.ECDSA_P256) -> Key:
        """A fresh key that will be kept in this folder."""
        signer = keys.generate(key_type)
        self._fresh.append((role, signer))
        self._opened.ring.hold(signer)
        return signer.public_key

    def token(self, role: str, uri: str) -> Key:
        """A key in hardware, whose place will be remembered in this folder."""
        signer = self._opened.ring.token(uri)
        self._opened.ring.hold(signer)
        self._tokens.append((role, signer.public_key.keyid, uri))
        return signer.public_key

    def add(self, role: str, key: Key, name: str = "") -> None:
        """Let one more key sign a role.

        Raises:
            NotFound: There is no such role.
            AlreadyExists: It may already.
        """
        before = self._now(role)
        if key.keyid in before.keyids:
            raise AlreadyExists(f"key {key.keyid[:16]} may sign {role} already")
        self._roles[role] = replace(before, keys=(*before.keys, key))
        if name:
            keys.check_name(name)
            self.key_names[key.keyid] = name

    def revoke(self, role: str, prefix: str) -> None:
        """Take a key's right to sign a role.

        Args:
            role: Which.
            prefix: Of the key's id; must name one.

        Raises:
            NotFound: There is no such role or key.
            UsageError: The prefix fits several.
        """
        before = self._now(role)
        keyid = self.find_key(role, prefix)
        self._roles[role] = replace(
            before, keys=tuple(key for key in before.keys if key.keyid != keyid)
        )

    def exchange(self, role: str, old: Collection[str], new: Sequence[Key]) -> None:
        """Put new keys in the place of old ones (by id).

        Raises:
            NotFound: There is no such role.
        """
        before = self._now(role)
        left = tuple(key for key in before.keys if key.keyid not in old)
        self._roles[role] = replace(before, keys=(*left, *new))

    def set_threshold(self, role: str, threshold: int) -> None:
        """Say how many keys must sign a role.

        Raises:
            NotFound: There is no such role.
        """
        self._roles[role] = replace(self._now(role), threshold=threshold)

    def delegate(self, role: str, wanted: RoleKeys) -> None:
        """Make a delegated role, or bring back one that was retired.

        Raises:
            AlreadyExists: There is one.
            InvalidName: Nothing may be delegated to such a role.
        """
        names.role_paths(role)
        repository = self._opened.repository
        if role in repository.delegated and not repository.retired(role):
            raise AlreadyExists(f"there is a role {role} already")
        self._roles[role] = wanted

    def retire(self, role: str) -> None:
        """Have a publisher's role sign for nothing from now on.

        Raises:
            NotFound: There is no such publisher.
        """
        self._now(role)
        if names.namespace_of(role) is None:
            raise InvalidName(f"{role} is not a publisher's role")
        self._changes = replace(self._changes, retired=self._changes.retired | {role})

    def renew(self, role: str) -> None:
        """Sign a role again for the sake of its expiry.

        Raises:
            NotFound: There is no such role.
        """
        self._now(role)
        self._changes = replace(self._changes, renewed=self._changes.renewed | {role})

    def sign_models(self, models: Sequence[SignedModel]) -> None:
        """Have publishers sign for models before a bundle carries them.

        Raises:
            NotFound: There is no role for a model's namespace.
        """
        repository, sequence = self._opened.repository, self._opened.generation.sequence + 1
        for role in dict.fromkeys(names.publisher_role(m.reference.namespace) for m in models):
            self._now(role)
            group = [m for m in models if names.publisher_role(m.reference.namespace) == role]
            after = targets_with(repository, role, group, sequence)
            self._changes = replace(self._changes, targets={**self._changes.targets, role: after})

    def withdraw(self, data: bytes) -> None:
        """Have the advisories role sign a list of what is withdrawn.

        Raises:
            MalformedDocument: It is larger than a site would read.
        """
        if len(data) > limits.WITHDRAWN_BYTES:
            raise MalformedDocument("the list of withdrawals is too large")
        entry = model_target_file(names.WITHDRAWN_TARGET, data)
        targets = {**self._changes.targets, names.ADVISORIES: {names.WITHDRAWN_TARGET: entry}}
        self._changes = replace(self._changes, targets=targets)
        self.withdrawn = data

    def has(self, role: str) -> bool:
        """Whether there is such a role, or one is planned."""
        return role in self._roles or self._opened.repository.role_keys(role) is not None

    def keyids(self, role: str) -> tuple[str, ...]:
        """Ids of all keys of a role."""
        return self._now(role).keyids

    def threshold(self, role: str) -> int:
        """How many of them must sign."""
        return self._now(role).threshold

    def find_key(self, role: str, prefix: str) -> str:
        """The id of the role's one key whose id begins so.

        Raises:
            NotFound: None does.
            UsageError: Several do.
        """
        found = [keyid for keyid in self._now(role).keyids if keyid.startswith(prefix)]
        if not found or not prefix:
            raise NotFound(
                f"{role} has no key {prefix[:64]!r}", hint="See them with: bundle keys list"
            )
        if len(found) > 1:
            raise UsageError(f"{len(found)} keys of {role} begin with {prefix}")
        return found[0]

    def here(self, role: str) -> list[str]:
        """Ids of those keys of a role that are kept in this folder."""
        wanted = self._now(role).keyids
        places = places_of(role, wanted, self._opened.workspace, self._opened.generation)
        return [keyid for keyid in wanted if keyid in places]

    def save_fresh(self, rounds: int) -> None:
        """Write the keys that were made, before anything names them."""
        folder = self._opened.workspace.folder / "keys"
        for role, signer in self._fresh:
            path = folder / file_name(role, signer.public_key.keyid)
            self._opened.ring.keep(path, signer, rounds=rounds)
        for role, keyid, uri in self._tokens:
            self._opened.ring.keep_token(role, keyid, uri)

    def _now(self, role: str) -> RoleKeys:
        found = self._roles.get(role) or self._opened.repository.role_keys(role)
        if found is None:
            raise NotFound(
                f"there is no role {role[:80]!r}", hint="See them with: bundle keys list"
            )
        return found


class Wish(Enum):
    """What is to become of a change."""

    NOW = "now"
    REQUEST = "request"
    LOOK = "look"


def change(
    publisher: Publisher,
    plan: Callable[[Planner], None],
    secret: Secrets | bytes,
    *,
    wish: Wish = Wish.NOW,
    now: datetime | None = None,
    kdf_rounds: int = keys.KDF_ROUNDS,
) -> Review:
    """Change who may sign what: all of it or, after a failure, nothing.

    A folder made before there was a role for withdrawals gets it on the way, where that needs no
    signature that would not be made anyhow.

    Args:
        publisher: Whose.
        plan: Says what, to the planner that it gets.
        secret: Opens private keys.
        wish: ``NOW`` signs it with the keys at hand; ``REQUEST`` leaves the folder as it is, for
            others to add signatures to what is returned (only keys that were made are kept);
            ``LOOK`` opens no key and leaves nothing behind.
        now: The clock; None reads it.
        kdf_rounds: PBKDF2 rounds of new keys; lower ones are for tests.

    Returns:
        What changes, with the request in it.

    Raises:
        KeyUnavailable: Too few keys are at hand, or one does not open.
        UsageError: What was planned makes no sense, or changes nothing; also
            :class:`~schemas.errors.NotFound`, :class:`~schemas.errors.AlreadyExists`.
        EnvironmentFault: The clock is behind this release's build date.
        StoreBusy: Another process is signing.
        StorageFailure: Or :class:`~schemas.errors.StorageFull`; nothing was changed then.
    """
    moment = now or datetime.now(UTC)
    check_clock(moment)
    with publisher.signing(secret, partly=True) as opened:
        if wish is Wish.LOOK:
            opened.ring = KeyRing(None, Secrets(lambda: b""))
        repository, before = opened.repository, opened.generation.files
        roots = {number: item.data for number, item in repository.roots.items()}
        planner = Planner(opened)
        plan(planner)
        changes = planner.changes
        if not repository.has_advisories and _touches_targets(changes):
            made = planner.generate(names.ADVISORIES)
            planner.delegate(names.ADVISORIES, RoleKeys((made,)))
            changes = planner.changes
        repository.apply(changes, opened.ring, moment)
        request = propose(
            publisher.name, before, repository.files, planner.withdrawn, planner.key_names
        )
        reviewed = review(request, known_roots(roots))
        if wish is Wish.NOW:
            _check_enough(reviewed)
            repository.check_signed()
        if wish is not Wish.LOOK:
            planner.save_fresh(kdf_rounds)
        if wish is Wish.NOW:
            opened.commit(withdrawn=planner.withdrawn, key_names=planner.key_names)
    return reviewed


def _check_enough(reviewed: Review) -> None:
    for role, count in reviewed.missing.items():
        raise KeyUnavailable(
            f"{role} needs {count} more signature{'s' * (count > 1)} than can be made here",
            why=f"by others of {', '.join(k[:16] for k in reviewed.asked[role].open_keyids[:5])}",
            hint="Give more keys with --sign-with, or have it co-signed: add --request FILE",
        )


def _touches_targets(changes: Changes) -> bool:
    below = set(changes.roles) - set(names.TOP_LEVEL)
    return bool(below or changes.retired or names.TARGETS in {*changes.roles, *changes.renewed})
