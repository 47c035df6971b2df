"""Which private keys are at hand: in the publisher's folder, on a stick, in a token.

Files in ``keys/`` of the publisher's folder::

    <role>.pem                 the first key of a role, as ``bundle keys init`` makes it
    <role>@<16 digits>.pem     a later one, by the beginning of its key id
    <role>@<16 digits>.p11     where a key in hardware is found: one line, a pkcs11: URI

Key ids change with every key, so a new key never takes the place of an old one's file: whoever dies
between writing a key and signing the metadata that names it leaves the old state, or the new.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from securesystemslib.signer import CryptoSigner, Signer

from bundler.trust import keys
from bundler.trust.workspace import Workspace
from registry.verify import storage_errors
from schemas import limits
from schemas.errors import KeyUnavailable, NotFound, UsageError

TOKEN_SCHEME: Final = "pkcs11:"  # noqa: S105 - of RFC 7512
_SHORT: Final = 16  # digits of a key id in a file's name
_NAMED: Final = re.compile(r"(?P<role>[a-z0-9._-]+)@(?P<id>[0-9a-f]{16})\.(?:pem|p11)")


def _nobody(what: str) -> bytes:
    raise KeyUnavailable(f"no PIN for {what}", hint="Give --pin-file FILE, or run it on a terminal")


@dataclass(frozen=True, slots=True)
class Secrets:
    """What opens private keys, each asked for only when it is needed.

    Attributes:
        passphrase: Of the keys in the publisher's folder.
        others: Keys that lie elsewhere: files, folders of files, pkcs11: URIs.
        other_passphrase: Of those; None where it is the same.
        pin: Given a token's name, returns its PIN.
    """

    passphrase: Callable[[], bytes]
    others: tuple[str, ...] = ()
    other_passphrase: Callable[[], bytes] | None = None
    pin: Callable[[str], bytes] = _nobody

    @classmethod
    def of(cls, secret: Secrets | bytes) -> Secrets:
        """A passphrase, or what it is already."""
        return secret if isinstance(secret, Secrets) else cls(lambda: secret)


class KeyRing:
    """Finds keys; each is decrypted once, and only when it is asked for.

    Args:
        workspace: Whose ``keys`` are looked at; None for a co-signer, who has none.
        secrets: What opens them.
    """

    def __init__(self, workspace: Workspace | None, secrets: Secrets) -> None:
        self._workspace = workspace
        self._secrets = secrets
        self._passphrase: bytes | None = None
        self._opened: dict[Path, Signer] = {}
        self._others: dict[str, Signer] | None = None

    def signers(self, role: str, keyids: Collection[str]) -> Sequence[Signer]:
        """Those of a role's keys that are at hand, each once.

        Raises:
            KeyUnavailable: One is there but does not open, or is another than its name says.
        """
        found = {keyid: s for keyid, s in self._elsewhere().items() if keyid in keyids}
        strangers = []
        for path in self._files(role, keyids):
            signer = self.open(path)
            keyid = signer.public_key.keyid
            if keyid in keyids:
                found.setdefault(keyid, signer)
            else:
                strangers.append(path)
        if strangers and not found and keyids:
            raise KeyUnavailable(
                f"the key file of {role} holds another key than the signed metadata names",
                why=str(strangers[0]),
            )
        return [found[keyid] for keyid in keyids if keyid in found]

    def keep(self, path: Path, signer: CryptoSigner, *, rounds: int = keys.KDF_ROUNDS) -> None:
        """Save a fresh key in the publisher's folder.

        Raises:
            KeyUnavailable: The passphrase is empty.
            StorageFailure: Or :class:`~schemas.errors.StorageFull`: the disk's reason.
        """
        keys.save(path, signer, self._own_passphrase(), rounds=rounds)
        self._opened[path] = signer

    def keep_token(self, role: str, keyid: str, uri: str) -> None:
        """Remember where a role's key in hardware is found."""
        path = self._folder / file_name(role, keyid, "p11")
        with storage_errors(f"cannot write {path}"):
            path.write_text(uri + "\n", encoding="ascii")
            path.chmod(0o600)

    def hold(self, signer: Signer) -> None:
        """Take a fresh key into account that is on no disk yet."""
        self._elsewhere()[signer.public_key.keyid] = signer

    @property
    def first_keys(self) -> dict[str, str]:
        """Of the files named by role alone that were opened: role to the id of the key in it."""
        return {
            path.stem: signer.public_key.keyid
            for path, signer in self._opened.items()
            if key_id_of(path) is None
        }

    def _files(self, role: str, keyids: Collection[str]) -> list[Path]:
        """Files that may hold one of these keys; those named by id first."""
        named = {file_name("", keyid, "")[: _SHORT + 1] for keyid in keyids}
        return [
            path
            for path in self._all_files(role)
            if _NAMED.fullmatch(path.name) is None or path.stem.removeprefix(role) in named
        ]

    def _all_files(self, role: str) -> list[Path]:
        return [] if self._workspace is None else key_files(self._workspace, role)

    def open(self, path: Path) -> Signer:
        """The key in a file of the publisher's folder.

        Raises:
            KeyUnavailable: Another passphrase, or no key that this tool signs with.
        """
        if path not in self._opened:
            if path.suffix == ".p11":
                self._opened[path] = self.token(read_token_file(path))
            else:
                self._opened[path] = keys.load(path, self._own_passphrase())
        return self._opened[path]

    def token(self, uri: str) -> Signer:
        """A key in hardware; see :mod:`bundler.trust.tokens`."""
        from bundler.trust.tokens import token_signer

        return token_signer(uri, self._secrets.pin)

    def _own_passphrase(self) -> bytes:
        if self._passphrase is None:
            self._passphrase = self._secrets.passphrase()
        return self._passphrase

    def _elsewhere(self) -> dict[str, Signer]:
        if self._others is None:
            passphrase = self._secrets.other_passphrase
            found = []
            for place in self._secrets.others:
                if place.startswith(TOKEN_SCHEME):
                    found.append(self.token(place))
                    continue
                secret = self._own_passphrase() if passphrase is None else passphrase()
                found += [keys.load(path, secret) for path in _private_files(Path(place))]
            self._others = {signer.public_key.keyid: signer for signer in found}
        return self._others

    @property
    def _folder(self) -> Path:
        if self._workspace is None:
            raise UsageError("there is no publisher's folder to keep a key in")
        return self._workspace.folder / "keys"


def file_name(role: str, keyid: str, suffix: str = "pem") -> str:
    """The name of a key's file."""
    return f"{role}@{keyid[:_SHORT]}.{suffix}"


def key_files(workspace: Workspace, role: str) -> list[Path]:
    """Files of a role's private keys and tokens; those named by key id first."""
    first = workspace.key_path(role)
    with storage_errors(f"cannot read {first.parent}"):
        found = sorted(first.parent.iterdir()) if first.parent.is_dir() else []
    named = [p for p in found if (m := _NAMED.fullmatch(p.name)) and m["role"] == role]
    return [*named, *([first] if os.path.lexists(first) else [])]


def forget(workspace: Workspace, role: str, keyids: Collection[str], first: str | None) -> None:
    """Delete private keys of a role that may not sign it any more; keys elsewhere stay.

    Args:
        workspace: Where.
        role: Whose.
        keyids: Those that may.
        first: Id of the key in ``<role>.pem``; None, where nobody knows: then it stays.

    Raises:
        StorageFailure: The disk's reason.
    """
    for path in key_files(workspace, role):
        found = key_id_of(path) or first
        if found is not None and not any(keyid.startswith(found) for keyid in keyids):
            with storage_errors(f"cannot delete {path}"):
                path.unlink()
                keys.sync_folder(path.parent)


def key_id_of(path: Path) -> str | None:
    """The beginning of the key id in a file's name; None for the first key of a role."""
    match = _NAMED.fullmatch(path.name)
    return None if match is None else match["id"]


def read_token_file(path: Path) -> str:
    """The URI in a ``.p11`` file.

    Raises:
        KeyUnavailable: It cannot be read.
    """
    try:
        with path.open("rb") as file:
            text = file.read(limits.KIB + 1).decode("ascii").strip()
    except (OSError, UnicodeDecodeError):
        text = ""
    if not text.startswith(TOKEN_SCHEME) or len(text) > limits.KIB:
        raise KeyUnavailable(f"{path} does not say where the key is", hint="Add the key again")
    return text


def _private_files(place: Path) -> list[Path]:
    """A key file, or those in a folder."""
    with storage_errors(f"cannot read {place}"):
        if place.is_dir():
            found = sorted(p for p in place.glob("*.pem") if not p.name.startswith("."))
            return found[: limits.KEY_FILES]
        if not place.exists():
            raise NotFound(f"there is no key {place}", hint="Check the path; is the stick in?")
    return [place]
