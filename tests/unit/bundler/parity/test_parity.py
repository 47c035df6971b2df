"""Parity: any M bad blocks of a stripe are made again, byte for byte; one more is refused."""

from __future__ import annotations

import errno
import io
import os
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bundler.parity import (
    FileRange,
    Repairer,
    RestoredFile,
    Table,
    choose_block,
    encode,
    patch_files,
    repair,
    repair_files,
    scan,
)
from bundler.parity.code import Code
from bundler.parity.ranges import OpenRange
from schemas import limits
from schemas.errors import (
    ContentMismatch,
    MalformedDocument,
    NotFound,
    SealiftError,
    UnsupportedRequest,
    UsageError,
)

MIB = limits.MIB


@dataclass
class Volumes:
    """Files with parity, on disk."""

    ranges: list[FileRange]
    table: Table
    contents: list[bytes]

    def missing(self, *numbers: int) -> list[FileRange | None]:
        return [None if n in numbers else r for n, r in enumerate(self.ranges)]

    def flip(self, file: int, position: int) -> None:
        with self.ranges[file].path.open("r+b") as stream:
            stream.seek(self.ranges[file].offset + position)
            byte = stream.read(1)[0]
            stream.seek(-1, os.SEEK_CUR)
            stream.write(bytes([byte ^ 0x40]))

    def spoil(self, file: int, stripe: int) -> None:
        self.flip(file, stripe * self.table.block + self.table.size(file, stripe) // 2)

    def now(self, file: int) -> bytes:
        extent = self.ranges[file]
        return extent.path.read_bytes()[extent.offset : extent.offset + extent.length]


def make(
    folder: Path, lengths: Sequence[int], parity: int, block: int | None = 512, seed: int = 1
) -> Volumes:
    rng = random.Random(seed)
    contents = [rng.randbytes(length) for length in lengths]
    ranges = []
    for number, content in enumerate(contents):
        path = folder / f"x.v{number + 1:03}.tar"
        path.write_bytes(content)
        ranges.append(FileRange(path, len(content)))
    sinks = [io.BytesIO() for _ in range(parity)]
    table = encode(ranges, sinks, block=block)
    for number, sink in enumerate(sinks):
        path = folder / f"x.p{number + 1:03}.tar"
        # as a member of a tar: not at the file's start, not at its end
        path.write_bytes(b"\xaa" * 512 + sink.getvalue() + bytes(1024))
        ranges.append(FileRange(path, len(sink.getvalue()), 512))
        contents.append(sink.getvalue())
    return Volumes(ranges, table, contents)


# -- the code -------------------------------------------------------------------------------------


def multiply(a: int, b: int) -> int:
    """In GF(2^8) by 0x11d, bit by bit."""
    product = 0
    while b:
        if b & 1:
            product ^= a
        a = (a << 1) ^ (0x11D if a & 0x80 else 0)
        b >>= 1
    return product


@cache
def inverse(a: int) -> int:
    return next(b for b in range(256) if multiply(a, b) == 1)


def by_formula(slices: Sequence[bytes], row: int) -> bytes:
    """The parity that the module's text promises."""
    total = 0
    for column, part in enumerate(slices):
        factor = inverse((len(slices) + row) ^ column)
        times = bytes(multiply(factor, value) for value in range(256))
        total ^= int.from_bytes(part.translate(times), "little")
    return total.to_bytes(len(slices[0]), "little")


@pytest.mark.parametrize(
    ("data", "parity"), [(1, 1), (1, 3), (2, 2), (5, 3), (16, 4), (250, 6), (255, 1), (40, 60)]
)
def test_parity_is_what_the_formula_says(data: int, parity: int) -> None:
    rng = random.Random(data)
    slices = [rng.randbytes(512) for _ in range(data)]
    with Code(data, parity) as code:
        rows = code.encode([memoryview(part) for part in slices])
    assert [bytes(row) for row in rows] == [by_formula(slices, i) for i in range(parity)]


def test_a_vector_for_other_implementations() -> None:
    slices = [bytes([n + 1] * 512) for n in range(3)]
    with Code(3, 2) as code:
        rows = code.encode([memoryview(part) for part in slices])
    assert [bytes(row) for row in rows] == [bytes([0xF6] * 512), bytes([0x9A] * 512)]


def test_more_files_than_the_field_has_elements() -> None:
    with pytest.raises(UnsupportedRequest, match="Use larger volumes"):
        Code(200, 57)
    with pytest.raises(UnsupportedRequest):
        choose_block([1000] * 255, 2)


# -- any pattern of damage ------------------------------------------------------------------------


@st.composite
def damaged(draw: st.DrawFn) -> tuple[list[int], int, list[set[int]]]:
    """Lengths, parity, and which files are bad in each stripe: up to ``parity`` of them."""
    lengths = draw(st.lists(st.integers(0, 3000), min_size=1, max_size=6).filter(any))
    parity = draw(st.integers(1, 4))
    stripes = -(-max(lengths) // 512)
    files = st.integers(0, len(lengths) + parity - 1)
    bad = draw(
        st.lists(st.sets(files, max_size=parity), min_size=stripes, max_size=stripes),
    )
    return lengths, parity, bad


@given(case=damaged())
def test_any_erasures_within_the_parity_are_repaired(
    tmp_path_factory: pytest.TempPathFactory, case: tuple[list[int], int, list[set[int]]]
) -> None:
    lengths, parity, pattern = case
    folder = tmp_path_factory.mktemp("parity")
    volumes = make(folder, lengths, parity)
    expected = set()
    for stripe, bad in enumerate(pattern):
        for file in bad:
            if volumes.table.size(file, stripe):
                volumes.spoil(file, stripe)
                expected.add((file, stripe))
    damage = scan(volumes.ranges, volumes.table)
    assert {(f, s) for s in range(len(pattern)) for f in damage.of_stripe(s)} == expected
    assert damage.repairable
    sinks = {file: io.BytesIO() for file in range(volumes.table.files)}
    repair(volumes.ranges, volumes.table, sinks, damage=damage)
    assert [sink.getvalue() for sink in sinks.values()] == volumes.contents
    # and in place, which leaves what is around the range alone
    assert patch_files(volumes.ranges, volumes.table, damage) == len(expected)
    assert [volumes.now(file) for file in range(volumes.table.files)] == volumes.contents
    assert not scan(volumes.ranges, volumes.table).count


@given(seed=st.integers(0, 2**32), parity=st.integers(1, 3))
def test_whole_files_that_are_gone_are_made_again(
    tmp_path_factory: pytest.TempPathFactory, seed: int, parity: int
) -> None:
    rng = random.Random(seed)
    volumes = make(
        tmp_path_factory.mktemp("p"), [rng.randrange(1, 5000) for _ in range(5)], parity, seed=seed
    )
    lost = rng.sample(range(volumes.table.files), parity)
    files = volumes.missing(*lost)
    sinks = {number: io.BytesIO() for number in lost}
    repair(files, volumes.table, sinks)
    assert {n: sink.getvalue() for n, sink in sinks.items()} == {
        n: volumes.contents[n] for n in lost
    }


def test_one_more_than_the_parity_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    volumes = make(tmp_path, [3000, 3000, 3000], 2)
    for file in (0, 1, 3):
        volumes.spoil(file, 4)
    before = [volumes.now(file) for file in range(5)]
    damage = scan(volumes.ranges, volumes.table)
    assert not damage.repairable
    with pytest.raises(ContentMismatch) as caught:
        repair_files(volumes.ranges, volumes.table, {0: tmp_path / "new"}, damage=damage)
    assert caught.value.why == (
        "1 of 6 stripes have up to 3 bad blocks where 2 can be repaired;"
        " they lie in x.v001.tar, x.v002.tar, x.p001.tar"
    )
    assert "copy one of these volumes again" in caught.value.hint
    with pytest.raises(ContentMismatch):
        patch_files(volumes.ranges, volumes.table, damage)
    # without a scan it is seen on the way
    with pytest.raises(ContentMismatch, match="more is damaged"):
        repair_files(volumes.ranges, volumes.table, {0: tmp_path / "new"})
    assert [volumes.now(file) for file in range(5)] == before
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(r.name for r in volumes.ranges)


def test_a_different_block_of_every_volume_can_be_bad(tmp_path: Path) -> None:
    volumes = make(tmp_path, [5000] * 6, 1)
    for file in range(6):
        volumes.spoil(file, file)
    damage = scan(volumes.ranges, volumes.table)
    assert damage.files == dict.fromkeys(range(6), 1)
    assert damage.worst == 1
    assert damage.extents(2) == [(1024, 512)]
    assert damage.document() == {
        "repairable": True,
        "parity": 1,
        "block": 512,
        "files": [
            {
                "name": f"x.v{n + 1:03}.tar",
                "badBlocks": 1,
                "blocks": 10,
                "extents": [[512 * n, 512]],
            }
            for n in range(6)
        ],
    }
    for file in range(6):
        repair_files(volumes.ranges, volumes.table, {file: volumes.ranges[file].path})
        assert volumes.now(file) == volumes.contents[file]


def test_damage_that_no_scan_told_of_is_found_on_the_way(tmp_path: Path) -> None:
    """A stick may give other bytes at the second reading."""
    volumes = make(tmp_path, [4000] * 4, 2)
    damage = scan(volumes.missing(0), volumes.table)
    volumes.spoil(1, 3)
    sinks = {0: io.BytesIO()}
    after = repair(volumes.missing(0), volumes.table, sinks, damage=damage)
    assert sinks[0].getvalue() == volumes.contents[0]
    assert after.files == {0: 8, 1: 1}


def test_a_truncated_file(tmp_path: Path) -> None:
    volumes = make(tmp_path, [4000, 4000], 1)
    os.truncate(volumes.ranges[1].path, 1700)
    damage = scan(volumes.ranges, volumes.table)
    assert damage.extents(1) == [(1536, 4000 - 1536)]
    patch_files(volumes.ranges, volumes.table, damage)
    assert volumes.now(1) == volumes.contents[1]


def test_only_what_is_asked_for_is_written(tmp_path: Path) -> None:
    volumes = make(tmp_path, [4000, 4000], 2)
    volumes.spoil(0, 0)
    volumes.spoil(1, 0)
    damage = scan(volumes.ranges, volumes.table)
    assert patch_files(volumes.ranges, volumes.table, damage, only=[1]) == 1
    assert scan(volumes.ranges, volumes.table).files == {0: 1}


def test_a_missing_file_is_not_repaired_in_place(tmp_path: Path) -> None:
    volumes = make(tmp_path, [1000, 1000], 1)
    volumes.ranges[0].path.unlink()
    damage = scan(volumes.ranges, volumes.table)
    assert damage.files == {0: 2}
    with pytest.raises(NotFound):
        patch_files(volumes.ranges, volumes.table, damage)


def test_parity_of_another_bundle(tmp_path: Path) -> None:
    """A table whose digests are right and whose parity is not: a wrong creation, well signed."""
    volumes = make(tmp_path, [1000, 1000], 1)
    fake = bytes(len(volumes.contents[2]))
    with volumes.ranges[2].path.open("r+b") as stream:
        stream.seek(512)
        stream.write(fake)
    digests = encode([FileRange(volumes.ranges[2].path, 1000, 512)], [io.BytesIO()], block=512)
    table = Table(512, (1000, 1000), 1, volumes.table.digests[:128] + digests.digests[:64])
    with pytest.raises(ContentMismatch, match="parity is of another bundle"):
        repair(volumes.missing(0), table, {0: io.BytesIO()})


# -- reading without repairing --------------------------------------------------------------------


def test_a_restored_file_reads_like_the_file(tmp_path: Path) -> None:
    volumes = make(tmp_path, [5000, 3000, 4000], 1)
    volumes.spoil(0, 2)
    with Repairer(volumes.missing(2), volumes.table) as repairer:
        restored = RestoredFile(repairer, 2)
        assert restored.readable()
        assert restored.seekable()
        assert restored.seek(0, os.SEEK_END) == 4000
        assert restored.read() == b""
        assert restored.seek(0) == 0
        reader = io.BufferedReader(restored, 64)
        for position, size in ((0, 100), (500, 100), (3990, 50), (2048, 512)):
            reader.seek(position)
            assert reader.read(size) == volumes.contents[2][position : position + size]
        reader.detach()
        with pytest.raises(ValueError, match="before the start"):
            restored.seek(-1)
        # where two of a stripe are bad there is nothing to be made
        restored.seek(1024)
        with pytest.raises(ContentMismatch):
            restored.read(1)


# -- reading errors -------------------------------------------------------------------------------


class WornMedium:
    """Answers EIO for some sectors of one file, as a worn stick does."""

    def __init__(self, file: FileRange, sectors: set[int]) -> None:
        self.inode = file.path.stat().st_ino
        self.sectors = sectors
        self.preadv = os.preadv

    def __call__(self, fd: int, buffers: list[memoryview], offset: int) -> int:
        if os.fstat(fd).st_ino == self.inode:
            end = offset + sum(len(b) for b in buffers)
            if any(offset < (s + 1) * 512 and s * 512 < end for s in self.sectors):
                raise OSError(errno.EIO, "Input/output error")
        return self.preadv(fd, buffers, offset)


@pytest.fixture
def worn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Volumes]:
    volumes = make(tmp_path, [5000, 5000], 1)
    monkeypatch.setattr(os, "preadv", WornMedium(volumes.ranges[0], {1, 7}))
    return iter([volumes])


def test_unreadable_spots_are_damage_like_any_other(worn: Iterator[Volumes]) -> None:
    volumes = next(worn)
    damage = scan(volumes.ranges, volumes.table)
    assert damage.extents(0) == [(512, 512), (3584, 512)]
    sinks = {0: io.BytesIO()}
    repair(volumes.ranges, volumes.table, sinks, damage=damage)
    assert sinks[0].getvalue() == volumes.contents[0]
    sinks = {0: io.BytesIO()}
    repair(volumes.ranges, volumes.table, sinks)
    assert sinks[0].getvalue() == volumes.contents[0]


def test_a_pipe_is_no_volume(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "v")
    with pytest.raises(UsageError):
        OpenRange(FileRange(tmp_path / "v", 10))


# -- the table ------------------------------------------------------------------------------------


@given(
    lengths=st.lists(st.integers(0, 4000), min_size=1, max_size=5).filter(any),
    parity=st.integers(1, 3),
    block=st.sampled_from([512, 1024, 4096]),
    seed=st.integers(0, 255),
)
def test_the_table_survives_its_encoding(
    lengths: list[int], parity: int, block: int, seed: int
) -> None:
    count = sum(-(-n // block) for n in lengths) + parity * -(-max(lengths) // block)
    table = Table(block, tuple(lengths), parity, bytes([seed]) * 32 * count)
    data = table.encode()
    assert Table.decode(data) == table
    for wrong in (data[:-1], data + b"\0", data[:10], b"", data[32:], b"x" + data[1:]):
        with pytest.raises(MalformedDocument):
            Table.decode(wrong)


@given(data=st.binary(max_size=200))
def test_any_bytes_are_a_table_or_refused(data: bytes) -> None:
    for candidate in (data, b"sealpar\x01" + data):
        try:
            table = Table.decode(candidate)
        except MalformedDocument:
            continue
        assert table.encode() == candidate


@pytest.mark.parametrize(
    ("block", "count", "parity", "length"),
    [
        (0, 1, 1, 10),
        (513, 1, 1, 10),
        (256, 1, 1, 10),
        (32 * MIB, 1, 1, 10),
        (512, 0, 1, 10),
        (512, 1, 0, 10),
        (512, 255, 2, 10),
        (512, 1, 1, 0),
        (512, 1, 1, 2**63),
        (512, 2, 1, 2**40),
    ],
)
def test_a_table_that_cannot_be(block: int, count: int, parity: int, length: int) -> None:
    head = b"sealpar\x01" + block.to_bytes(4, "big")
    head += count.to_bytes(2, "big") + parity.to_bytes(2, "big")
    with pytest.raises(MalformedDocument):
        Table.decode(head + length.to_bytes(8, "big") * count + bytes(96))


def test_a_table_of_other_files(tmp_path: Path) -> None:
    volumes = make(tmp_path, [1000, 2000], 1)
    for files in (volumes.ranges[:2], volumes.ranges[::-1]):
        with pytest.raises(MalformedDocument):
            scan(files, volumes.table)
        with pytest.raises(MalformedDocument):
            Repairer(files, volumes.table)


# -- geometry and memory --------------------------------------------------------------------------


def test_blocks_grow_with_the_bundle() -> None:
    assert choose_block([100], 1) == 512
    assert choose_block([10 * MIB] * 3, 1) == 16 * 1024
    assert choose_block([3900 * MIB] * 10, 2) == MIB
    assert choose_block([25 * 1024 * MIB] * 100, 5) == 16 * MIB
    with pytest.raises(UnsupportedRequest):
        choose_block([limits.BLOB_BYTES] * 255, 1)
    with pytest.raises(UnsupportedRequest):
        choose_block([], 1)


@pytest.mark.parametrize("block", [None, MIB])
def test_larger_files_in_several_windows(tmp_path: Path, block: int | None) -> None:
    volumes = make(tmp_path, [3 * MIB + 17, 2 * MIB, 5, 3 * MIB, *[MIB] * 20], 3, block)
    lost = (0, 3, 25)
    sinks = {number: io.BytesIO() for number in lost}
    seen: list[int] = []
    repair(volumes.missing(*lost), volumes.table, sinks, progress=seen.append)
    assert all(sinks[n].getvalue() == volumes.contents[n] for n in lost)
    assert sum(seen) == sum(volumes.table.length(n) for n in lost)
    seen.clear()
    damage = scan(volumes.missing(*lost), volumes.table, seen.append)
    assert sorted(damage.files) == list(lost)
    assert sum(seen) == sum(volumes.table.length(n) for n in range(volumes.table.files))


def test_a_file_that_shrinks_while_parity_is_made(tmp_path: Path) -> None:
    volumes = make(tmp_path, [1000, 2000], 1)
    os.truncate(volumes.ranges[1].path, 1999)
    with pytest.raises(ContentMismatch, match=r"x\.v002\.tar"):
        encode(volumes.ranges[:2], [io.BytesIO()], block=512)


def test_a_sink_that_takes_a_little_at_a_time(tmp_path: Path) -> None:
    class Slow(io.BytesIO):
        def write(self, data: object, /) -> int:
            assert isinstance(data, memoryview)
            return super().write(data[:100])

    volumes = make(tmp_path, [1000, 2000], 1)
    sink = Slow()
    encode(volumes.ranges[:2], [sink], block=512)
    assert sink.getvalue() == volumes.contents[2]


def test_a_full_disk_is_told(tmp_path: Path) -> None:
    volumes = make(tmp_path, [1000, 2000], 1)
    with Path("/dev/full").open("wb", buffering=0) as full, pytest.raises(SealiftError) as caught:
        encode(volumes.ranges[:2], [full], block=512)
    assert caught.value.code == "storage-full"
