"""Pieces: every byte string comes back; what is not one proper frame is refused, cheaply."""

from __future__ import annotations

import random
import struct
import tracemalloc
from collections.abc import Callable

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from bundler.archive.codec import (
    AS_IT_IS,
    ENTROPY_LEVEL,
    QUICK_LEVEL,
    SLOW_LEVEL,
    Compression,
    ElementHint,
    Encoding,
    EncodingChoice,
    choose_encoding,
    decode_piece,
    encode_piece,
    piece_sizes,
    stored_limit,
)
from schemas.errors import MalformedArchive
from schemas.limits import CODED_BYTES, KIB, MIB, PIECE_BYTES, SAMPLE_BYTES, SAMPLES
from tests.support import zstd_frames as frames
from tests.support.zstd_frames import Frame

CODED = [Encoding.ZSTD, Encoding.PLANES2, Encoding.PLANES4]
LEVELS = [ENTROPY_LEVEL, 1, QUICK_LEVEL, 9]
SOME = 100 * KIB  # raw bytes of the hand-made frames

some_encoding = st.sampled_from(CODED)
some_level = st.sampled_from(LEVELS)
# Long runs and short ones, so that blocks of every type come up.
some_bytes = st.one_of(
    st.binary(min_size=1, max_size=3000),
    st.builds(lambda part, times: part * times, st.binary(min_size=1, max_size=9), st.integers(1, 40_000)),
)  # fmt: skip


def noise(size: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size)


def weights(count: int, code: str, seed: int = 1) -> bytes:
    """Numbers as layers have them: normally distributed, small."""
    source = random.Random(seed)
    values = [source.gauss(0, 0.05) for _ in range(count)]
    if code == "bf16":
        raw = struct.pack(f"<{count}f", *values)
        return b"".join(raw[i + 2 : i + 4] for i in range(0, len(raw), 4))
    return struct.pack(f"<{count}{code}", *values)


def sampler(blob: bytes) -> Callable[[int, int], bytes]:
    def sample(offset: int, length: int) -> bytes:
        assert 0 <= offset < offset + length <= len(blob)
        return blob[offset : offset + length]

    return sample


@given(raw=some_bytes, encoding=some_encoding, level=some_level)
def test_any_bytes_come_back(raw: bytes, encoding: Encoding, level: int) -> None:
    stored = encode_piece(encoding, level, raw)
    assert len(stored) <= stored_limit(len(raw))
    assert decode_piece(encoding, stored, len(raw)) == raw


@pytest.mark.parametrize("encoding", CODED)
@pytest.mark.parametrize("size", [1, 127 * KIB, 128 * KIB, 128 * KIB + 1, PIECE_BYTES])
def test_noise_never_grows_beyond_the_limit(size: int, encoding: Encoding) -> None:
    raw = noise(size)
    stored = encode_piece(encoding, ENTROPY_LEVEL, raw)
    assert size < len(stored) <= stored_limit(size)
    assert decode_piece(encoding, bytearray(stored), size) == raw


@given(raw=some_bytes, encoding=some_encoding, data=st.data())
def test_a_changed_frame_is_refused_or_has_the_same_length(
    raw: bytes, encoding: Encoding, data: st.DataObject
) -> None:
    stored = bytearray(encode_piece(encoding, QUICK_LEVEL, raw))
    at = data.draw(st.integers(0, len(stored) - 1))
    stored[at] ^= data.draw(st.integers(1, 255))
    try:
        decoded = decode_piece(encoding, stored, len(raw))
    except MalformedArchive:
        return
    assert len(decoded) == len(raw)  # a changed literal: what its digest is there for


@given(raw=some_bytes, encoding=some_encoding, data=st.data())
def test_a_cut_frame_is_refused(raw: bytes, encoding: Encoding, data: st.DataObject) -> None:
    stored = encode_piece(encoding, QUICK_LEVEL, raw)
    with pytest.raises(MalformedArchive):
        decode_piece(encoding, stored[: data.draw(st.integers(0, len(stored) - 1))], len(raw))


@given(junk=st.binary(max_size=300), size=st.integers(1, PIECE_BYTES), encoding=some_encoding)
def test_junk_is_refused(junk: bytes, size: int, encoding: Encoding) -> None:
    for stored in (junk, frames.MAGIC + junk):
        try:
            decoded = decode_piece(encoding, stored, size)
        except MalformedArchive:
            continue
        assert len(decoded) == size


@given(raw=some_bytes, wrong=st.integers(1, PIECE_BYTES))
def test_another_size_than_the_piece_has_is_refused(raw: bytes, wrong: int) -> None:
    stored = encode_piece(Encoding.ZSTD, 1, raw)
    if wrong != len(raw):
        with pytest.raises(MalformedArchive):
            decode_piece(Encoding.ZSTD, stored, wrong)


BLOCKS = frames.raw_block(bytes(SOME))
HONEST = Frame(BLOCKS, SOME)
BOMBS = {
    "declares-more": frames.bomb(2**40, 1),
    "declares-16-exabytes": frames.bomb(2**64 - 3, 1),
    "declares-unknown": frames.bomb(2**64 - 1, 1),
    "holds-more": frames.bomb(SOME, 400),
    "holds-more-in-blocks-of-2-mib": Frame(frames.rle_block(0, 2**21 - 1), SOME).build(),
    "window-of-2-exabytes": Frame(frames.rle_block(0, SOME), SOME, window=0xFF, checksum=b"1234").build(),
    "no-size-holds-more": Frame(frames.rle_block(0, 2**21 - 1), None, window=0xA0).build(),
}  # fmt: skip
FLAWED = BOMBS | {
    "empty": b"",
    "magic-only": frames.MAGIC,
    "holds-less": Frame(frames.raw_block(bytes(SOME - 1)), SOME).build(),
    "declares-less": Frame(BLOCKS, SOME - 1).build(),
    "declares-nothing": Frame(BLOCKS, None, window=0x50).build(),
    "dictionary": Frame(BLOCKS, SOME, dictionary=7).build(),
    "checksum-wrong": Frame(BLOCKS, SOME, checksum=b"1234").build(),
    "block-reserved": Frame(frames.reserved_block(), SOME).build(),
    "block-not-last": Frame(frames.raw_block(bytes(SOME), last=False), SOME).build(),
    "trailing-byte": HONEST.build() + b"\0",
    "trailing-frame": HONEST.build() + HONEST.build(),
    "trailing-empty-frame": HONEST.build() + Frame(frames.raw_block(b""), 0).build(),
    "trailing-skippable": HONEST.build() + frames.skippable(b"hidden"),
    "leading-skippable": frames.skippable(b"hidden") + HONEST.build(),
    "skippable-of-that-size": frames.skippable(bytes(SOME)),
    "two-halves": Frame(frames.raw_block(bytes(SOME // 2)), SOME // 2).build() * 2,
    "magic-of-version-0.7": b"\x27\xb5\x2f\xfd" + HONEST.build()[4:],
    "magicless": HONEST.build()[4:],
    "gzip": b"\x1f\x8b\x08" + bytes(50),
    "raw": bytes(SOME),
}


def test_the_honest_frame_by_hand_is_read() -> None:
    assert decode_piece(Encoding.ZSTD, HONEST.build(), SOME) == bytes(SOME)


@pytest.mark.parametrize("encoding", CODED)
@pytest.mark.parametrize("flaw", FLAWED)
def test_a_flawed_frame_is_refused(flaw: str, encoding: Encoding) -> None:
    with pytest.raises(MalformedArchive):
        decode_piece(encoding, FLAWED[flaw], SOME)


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_bomb_costs_no_more_memory_than_the_piece(bomb: str) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(MalformedArchive):
            decode_piece(Encoding.PLANES2, BOMBS[bomb], SOME)
        assert tracemalloc.get_traced_memory()[1] < 4 * SOME + 1 * MIB
    finally:
        tracemalloc.stop()


def test_a_frame_longer_than_any_encoding_is_not_even_opened() -> None:
    empty_blocks = frames.raw_block(b"", last=False) * MIB
    with pytest.raises(MalformedArchive):
        decode_piece(Encoding.ZSTD, Frame(empty_blocks + BLOCKS, SOME).build(), SOME)


@pytest.mark.parametrize("encoding", [Encoding.IDENTITY, Encoding.DELTA])
def test_only_the_zstd_encodings_have_pieces(encoding: Encoding) -> None:
    with pytest.raises(ValueError, match="zstd encoding"):
        encode_piece(encoding, 1, b"x")
    with pytest.raises(ValueError, match="zstd encoding"):
        decode_piece(encoding, b"x", 1)


@pytest.mark.parametrize("size", [0, PIECE_BYTES + 1])
def test_a_piece_has_its_bounds(size: int) -> None:
    with pytest.raises(ValueError, match="piece"):
        encode_piece(Encoding.ZSTD, 1, bytes(size))
    with pytest.raises(MalformedArchive, match="piece"):
        decode_piece(Encoding.ZSTD, HONEST.build(), size)


def test_frames_say_their_size_and_need_no_more_than_the_piece() -> None:
    raw = weights(200_000, "e")
    for level in (*LEVELS, SLOW_LEVEL):
        header = zstandard.get_frame_parameters(encode_piece(Encoding.PLANES2, level, raw))
        assert header.content_size == len(raw)
        assert header.window_size <= PIECE_BYTES
        assert not header.dict_id


def test_pieces_cover_a_blob() -> None:
    assert list(piece_sizes(0)) == []
    assert list(piece_sizes(1)) == [1]
    assert list(piece_sizes(PIECE_BYTES)) == [PIECE_BYTES]
    assert list(piece_sizes(2 * PIECE_BYTES + 5)) == [PIECE_BYTES, PIECE_BYTES, 5]


@pytest.mark.parametrize("mode", [Compression.AUTO, Compression.MAX])
@pytest.mark.parametrize(
    ("code", "encoding", "ratio"),
    [("bf16", Encoding.PLANES2, 0.72), ("e", Encoding.PLANES2, 0.9), ("f", Encoding.PLANES4, 0.88)],
)
def test_weights_travel_in_planes(
    code: str, encoding: Encoding, ratio: float, mode: Compression
) -> None:
    blob = weights(200_000, code)
    hints = [None, ElementHint(encoding.planes)]
    for choice in [
        choose_encoding(sampler(blob), len(blob), mode=mode, hint=hint) for hint in hints
    ]:
        assert choice.encoding is encoding
        assert choice.level == ENTROPY_LEVEL
        stored = encode_piece(choice.encoding, choice.level, blob)
        assert len(stored) / len(blob) == pytest.approx(choice.ratio, abs=0.02)
        assert choice.ratio < ratio


@pytest.mark.parametrize("mode", list(Compression))
def test_noise_travels_as_it_is(mode: Compression) -> None:
    blob = noise(2 * MIB)
    assert choose_encoding(sampler(blob), len(blob), mode=mode) == AS_IT_IS


def test_text_is_compressed_plainly_and_harder_on_request() -> None:
    words = random.Random(3).choices([noise(9, n).hex() for n in range(400)], k=60_000)
    blob = "\n".join(words).encode()
    auto = choose_encoding(sampler(blob), len(blob), mode=Compression.AUTO)
    most = choose_encoding(sampler(blob), len(blob), mode=Compression.MAX)
    assert (auto.encoding, auto.level, auto.slow) == (Encoding.ZSTD, QUICK_LEVEL, False)
    assert (most.encoding, most.level, most.slow) == (Encoding.ZSTD, SLOW_LEVEL, True)
    assert most.ratio < auto.ratio


def test_nothing_is_read_where_nothing_is_wanted() -> None:
    def never(offset: int, length: int) -> bytes:
        raise AssertionError((offset, length))

    assert choose_encoding(never, 2**40, mode=Compression.NONE) == AS_IT_IS
    assert choose_encoding(never, CODED_BYTES - 1, mode=Compression.MAX) == AS_IT_IS


def test_samples_are_few_and_spread_over_the_whole_blob() -> None:
    size = 2**40 + 12_345
    asked: list[tuple[int, int]] = []

    def sample(offset: int, length: int) -> bytes:
        asked.append((offset, length))
        return bytes(length)

    choose_encoding(sample, size, mode=Compression.AUTO)
    assert sum(length for _, length in asked) == SAMPLES * SAMPLE_BYTES
    assert all(offset % 8 == 0 for offset, _ in asked)
    assert [offset * SAMPLES // size for offset, _ in asked] == list(range(SAMPLES))


@pytest.mark.parametrize("element_size", [0, 3, 8])
def test_hints_are_checked(element_size: int) -> None:
    with pytest.raises(ValueError, match="element"):
        ElementHint(element_size)


def test_choices_are_checked() -> None:
    with pytest.raises(ValueError, match="delta"):
        EncodingChoice(Encoding.DELTA)
    with pytest.raises(ValueError, match="level"):
        EncodingChoice(Encoding.ZSTD, 23)


def test_the_words_of_the_descriptor() -> None:
    assert {str(encoding): encoding.suffix for encoding in Encoding} == {
        "identity": "",
        "zstd": ".zst",
        "zstd-planes2": ".zp2",
        "zstd-planes4": ".zp4",
        "delta": ".delta",
    }
