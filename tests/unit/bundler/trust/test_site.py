"""The site's key: made once, kept to itself, and what it signs."""

from __future__ import annotations

import os
import stat
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP384R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from bundler.trust import keys
from bundler.trust.site import Signed, SiteKey, check, sign, site_key
from schemas.errors import BadSignature, KeyUnavailable, NotFound

KIND = "application/vnd.sealift.test+json"


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> SiteKey:
    return site_key(tmp_path_factory.mktemp("home"))


def test_a_key_is_made_once_and_only_its_owner_can_read_it(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        site_key(tmp_path, create=False)
    made = site_key(tmp_path)
    again = site_key(tmp_path, create=False)
    assert again.public == made.public
    assert stat.S_IMODE((tmp_path / "site").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "site" / "key.pem").stat().st_mode) == 0o600
    assert [path.name for path in (tmp_path / "site").iterdir()] == ["key.pem"]


def test_the_fingerprint_is_what_openssl_says(tmp_path: Path) -> None:
    key = site_key(tmp_path)
    command = [
        "openssl",
        "pkey",
        "-pubout",
        "-outform",
        "DER",
        "-in",
        str(tmp_path / "site/key.pem"),
    ]
    public = subprocess.run(command, check=True, capture_output=True).stdout
    assert public == key.public
    assert (
        key.fingerprint.hex
        == subprocess.run(["sha256sum"], input=public, check=True, capture_output=True)
        .stdout.decode()
        .split()[0]
    )


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o666])
def test_a_key_that_others_can_read_is_not_used(tmp_path: Path, mode: int) -> None:
    site_key(tmp_path)
    (tmp_path / "site" / "key.pem").chmod(mode)
    with pytest.raises(KeyUnavailable, match="open to others"):
        site_key(tmp_path)


def test_a_file_that_is_no_such_key(tmp_path: Path) -> None:
    path = tmp_path / "site" / "key.pem"
    path.parent.mkdir()
    encrypted = keys.encrypt(keys.generate(), b"secret passphrase", rounds=1000)
    for content in (b"", b"not a key", keys.generate(keys.ED25519).private_bytes, encrypted):
        path.write_bytes(content)
        path.chmod(0o600)
        with pytest.raises(KeyUnavailable, match="cannot be used"):
            site_key(tmp_path)


def test_a_link_or_a_pipe_is_not_followed(tmp_path: Path) -> None:
    site_key(tmp_path)
    path = tmp_path / "site" / "key.pem"
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(KeyUnavailable):
        site_key(tmp_path)
    path.unlink()
    os.mkfifo(path, 0o600)
    with pytest.raises(KeyUnavailable):
        site_key(tmp_path)


@given(payload=st.binary(max_size=200))
def test_what_is_signed_checks(key: SiteKey, payload: bytes) -> None:
    signed = sign(key, payload, KIND)
    check(signed)
    assert signed.site == key.fingerprint
    for wrong in (
        replace(signed, payload=payload + b"x"),
        replace(signed, kind=KIND + "x"),
        replace(signed, signature=signed.signature[:-1]),
        replace(signed, signature=b""),
        replace(signed, public=b""),
        replace(signed, public=signed.public + b"\0"),
    ):
        with pytest.raises(BadSignature):
            check(wrong)


def test_another_key_of_another_kind(key: SiteKey) -> None:
    signed = sign(key, b"x", KIND)
    for other in (generate_private_key(SECP384R1()), Ed25519PrivateKey.generate()):
        der = other.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        with pytest.raises(BadSignature, match="P-256"):
            check(Signed(signed.payload, signed.kind, der, signed.signature))


def test_openssl_verifies_the_envelope(tmp_path: Path) -> None:
    """The pre-authentication encoding, spelled out as the DSSE specification does."""
    key = site_key(tmp_path)
    signed = sign(key, b"hello", "text/plain")
    (tmp_path / "data").write_bytes(b"DSSEv1 10 text/plain 5 hello")
    (tmp_path / "sig").write_bytes(signed.signature)
    (tmp_path / "pub.der").write_bytes(signed.public)
    command = ["openssl", "dgst", "-sha256", "-verify", "pub.der", "-keyform", "DER"]
    shown = subprocess.run(
        [*command, "-signature", "sig", "data"], cwd=tmp_path, check=True, capture_output=True
    ).stdout
    assert shown == b"Verified OK\n"
