"""Sigstore bundles: what is written is read back; whatever else comes is refused, never a crash."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, SECP384R1, generate_private_key
from hypothesis import given
from hypothesis import strategies as st
from securesystemslib.signer import CryptoSigner

from bundler.attestations import sigstore
from bundler.trust.attesting import AttestationKey, attestation_key
from schemas.errors import BadSignature, MalformedDocument


def key() -> AttestationKey:
    found = attestation_key(CryptoSigner(generate_private_key(SECP256R1())))
    assert found is not None
    return found


KEY = key()
GOOD = sigstore.sign(KEY, b"payload")


def test_round_trip() -> None:
    statement = sigstore.read(GOOD)
    assert statement.payload == b"payload"
    sigstore.verify(statement, [key().public, KEY.public], "it")


def test_signing_twice_gives_the_same_bytes() -> None:
    assert sigstore.sign(KEY, b"payload") == GOOD
    assert sigstore.sign(KEY, b"payload 2") != GOOD


def test_nobody_who_may() -> None:
    for keys in ([], [key().public]):
        with pytest.raises(BadSignature):
            sigstore.verify(sigstore.read(GOOD), keys, "it")


@pytest.mark.parametrize(
    "signer",
    [CryptoSigner.generate_ed25519(), CryptoSigner(generate_private_key(SECP384R1()))],
    ids=["ed25519", "secp384r1"],
)
def test_keys_of_other_kinds_do_not_sign(signer: CryptoSigner) -> None:
    assert attestation_key(signer) is None


def test_the_pre_authentication_encoding_is_that_of_the_protocol() -> None:
    """DSSE v1 protocol.md, "Test Vectors", with the in-toto type."""
    expected = b"DSSEv1 28 application/vnd.in-toto+json 11 hello world"
    assert sigstore.encoding_to_sign(b"hello world") == expected


@given(st.binary(max_size=200))
def test_noise_is_refused(data: bytes) -> None:
    with pytest.raises(MalformedDocument):
        sigstore.read(data)


VALUES: st.SearchStrategy[Any] = (
    st.none() | st.booleans() | st.integers(-3, 3) | st.text(max_size=6) | st.just([]) | st.just({})
)


@given(st.data())
def test_changed_documents_are_refused_or_read(data: st.DataObject) -> None:
    document: dict[str, Any] = json.loads(GOOD)
    where: Any = document
    while True:
        keys = sorted(where) if isinstance(where, dict) else list(range(len(where)))
        chosen = data.draw(st.sampled_from(keys))
        if isinstance(where[chosen], dict | list) and where[chosen] and data.draw(st.booleans()):
            where = where[chosen]
            continue
        where[chosen] = data.draw(VALUES)
        break
    raw = json.dumps(document).encode()
    try:
        statement = sigstore.read(raw)
    except MalformedDocument:
        return
    if statement != sigstore.read(GOOD):
        with pytest.raises(BadSignature):
            sigstore.verify(statement, [KEY.public], "it")


@given(st.integers(0, len(GOOD) - 1), st.integers(1, 255))
def test_no_byte_that_counts_can_change(place: int, change: int) -> None:
    raw = bytearray(GOOD)
    raw[place] ^= change
    try:
        statement = sigstore.read(bytes(raw))
        sigstore.verify(statement, [KEY.public], "it")
    except (MalformedDocument, BadSignature):
        return
    assert statement == sigstore.read(GOOD)


@pytest.mark.parametrize("text", ["", "A", "AA", "AA=", "AB==", "QQ==\n", "QQ", " QQ==", "Q-8="])
def test_base64_has_one_spelling(text: str) -> None:
    """RFC 4648 §3.5: bits that do not count must be zero; no other alphabet, nothing in between."""
    document = json.loads(GOOD)
    document["dsseEnvelope"]["payload"] = text
    with pytest.raises(MalformedDocument):
        sigstore.read(json.dumps(document).encode())
    document["dsseEnvelope"]["payload"] = base64.b64encode(b"A").decode()
    assert sigstore.read(json.dumps(document).encode()).payload == b"A"
