"""Byte planes: every byte finds its place, and its way back."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bundler.archive.planes import merge, split

# Around the ends of blocks, where an index off by one would show.
LENGTHS = [0, 1, 2, 3, 4, 5, 7, 8, 131_072, 262_143, 262_144, 262_145, 524_288, 524_291, 1_048_579]


def transposed(raw: bytes, planes: int) -> bytes:
    """What the planes are by definition, byte by byte."""
    whole = len(raw) // planes * planes
    return bytes(raw[i] for p in range(planes) for i in range(p, whole, planes)) + raw[whole:]


@given(raw=st.binary(max_size=200), planes=st.sampled_from([1, 2, 4]))
def test_split_is_what_the_definition_says_and_merge_its_inverse(raw: bytes, planes: int) -> None:
    stored = b"".join(split(raw, planes))
    assert stored == transposed(raw, planes)
    assert merge(stored, planes) == raw


@pytest.mark.parametrize("planes", [1, 2, 4])
@pytest.mark.parametrize("length", LENGTHS)
def test_ends_of_blocks(length: int, planes: int) -> None:
    raw = random.Random(length).randbytes(length)
    stored = b"".join(split(bytearray(raw), planes))
    if length < 300_000:
        assert stored == transposed(raw, planes)
    assert merge(stored, planes) == raw


def test_blocks_stay_small() -> None:
    assert max(len(block) for block in split(bytes(3_000_001), 4)) <= 128 * 1024
