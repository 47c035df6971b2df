"""Private keys: made, kept encrypted, loaded.

A key lies in PEM as a PKCS#8 EncryptedPrivateKeyInfo (RFC 5958 §3) under PBES2 (RFC 8018 §6.2):
PBKDF2-HMAC-SHA256 and AES-256-CBC. cryptography reads that but writes it with 2048 rounds only
(``BestAvailableEncryption``), so the envelope is put together here; ``openssl pkey`` reads it.
Public keys are not kept in files: root and targets metadata carry them.
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
from pathlib import Path
from secrets import token_hex
from typing import Final, TypeAlias

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import (
    SECP256R1,
    SECP384R1,
    EllipticCurvePrivateKey,
    EllipticCurvePublicKey,
    generate_private_key,
)
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES256
from cryptography.hazmat.primitives.ciphers.modes import CBC
from cryptography.hazmat.primitives.padding import PKCS7
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)
from securesystemslib.signer import CryptoSigner, Key, SSlibKey

from registry.verify import storage_errors
from schemas import limits
from schemas.errors import AlreadyExists, InvalidName, KeyUnavailable, NotFound

PublicKey: TypeAlias = Key

ECDSA_P256: Final = "ecdsa-p256"
ED25519: Final = "ed25519"
KEY_TYPES: Final = (ECDSA_P256, ED25519)

KDF_ROUNDS: Final = 600_000  # OWASP password storage cheat sheet, PBKDF2-HMAC-SHA256
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._@+-]{0,63}")  # as in sign-request.v1
KEY_FILE_BYTES: Final = 64 * limits.KIB

# DER of the object identifiers (RFC 8018 appendix C, RFC 3565)
_PBES2: Final = bytes.fromhex("06092a864886f70d01050d")
_PBKDF2: Final = bytes.fromhex("06092a864886f70d01050c")
_HMAC_SHA256: Final = bytes.fromhex("06082a864886f70d0209")
_AES256_CBC: Final = bytes.fromhex("060960864801650304012a")
_NULL: Final = b"\x05\x00"


def is_name(text: str) -> bool:
    """Whether people may call a key so."""
    return _NAME.fullmatch(text) is not None


def check_name(text: str) -> None:
    """See that people may call a key so.

    Raises:
        InvalidName: They may not.
    """
    if not is_name(text):
        raise InvalidName(
            f"{text[:70]!r} cannot be a key's name",
            hint="Use up to 64 letters, digits, spaces and . _ @ + -",
        )


def generate(key_type: str = ECDSA_P256) -> CryptoSigner:
    """Make a fresh key pair.

    Args:
        key_type: ``ecdsa-p256`` or ``ed25519``.

    Raises:
        InvalidName: Any other type.
    """
    if key_type == ECDSA_P256:
        return CryptoSigner(generate_private_key(SECP256R1()))
    if key_type == ED25519:
        return CryptoSigner(Ed25519PrivateKey.generate())
    raise InvalidName(f"{key_type[:40]!r} is not a key type", hint=f"Use {' or '.join(KEY_TYPES)}")


def save(path: Path, signer: CryptoSigner, passphrase: bytes, *, rounds: int = KDF_ROUNDS) -> None:
    """Write a private key, encrypted, mode 0600, durably; never over another file.

    The file appears under its name only when it is complete. The caller keeps other processes out
    of the folder.

    Raises:
        KeyUnavailable: The passphrase is empty.
        AlreadyExists: There is a file of that name.
        StorageFailure: Or :class:`~schemas.errors.StorageFull`: the disk's reason.
    """
    pem = encrypt(signer, passphrase, rounds=rounds)
    if os.path.lexists(path):
        raise AlreadyExists(f"there is a key file {path} already")
    new = path.with_name(f".{path.name}.{token_hex(8)}.new")
    with storage_errors(f"cannot write key {path.name}"):
        try:
            fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
            with os.fdopen(fd, "wb") as file:
                file.write(pem)
                file.flush()
                os.fsync(fd)
            new.rename(path)
            sync_folder(path.parent)
        finally:
            new.unlink(missing_ok=True)


def load(path: Path, passphrase: bytes) -> CryptoSigner:
    """Read and decrypt a private key.

    Raises:
        KeyUnavailable: No file, another passphrase, or no key that this tool signs with.
    """
    role = path.stem
    try:
        with path.open("rb") as file:
            pem = file.read(KEY_FILE_BYTES)
    except OSError as error:
        raise KeyUnavailable(
            f"the private key of {role} is not at hand", why=f"{path}: {error.strerror}"
        ) from None
    try:
        private = load_pem_private_key(pem, passphrase or None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise KeyUnavailable(
            f"cannot open the private key of {role}",
            why="wrong passphrase or damaged file" if passphrase else "no passphrase was given",
            hint="Try again with the passphrase that was set when the keys were made",
        ) from None
    if not isinstance(private, EllipticCurvePrivateKey | Ed25519PrivateKey):
        raise KeyUnavailable(f"the private key of {role} is of a type that is not used here")
    return CryptoSigner(private)


def public_pem(key: Key) -> bytes:
    """A public key as a file that people pass on: SubjectPublicKeyInfo in PEM."""
    public = str(key.keyval["public"])
    if key.keytype != ED25519:
        return public.encode("ascii")
    raw = Ed25519PublicKey.from_public_bytes(bytes.fromhex(public))
    return raw.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def load_public(path: Path) -> SSlibKey:
    """Read a public key file, as :func:`public_pem` or ``openssl pkey -pubout`` writes it.

    Raises:
        NotFound: There is no such file.
        KeyUnavailable: It is no public key of a kind that is used here.
        StorageFailure: It cannot be read.
    """
    with storage_errors(f"cannot read {path}"):
        try:
            with path.open("rb") as file:
                pem = file.read(KEY_FILE_BYTES)
        except (FileNotFoundError, IsADirectoryError):
            raise NotFound(f"there is no public key {path}", hint="Check the path") from None
    try:
        key = load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm):
        key = None
    usable = isinstance(key, Ed25519PublicKey) or (
        isinstance(key, EllipticCurvePublicKey) and isinstance(key.curve, SECP256R1 | SECP384R1)
    )
    if key is None or not usable:
        private = b"PRIVATE KEY" in pem
        raise KeyUnavailable(
            f"{path} is not a public key that is used here",
            why="it is a private one, which should stay where it is" if private else "",
            hint="Give a PEM file with a P-256, P-384 or Ed25519 public key",
        )
    return SSlibKey.from_crypto(key)


def encrypt(signer: CryptoSigner, passphrase: bytes, *, rounds: int = KDF_ROUNDS) -> bytes:
    """The PEM text of an encrypted private key.

    Raises:
        KeyUnavailable: The passphrase is empty.
    """
    if not passphrase:
        raise KeyUnavailable(
            "private keys need a passphrase", hint="Give one that you can keep for years"
        )
    salt, iv = os.urandom(16), os.urandom(16)
    key = hashlib.pbkdf2_hmac("sha256", passphrase, salt, rounds, 32)
    padder = PKCS7(128).padder()
    plain = padder.update(_pkcs8(signer)) + padder.finalize()
    encryptor = Cipher(AES256(key), CBC(iv)).encryptor()
    sealed = encryptor.update(plain) + encryptor.finalize()
    kdf = _sequence(
        _PBKDF2, _sequence(_octets(salt), _integer(rounds), _sequence(_HMAC_SHA256, _NULL))
    )
    scheme = _sequence(_PBES2, _sequence(kdf, _sequence(_AES256_CBC, _octets(iv))))
    lines = base64.encodebytes(_sequence(scheme, _octets(sealed))).replace(b"\n", b"")
    body = b"\n".join(lines[i : i + 64] for i in range(0, len(lines), 64))  # RFC 7468 §2
    return (
        b"-----BEGIN ENCRYPTED PRIVATE KEY-----\n"
        + body
        + (b"\n-----END ENCRYPTED PRIVATE KEY-----\n")
    )


def sync_folder(folder: Path) -> None:
    """Make names in a folder durable.

    Raises:
        OSError: As the system tells it.
    """
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _pkcs8(signer: CryptoSigner) -> bytes:
    private = load_pem_private_key(signer.private_bytes, None)
    return private.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())


def _der(tag: int, content: bytes) -> bytes:
    size = len(content)
    if size < 0x80:
        return bytes((tag, size)) + content
    digits = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(digits))) + digits + content


def _sequence(*parts: bytes) -> bytes:
    return _der(0x30, b"".join(parts))


def _octets(data: bytes) -> bytes:
    return _der(0x04, data)


def _integer(value: int) -> bytes:
    return _der(0x02, value.to_bytes(value.bit_length() // 8 + 1, "big"))
