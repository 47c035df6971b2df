"""Model files and the deltas between them, for tests."""

from __future__ import annotations

import json
import os
import random
import struct
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Self

from bundler.chunks.chunker import Chunk, Chunker
from bundler.chunks.index import ChunkIndex, IndexBuilder
from bundler.chunks.recipes import Delta, RecipeMaker
from bundler.chunks.regions import Region, regions_of
from registry.digest import Digest
from registry.verify import digest_stream


def noise(size: int, seed: int) -> bytes:
    return random.Random(seed).randbytes(size)


def safetensors_file(
    path: Path, tensors: Mapping[str, bytes], metadata: Mapping[str, str] | None = None
) -> Path:
    """A safetensors file of byte tensors."""
    header: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    position = 0
    for name, data in tensors.items():
        end = position + len(data)
        header[name] = {"dtype": "U8", "shape": [len(data)], "data_offsets": [position, end]}
        position = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(tensors.values()))
    return path


def cut(data: bytes, regions: Iterable[Region], portions: Iterable[int] = ()) -> list[Chunk]:
    """All chunks of a blob that is pushed in portions of these lengths, then the rest."""
    chunker = Chunker(regions)
    chunks: list[Chunk] = []
    start = 0
    for portion in (*portions, len(data)):
        chunks += chunker.feed(data[start : start + portion])
        start += portion
    assert chunker.finish() == len(data)
    return chunks


def index_of(path: Path, folder: Path | None = None) -> ChunkIndex:
    """Bundle a blob, as far as its index goes."""
    size = path.stat().st_size
    builder = IndexBuilder()
    with path.open("rb") as file:
        regions = list(regions_of(file, size))
        file.seek(0)
        chunker = Chunker(regions)
        digest = digest_stream(file, size, also=[chunker.giving(builder.add)])
        chunker.finish()
    target = (folder or path.parent) / f"{path.name}.chunks"
    with target.open("wb") as out:
        builder.write(out, digest, size)
    return ChunkIndex(target)


def delta_of(path: Path, bases: Iterable[Path]) -> Delta | None:
    """What the connected side makes of a new blob and the indexes of old ones."""
    indexes = [index_of(base) for base in bases]
    maker = RecipeMaker(indexes)
    size = path.stat().st_size
    try:
        with path.open("rb") as file:
            regions = list(regions_of(file, size))
            file.seek(0)
            digest = digest_stream(file, size, also=[Chunker(regions).giving(maker.take)])
        return maker.finish(digest)
    finally:
        for index in indexes:
            index.close()


def digest_of(path: Path) -> Digest:
    return Digest.of(path.read_bytes())


class Open:
    """Files open for reading, and one to write, all closed at the end."""

    def __init__(self, out: Path, *bases: Path) -> None:
        self.out = os.open(out, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        self.bases = [os.open(base, os.O_RDONLY) for base in bases]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for fd in (self.out, *self.bases):
            os.close(fd)
