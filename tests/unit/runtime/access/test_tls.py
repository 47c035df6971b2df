"""Certificates and keys: what is taken, and what is refused before anybody listens."""

from __future__ import annotations

import os
import ssl
from datetime import UTC, datetime
from pathlib import Path

import pytest

from runtime.access.tls import load_identity
from schemas.errors import KeyUnavailable, MalformedDocument, NotFound, UsageError
from tests.support.certificates import Certificates, make


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make(tmp_path_factory.mktemp("tls"), "Models.Example", "*.lab.example")


def test_a_certificate_tells_its_names(files: Certificates) -> None:
    identity = load_identity(str(files.cert), str(files.key))
    assert identity.names == ("models.example", "*.lab.example")
    assert 29 <= (identity.expires - datetime.now(UTC)).days <= 30
    assert identity.context.minimum_version == ssl.TLSVersion.TLSv1_2


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644])
def test_a_key_that_others_can_read_is_refused(tmp_path: Path, mode: int) -> None:
    files = make(tmp_path)
    files.key.chmod(mode)
    allowed = os.geteuid() == 0 and mode == 0o640  # root's own keys may be shared with a group
    if allowed:
        load_identity(str(files.cert), str(files.key))
        return
    with pytest.raises(UsageError, match=r"others can read it \(mode 0"):
        load_identity(str(files.cert), str(files.key))


def test_only_one_of_the_two(files: Certificates) -> None:
    for pair in ((str(files.cert), ""), ("", str(files.key))):
        with pytest.raises(UsageError, match="needs a certificate and its key"):
            load_identity(*pair)


def test_what_is_not_there(files: Certificates, tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        load_identity(str(tmp_path / "no"), str(files.key))
    with pytest.raises(UsageError, match="not a regular file"):
        load_identity("/dev/null", str(files.key))


def test_what_does_not_fit(files: Certificates, tmp_path: Path) -> None:
    other = make(tmp_path / "other")
    with pytest.raises(KeyUnavailable, match="does not fit"):
        load_identity(str(files.cert), str(other.key))
    locked = make(tmp_path / "locked", passphrase=b"secret")
    with pytest.raises(KeyUnavailable, match="passphrase"):
        load_identity(str(locked.cert), str(locked.key))
    nonsense = tmp_path / "nonsense.pem"
    nonsense.write_text("nonsense")
    with pytest.raises(MalformedDocument, match="no certificate"):
        load_identity(str(nonsense), str(files.key))
    nonsense.chmod(0o600)
    with pytest.raises(KeyUnavailable):
        load_identity(str(files.cert), str(nonsense))
