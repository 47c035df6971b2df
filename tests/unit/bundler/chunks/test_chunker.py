"""Chunks: the same whatever the portions; found again wherever their bytes moved to."""

from __future__ import annotations

import hashlib
import io
import random
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bundler.chunks.chunker import Chunk, Chunker
from bundler.chunks.regions import Cut, Region, plain_regions
from registry.digest import Digest
from registry.verify import digest_stream
from schemas import limits
from schemas.errors import DependencyMissing
from tests.support.deltas import cut, noise

MIXED = [
    Region(0, 50_000, Cut.FINE),
    Region(50_000, 7, Cut.FIXED),
    Region(50_007, 2_500_000, Cut.FIXED),
    Region(2_550_007, 700_001, Cut.COARSE),
]
SIZE = 3_250_008
BLOB = noise(SIZE, 1)
WHOLE = cut(BLOB, MIXED)


def test_chunks_cover_the_blob_and_have_their_digests() -> None:
    position = 0
    for offset, length, digest in WHOLE:
        assert offset == position
        assert digest == hashlib.sha256(BLOB[offset : offset + length]).digest()
        position += length
    assert position == SIZE


def test_chunks_do_not_cross_regions_and_stay_within_their_sizes() -> None:
    for region in MIXED:
        end = region.offset + region.length
        inside = [chunk for chunk in WHOLE if region.offset <= chunk.offset < end]
        assert inside[0].offset == region.offset
        assert inside[-1].offset + inside[-1].length == end
        if region.cut is Cut.FIXED:
            most = limits.FIXED_CHUNK_BYTES
            assert all(chunk.length == most for chunk in inside[:-1])
        else:
            average = {Cut.FINE: limits.FINE_CHUNK_BYTES, Cut.COARSE: limits.COARSE_CHUNK_BYTES}
            most = 4 * average[region.cut]
            assert len(inside) > 3
        assert all(chunk.length <= most for chunk in inside)


@given(portions=st.lists(st.integers(1, 1_300_000), max_size=8))
def test_portions_do_not_matter(portions: list[int]) -> None:
    assert cut(BLOB, MIXED, portions) == WHOLE


def test_byte_by_byte() -> None:
    data = BLOB[:60_000]
    regions = [Region(0, 55_000, Cut.FINE), Region(55_000, 5_000, Cut.FIXED)]
    assert cut(data, regions, [1] * len(data)) == cut(data, regions)


def test_the_library_cuts_where_it_always_did() -> None:
    """Another cut would not be wrong, but would find nothing in the indexes of older versions."""
    data = b"".join(hashlib.sha256(bytes([a, b])).digest() for a in range(16) for b in range(256))
    ends = [chunk.offset + chunk.length for chunk in cut(data, [Region(0, len(data), Cut.FINE)])]
    assert ends[:8] == [1267, 5436, 12023, 17708, 21858, 26742, 28837, 33269]


@given(at=st.integers(0, 400_000), insert=st.binary(min_size=1, max_size=100))
def test_an_edit_changes_few_chunks_of_what_is_cut_by_content(at: int, insert: bytes) -> None:
    data = BLOB[:400_000]
    edited = data[:at] + insert + data[at:]
    before = {chunk.digest for chunk in cut(data, [Region(0, len(data), Cut.FINE)])}
    after = cut(edited, [Region(0, len(edited), Cut.FINE)])
    new = [chunk for chunk in after if chunk.digest not in before]
    assert 0 < sum(chunk.length for chunk in new) <= 40 * limits.FINE_CHUNK_BYTES
    assert len(new) < 12


def test_a_tensor_is_found_wherever_it_moved() -> None:
    tensor = noise(2_500_000, 5)
    one = cut(b"x" * 9 + tensor, [Region(0, 9, Cut.FIXED), Region(9, len(tensor), Cut.FIXED)])
    other = cut(tensor, [Region(0, len(tensor), Cut.FIXED)])
    assert [chunk.digest for chunk in one[1:]] == [chunk.digest for chunk in other]


@pytest.mark.parametrize(
    "regions",
    [
        [Region(0, SIZE - 1, Cut.FIXED)],
        [Region(0, 10, Cut.FIXED), Region(11, SIZE - 11, Cut.FIXED)],
        [Region(5, SIZE - 5, Cut.FIXED)],
        [],
    ],
)
def test_regions_that_do_not_fit_are_a_defect(regions: list[Region]) -> None:
    with pytest.raises(ValueError, match="no region starts"):
        list(Chunker(regions).feed(BLOB))


def test_a_blob_that_ends_early_is_seen() -> None:
    for regions in (
        [Region(0, 20, Cut.FIXED)],
        [Region(0, 10, Cut.FIXED), Region(10, 5, Cut.FIXED)],
    ):
        chunker = Chunker(regions)
        list(chunker.feed(bytes(10)))
        with pytest.raises(ValueError, match="ends before"):
            chunker.finish()


def test_what_is_hashed_is_cut_beside_it() -> None:
    chunks: list[Chunk] = []
    lengths: list[int] = []
    chunker = Chunker(MIXED)
    give = chunker.giving(chunks.append, lambda chunk: lengths.append(chunk.length))
    assert digest_stream(io.BytesIO(BLOB), SIZE, also=[give]) == Digest.of(BLOB)
    assert chunker.finish() == SIZE
    assert chunks == WHOLE
    assert sum(lengths) == SIZE


def test_without_the_library_the_error_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "pyfastcdc", None)
    assert cut(b"abc", [Region(0, 3, Cut.FIXED)])
    with pytest.raises(DependencyMissing, match=r"Install sealift\[connect\]"):
        cut(b"abc", plain_regions(3))


def test_zeros_are_cut_too() -> None:
    chunks = cut(bytes(2_000_000), plain_regions(2_000_000))
    assert len(chunks) == -(-2_000_000 // (4 * limits.COARSE_CHUNK_BYTES))


def test_memory_stays_flat() -> None:
    import tracemalloc

    portion = random.Random(9).randbytes(1 << 20)
    chunker = Chunker(plain_regions(64 << 20))
    tracemalloc.start()
    try:
        for _ in range(64):
            for _chunk in chunker.feed(portion):
                pass
        assert tracemalloc.get_traced_memory()[1] < 6 << 20
    finally:
        tracemalloc.stop()
