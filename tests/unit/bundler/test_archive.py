"""The archive's bytes: against tarfile and tar, read in any pieces, every byte accounted for."""

from __future__ import annotations

import io
import re
import shutil
import subprocess
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bundler.archive import layout
from bundler.archive.reader import ArchiveReader
from bundler.archive.writer import ArchiveWriter
from bundler.contents import Entry, Part
from registry.digest import Digest
from registry.verify import hash_stream
from schemas.errors import (
    ContentError,
    ContentMismatch,
    MalformedArchive,
    NotABundle,
    SealiftError,
    StorageFailure,
    TruncatedBundle,
)
from tests.support.bundle_simulator import Member, boundaries, tar

SIZES = st.one_of(st.integers(0, 10_000), st.integers(0, 2**62), st.integers(8**11 - 3, 8**11 + 3))
NAMES = st.text(
    st.characters(codec="ascii", min_codepoint=33, max_codepoint=126), min_size=1, max_size=100
).filter(lambda name: not name.endswith("/"))
BLOB = Random(1).randbytes(700)
TAIL = b"{}" * 60
PLAN: list[tuple[str, bytes]] = [
    ("oci-layout", b"layout"),
    ("sealift/trust/1.root.json", b"r" * 300),
    ("sealift/trust/timestamp.json", b"t" * 512),
    ("sealift/bundle.json", b""),
    (layout.blob_name(str(Digest.of(BLOB))), BLOB),
    ("index.json", TAIL),
]
GOOD = tar([Member.of(name, data) for name, data in PLAN])
END = boundaries(GOOD)[-4]  # of the last member; behind it are zeros only, of which some will do
PLACES = [*range(END + 1024), *range(END + 1024, len(GOOD), 16)]
NAMED = re.compile(r"sealift/(?:trust/(?:1\.root|timestamp)|bundle)\.json")


class Piecewise(io.RawIOBase):
    """A source that returns less than it is asked for; a pipe or a socket does."""

    def __init__(self, data: bytes, take: Callable[[int], int]) -> None:
        self._data = io.BytesIO(data)
        self._take = take

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview, /) -> int:  # type: ignore[override]
        wanted = self._take(len(buffer)) if len(buffer) else 0
        return self._data.readinto(memoryview(buffer)[:wanted])


def read_all(data: bytes, take: Callable[[int], int] = lambda n: n) -> list[bytes]:
    """Read an archive by :data:`PLAN` as an import does; the contents in order."""
    reader = ArchiveReader(Piecewise(data, take))  # type: ignore[arg-type]
    reader.open_first(*PLAN[0])
    found = [PLAN[0][1]]
    for name, _ in PLAN[1:4]:
        got, content = reader.next_small(NAMED, lambda _: 1000)
        if got != name:
            raise MalformedArchive("another order")
        found.append(content)
    name, blob = PLAN[4]
    stream = reader.expect_blob(name, len(blob))
    kept = Keeping(stream)
    hash_stream(kept, Digest.of(blob), len(blob))
    reader.end_blob(stream)
    found.append(b"".join(kept.pieces))
    found.append(reader.expect_small(PLAN[5][0], len(PLAN[5][1])))
    reader.finish()
    assert reader.position == len(data)
    return found


class Keeping:
    """Passes a stream on and remembers what came."""

    def __init__(self, stream: io.RawIOBase) -> None:
        self._stream = stream
        self.pieces: list[bytes] = []

    def read(self, n: int, /) -> bytes:
        piece = self._stream.read(n) or b""
        self.pieces.append(piece)
        return piece


@given(name=NAMES, size=SIZES)
@example(name="a", size=8**11 - 1)
@example(name="a", size=8**11)
@example(name="x" * 100, size=2**62)
def test_header_is_what_tarfile_understands(name: str, size: int) -> None:
    block = layout.header(name, size)
    assert len(block) == (512 if size < 8**11 else 1536)
    with tarfile.open(fileobj=io.BytesIO(block + bytes(1024)), mode="r:") as archive:
        first = archive.firstmember  # type: ignore[attr-defined]
    assert (first.size, first.mode, first.mtime) == (size, 0o644, 0)
    assert first.name == name
    assert first.isreg()
    assert (first.uid, first.gid, first.uname, first.gname, first.linkname) == (0, 0, "", "", "")


@given(name=NAMES, size=st.integers(0, 8**11 - 1))
def test_header_is_the_one_that_posix_describes(name: str, size: int) -> None:
    from tests.support.bundle_simulator import ustar

    assert layout.header(name, size) == ustar(name, size)


@pytest.mark.parametrize("size", [8**11 - 1, 8**11, 10**12])
def test_gnu_tar_agrees_on_large_members(size: int, tmp_path: Path) -> None:
    path = tmp_path / "large.tar"
    head = layout.header("blob", size)
    with path.open("wb") as file:
        file.write(head)
        end = len(head) + size + layout.padding(size)
        file.truncate(end + len(layout.trailer(end)))
    assert path.stat().st_size == layout.end_of_archive(0, [size])
    if shutil.which("tar") is None:
        raise AssertionError("no tar on this machine")
    listed = subprocess.run(["tar", "tvf", path], capture_output=True, text=True, check=True)
    assert listed.stdout.split()[2] == str(size)
    assert listed.stderr == ""


@given(size=st.integers(0, 2**40))
def test_padding_fills_the_last_block_and_no_more(size: int) -> None:
    assert 0 <= layout.padding(size) < 512
    assert (size + layout.padding(size)) % 512 == 0


@given(position=st.integers(0, 10**6).map(lambda n: n * 512))
def test_trailer_is_two_blocks_and_a_whole_record(position: int) -> None:
    end = layout.trailer(position)
    assert not any(end)
    assert 1024 <= len(end) < 1024 + 10240
    assert (position + len(end)) % 10240 == 0


def test_name_that_needs_another_field_is_a_defect_of_ours() -> None:
    with pytest.raises(ValueError, match="over 100 bytes"):
        layout.header("x" * 101, 1)
    with pytest.raises(UnicodeEncodeError):
        layout.header("ä", 1)


def whole(blob: bytes) -> Part:
    """A blob that travels as it is, in one member."""
    return Part.all_of(Entry(Digest.of(blob), len(blob)))


def written(plan: Sequence[tuple[str, bytes]], path: Path) -> bytes:
    with path.open("wb", buffering=0) as sink:
        writer = ArchiveWriter(sink)
        for name, data in plan:
            if name.startswith("blobs/"):
                writer.add_part(whole(data), io.BytesIO(data), lambda _: None)
            else:
                writer.add_bytes(name, data)
        writer.close()
    return path.read_bytes()


@given(
    blobs=st.lists(st.binary(min_size=1, max_size=3000), max_size=4, unique=True),
    others=st.lists(st.tuples(NAMES, st.binary(max_size=1500)), max_size=4),
)
def test_writer_writes_a_plain_tar(
    tmp_path_factory: pytest.TempPathFactory,
    blobs: list[bytes],
    others: list[tuple[str, bytes]],
) -> None:
    plan = [(name.replace("blobs/", "x"), data) for name, data in others]
    plan += [(layout.blob_name(str(Digest.of(blob))), blob) for blob in blobs]
    data = written(plan, tmp_path_factory.mktemp("written") / "a.tar")
    assert data == tar([Member.of(name, content) for name, content in plan])
    assert len(data) == layout.end_of_archive(0, [len(content) for _, content in plan])


def test_large_blob_goes_through_the_writer(tmp_path: Path) -> None:
    blob = Random(2).randbytes(3 * 2**20 + 7)
    plan = [("oci-layout", b"x"), (layout.blob_name(str(Digest.of(blob))), blob), ("z", b"after")]
    assert written(plan, tmp_path / "a.tar") == tar([Member.of(n, d) for n, d in plan])


@pytest.mark.parametrize("change", [b"", b"x", b"xx"])
def test_writer_sees_that_a_source_changed(change: bytes, tmp_path: Path) -> None:
    with (tmp_path / "a.tar").open("wb", buffering=0) as sink:
        writer = ArchiveWriter(sink)
        with pytest.raises(ContentMismatch):
            writer.add_part(whole(b"ab"), io.BytesIO(change), lambda _: None)


def test_reader_reads_what_was_written() -> None:
    assert read_all(GOOD) == [data for _, data in PLAN]


def test_reader_is_fed_byte_by_byte() -> None:
    assert read_all(GOOD, lambda _: 1) == [data for _, data in PLAN]


@given(seed=st.integers(0, 2**32))
def test_reader_is_fed_in_random_pieces(seed: int) -> None:
    random = Random(seed)
    assert read_all(GOOD, lambda n: random.randint(1, n)) == [data for _, data in PLAN]


@pytest.mark.parametrize("take", [lambda n: n, lambda _: 1], ids=["whole", "bytewise"])
def test_reader_sees_every_truncation(take: Callable[[int], int]) -> None:
    ends = PLACES if take(2) == 2 else boundaries(GOOD)[:-1]
    for end in ends:
        with pytest.raises((TruncatedBundle, ContentMismatch) if end else NotABundle):
            read_all(GOOD[:end], take)


def test_reader_sees_every_changed_byte() -> None:
    """Data of small members aside: whoever reads those compares their digests."""
    small = set()
    at = 0
    for name, data in PLAN:
        at += 512
        if name not in ("oci-layout", PLAN[4][0]):
            small |= set(range(at, at + len(data)))
        at += len(data) + layout.padding(len(data))
    for offset in sorted(set(PLACES) - small):
        changed = bytearray(GOOD)
        changed[offset] ^= 1 << offset % 8
        with pytest.raises(ContentError):
            read_all(bytes(changed))


@given(data=st.binary(min_size=512, max_size=2048))
def test_reader_is_fed_noise(data: bytes) -> None:
    reader = ArchiveReader(io.BytesIO(data))
    with pytest.raises(ContentError):
        reader.next_small(re.compile(".*"), lambda _: 1 << 20)


@given(patch=st.binary(min_size=1, max_size=40), at=st.integers(0, 511))
def test_header_with_a_patch_is_never_half_believed(patch: bytes, at: int) -> None:
    """Either it is the very header that we write for some name and size, or it is refused."""
    block = bytearray(layout.header("sealift/bundle.json", 3) + b"abc" + bytes(509))
    block[at : at + len(patch)] = patch
    data = bytes(block[:1024]).ljust(1024, b"\0")
    try:
        name, content = ArchiveReader(io.BytesIO(data)).next_small(NAMED, lambda _: 600)
    except SealiftError:
        return
    assert data == (layout.header(name, len(content)) + content).ljust(1024, b"\0")


@given(data=st.binary(max_size=64))
def test_foreign_trailing_bytes(data: bytes) -> None:
    if data:
        with pytest.raises(MalformedArchive):
            read_all(GOOD + data)


def test_error_of_the_medium_is_told(tmp_path: Path) -> None:
    class Broken(io.RawIOBase):
        def readinto(self, _: object) -> int:
            raise OSError(5, "Input/output error")

    with pytest.raises(StorageFailure, match="cannot read the bundle: Input/output error"):
        ArchiveReader(Broken()).open_first("oci-layout", b"x")  # type: ignore[arg-type]


def test_short_file_is_told_before_its_members_are_read(tmp_path: Path) -> None:
    path = tmp_path / "short.tar"
    path.write_bytes(GOOD[:-512])
    with path.open("rb", buffering=0) as source:
        reader = ArchiveReader(source)
        reader.open_first(*PLAN[0])
        with pytest.raises(TruncatedBundle, match=f"{len(GOOD) - 512} of {len(GOOD)} bytes"):
            reader.expect_members([len(data) for _, data in PLAN[1:]])
    reader = ArchiveReader(io.BytesIO(GOOD))  # of a stream nothing can be known
    reader.expect_members([10**12])


def test_blob_must_be_read_to_its_end() -> None:
    reader = ArchiveReader(io.BytesIO(tar([Member.of("blob", b"12345")])))
    stream = reader.expect_blob("blob", 5)
    assert stream.readable()
    assert stream.read(2) == b"12"
    with pytest.raises(ValueError, match="to its end"):
        reader.end_blob(stream)
    assert (stream.read(), stream.read(5)) == (b"345", b"")
    reader.end_blob(stream)
    reader.finish()
