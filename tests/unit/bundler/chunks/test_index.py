"""The chunk index: what went in is found; a file that changed is refused."""

from __future__ import annotations

import io
import random
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bundler.chunks.chunker import Chunk
from bundler.chunks.index import ChunkIndex, IndexBuilder
from bundler.chunks.shelf import IndexShelf
from registry.digest import Digest
from schemas import limits
from schemas.errors import StorageFailure, StoreDamaged, UnsupportedRequest

BLOB = Digest.of(b"the blob")


def some_chunks(count: int, seed: int = 1) -> list[Chunk]:
    """Chunks as they come, every tenth one the twin of another."""
    source = random.Random(seed)
    chunks: list[Chunk] = []
    offset = 0
    for number in range(count):
        length = source.randrange(1, 2**20)
        digest = source.randbytes(32) if number % 10 or not chunks else chunks[0].digest
        chunks.append(Chunk(offset, length, digest))
        offset += length
    return chunks


def written(chunks: list[Chunk], folder: Path) -> bytes:
    builder = IndexBuilder(folder)
    for chunk in chunks:
        builder.add(chunk)
    sink = io.BytesIO()
    builder.write(sink, BLOB, sum(chunk.length for chunk in chunks))
    return sink.getvalue()


def opened(data: bytes, folder: Path) -> ChunkIndex:
    path = folder / "index"
    path.write_bytes(data)
    return ChunkIndex(path)


@pytest.mark.parametrize("run", [3, 100, 10_000])
@pytest.mark.parametrize("count", [0, 1, 3, 300])
def test_what_went_in_is_found(
    count: int, run: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "CHUNK_RUN_ENTRIES", run)
    chunks = some_chunks(count)
    with opened(written(chunks, tmp_path), tmp_path) as index:
        assert len(index) == count
        assert index.blob == BLOB
        assert index.size == sum(chunk.length for chunk in chunks)
        assert list(index.chunks()) == sorted(chunks, key=lambda one: (one.digest, one.offset))
        for chunk in chunks:
            assert index.find(chunk.digest, near=chunk.offset) == chunk
            first = next(one for one in chunks if one.digest == chunk.digest)
            assert index.find(chunk.digest) == first
            assert index.find(chunk.digest, near=chunk.offset + 1) in {first, chunk}
        for missing in (bytes(32), b"\xff" * 32, random.Random(7).randbytes(32)):
            assert index.find(missing) is None
            assert index.find(missing, near=2**63) is None


def test_the_bytes_are_as_the_format_says(tmp_path: Path) -> None:
    one, two = Chunk(0, 5, b"b" * 32), Chunk(5, 7, b"a" * 32)
    data = written([one, two], tmp_path)
    head = b"sealift chunks\x00\x01" + bytes.fromhex(BLOB.hex) + struct.pack(">QQ", 12, 2)
    entries = b"a" * 32 + struct.pack(">QI", 5, 7) + b"b" * 32 + struct.pack(">QI", 0, 5)
    assert data == head + entries + bytes.fromhex(Digest.of(head + entries).hex)


def test_an_index_does_not_depend_on_how_it_was_sorted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chunks = some_chunks(100)
    whole = written(chunks, tmp_path)
    monkeypatch.setattr(limits, "CHUNK_RUN_ENTRIES", 7)
    assert written(chunks, tmp_path) == whole


@given(data=st.data())
def test_a_changed_index_is_refused(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("index")
    good = written(some_chunks(20), folder)
    bad = bytearray(good)
    bad[data.draw(st.integers(0, len(good) - 1))] ^= data.draw(st.integers(1, 255))
    for wrong in (bytes(bad), good[: data.draw(st.integers(0, len(good) - 1))], good + b"\0"):
        with pytest.raises(StoreDamaged):
            opened(wrong, folder)


def test_an_index_of_another_version_is_refused(tmp_path: Path) -> None:
    good = written(some_chunks(2), tmp_path)
    body = good[:15] + b"\x02" + good[16:-32]
    with pytest.raises(StoreDamaged, match="another version"):
        opened(body + bytes.fromhex(Digest.of(body).hex), tmp_path)


def test_a_missing_index_is_told(tmp_path: Path) -> None:
    with pytest.raises(StorageFailure):
        ChunkIndex(tmp_path / "nowhere")


def test_an_index_has_its_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "CHUNK_ENTRIES", 3)
    with pytest.raises(UnsupportedRequest):
        written(some_chunks(4), tmp_path)
    builder = IndexBuilder()
    builder.add(some_chunks(1)[0])
    builder.close()
    builder.close()


def test_the_shelf_keeps_indexes_by_blob(tmp_path: Path) -> None:
    shelf = IndexShelf(tmp_path / "workspace" / "chunks")
    other = Digest.of(b"other")
    assert BLOB not in shelf
    assert shelf.open([BLOB]) == []
    for blob, seed in ((BLOB, 1), (other, 2), (BLOB, 3)):
        builder = IndexBuilder()
        for chunk in some_chunks(5, seed):
            builder.add(chunk)
        shelf.add(builder, blob, 100)
    assert BLOB in shelf
    indexes = shelf.open([other, Digest.of(b"unknown"), BLOB])
    assert [index.blob for index in indexes] == [other, BLOB]
    assert indexes[1].find(some_chunks(5, 3)[4].digest) is not None
    for index in indexes:
        index.close()
    assert len(list(shelf.path(BLOB).parent.iterdir())) == 2


def test_an_index_under_the_wrong_name_is_refused(tmp_path: Path) -> None:
    shelf = IndexShelf(tmp_path)
    shelf.add(IndexBuilder(), BLOB, 0)
    other = Digest.of(b"other")
    shelf.path(BLOB).rename(shelf.path(other))
    with pytest.raises(StoreDamaged, match="another blob"):
        shelf.open([other])
