"""Encoding and decoding blobs piece by piece: several at a time, in order, in constant memory.

zstd and SHA-256 release the GIL, so threads use all cores. With two workers no more than three
pieces are under way; raw and stored together that is at most the memory of six. Raw pieces use the
same memory again and again: new pages from the kernel cost as much as decoding into them.
"""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeVar

from bundler.archive.codec import (
    Encoding,
    EncodingChoice,
    decode_piece,
    encode_piece,
    piece_sizes,
    stored_limit,
)
from registry.digest import Digest
from registry.pipeline import Readable, read_some
from registry.verify import Writable
from schemas import limits
from schemas.errors import ContentMismatch, MalformedArchive, MalformedDocument

if TYPE_CHECKING:
    from concurrent.futures import Future

_In = TypeVar("_In")
_Out = TypeVar("_Out")

_COPY_AGAIN: Final = "Copy the bundle again from its source, and compare"

Progress = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Segment:
    """A run of a blob's stored bytes that is verified by itself.

    Attributes:
        size: In bytes.
        digest: Of these bytes.
    """

    size: int
    digest: Digest

    def __post_init__(self) -> None:
        if self.size <= 0:
            raise ValueError("a segment has at least one byte")
        check_algorithm(self.digest)


def check_algorithm(digest: Digest) -> None:
    """See that a digest of a bundle is SHA-256; others do not fit into a member's name.

    Raises:
        MalformedDocument: It is of another kind.
    """
    if digest.algorithm != "sha256":
        raise MalformedDocument(
            f"digest {digest.short} is of an unusual kind",
            why=f"{digest.algorithm} where bundles use sha256",
        )


@dataclass(frozen=True, slots=True)
class StoredPiece:
    """One encoded piece, with all that the descriptor says of it.

    Attributes:
        segment: Size and digest of the stored bytes.
        data: The stored bytes.
        raw_size: Of the piece.
    """

    segment: Segment
    data: bytes
    raw_size: int


def encode_pieces(
    source: Readable, size: int, choice: EncodingChoice, *, workers: int | None = None
) -> Generator[StoredPiece]:
    """Encode a blob; the pieces come in order.

    Args:
        source: Read from where it stands, in the calling thread; whoever wants to be sure of what
            it gives passes a `registry.verify.VerifyingReader`.
        size: Of the blob, in bytes; more is not read.
        choice: One of the zstd encodings; or identity, which only the literals of a delta have in
            pieces like these.
        workers: Threads; by default as many as there are cores, up to ``PIECE_WORKERS`` (slow
            levels: ``…_SLOW``).

    Raises:
        ContentMismatch: The source ends early.
    """

    def encode(raw: bytearray) -> StoredPiece:
        if choice.encoding is Encoding.IDENTITY:
            data = bytes(raw)
        else:
            data = encode_piece(choice.encoding, choice.level, raw)
        spare.give(raw)
        return StoredPiece(Segment(len(data), _digest(data)), data, len(raw))

    spare = _Spare()
    pieces = (_fill(source, spare.take(raw_size)) for raw_size in piece_sizes(size))
    return _in_order(encode, pieces, workers or default_workers(slow=choice.slow))


def encode_stream(
    source: Readable,
    size: int,
    choice: EncodingChoice,
    sink: Writable,
    *,
    workers: int | None = None,
    progress: Progress | None = None,
) -> list[Segment]:
    """As :func:`encode_pieces`, one after the other into a sink.

    Args:
        source: See `encode_pieces`.
        size: See `encode_pieces`.
        choice: See `encode_pieces`.
        sink: Takes the stored bytes.
        workers: See `encode_pieces`.
        progress: Called with the raw bytes of each piece.

    Returns:
        What was written, for the descriptor.
    """
    segments = []
    with closing(encode_pieces(source, size, choice, workers=workers)) as pieces:
        for piece in pieces:
            write_all(sink, piece.data)
            segments.append(piece.segment)
            if progress is not None:
                progress(piece.raw_size)
    return segments


def decode_pieces(
    stored: Iterable[bytes | bytearray],
    segments: Sequence[Segment],
    size: int,
    encoding: Encoding,
    *,
    workers: int | None = None,
) -> Generator[bytes | bytearray]:
    """Verify and decode a blob's segments; the raw pieces come in order.

    A piece is only good until the next one is asked for: its memory is used again.

    Args:
        stored: The bytes of each segment, read in the calling thread as room comes free.
        segments: What they must be; signed.
        size: Of the blob, in bytes; signed.
        encoding: As `encode_pieces` was told.
        workers: Threads; by default as many as there are cores, up to ``PIECE_WORKERS``.

    Raises:
        ContentMismatch: A segment has other bytes than its digest says; before it is decoded.
        MalformedArchive: The segments cannot be this blob's, or one is no proper frame.
    """
    check_segments(segments, size)
    items = zip(stored, segments, piece_sizes(size), strict=True)
    return decode_run(items, encoding, workers=workers)


def decode_run(
    items: Iterable[tuple[bytes | bytearray, Segment, int]],
    encoding: Encoding,
    *,
    workers: int | None = None,
) -> Generator[bytes | bytearray]:
    """As :func:`decode_pieces`, of any segments of a blob.

    Args:
        items: Stored bytes, what they must be, and the piece's raw size; read in the calling
            thread as room comes free.
        encoding: See `decode_pieces`.
        workers: See `decode_pieces`.
    """

    def decode(item: tuple[bytes | bytearray, Segment, int]) -> bytes | bytearray:
        into = spare.take(item[2]) if encoding.planes > 1 else None
        return decode_segment(encoding, *item, into)

    spare = _Spare()
    with closing(_in_order(decode, items, workers or default_workers())) as pieces:
        for raw in pieces:
            yield raw
            if encoding.planes > 1 and isinstance(raw, bytearray):
                spare.give(raw)


def decode_stream(
    source: Readable,
    segments: Sequence[Segment],
    size: int,
    encoding: Encoding,
    sink: Writable,
    *,
    workers: int | None = None,
    progress: Progress | None = None,
) -> None:
    """As :func:`decode_pieces`, from one stream into a sink.

    Args:
        source: Read from where it stands, not past the last segment.
        segments: See `decode_pieces`.
        size: See `decode_pieces`.
        encoding: See `decode_pieces`.
        sink: Takes the raw bytes; the digest of the whole is the caller's to compare.
        workers: See `decode_pieces`.
        progress: Called with the raw bytes of each piece.
    """
    stored = (_fill(source, bytearray(segment.size)) for segment in segments)
    with closing(decode_pieces(stored, segments, size, encoding, workers=workers)) as pieces:
        for raw in pieces:
            write_all(sink, raw)
            if progress is not None:
                progress(len(raw))


def decode_segment(
    encoding: Encoding,
    stored: bytes | bytearray,
    segment: Segment,
    raw_size: int,
    into: bytearray | None = None,
) -> bytes | bytearray:
    """Verify and decode one segment, for whoever has them out of order.

    Args:
        encoding: See `decode_pieces`.
        stored: Its bytes.
        segment: What they must be; signed.
        raw_size: Of the piece, in bytes.
        into: Memory that may be used for the result; see `codec.decode_piece`.

    Raises:
        ContentMismatch: Other bytes than its digest says.
        MalformedArchive: No proper frame of ``raw_size`` bytes.
    """
    if len(stored) != segment.size or _digest(stored) != segment.digest:
        raise ContentMismatch(
            f"segment {segment.digest.short} has other bytes than were signed", hint=_COPY_AGAIN
        )
    if encoding is not Encoding.IDENTITY:
        return decode_piece(encoding, stored, raw_size, into)
    if len(stored) != raw_size:
        raise MalformedArchive(
            f"segment {segment.digest.short} is no piece",
            why=f"{len(stored)} bytes, not {raw_size}",
        )
    return stored


def check_segments(segments: Sequence[Segment], size: int) -> None:
    """See that segments could be a blob's pieces, before anything is read.

    Raises:
        MalformedArchive: Too many, too few, or one too large for its piece.
    """
    pieces = -(-size // limits.PIECE_BYTES)
    if len(segments) != pieces:
        raise MalformedArchive(
            f"a compressed blob has {len(segments)} segments", why=f"{pieces} pieces make {size}"
        )
    for segment, raw_size in zip(segments, piece_sizes(size), strict=True):
        if segment.size > stored_limit(raw_size):
            raise MalformedArchive(
                f"segment {segment.digest.short} is larger than any encoding of its piece",
                why=f"{segment.size} bytes for {raw_size}",
            )


def default_workers(*, slow: bool = False) -> int:
    """Threads for pieces: the cores, within what memory and the level are worth."""
    most = limits.PIECE_WORKERS_SLOW if slow else limits.PIECE_WORKERS
    return max(1, min(len(os.sched_getaffinity(0)), most))


def write_all(sink: Writable, data: bytes | bytearray) -> None:
    """Hand all of it to a sink that may take less at a time."""
    view = memoryview(data)
    while view:
        taken = sink.write(view)
        view = view[len(view) if taken is None else taken :]


def _digest(data: bytes | bytearray) -> Digest:
    return Digest("sha256", hashlib.sha256(data).hexdigest())


class _Spare:
    """Memory of pieces that are done with."""

    def __init__(self) -> None:
        self._free: deque[bytearray] = deque()  # its ends are safe between threads

    def take(self, size: int) -> bytearray:
        """Memory of that size, with anything in it."""
        if size == limits.PIECE_BYTES:
            with suppress(IndexError):
                return self._free.pop()
        return bytearray(size)

    def give(self, memory: bytearray) -> None:
        """Hand back what `take` gave."""
        if len(memory) == limits.PIECE_BYTES:
            self._free.append(memory)


def _fill(source: Readable, buffer: bytearray) -> bytearray:
    view = memoryview(buffer)
    while view:
        count = read_some(source, view)
        if count == 0:
            raise ContentMismatch("content ends too early", why=f"{len(view)} bytes are missing")
        view = view[count:]
    return buffer


def _in_order(work: Callable[[_In], _Out], items: Iterable[_In], workers: int) -> Generator[_Out]:
    """``map`` on threads: results in order, at most ``workers + 1`` items under way.

    Ends its threads when it is exhausted, fails, or is closed.
    """
    from concurrent.futures import ThreadPoolExecutor

    under_way: deque[Future[_Out]] = deque()
    pool = ThreadPoolExecutor(workers, thread_name_prefix="sealift-piece")
    try:
        for item in items:
            under_way.append(pool.submit(work, item))
            del item  # the piece's memory is the worker's to free
            if len(under_way) > workers:
                yield under_way.popleft().result()
        while under_way:
            yield under_way.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
