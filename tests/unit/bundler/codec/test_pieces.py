"""Blobs in pieces: in order, on several threads, verified before they are opened."""

from __future__ import annotations

import io
import random
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bundler.archive import pieces
from bundler.archive.codec import Encoding, EncodingChoice, encode_piece
from bundler.archive.pieces import (
    Segment,
    decode_pieces,
    decode_segment,
    decode_stream,
    default_workers,
    encode_pieces,
    encode_stream,
)
from registry.digest import Digest
from registry.verify import VerifyingReader
from schemas import limits
from schemas.errors import ContentMismatch, MalformedArchive, StorageFull

PIECE = 64 * limits.KIB
CHOICE = EncodingChoice(Encoding.PLANES2, 1)


@pytest.fixture(autouse=True)
def _small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "PIECE_BYTES", PIECE)


@cache
def blob_of(size: int) -> bytes:
    half = random.Random(size).randbytes(size // 2)
    return b"".join(bytes([a, 7]) for a in half) + bytes(size % 2)


@cache
def stored_form(blob: bytes) -> tuple[bytes, tuple[Segment, ...]]:
    sink = io.BytesIO()
    segments = encode_stream(io.BytesIO(blob), len(blob), CHOICE, sink)
    return sink.getvalue(), tuple(segments)


@pytest.mark.parametrize("workers", [1, 2, 5, None])
@pytest.mark.parametrize("size", [0, 1, PIECE - 1, PIECE, PIECE + 1, 9 * PIECE + 3])
def test_a_blob_comes_back(size: int, workers: int | None) -> None:
    blob = blob_of(size)
    stored, back = io.BytesIO(), io.BytesIO()
    seen: list[int] = []
    segments = encode_stream(
        io.BytesIO(blob + b"next"), size, CHOICE, stored, workers=workers, progress=seen.append
    )
    assert sum(seen) == size
    assert len(segments) == -(-size // PIECE)
    stored.write(b"next member")
    stored.seek(0)
    decode_stream(
        stored, segments, size, CHOICE.encoding, back, workers=workers, progress=seen.append
    )
    assert back.getvalue() == blob
    assert stored.read() == b"next member"
    assert sum(seen) == 2 * size


def test_the_result_does_not_depend_on_the_threads() -> None:
    blob = blob_of(7 * PIECE)
    results = [
        [one.segment for one in encode_pieces(io.BytesIO(blob), len(blob), CHOICE, workers=count)]
        for count in (1, 4)
    ]
    assert results[0] == results[1]
    frame = encode_piece(CHOICE.encoding, CHOICE.level, blob[:PIECE])
    assert results[0][0] == Segment(len(frame), Digest.of(frame))


@given(flips=st.lists(st.integers(0, 10**9), min_size=1, max_size=3))
def test_a_flipped_bit_anywhere_is_seen_before_decoding(flips: list[int]) -> None:
    blob = blob_of(3 * PIECE)
    stored, segments = stored_form(blob)
    changed = bytearray(stored)
    for flip in set(flips):
        changed[flip % len(changed)] ^= 1 << flip % 8
    if changed != stored:
        with pytest.raises(ContentMismatch):
            decode_stream(io.BytesIO(changed), segments, len(blob), CHOICE.encoding, io.BytesIO())


@given(cut=st.integers(0, 10**9))
def test_a_cut_anywhere_is_seen(cut: int) -> None:
    blob = blob_of(2 * PIECE)
    stored, segments = stored_form(blob)
    with pytest.raises(ContentMismatch):
        decode_stream(
            io.BytesIO(stored[: cut % len(stored)]),
            segments,
            len(blob),
            CHOICE.encoding,
            io.BytesIO(),
        )


def attacks(
    segments: Sequence[Segment], size: int
) -> Iterator[tuple[str, Sequence[Segment], int, type[Exception]]]:
    yield "swapped", [segments[1], segments[0], *segments[2:]], size, ContentMismatch
    yield "repeated", [segments[0], segments[0], *segments[2:]], size, ContentMismatch
    yield "one-missing", segments[:-1], size, MalformedArchive
    yield "one-more", [*segments, segments[0]], size, MalformedArchive
    yield "size-of-another-blob", segments, size + PIECE, MalformedArchive
    yield "size-one-less", segments, size - 1, MalformedArchive
    huge = replace(segments[0], size=2 * PIECE)
    yield "segment-too-large", [huge, *segments[1:]], size, MalformedArchive
    foreign = encode_piece(Encoding.ZSTD, 1, bytes(PIECE - 1))
    yield (
        "signed-but-short",
        [*segments[:-1], Segment(len(foreign), Digest.of(foreign))],
        size,
        MalformedArchive,
    )


@pytest.mark.parametrize("number", range(8))
def test_wrong_segments_are_refused(number: int) -> None:
    blob = blob_of(4 * PIECE)
    stored, segments = stored_form(blob)
    name, wrong, size, error = list(attacks(segments, len(blob)))[number]
    data = stored
    if name == "signed-but-short":
        keep = sum(segment.size for segment in segments[:-1])
        data = stored[:keep] + encode_piece(Encoding.ZSTD, 1, bytes(PIECE - 1))
    with pytest.raises(error):
        decode_stream(io.BytesIO(data), wrong, size, CHOICE.encoding, io.BytesIO())


def test_another_encoding_than_signed_gives_other_bytes_never_a_crash() -> None:
    blob = blob_of(PIECE)
    stored, segments = stored_form(blob)
    back = decode_segment(Encoding.PLANES4, stored, segments[0], PIECE)
    assert back != blob
    assert len(back) == PIECE


def test_a_segment_is_not_opened_before_its_digest_is_right(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    opened: list[object] = []
    monkeypatch.setattr(pieces, "decode_piece", lambda *args: opened.append(args))
    with pytest.raises(ContentMismatch):
        decode_segment(Encoding.ZSTD, b"x", Segment(1, Digest.of(b"y")), 5)
    assert opened == []


def test_a_source_that_changes_is_seen() -> None:
    blob = blob_of(3 * PIECE)
    source = VerifyingReader(io.BytesIO(blob), Digest.of(blob + b"!"), len(blob))
    with pytest.raises(ContentMismatch):
        encode_stream(source, len(blob), CHOICE, io.BytesIO())
    with pytest.raises(ContentMismatch, match="too early"):
        encode_stream(io.BytesIO(blob), len(blob) + 1, CHOICE, io.BytesIO())


@pytest.mark.parametrize("encoding", [Encoding.IDENTITY, Encoding.ZSTD, Encoding.PLANES4])
def test_memory_is_used_again_but_never_too_early(encoding: Encoding) -> None:
    blob = blob_of(30 * PIECE + 77)
    choice = EncodingChoice(encoding, 1)
    stored = list(encode_pieces(io.BytesIO(blob), len(blob), choice))
    segments = [piece.segment for piece in stored]
    back = []
    for raw in decode_pieces(
        (bytes(piece.data) for piece in stored), segments, len(blob), encoding, workers=4
    ):
        time.sleep(0.001)  # the others go on meanwhile
        back.append(bytes(raw))
    assert b"".join(back) == blob


def test_few_pieces_are_under_way_and_no_thread_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    blob = blob_of(20 * PIECE)
    stored, segments = stored_form(blob)
    source = io.BytesIO(stored)
    taken = [0]

    def one_by_one() -> Iterator[bytes]:
        for segment in segments:
            taken[0] += 1
            yield source.read(segment.size)

    before = threading.active_count()
    with closing(
        decode_pieces(one_by_one(), segments, len(blob), CHOICE.encoding, workers=2)
    ) as raw:
        next(raw)
        assert taken[0] == 3
    assert threading.active_count() == before


class Full:
    """A disk that fills up."""

    def write(self, data: memoryview, /) -> int:
        raise StorageFull("cannot write")


def test_a_full_disk_ends_it_and_its_threads() -> None:
    blob = blob_of(20 * PIECE)
    before = threading.active_count()
    with pytest.raises(StorageFull):
        encode_stream(io.BytesIO(blob), len(blob), CHOICE, Full())
    stored, segments = stored_form(blob)
    with pytest.raises(StorageFull):
        decode_stream(io.BytesIO(stored), segments, len(blob), CHOICE.encoding, Full())
    assert threading.active_count() == before


class Drops:
    """A sink that takes a few bytes at a time."""

    def __init__(self) -> None:
        self.data = b""

    def write(self, data: memoryview, /) -> int:
        self.data += data[:10_000]
        return min(len(data), 10_000)


def test_a_slow_sink_gets_everything() -> None:
    blob = blob_of(2 * PIECE)
    sink = Drops()
    segments = encode_stream(io.BytesIO(blob), len(blob), CHOICE, sink)
    assert len(sink.data) == sum(segment.size for segment in segments)


def test_workers_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(64)))
    assert default_workers() == limits.PIECE_WORKERS
    assert default_workers(slow=True) == limits.PIECE_WORKERS_SLOW
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0})
    assert default_workers() == 1


def test_an_empty_segment_is_no_segment() -> None:
    with pytest.raises(ValueError, match="at least one"):
        Segment(0, Digest.of(b""))
