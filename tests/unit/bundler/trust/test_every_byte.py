"""One changed byte anywhere in the metadata is refused; so is one that is gone or added."""

from __future__ import annotations

import copy

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import Metadata, Root, Timestamp

from bundler.trust import envelope
from bundler.trust.verifier import verify_bundle_trust
from schemas.errors import BadSignature, ContentError, SealiftError, TrustError
from tests.support.publisher_simulator import NOW, Simulator, document, text


def _site() -> tuple[Simulator, dict[str, bytes]]:
    simulator = Simulator()
    simulator.rotate("root")
    simulator.rotate("timestamp")
    return simulator, simulator.issue()


SIMULATOR, MEMBERS = _site()
STATE = SIMULATOR.state(2)  # one root before the pinned one, one after
SPANS = [(name, at) for name, data in MEMBERS.items() for at in range(len(data))]


def _refused(members: dict[str, bytes]) -> None:
    with pytest.raises((ContentError, TrustError)) as caught:
        verify_bundle_trust(STATE, members, now=NOW, floor=None)
    assert isinstance(caught.value, SealiftError)
    assert caught.value.what


@settings(max_examples=300)
@given(place=st.sampled_from(SPANS), flip=st.integers(1, 255))
def test_flipped_byte(place: tuple[str, int], flip: int) -> None:
    name, at = place
    changed = bytearray(MEMBERS[name])
    changed[at] ^= flip
    _refused({**MEMBERS, name: bytes(changed)})


@given(place=st.sampled_from(SPANS), what=st.sampled_from([b"", b" ", b"\0", b"0", b'"']))
def test_byte_removed_or_put_in(place: tuple[str, int], what: bytes) -> None:
    name, at = place
    data = MEMBERS[name]
    _refused({**MEMBERS, name: data[:at] + what + data[at + 1 - len(what) :] + what[:0]})


@given(place=st.sampled_from(SPANS))
def test_member_cut_short(place: tuple[str, int]) -> None:
    name, at = place
    _refused({**MEMBERS, name: MEMBERS[name][:at]})


@given(data=st.binary(max_size=200), name=st.sampled_from(sorted(MEMBERS)))
def test_member_of_noise(data: bytes, name: str) -> None:
    _refused({**MEMBERS, name: data})


@given(st.dictionaries(st.text(max_size=20), st.binary(max_size=40), max_size=5))
def test_set_of_noise(members: dict[str, bytes]) -> None:
    _refused(members)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=10,
)


@given(value=JSON, name=st.sampled_from(sorted(MEMBERS)), data=st.data())
def test_field_of_another_kind(value: object, name: str, data: st.DataObject) -> None:
    """Any field at any depth replaced by any JSON: refused in our words, never a foreign error."""
    changed = document(MEMBERS[name])
    node: object = changed
    while True:
        keys = list(node) if isinstance(node, dict) else list(range(len(node)))  # type: ignore[arg-type]
        key = data.draw(st.sampled_from(keys))
        child = node[key]  # type: ignore[index]
        if not isinstance(child, dict | list) or not child or data.draw(st.booleans()):
            node[key] = copy.deepcopy(value)  # type: ignore[index]
            break
        node = child
    if text(changed) != MEMBERS[name]:
        _refused({**MEMBERS, name: text(changed)})


@pytest.mark.parametrize("signer", [CryptoSigner.generate_ecdsa, CryptoSigner.generate_ed25519])
def test_no_signature_verifies_in_two_spellings(signer: object) -> None:
    """Every hex digit of a signature matters: DER is checked strictly, ed25519's s is bounded."""
    assert callable(signer)
    key: CryptoSigner = signer()
    root = Root(expires=NOW)
    root.add_key(key.public_key, "timestamp")
    metadata = Metadata(Timestamp(expires=NOW))
    right = metadata.sign(key).signature
    wrapped = envelope.Envelope("timestamp", metadata.to_bytes(), metadata)
    envelope.check_signatures(wrapped, root)
    spellings = [
        right[:at] + digit + right[at + 1 :]
        for at in range(len(right))
        for digit in "0123456789abcdef"
        if digit != right[at]
    ]
    spellings += [f"{right}00", right[:-2], f"00{right}", ""]
    if right.startswith("30"):
        spellings += _loose_der(bytes.fromhex(right))
    for spelling in spellings:
        metadata.signatures[key.public_key.keyid].signature = spelling
        with pytest.raises(BadSignature):
            envelope.check_signatures(wrapped, root)


def _loose_der(right: bytes) -> list[str]:
    """BER spellings of the same pair of integers (X.690 §10): long lengths, padding, a tail."""
    body = right[2:]
    first = body[: 2 + body[1]]
    second = body[2 + body[1] :]
    padded = b"\x02" + bytes((first[1] + 1,)) + b"\0" + first[2:]
    return [
        (b"\x30\x81" + bytes((len(body),)) + body).hex(),
        (b"\x30\x80" + body + b"\0\0").hex(),
        (b"\x30" + bytes((len(body) + 1,)) + padded + second).hex(),
        (b"\x30" + bytes((len(body) + 2,)) + body + b"\x05\x00").hex(),
    ]
