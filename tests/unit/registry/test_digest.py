"""Digests parse one way only."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.digest import HEX_CHARS, Digest
from schemas.errors import InvalidName

WELL_FORMED = st.sampled_from(sorted(HEX_CHARS)).flatmap(
    lambda algorithm: st.text(
        "0123456789abcdef", min_size=HEX_CHARS[algorithm], max_size=HEX_CHARS[algorithm]
    ).map(lambda digits: f"{algorithm}:{digits}")
)


@given(WELL_FORMED)
def test_parse_and_print_are_inverse(text: str) -> None:
    digest = Digest.parse(text)
    assert str(digest) == text
    assert Digest.parse(str(digest)) == digest
    assert digest.hex.startswith(digest.short)


@given(st.binary(max_size=300))
def test_of_is_sha256(data: bytes) -> None:
    digest = Digest.of(data)
    assert (digest.algorithm, digest.hex) == ("sha256", hashlib.sha256(data).hexdigest())
    hasher = digest.hasher()
    hasher.update(data)
    assert hasher.hexdigest() == digest.hex


@given(st.text(max_size=200))
def test_arbitrary_text_parses_to_itself_or_is_refused(text: str) -> None:
    try:
        digest = Digest.parse(text)
    except InvalidName:
        return
    assert str(digest) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":",
        "sha256",
        "sha256:",
        "a" * 64,
        "sha256:" + "a" * 63,
        "sha256:" + "a" * 65,
        "sha256:" + "A" * 64,
        "sha256:" + "g" * 64,
        "sha256:" + "a" * 63 + "\n",
        "sha256:" + "a" * 64 + "\n",
        "sha256: " + "a" * 63,
        "sha256:" + "\u0660" * 64,  # digits to str.isdigit, not to us
        "SHA256:" + "a" * 64,
        "sha512:" + "a" * 64,
        "md5:" + "a" * 32,
        "sha1:" + "a" * 40,
        "sha256:sha256:" + "a" * 64,
        "sha256:../../../" + "a" * 55,
    ],
)
def test_malformed_is_refused(text: str) -> None:
    with pytest.raises(InvalidName) as caught:
        Digest.parse(text)
    assert "\n" not in caught.value.line()


def test_digests_sort_and_hash_as_values() -> None:
    one, two = Digest.of(b"1"), Digest.of(b"2")
    assert {one, Digest.of(b"1")} == {one}
    assert sorted([one, two], key=lambda d: d.hex) == sorted([two, one])
