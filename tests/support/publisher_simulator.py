"""A publisher in memory, and whoever holds some of its keys.

Written against the TUF specification and python-tuf's metadata API, not against ``bundler.trust``, so
that a mistake there is not repeated here. An attack is one small change before :meth:`Simulator.issue`
(whoever changes a role holds its key and all online keys) or to the members that it returned (whoever
changes those holds none).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import (
    DelegatedRole,
    Delegations,
    Metadata,
    MetaFile,
    Root,
    Signed,
    Snapshot,
    TargetFile,
    Targets,
    Timestamp,
)

from registry.digest import Digest
from registry.records import TrustState

NOW: Final = datetime(2026, 12, 1, 12, 0, tzinfo=UTC)
YEAR: Final = timedelta(days=365)
LIBRARY: Final = "publisher-library"
ACME: Final = "publisher-acme"
ONLINE: Final = ("timestamp", "snapshot", "targets", "bundle", LIBRARY, ACME)
DELEGATED: Final = ("bundle", LIBRARY, ACME)
MODEL: Final = "models/library/smollm2/135m/manifest.json"
ACME_MODEL: Final = "models/acme/tiny/1/manifest.json"
DESCRIPTOR: Final = "bundle/bundle.json"
ADVISORIES: Final = "advisories"
WITHDRAWN: Final = "advisories/withdrawn.json"

Encoder = Callable[[Metadata[Any]], bytes]


class Simulator:
    """One publisher with two namespaces, ``library`` and ``acme``.

    Attributes:
        keys: Role to the keys that sign it in :meth:`issue`; change it to sign otherwise.
        signed: Role to its current payload; change it before :meth:`issue`.
        encode: Role to how its file is written, where not as TUF does.
        roots: The files of all root versions, from 1.
        withdrawn: The list of withdrawals that a bundle carries; None for none.
    """

    def __init__(self, *, now: datetime = NOW) -> None:
        self.now = now
        self.keys = {role: [CryptoSigner.generate_ecdsa()] for role in ("root", *ONLINE)}
        self.encode: dict[str, Encoder] = {}
        self.roots: list[bytes] = []
        self.withdrawn: bytes | None = None
        expires = now + YEAR
        root = Root(expires=expires, consistent_snapshot=True)
        for role in ("root", "timestamp", "snapshot", "targets"):
            root.add_key(self.keys[role][0].public_key, role)
        targets = Targets(expires=expires, delegations=Delegations({}, {}))
        _delegate(targets, "bundle", "bundle/*", self.keys["bundle"])
        for namespace in ("library", "acme"):
            role = f"publisher-{namespace}"
            _delegate(targets, role, f"models/{namespace}/*/*/manifest.json", self.keys[role])
        self.root = root
        self.signed: dict[str, Any] = {
            "timestamp": Timestamp(expires=expires),
            "snapshot": Snapshot(expires=expires),
            "targets": targets,
            "bundle": Targets(expires=expires),
            LIBRARY: Targets(expires=expires),
            ACME: Targets(expires=expires),
        }
        self.add_target("bundle", DESCRIPTOR, b"the descriptor")
        self.add_target(LIBRARY, MODEL, b"the manifest")
        self.add_target(ACME, ACME_MODEL, b"acme's manifest")
        self.sign_root()

    @property
    def root_bytes(self) -> bytes:
        """The newest root."""
        return self.roots[-1]

    def state(self, version: int | None = None) -> TrustState:
        """What a site trusts that pinned a root (the newest by default) and imported nothing."""
        number = version or len(self.roots)
        data = self.roots[number - 1]
        return TrustState("simulated", Digest.of(data), {number: data}, {})

    def sign_root(self, *signers: CryptoSigner) -> None:
        """Publish :attr:`root` as it stands; by the root keys unless others are given."""
        self.roots.append(_sign(self.root, signers or self.keys["root"]))

    def rotate(self, role: str, *, sign: bool = True) -> None:
        """Replace the keys of a top-level role; the new root is signed by old and new root keys."""
        self.root = deepcopy(self.root)
        self.root.version += 1
        before = list(self.keys["root"])
        for signer in self.keys[role]:
            self.root.revoke_key(signer.public_key.keyid, role)
        self.keys[role] = [CryptoSigner.generate_ecdsa() for _ in self.keys[role]]
        for signer in self.keys[role]:
            self.root.add_key(signer.public_key, role)
        if sign:
            self.sign_root(*(before + self.keys["root"] if role == "root" else before))

    def set_threshold(self, role: str, threshold: int, keys: int) -> None:
        """Have a top-level role signed by several; publishes the next root."""
        added = [CryptoSigner.generate_ecdsa() for _ in range(keys - len(self.keys[role]))]
        before = list(self.keys["root"])
        self.keys[role] += added
        self.root = deepcopy(self.root)
        self.root.version += 1
        for signer in added:
            self.root.add_key(signer.public_key, role)
        self.root.roles[role].threshold = threshold
        self.sign_root(*(self.keys["root"] if role == "root" else before))

    def add_target(
        self, role: str, path: str, data: bytes, custom: Mapping[str, object] | None = None
    ) -> None:
        """Have a role sign for some bytes."""
        target = TargetFile.from_data(path, data, ["sha256"])
        if custom is not None:
            target.unrecognized_fields["custom"] = dict(custom)
        self.signed[role].targets[path] = target

    def withdraw(self, data: bytes, *, role: str = ADVISORIES) -> None:
        """Have a list of withdrawals signed, by a role that is made where there is none."""
        if role not in self.signed:
            self.keys[role] = [CryptoSigner.generate_ecdsa()]
            self.signed[role] = Targets(expires=self.signed["bundle"].expires)
        self.signed["targets"] = deepcopy(self.signed["targets"])
        _delegate(self.signed["targets"], role, "advisories/*", self.keys[role])
        self.add_target(role, WITHDRAWN, data)
        self.withdrawn = data

    def bump(self, *roles: str) -> None:
        """Raise the versions of roles, all of them by default."""
        for role in roles or self.signed:
            self.signed[role].version += 1

    def issue(self, *, list_members: bool = True) -> dict[str, bytes]:
        """Sign everything anew, bottom up, and return a bundle's metadata files.

        Args:
            list_members: Fill snapshot and timestamp in; False leaves them as they were set.
        """
        files = {f"{n}.root.json": data for n, data in enumerate(self.roots, 1)}
        listed: dict[str, MetaFile] = {}
        for role in (role for role in self.signed if role not in ("timestamp", "snapshot")):
            files |= self._file(role, listed)
        if list_members:
            self.signed["snapshot"].meta = listed
        below: dict[str, MetaFile] = {}
        files |= self._file("snapshot", below)
        if list_members:
            self.signed["timestamp"].snapshot_meta = below["snapshot.json"]
        return files | self._file("timestamp", {})

    def _file(self, role: str, listed: dict[str, MetaFile]) -> dict[str, bytes]:
        signed = self.signed[role]
        data = _sign(signed, self.keys[role], self.encode.get(role))
        listed[f"{role}.json"] = MetaFile.from_data(signed.version, data, ["sha256"])
        return {_name(role, signed.version): data}


def document(data: bytes) -> dict[str, Any]:
    """A metadata file, parsed; for changes by someone who cannot sign."""
    parsed: dict[str, Any] = json.loads(data)
    return parsed


def text(value: object) -> bytes:
    """The same, written as TUF does."""
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def resigned(members: Mapping[str, bytes], simulator: Simulator, role: str) -> dict[str, bytes]:
    """Members after a role's payload was changed, its file alone signed anew: no other keys."""
    signed = simulator.signed[role]
    return {**members, _name(role, signed.version): _sign(signed, simulator.keys[role])}


def _name(role: str, version: int) -> str:
    return "timestamp.json" if role == "timestamp" else f"{version}.{role}.json"


def _delegate(targets: Targets, role: str, path: str, signers: Sequence[CryptoSigner]) -> None:
    if targets.delegations is None or targets.delegations.roles is None:
        raise ValueError(role)
    targets.delegations.roles[role] = DelegatedRole(role, [], 1, terminating=True, paths=[path])
    for signer in signers:
        targets.add_key(signer.public_key, role)


def _sign(signed: Signed, signers: Sequence[CryptoSigner], encode: Encoder | None = None) -> bytes:
    metadata: Metadata[Any] = Metadata(signed)
    for signer in signers:
        metadata.sign(signer, append=True)
    return encode(metadata) if encode else metadata.to_bytes()
