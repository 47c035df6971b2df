"""Signed notes: the published form, read strictly, for both kinds of keys."""

from __future__ import annotations

import base64
import hashlib

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import (
    ECDSA,
    SECP256R1,
    SECP384R1,
    generate_private_key,
)
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from bundler.trust import notes
from schemas import limits
from schemas.errors import BadSignature, MalformedDocument, SealiftError

NAME = "sealift/test"
TEXT = "a log\n7\nroot\n"
P256 = generate_private_key(SECP256R1())
ED25519 = Ed25519PrivateKey.generate()


def public(key: object) -> bytes:
    found: bytes = key.public_key().public_bytes(  # type: ignore[attr-defined]
        Encoding.DER, PublicFormat.SubjectPublicKeyInfo
    )
    return found


def p256(data: bytes) -> bytes:
    return P256.sign(data, ECDSA(SHA256()))


SIGNED = (
    notes.Note(TEXT, ())
    .signed(NAME, public(P256), p256)
    .signed("second", public(ED25519), ED25519.sign)
)
DATA = SIGNED.to_bytes()


def test_both_kinds_verify_and_read_back() -> None:
    read = notes.parse(DATA)
    assert read == SIGNED
    read.check(NAME, public(P256))
    read.check("second", public(ED25519))


def test_the_form_that_the_specification_gives() -> None:
    """Written out by hand, from c2sp.org/signed-note."""
    text, _, lines = DATA.decode().partition("\n\n")
    assert text + "\n" == TEXT
    first, second = lines.splitlines()
    prefix = f"\N{EM DASH} {NAME} "
    assert first.startswith(prefix)
    blob = base64.b64decode(first.removeprefix(prefix))
    assert blob[:4] == hashlib.sha256(public(P256)).digest()[:4]
    P256.public_key().verify(blob[4:], TEXT.encode(), ECDSA(SHA256()))
    blob = base64.b64decode(second.split(" ")[2])
    raw = ED25519.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    assert blob[:4] == hashlib.sha256(b"second\n\x01" + raw).digest()[:4]
    ED25519.public_key().verify(blob[4:], TEXT.encode())


def test_a_published_note() -> None:
    """The example of c2sp.org/tlog-checkpoint; the key is that of the Go test of sumdb/note."""
    data = (
        "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n\n"
        "\N{EM DASH} example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4"
        "URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=\n"
    ).encode()
    note = notes.parse(data)
    assert note.text.count("\n") == 3
    assert note.signatures[0].key_id == bytes.fromhex("033de0ae")
    assert note.to_bytes() == data


def test_signing_twice_changes_nothing() -> None:
    assert SIGNED.signed(NAME, public(P256), p256) is SIGNED


def test_another_text_name_or_key_does_not_verify() -> None:
    other = generate_private_key(SECP256R1())
    forged = notes.Note(TEXT.replace("7", "8"), SIGNED.signatures)
    for note, name, key in (
        (forged, NAME, public(P256)),
        (forged, "second", public(ED25519)),
        (SIGNED, "second", public(P256)),
        (SIGNED, NAME, public(other)),
        (notes.Note(TEXT, ()), NAME, public(P256)),
    ):
        with pytest.raises(BadSignature):
            note.check(name, key)


def test_a_colliding_key_id_is_no_signature() -> None:
    line = SIGNED.signatures[0]
    forged = notes.NoteSignature(line.name, line.key_id, b"\x30\x06\x02\x01\x00\x02\x01\x00")
    with pytest.raises(BadSignature):
        notes.Note(TEXT, (forged,)).check(NAME, public(P256))


def test_other_keys_are_refused() -> None:
    for key in (public(generate_private_key(SECP384R1())), b"junk"):
        with pytest.raises(BadSignature):
            notes.key_id(NAME, key)
    for name in ("", "two words", "a+b", "é", "x" * 256):
        with pytest.raises(MalformedDocument):
            notes.key_id(name, public(P256))


@pytest.mark.parametrize(
    "wrong",
    [
        b"",
        b"\n\n",
        TEXT.encode(),
        TEXT.encode() + b"\n",
        DATA[:-1],
        DATA + b"\n",
        DATA + b"x",
        b"\n" + DATA,
        DATA.replace(b"\n\n", b"\n\n\n"),
        DATA.replace(b"\n7\n", b"\n\n7\n"),
        DATA.replace(b"\n", b"\r\n"),
        DATA.replace(b"a log", b"a\tlog"),
        DATA.replace("\N{EM DASH}".encode(), b"-"),
        DATA.replace(b" sealift", b"  sealift"),
        DATA.replace(b"=\n", b"\n"),
        DATA.replace(b"second ", b"sec+ond "),
        TEXT.encode() + b"\n" + SIGNED.signatures[0].line().encode() * 17,
        b"x" * limits.NOTE_BYTES + DATA,
        b"\xff" + DATA,
    ],
)
def test_other_forms_are_refused(wrong: bytes) -> None:
    with pytest.raises(MalformedDocument):
        notes.parse(wrong)


@given(st.integers(0, len(DATA) - 1), st.integers(1, 255))
def test_any_changed_byte_is_refused_or_does_not_verify(at: int, by: int) -> None:
    data = bytearray(DATA)
    data[at] ^= by

    def read() -> None:
        note = notes.parse(bytes(data))
        note.check(NAME, public(P256))
        note.check("second", public(ED25519))

    with pytest.raises(SealiftError):
        read()


@given(st.binary(max_size=300))
def test_any_bytes_are_a_note_or_refused(data: bytes) -> None:
    try:
        note = notes.parse(data)
    except MalformedDocument:
        return
    assert note.to_bytes() == data
