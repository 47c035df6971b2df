"""How each large blob of a bundle will be stored: as it is, in segments, or encoded.

What is encoded is written into a spool folder beside the output before anything is signed: its size
and digests stand in the signed descriptor, which comes first in the file.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from bundler.archive.codec import Compression, Encoding, EncodingChoice, choose_encoding
from bundler.archive.delta import store_delta
from bundler.archive.pieces import Segment, encode_stream, write_all
from bundler.chunks.recipes import Delta
from bundler.contents import DELTA, IDENTITY, Entry
from bundler.files import open_regular
from bundler.sources import LocalModel
from registry.verify import VerifyingReader, digest_stream, storage_errors
from schemas import limits
from schemas.render import Meter


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
    model: LocalModel, *, compression: Compression, piece: int | None, spool: Path, progress: Meter
) -> Stored:
    """Decide how a model's weights are stored, and prepare that.

    Args:
        model: Hashed already.
        compression: What the operator wants.
        piece: Bytes per segment of a blob that travels as it is; None leaves it whole.
        spool: Folder for encoded bytes.
        progress: Told of the bytes read.

    Raises:
        ContentMismatch: The file changed since it was hashed.
        StorageFull, StorageFailure: The disk says no.
    """
    if model.delta is not None:
        return _delta(model, model.delta, compression, spool, progress)
    with model.open() as file, storage_errors(f"cannot read {model.path}"):
        fd = file.fileno()
        choice = choose_encoding(
            lambda offset, length: os.pread(fd, length, offset), model.size, mode=compression
        )
    if choice.encoding is not Encoding.IDENTITY:
        return _encode(model, choice, spool, progress)
    if piece is None or model.size <= piece:
        return Stored(Entry(model.digest, model.size), model.path.name, model.open)
    segments = _segments(model, piece, progress)
    entry = Entry(model.digest, model.size, IDENTITY, piece, segments)
    return Stored(entry, model.path.name, model.open)


def _encode(model: LocalModel, choice: EncodingChoice, spool: Path, progress: Meter) -> Stored:
    path = spool / model.digest.hex
    progress.begin(f"compressing {model.path.name}", model.size)
    with (
        storage_errors(f"cannot write {path}"),
        model.open() as file,
        path.open("wb", buffering=0) as sink,
    ):
        source = VerifyingReader(file, model.digest, model.size)
        segments = encode_stream(source, model.size, choice, sink, progress=progress.advance)
    entry = Entry(
        model.digest,
        model.size,
        str(choice.encoding),
        limits.PIECE_BYTES,
        tuple(segments),
    )
    return Stored(entry, model.path.name, lambda: open_regular(path))


def _delta(
    model: LocalModel, delta: Delta, compression: Compression, spool: Path, progress: Meter
) -> Stored:
    path = spool / model.digest.hex
    progress.begin(f"taking the difference of {model.path.name}", delta.recipe.literal_size)
    segments = []
    with (
        storage_errors(f"cannot write {path}"),
        model.open() as file,
        path.open("wb", buffering=0) as sink,
    ):
        for piece in store_delta(delta.recipe, file.fileno(), mode=compression):
            write_all(sink, piece.data)
            segments.append(piece.segment)
            progress.advance(piece.raw_size)
    entry = Entry(model.digest, model.size, DELTA, limits.PIECE_BYTES, tuple(segments), delta.bases)
    return Stored(entry, model.path.name, lambda: open_regular(path))


def _segments(model: LocalModel, piece: int, progress: Meter) -> tuple[Segment, ...]:
    progress.begin(f"cutting {model.path.name}", model.size)
    with model.open() as file:
        sizes = (min(piece, model.size - offset) for offset in range(0, model.size, piece))
        return tuple(Segment(n, digest_stream(file, n, progress.advance)) for n in sizes)
