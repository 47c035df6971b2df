"""How each large blob of a bundle will be stored: as it is, in segments, or encoded.

What is encoded is written into the workbench beside the output before anything is signed: its size
and digests stand in the signed descriptor, which comes first in the file.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final, Self

from bundler.archive.codec import Compression, Encoding, EncodingChoice, choose_encoding
from bundler.archive.delta import store_delta
from bundler.archive.pieces import Segment, encode_pieces, write_all
from bundler.chunks.recipes import Delta
from bundler.contents import DELTA, IDENTITY, Entry
from bundler.files import open_regular, write_file
from bundler.sources import LocalBlob
from bundler.workbench import Workbench
from registry.digest import Digest
from registry.pipeline import read_some
from registry.staging import sync_folder
from registry.verify import VerifyingReader, digest_stream, storage_errors
from schemas import limits
from schemas.render import Meter

_PIECE_LINE: Final = re.compile(rb"([0-9]{1,9}) ([0-9a-f]{64})")


@dataclass(frozen=True, slots=True)
class Stored:
    """A large blob, ready to be written.

    Attributes:
        entry: Its place in the descriptor.
        label: For people.
        open: Opens its stored bytes.
    """

    entry: Entry
    label: str
    open: Callable[[], BinaryIO]


def store(
    source: LocalBlob,
    *,
    compression: Compression,
    piece: int | None,
    bench: Workbench,
    progress: Meter,
) -> Stored:
    """Decide how a file is stored, and prepare that.

    What an interrupted attempt decided and encoded is taken over.

    Args:
        source: Hashed already.
        compression: What the operator wants.
        piece: Bytes per segment of a blob that travels as it is; None leaves it whole.
        bench: Takes encoded bytes.
        progress: Told of the bytes read.

    Raises:
        ContentMismatch: The file changed since it was hashed.
        StorageFull, StorageFailure: The disk says no.
    """
    if source.size < limits.CODED_BYTES and source.delta is None:
        # Decided again sooner than read, and there may be very many of them.
        plain = _make(source, compression, piece, bench, progress)
        return Stored(plain, source.label, source.open)
    entry = bench.entry(source.digest)
    if entry is None or not _usable(entry, source, bench):
        entry = _make(source, compression, piece, bench, progress)
        bench.keep_entry(entry)
        bench.pieces(source.digest).unlink(missing_ok=True)
    if entry.encoding == IDENTITY:
        return Stored(entry, source.label, source.open)
    path = bench.spool(source.digest)
    return Stored(entry, source.label, lambda: open_regular(path))


def _usable(entry: Entry, source: LocalBlob, bench: Workbench) -> bool:
    if (entry.digest, entry.size) != (source.digest, source.size):
        return False
    path = bench.spool(source.digest)
    return entry.encoding == IDENTITY or (
        path.is_file() and path.stat().st_size == entry.stored_size
    )


def _make(
    source: LocalBlob,
    compression: Compression,
    piece: int | None,
    bench: Workbench,
    progress: Meter,
) -> Entry:
    if source.delta is not None:
        return _delta(source, source.delta, compression, bench, progress)
    with source.open() as file, storage_errors(f"cannot read {source.file.path}"):
        fd = file.fileno()
        choice = choose_encoding(
            lambda offset, length: os.pread(fd, length, offset), source.size, mode=compression
        )
    if choice.encoding is not Encoding.IDENTITY:
        return _encode(source, choice, bench, progress)
    if piece is None or source.size <= piece:
        return Entry(source.digest, source.size)
    cut = source.piece == piece
    segments = source.segments if cut else _segments(source, piece, progress)
    return Entry(source.digest, source.size, IDENTITY, piece, segments)


def _encode(source: LocalBlob, choice: EncodingChoice, bench: Workbench, progress: Meter) -> Entry:
    path = bench.spool(source.digest)
    progress.begin(f"compressing {source.label}", source.size)
    with (
        storage_errors(f"cannot write {path}"),
        source.open() as file,
        _Spool(bench, source.digest, f"{choice.encoding} {choice.level}") as spool,
    ):
        done = min(len(spool.segments) * limits.PIECE_BYTES, source.size)
        whole = VerifyingReader(file, source.digest, source.size)
        _pass_over(whole, done, progress)
        if done < source.size:
            with closing(encode_pieces(whole, source.size - done, choice)) as pieces:
                for each in pieces:
                    spool.add(each.segment, each.data)
                    progress.advance(each.raw_size)
    return Entry(
        source.digest,
        source.size,
        str(choice.encoding),
        limits.PIECE_BYTES,
        tuple(spool.segments),
    )


def _delta(
    source: LocalBlob, delta: Delta, compression: Compression, bench: Workbench, progress: Meter
) -> Entry:
    path = bench.spool(source.digest)
    progress.begin(f"taking the difference of {source.label}", delta.recipe.literal_size)
    segments = []
    with (
        storage_errors(f"cannot write {path}"),
        source.open() as file,
        path.open("wb", buffering=0) as sink,
    ):
        for piece in store_delta(delta.recipe, file.fileno(), mode=compression):
            write_all(sink, piece.data)
            segments.append(piece.segment)
            progress.advance(piece.raw_size)
        os.fsync(sink.fileno())
        sync_folder(path.parent)
    return Entry(
        source.digest, source.size, DELTA, limits.PIECE_BYTES, tuple(segments), delta.bases
    )


def _segments(source: LocalBlob, piece: int, progress: Meter) -> tuple[Segment, ...]:
    progress.begin(f"cutting {source.label}", source.size)
    with source.open() as file:
        sizes = (min(piece, source.size - offset) for offset in range(0, source.size, piece))
        return tuple(Segment(n, digest_stream(file, n, progress.advance)) for n in sizes)


def _pass_over(source: VerifyingReader, count: int, progress: Meter) -> None:
    """Read what was encoded by an earlier attempt once more: the whole must have its digest."""
    view = memoryview(bytearray(min(count, limits.IO_CHUNK)))
    while count:
        got = read_some(source, view[:count])
        count -= got
        progress.advance(got)


class _Spool:
    """Encoded pieces on their way to the disk; goes on behind those that are there for good.

    Args:
        bench: Whose folder takes them.
        blob: What is encoded.
        how: Pieces that were encoded otherwise are dropped.

    Attributes:
        segments: What the pieces have become, those from earlier included.
    """

    def __init__(self, bench: Workbench, blob: Digest, how: str) -> None:
        self._path = bench.spool(blob)
        self._notes_path = bench.pieces(blob)
        self._how = f"{how}\n".encode()
        self.segments: list[Segment] = []
        self._unsynced: list[Segment] = []

    def __enter__(self) -> Self:
        self._read_notes()
        size = sum(segment.size for segment in self.segments)
        if not self._path.is_file() or self._path.stat().st_size < size:
            size, self.segments = 0, []
        self._file = _open(self._path, size)
        notes = self._how + b"".join(map(_line, self.segments))
        write_file(self._notes_path, notes)  # this makes the other file's name durable too
        self._notes = _open(self._notes_path, len(notes))
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self._sync()
        finally:
            self._notes.close()
            self._file.close()

    def add(self, segment: Segment, data: bytes) -> None:
        """Write the next piece."""
        if sum(s.size for s in self._unsynced) + segment.size > limits.SEGMENT_BYTES:
            self._sync()
        write_all(self._file, data)
        self.segments.append(segment)
        self._unsynced.append(segment)

    def _sync(self) -> None:
        os.fdatasync(self._file.fileno())
        write_all(self._notes, b"".join(map(_line, self._unsynced)))
        os.fdatasync(self._notes.fileno())
        self._unsynced = []

    def _read_notes(self) -> None:
        if not self._notes_path.is_file():
            return
        first, *lines = self._notes_path.read_bytes().split(b"\n")
        if first + b"\n" != self._how:
            return
        for line in lines[:-1]:
            match = _PIECE_LINE.fullmatch(line)
            if match is None:
                return
            self.segments.append(Segment(int(match[1]), Digest("sha256", match[2].decode())))


def _open(path: Path, size: int) -> BinaryIO:
    """For writing behind the first ``size`` bytes; what follows them is dropped."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    os.ftruncate(fd, size)
    os.lseek(fd, size, os.SEEK_SET)
    return os.fdopen(fd, "r+b", buffering=0)


def _line(segment: Segment) -> bytes:
    return f"{segment.size} {segment.digest.hex}\n".encode()
