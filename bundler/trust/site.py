"""The site's own key: signs what an isolated site sends out, in DSSE envelopes.

It proves which site a report comes from, nothing else: no bundle is believed because of it. It is
used unattended, at every import, so its file is not encrypted; who can read it can read and replace
the whole store anyhow. ECDSA P-256 (FIPS 186-5 §6), signatures over the DSSE pre-authentication
encoding (DSSE v1 protocol, "Signature Definition"). Its fingerprint is the SHA-256 of its
SubjectPublicKeyInfo in DER, as ``openssl pkey -pubout -outform DER | sha256sum`` gives it.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import (
    SECP256R1,
    EllipticCurvePrivateKey,
    EllipticCurvePublicKey,
    generate_private_key,
)
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_der_public_key,
    load_pem_private_key,
)
from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import VerificationError
from securesystemslib.signer import CryptoSigner, Signature, SSlibKey

from registry.digest import Digest
from registry.staging import make_folder, sync_folder
from registry.verify import storage_errors
from schemas import limits
from schemas.errors import BadSignature, KeyUnavailable, NotFound

_FOLDER: Final = "site"
_FILE: Final = "key.pem"


@dataclass(frozen=True, slots=True)
class SiteKey:
    """A site's key pair.

    Attributes:
        public: SubjectPublicKeyInfo, DER.
        signer: Holds the private key.
    """

    public: bytes
    signer: CryptoSigner

    @property
    def fingerprint(self) -> Digest:
        """What the connected side knows the site by."""
        return Digest.of(self.public)


@dataclass(frozen=True, slots=True)
class Signed:
    """A payload with its one signature.

    Attributes:
        payload: What was signed.
        kind: The DSSE payload type.
        public: The signing key's SubjectPublicKeyInfo, DER.
        signature: ECDSA-Sig-Value, DER.
    """

    payload: bytes
    kind: str
    public: bytes
    signature: bytes

    @property
    def site(self) -> Digest:
        """Fingerprint of the signing key."""
        return Digest.of(self.public)


def site_key(home: Path, *, create: bool = True) -> SiteKey:
    """The key of the site whose state lies in ``home``; made at its first use.

    Args:
        home: ``$SEALIFT_HOME``, which must be there.
        create: False to only look.

    Raises:
        NotFound: There is none and ``create`` is False.
        KeyUnavailable: Its file is damaged, or others can read it.
        StorageFull, StorageFailure: As the disk says.
    """
    path = home / _FOLDER / _FILE
    if not os.path.lexists(path):
        if not create:
            raise NotFound(
                "this site has no key yet", hint="It is made by the first inventory export"
            )
        _make(path)
    return _load(path)


def sign(key: SiteKey, payload: bytes, kind: str) -> Signed:
    """Sign a payload of a type."""
    envelope = Envelope(payload, kind, {})
    signature = envelope.sign(key.signer)
    return Signed(payload, kind, key.public, bytes.fromhex(signature.signature))


def check(signed: Signed) -> None:
    """See that the payload was signed with the key that came along.

    Whether that key is a site's that one knows, is the caller's question.

    Raises:
        BadSignature: It was not, or that is no P-256 key.
    """
    key = _public_key(signed.public)
    keyid = signed.site.hex
    signatures = {keyid: Signature(keyid, signed.signature.hex())}
    try:
        Envelope(signed.payload, signed.kind, signatures).verify([key], 1)
    except VerificationError:
        raise BadSignature(
            "the report's signature is wrong",
            why=f"it does not verify with key {signed.site.short}",
            hint="Carry the file again; if it stays so, it was tampered with",
        ) from None


def _public_key(public: bytes) -> SSlibKey:
    try:
        key = load_der_public_key(public)
    except (ValueError, UnsupportedAlgorithm):
        key = None
    if (
        not isinstance(key, EllipticCurvePublicKey)
        or not isinstance(key.curve, SECP256R1)
        or _der(key) != public
    ):
        raise BadSignature("the report's key is not a P-256 public key")
    return SSlibKey.from_crypto(key, keyid=Digest.of(public).hex)


def _der(key: EllipticCurvePublicKey) -> bytes:
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _make(path: Path) -> None:
    """Write a fresh key; where another process was faster, its key stays."""
    private = generate_private_key(SECP256R1())
    pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    with storage_errors("cannot write the site's key"):
        make_folder(path.parent)
        new = path.with_name(f".{_FILE}.{token_hex(8)}.new")
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
            with os.fdopen(os.open(new, flags, 0o600), "wb") as file:
                file.write(pem)
                file.flush()
                os.fsync(file.fileno())
            try:
                os.link(new, path)
            except FileExistsError:
                return
            sync_folder(path.parent)
        finally:
            new.unlink(missing_ok=True)


def _load(path: Path) -> SiteKey:
    pem = _read_private(path)
    try:
        private = load_pem_private_key(pem, None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        private = None
    if not isinstance(private, EllipticCurvePrivateKey) or not isinstance(private.curve, SECP256R1):
        raise KeyUnavailable(
            f"the site's key {path} cannot be used",
            why="it is not an unencrypted P-256 key",
            hint="Restore it from a backup, or move it away to have a new one made",
        )
    public = private.public_key()
    named = SSlibKey.from_crypto(public, keyid=Digest.of(_der(public)).hex)
    return SiteKey(_der(public), CryptoSigner(private, named))


def _read_private(path: Path) -> bytes:
    try:
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file:
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode) or found.st_mode & 0o077:
                raise KeyUnavailable(
                    f"the site's key {path} is open to others",
                    why=f"mode {stat.S_IMODE(found.st_mode):04o}",
                    hint="If nobody can have read it: chmod 600",
                )
            return file.read(limits.SITE_KEY_BYTES)
    except OSError as error:
        raise KeyUnavailable(
            "the site's key cannot be read", why=f"{path}: {error.strerror}"
        ) from None
