from __future__ import annotations

import base64
import errno
import os
import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from bundler.trust import keys
from schemas.errors import AlreadyExists, InvalidName, KeyUnavailable, StorageFailure, StorageFull

ROUNDS = 1000


@pytest.mark.parametrize("key_type", keys.KEY_TYPES)
def test_key_comes_back(tmp_path: Path, key_type: str) -> None:
    signer = keys.generate(key_type)
    path = tmp_path / "root.pem"
    keys.save(path, signer, b"open sesame", rounds=ROUNDS)
    loaded = keys.load(path, b"open sesame")
    assert loaded.public_key == signer.public_key
    loaded.public_key.verify_signature(loaded.sign(b"x"), b"x")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert signer.private_bytes.splitlines()[1] not in path.read_bytes()


def test_default_is_p256() -> None:
    assert keys.generate().public_key.scheme == "ecdsa-sha2-nistp256"


def test_unknown_key_type() -> None:
    with pytest.raises(InvalidName, match="ecdsa-p256 or ed25519"):
        keys.generate("rsa")


def test_envelope_is_pbes2_with_the_rounds_that_were_asked_for() -> None:
    pem = keys.encrypt(keys.generate(), b"x", rounds=600_000)
    lines = pem.splitlines()
    assert lines[0] == b"-----BEGIN ENCRYPTED PRIVATE KEY-----"
    assert all(len(line) == 64 for line in lines[1:-2])
    der = base64.b64decode(b"".join(lines[1:-1]))
    identifiers = {  # RFC 8018 appendix C; RFC 3565
        "PBES2": "06092a864886f70d01050d",
        "PBKDF2": "06092a864886f70d01050c",
        "hmacWithSHA256": "06082a864886f70d0209",
        "aes256-CBC": "060960864801650304012a",
        "600000 rounds": "02030927c0",
    }
    for name, encoded in identifiers.items():
        assert bytes.fromhex(encoded) in der, name
    load_pem_private_key(pem, b"x")


def test_default_rounds_are_many() -> None:
    assert keys.KDF_ROUNDS >= 600_000


@pytest.mark.parametrize("passphrase", [b"wrong", b""])
def test_wrong_passphrase(tmp_path: Path, passphrase: bytes) -> None:
    path = tmp_path / "timestamp.pem"
    keys.save(path, keys.generate(), b"right", rounds=ROUNDS)
    with pytest.raises(KeyUnavailable, match="timestamp"):
        keys.load(path, passphrase)


def test_empty_passphrase_makes_no_file(tmp_path: Path) -> None:
    with pytest.raises(KeyUnavailable):
        keys.save(tmp_path / "k.pem", keys.generate(), b"", rounds=ROUNDS)
    assert not list(tmp_path.iterdir())


def test_key_file_is_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "k.pem"
    keys.save(path, keys.generate(), b"x", rounds=ROUNDS)
    before = path.read_bytes()
    with pytest.raises(AlreadyExists):
        keys.save(path, keys.generate(), b"x", rounds=ROUNDS)
    assert path.read_bytes() == before


def test_key_is_not_written_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "k.pem").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(AlreadyExists):
        keys.save(tmp_path / "k.pem", keys.generate(), b"x", rounds=ROUNDS)
    assert not (tmp_path / "elsewhere").exists()


def test_failed_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageFull):
        keys.save(tmp_path / "k.pem", keys.generate(), b"x", rounds=ROUNDS)
    assert not list(tmp_path.iterdir())


def test_missing_key_and_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(KeyUnavailable, match="not at hand"):
        keys.load(tmp_path / "root.pem", b"x")
    with pytest.raises(StorageFailure):
        keys.save(tmp_path / "none" / "k.pem", keys.generate(), b"x", rounds=ROUNDS)


def test_damaged_key(tmp_path: Path) -> None:
    path = tmp_path / "k.pem"
    pem = keys.encrypt(keys.generate(), b"x", rounds=ROUNDS)
    for data in (b"", b"junk", pem[: len(pem) // 2], pem[:200] + b"AAAA" + pem[204:]):
        path.write_bytes(data)
        with pytest.raises(KeyUnavailable):
            keys.load(path, b"x")


def test_unencrypted_or_foreign_key_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "k.pem"
    path.write_bytes(keys.generate().private_bytes)
    with pytest.raises(KeyUnavailable):
        keys.load(path, b"x")
    rsa = generate_private_key(65537, 2048)
    path.write_bytes(rsa.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    with pytest.raises(KeyUnavailable, match="type"):
        keys.load(path, b"")
