"""Signatures at the edges of ECDSA and Ed25519, for all code of ours that checks one.

The cases are those of Project Wycheproof (ecdsa_secp256r1_sha256, ed25519), made anew from a real
signature. The arithmetic is OpenSSL's; what is tested is that nothing of ours lets more through.
"""

# ruff: noqa: ARG005 - every case takes both numbers

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Final

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import (
    ECDSA,
    SECP256K1,
    SECP256R1,
    SECP384R1,
    EllipticCurve,
    EllipticCurvePublicKey,
    generate_private_key,
)
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key as generate_rsa
from cryptography.hazmat.primitives.asymmetric.utils import (
    decode_dss_signature,
    encode_dss_signature,
)
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from bundler.attestations import sigstore
from bundler.trust import dsse, notes, site
from bundler.trust.attesting import p256
from bundler.trust.verifier import verify_bundle_trust
from schemas.errors import BadSignature, MalformedDocument, SealiftError
from tests.support.publisher_simulator import NOW, Simulator

ORDER: Final = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551  # SEC 2, §2.4.2
PRIME: Final = 2**256 - 2**224 + 2**192 + 2**96 - 1
KIND: Final = sigstore.IN_TOTO
PAYLOAD: Final = b"{}"
NOTE: Final = "log\n1\nroot\n"
KEY = generate_private_key(SECP256R1())
ED = Ed25519PrivateKey.generate()


def spki(key: EllipticCurvePublicKey) -> bytes:
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def pae(payload: bytes) -> bytes:
    return b"DSSEv1 %d %s %d %s" % (len(KIND), KIND.encode(), len(payload), payload)


def by_attestation(signature: bytes) -> None:
    key = KEY.public_key()
    statement = sigstore.SignedStatement(PAYLOAD, signature, sigstore.hint(key))
    sigstore.verify(statement, [key], "it")


def by_site(signature: bytes) -> None:
    site.check(site.Signed(PAYLOAD, KIND, spki(KEY.public_key()), signature))


def by_person(signature: bytes) -> None:
    public = spki(KEY.public_key())
    keyid = hashlib.sha256(public).hexdigest()
    dsse.Sealed(PAYLOAD, KIND, keyid, signature, b"").check(public, "it")


SIMULATOR = Simulator()
ISSUED = SIMULATOR.issue()


def by_metadata(signature: bytes) -> None:
    """In a timestamp, whose bytes no hash covers."""
    document = json.loads(ISSUED["timestamp.json"])
    document["signatures"][0]["sig"] = signature.hex()
    data = json.dumps(document, sort_keys=True, separators=(",", ":")).encode()
    members = {**ISSUED, "timestamp.json": data}
    verify_bundle_trust(SIMULATOR.state(), members, now=NOW, floor=None)


def by_note(signature: bytes) -> None:
    """Below a checkpoint of an audit log."""
    public = spki(KEY.public_key())
    line = notes.NoteSignature("log", notes.key_id("log", public), signature)
    notes.Note(NOTE, (line,)).check("log", public)


def signature_for(check: Callable[[bytes], None]) -> bytes:
    if check is by_metadata:
        found: str = json.loads(ISSUED["timestamp.json"])["signatures"][0]["sig"]
        return bytes.fromhex(found)
    if check is by_note:
        return KEY.sign(NOTE.encode(), ECDSA(SHA256()))
    return KEY.sign(pae(PAYLOAD), ECDSA(SHA256()))


def integer(value: int, *, pad: int = 0, width: int | None = None) -> bytes:
    size = value.bit_length() // 8 + 1 if width is None else width
    body = bytes(pad) + value.to_bytes(size, "big", signed=value < 0)
    return b"\x02" + bytes([len(body)]) + body


def sequence(*parts: bytes, tail: bytes = b"") -> bytes:
    body = b"".join(parts)
    return b"\x30" + bytes([len(body)]) + body + tail


def made(r: int, s: int) -> bytes:
    return sequence(integer(r), integer(s))


Edit = Callable[[int, int], bytes]
REFUSED: dict[str, Edit] = {
    "r-0": lambda r, s: made(0, s),
    "s-0": lambda r, s: made(r, 0),
    "both-0": lambda r, s: made(0, 0),
    "r-1": lambda r, s: made(1, s),
    "s-1": lambda r, s: made(r, 1),
    "both-1": lambda r, s: made(1, 1),
    "r-order": lambda r, s: made(ORDER, s),
    "s-order": lambda r, s: made(r, ORDER),
    "both-order": lambda r, s: made(ORDER, ORDER),
    "r-order-minus-1": lambda r, s: made(ORDER - 1, s),
    "r-beyond-order": lambda r, s: made(r + ORDER, s),
    "s-beyond-order": lambda r, s: made(r, s + ORDER),
    "r-prime": lambda r, s: made(PRIME, s),
    "r-prime-and-more": lambda r, s: made(PRIME + 1, s),
    "r-of-257-bits": lambda r, s: made(r | 1 << 256, s),
    "s-of-257-bits": lambda r, s: made(r, s | 1 << 256),
    "r-negated": lambda r, s: made(-r, s),
    "s-negated": lambda r, s: made(r, -s),
    "r-swapped-with-s": lambda r, s: made(s, r),
    "r-plus-1": lambda r, s: made(r + 1, s),
    "r-minus-s": lambda r, s: made(r, (s * 2) % ORDER),
    "r-unsigned": lambda r, s: sequence(_unsigned(r), integer(s)),
    "integer-padded": lambda r, s: sequence(integer(r, pad=1), integer(s)),
    "integers-padded-by-much": lambda r, s: sequence(integer(r, pad=20), integer(s, pad=20)),
    "integer-of-no-bytes": lambda r, s: sequence(b"\x02\x00", integer(s)),
    "r-missing": lambda r, s: sequence(integer(s)),
    "three-integers": lambda r, s: sequence(integer(r), integer(s), integer(1)),
    "null-inside": lambda r, s: sequence(integer(r), integer(s), b"\x05\x00"),
    "bytes-behind": lambda r, s: sequence(integer(r), integer(s), tail=b"\0"),
    "null-behind": lambda r, s: sequence(integer(r), integer(s), tail=b"\x05\x00"),
    "cut-off": lambda r, s: made(r, s)[:-1],
    "empty": lambda r, s: b"",
    "empty-sequence": lambda r, s: sequence(),
    "a-set": lambda r, s: b"\x31" + made(r, s)[1:],
    "nested": lambda r, s: sequence(made(r, s)),
    "long-length": lambda r, s: b"\x30\x81" + made(r, s)[1:],
    "longer-length": lambda r, s: b"\x30\x82\0" + made(r, s)[1:],
    "indefinite-length": lambda r, s: b"\x30\x80" + made(r, s)[2:] + b"\0\0",
    "length-too-large": lambda r, s: b"\x30" + bytes([made(r, s)[1] + 1]) + made(r, s)[2:],
    "length-too-small": lambda r, s: b"\x30" + bytes([made(r, s)[1] - 1]) + made(r, s)[2:],
    "length-of-2-gib": lambda r, s: b"\x30\x84\x7f\xff\xff\xff" + made(r, s)[2:],
    "octets-for-integers": lambda r, s: made(r, s).replace(b"\x02", b"\x04", 1),
    "booleans": lambda r, s: sequence(b"\x01\x01\xff", b"\x01\x01\xff"),
    "reals": lambda r, s: sequence(b"\x09\x01\x42", b"\x09\x01\x42"),
    "raw": lambda r, s: r.to_bytes(32) + s.to_bytes(32),
    "raw-zeros": lambda r, s: bytes(64),
    "zeros": lambda r, s: bytes(72),
    "ones": lambda r, s: b"\xff" * 72,
    "a-megabyte": lambda r, s: made(r, s) + bytes(2**20),
}


def _unsigned(value: int) -> bytes:
    """Of a number whose first bit is set: it then reads as a negative one."""
    body = (value | 1 << 255).to_bytes(32)
    return b"\x02\x20" + body


CHECKS = [by_attestation, by_site, by_person, by_metadata, by_note]


@pytest.mark.parametrize("check", CHECKS)
def test_a_good_signature_passes(check: Callable[[bytes], None]) -> None:
    check(signature_for(check))


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("name", REFUSED)
def test_no_other_passes(check: Callable[[bytes], None], name: str) -> None:
    changed = REFUSED[name](*decode_dss_signature(signature_for(check)))
    with pytest.raises((BadSignature, MalformedDocument)) as caught:
        check(changed)
    assert isinstance(caught.value, SealiftError)


@pytest.mark.parametrize("check", CHECKS)
def test_the_other_root_is_the_same_signature(check: Callable[[bytes], None]) -> None:
    """ECDSA as standardised takes ``n - s`` as well, so no signature names a document.

    Nothing of ours relies on it: documents go by the digests of what was signed.
    """
    r, s = decode_dss_signature(signature_for(check))
    check(encode_dss_signature(r, ORDER - s))


def test_a_root_with_the_other_signature_does_not_lock_the_true_one_out() -> None:
    """Whoever holds the stick can respell signatures of a root that the site has not seen yet."""
    simulator = Simulator()
    pinned = simulator.state()
    simulator.rotate("timestamp")
    honest = simulator.issue()
    document = json.loads(honest["2.root.json"])
    r, s = decode_dss_signature(bytes.fromhex(document["signatures"][0]["sig"]))
    document["signatures"][0]["sig"] = encode_dss_signature(r, ORDER - s).hex()
    respelt = json.dumps(document, sort_keys=True, separators=(",", ":")).encode()
    tampered = {**honest, "2.root.json": respelt}
    taken_in = verify_bundle_trust(pinned, tampered, now=NOW, floor=None).new_state
    assert verify_bundle_trust(taken_in, honest, now=NOW, floor=NOW).versions["root"] == 2


@pytest.mark.parametrize("check", CHECKS)
def test_a_signature_of_something_else_does_not_pass(check: Callable[[bytes], None]) -> None:
    for message in (b"", PAYLOAD, hashlib.sha256(pae(PAYLOAD)).digest(), pae(PAYLOAD + b" ")):
        with pytest.raises(BadSignature):
            check(KEY.sign(message, ECDSA(SHA256())))


@pytest.mark.parametrize("curve", [SECP256K1(), SECP384R1()], ids=["secp256k1", "secp384r1"])
def test_keys_on_other_curves_are_none(curve: EllipticCurve) -> None:
    private = generate_private_key(curve)
    public = spki(private.public_key())
    signature = private.sign(pae(PAYLOAD), ECDSA(SHA256()))
    with pytest.raises(BadSignature):
        site.check(site.Signed(PAYLOAD, KIND, public, signature))
    with pytest.raises(BadSignature):
        dsse.check_public(public)
    with pytest.raises(BadSignature):
        notes.key_id("log", public)
    assert p256(sigstore.pem(private.public_key()).decode()) is None


def point(x: int, y: int, form: int = 4) -> bytes:
    """A SubjectPublicKeyInfo on P-256 with this point (SEC 1, §2.3.3)."""
    body = bytes([form]) + x.to_bytes(32) + (y.to_bytes(32) if form in (4, 6, 7) else b"")
    algorithm = bytes.fromhex("301306072a8648ce3d020106082a8648ce3d030107")
    bits = b"\x03" + bytes([len(body) + 1, 0]) + body
    return b"\x30" + bytes([len(algorithm) + len(bits)]) + algorithm + bits


def infinity() -> bytes:
    algorithm = bytes.fromhex("301306072a8648ce3d020106082a8648ce3d030107")
    bits = bytes.fromhex("03020000")
    return b"\x30" + bytes([len(algorithm) + len(bits)]) + algorithm + bits


NUMBERS = KEY.public_key().public_numbers()
KEYS: dict[str, bytes] = {
    "infinity": infinity(),
    "origin": point(0, 0),
    "beside-the-curve": point(NUMBERS.x, NUMBERS.y ^ 1),
    "coordinate-beyond-the-field": point(2**256 - 1, NUMBERS.y),
    "x-of-the-prime": point(PRIME, NUMBERS.y),
    "compressed": point(NUMBERS.x, NUMBERS.y, 2 + NUMBERS.y % 2),
    "hybrid": point(NUMBERS.x, NUMBERS.y, 6 + NUMBERS.y % 2),
    "bytes-behind": spki(KEY.public_key()) + b"\0",
    "cut-off": spki(KEY.public_key())[:-1],
    "empty": b"",
    "text": sigstore.pem(KEY.public_key()),
    "rsa": generate_rsa(65537, 2048)
    .public_key()
    .public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
}


@pytest.mark.parametrize("name", KEYS)
def test_what_is_no_key_is_none(name: str) -> None:
    signature = KEY.sign(pae(PAYLOAD), ECDSA(SHA256()))
    with pytest.raises(BadSignature):
        site.check(site.Signed(PAYLOAD, KIND, KEYS[name], signature))
    with pytest.raises(BadSignature):
        dsse.check_public(KEYS[name])
    with pytest.raises(BadSignature):
        notes.key_id("log", KEYS[name])


ED_ORDER: Final = 2**252 + 27742317777372353535851937790883648493  # RFC 8032 §5.1
ED_REFUSED: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda _: b"",
    "half": lambda s: s[:32],
    "cut-off": lambda s: s[:-1],
    "bytes-behind": lambda s: s + b"\0",
    "zeros": lambda _: bytes(64),
    "r-zeros": lambda s: bytes(32) + s[32:],
    "s-zeros": lambda s: s[:32] + bytes(32),
    "s-beyond-the-order": lambda s: s[:32] + _beyond(s[32:]),
    "s-order": lambda s: s[:32] + ED_ORDER.to_bytes(32, "little"),
    "r-flipped": lambda s: bytes([s[0] ^ 1]) + s[1:],
    "s-flipped": lambda s: s[:-1] + bytes([s[-1] ^ 1]),
}


def _beyond(scalar: bytes) -> bytes:
    """The same scalar in a second spelling, which RFC 8032 §5.1.7 forbids."""
    return (int.from_bytes(scalar, "little") + ED_ORDER).to_bytes(32, "little")


@pytest.mark.parametrize("name", ["good", *ED_REFUSED])
def test_signatures_of_persons_and_notes_with_ed25519(name: str) -> None:
    public = ED.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    keyid = hashlib.sha256(public).hexdigest()
    signature = ED.sign(pae(PAYLOAD))
    below = notes.NoteSignature("log", notes.key_id("log", public), b"")
    if name == "good":
        notes.Note(NOTE, (replace(below, signature=ED.sign(NOTE.encode())),)).check("log", public)
        dsse.Sealed(PAYLOAD, KIND, keyid, signature, b"").check(public, "it")
        return
    changed = ED_REFUSED[name](signature)
    with pytest.raises(BadSignature):
        dsse.Sealed(PAYLOAD, KIND, keyid, changed, b"").check(public, "it")
    changed = ED_REFUSED[name](ED.sign(NOTE.encode()))
    with pytest.raises(BadSignature):
        notes.Note(NOTE, (replace(below, signature=changed),)).check("log", public)
