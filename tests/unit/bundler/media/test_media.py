"""Checking media: every kind of damage is told where it is, and a fake is told apart."""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bundler.media import (
    BadExtent,
    Extent,
    FileReadBack,
    Kind,
    MediaCheck,
    MediaFile,
    Method,
    ReadBack,
    Recorder,
    Verdict,
    check_media,
    extents_of_file,
    extents_of_table,
)
from bundler.media.readback import SECTOR, WINDOW, Windows
from bundler.parity import FileRange, encode
from registry.digest import Digest
from schemas.errors import MalformedDocument, StorageFailure, UsageError

KIB = 1024
MIB = 1024 * KIB
PIECE = 64 * KIB


def content(size: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size)


def digests(data: bytes, piece: int = PIECE, offset: int = 0) -> list[Extent]:
    return [
        Extent(offset + at, len(data[at : at + piece]), Digest.of(data[at : at + piece]))
        for at in range(0, len(data), piece)
    ]


def exact(data: bytes, piece: int = PIECE) -> list[Extent]:
    return [
        Extent(at, len(data[at : at + piece]), data[at : at + piece])
        for at in range(0, len(data), piece)
    ]


def written(folder: Path, name: str, data: bytes) -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


def only(check: MediaCheck) -> list[tuple[int, int, Kind]]:
    (file,) = check.files
    return [(bad.offset, bad.length, bad.kind) for bad in file.bad]


# -- what was written is there --------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 511, 4096, 4097, WINDOW, WINDOW * 2 + 12345])
def test_a_good_medium(tmp_path: Path, size: int) -> None:
    data = content(size)
    path = written(tmp_path, "a", data)
    seen: list[int] = []
    for extents in (digests(data), exact(data), digests(data, 5000), extents_of_file(path)):
        seen.clear()
        check = check_media([MediaFile(path, extents)], progress=seen.append)
        assert check.ok, check
        assert check.verdict is Verdict.OK
        assert check.files[0].checked == size == sum(seen)
        assert check.files[0].method in set(Method)
    assert check.document() == {
        "verdict": "ok",
        "why": "",
        "genuineBytes": None,
        "files": [
            {
                "name": "a",
                "ok": True,
                "method": str(check.files[0].method),
                "checkedBytes": size,
                "excessBytes": 0,
                "bad": [],
            }
        ],
    }


def test_the_page_cache_is_passed_by_direct_reads(tmp_path: Path) -> None:
    """Where the file system can; the tests' own can, or this tells that it cannot."""
    path = written(tmp_path, "a", content(10000))
    source = FileReadBack(path)
    try:
        probe = os.open(path, os.O_RDONLY | os.O_DIRECT)
    except OSError:
        assert source.method is Method.DROPPED
    else:
        os.close(probe)
        assert source.method is Method.DIRECT
    source.close()


def test_a_file_system_without_direct_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(tmp_path, "a", content(3 * MIB))
    plain = os.open

    def refusing(where: Path, flags: int, *rest: int) -> int:
        if flags & os.O_DIRECT:
            raise OSError(errno.EINVAL, "Invalid argument")
        return plain(where, flags, *rest)

    monkeypatch.setattr(os, "open", refusing)
    check = check_media([MediaFile(path, digests(content(3 * MIB)))])
    assert check.ok
    assert check.files[0].method is Method.DROPPED


def test_direct_reads_that_fail_only_when_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(tmp_path, "a", content(3 * MIB))
    source = FileReadBack(path)
    plain, direct = os.preadv, source._direct

    def refusing(fd: int, buffers: list[memoryview], offset: int) -> int:
        if fd == direct:
            raise OSError(errno.EINVAL, "Invalid argument")
        return plain(fd, buffers, offset)

    monkeypatch.setattr(os, "preadv", refusing)
    check = check_media([MediaFile(path, digests(content(3 * MIB)))], opener=lambda _: source)
    assert check.ok
    assert check.files[0].method is Method.DROPPED


def test_extents_inside_a_file_with_gaps(tmp_path: Path) -> None:
    data = content(20 * MIB)
    path = written(tmp_path, "a", data)
    spots = [(0, 10), (513, 5000), (WINDOW - 1, 2), (3 * WINDOW, 100), (20 * MIB - 7, 7)]
    extents = [Extent(a, n, Digest.of(data[a : a + n])) for a, n in spots]
    assert check_media([MediaFile(path, extents)]).ok
    with pytest.raises(MalformedDocument):
        check_media([MediaFile(path, extents[::-1])])


def test_what_went_through_a_recorder_is_expected(tmp_path: Path) -> None:
    data = content(3 * MIB + 100)
    path = tmp_path / "a"
    with path.open("wb", buffering=0) as file:
        recorder = Recorder(file)
        for at in range(0, len(data), 70_001):
            part = data[at : at + 70_001]
            assert recorder.write(part) == len(part)
    extents = recorder.extents()
    assert [e.length for e in extents] == [MIB, MIB, MIB, 100]
    assert check_media([MediaFile(path, extents)]).ok


def test_the_blocks_of_a_parity_table_are_expected(tmp_path: Path) -> None:
    data = content(100_000)
    path = written(tmp_path, "a", data)
    wrapped = written(tmp_path, "b", bytes(512) + data)
    with (tmp_path / "p").open("wb") as sink:
        table = encode([FileRange(path, len(data))], [sink], block=4096)
    assert check_media([MediaFile(path, extents_of_table(table, 0))]).ok
    assert check_media([MediaFile(wrapped, extents_of_table(table, 0, offset=512))]).ok
    parity = MediaFile(tmp_path / "p", extents_of_table(table, 1))
    assert check_media([parity]).ok


# -- damage ---------------------------------------------------------------------------------------


@settings(max_examples=20)
@given(st.sets(st.integers(0, 40 * SECTOR - 1), min_size=1, max_size=8))
def test_flipped_bytes_are_told_by_sector(
    tmp_path_factory: pytest.TempPathFactory, positions: set[int]
) -> None:
    data = content(40 * SECTOR)
    bad = bytearray(data)
    for position in positions:
        bad[position] ^= 1
    path = written(tmp_path_factory.mktemp("m"), "a", bytes(bad))
    found = only(check_media([MediaFile(path, exact(data))]))
    sectors = {p // SECTOR for p in positions}
    assert {s for a, n, _ in found for s in range(a // SECTOR, (a + n) // SECTOR)} == sectors
    assert all(kind is Kind.DIFFERS for _, _, kind in found)


def test_all_bad_extents_are_collected_and_merged(tmp_path: Path) -> None:
    data = content(16 * PIECE)
    bad = bytearray(data)
    for piece in (2, 3, 9):
        bad[piece * PIECE + 100] ^= 0xFF
    path = written(tmp_path, "a", bytes(bad))
    check = check_media([MediaFile(path, digests(data))])
    assert check.verdict is Verdict.DAMAGED
    assert check.why == f"{3 * PIECE} bytes wrong in a"
    assert only(check) == [(2 * PIECE, 2 * PIECE, Kind.DIFFERS), (9 * PIECE, PIECE, Kind.DIFFERS)]


def test_a_truncated_file_is_damage_and_no_fake(tmp_path: Path) -> None:
    data = content(16 * PIECE)
    path = written(tmp_path, "a", data[: 5 * PIECE + 1000])
    check = check_media([MediaFile(path, digests(data))])
    assert check.verdict is Verdict.DAMAGED
    assert check.why == f"{11 * PIECE - 1000} bytes missing in a"
    assert only(check) == [
        (5 * PIECE, 1000, Kind.UNVERIFIED),
        (5 * PIECE + 1000, 11 * PIECE - 1000, Kind.MISSING),
    ]


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    good = written(tmp_path, "a", content(PIECE))
    check = check_media(
        [
            MediaFile(good, digests(content(PIECE))),
            MediaFile(tmp_path / "b", digests(content(2 * PIECE))),
        ]
    )
    assert check.verdict is Verdict.DAMAGED
    assert check.why == f"{2 * PIECE} bytes missing in b"
    assert check.files[1].bad == (BadExtent(0, 2 * PIECE, Kind.MISSING),)
    assert check.files[1].method is None


def test_a_file_that_grew(tmp_path: Path) -> None:
    data = content(PIECE)
    path = written(tmp_path, "a", data + b"more")
    check = check_media([MediaFile(path, digests(data))])
    assert check.verdict is Verdict.DAMAGED
    assert check.why == "4 bytes too many in a"
    assert check_media([MediaFile(path, digests(data), size=PIECE + 4)]).ok


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a")
    with pytest.raises(UsageError):
        check_media([MediaFile(tmp_path / "a", [])])


# -- media ----------------------------------------------------------------------------------------


class Stick:
    """A medium of files one after the other; subclasses have their faults."""

    def __init__(self) -> None:
        self.files: dict[str, tuple[int, int]] = {}
        self.cells = bytearray()
        self.end = 0

    def write(self, name: str, data: bytes) -> Path:
        self.files[name] = (self.end, len(data))
        for at in range(0, len(data), SECTOR):
            self.put(self.end + at, data[at : at + SECTOR])
        self.end += -(-len(data) // SECTOR) * SECTOR
        return Path(name)

    def put(self, position: int, sector: bytes) -> None:
        need = position + len(sector) - len(self.cells)
        self.cells += bytes(max(0, need))
        self.cells[position : position + len(sector)] = sector

    def get(self, position: int, length: int) -> bytes:
        return bytes(self.cells[position : position + length])

    def open(self, path: Path) -> ReadBack:
        return Opened(self, *self.files[path.name])


class Opened:
    """One of its files."""

    method = Method.DIRECT

    def __init__(self, stick: Stick, start: int, size: int) -> None:
        self.stick, self.start, self.size = stick, start, size
        self.reads: list[int] = []

    def read_into(self, view: memoryview, offset: int) -> int:
        assert offset % SECTOR == 0
        assert len(view) % SECTOR == 0
        self.reads.append(len(view))
        count = min(len(view), self.size - offset)
        for at in range(0, count, SECTOR):
            length = min(SECTOR, count - at)
            view[at : at + length] = self.stick.get(self.start + offset + at, length)
        return count

    def close(self) -> None:
        pass


class Dropping(Stick):
    """Claims more than it has: what is written beyond is gone, and reads as a filler."""

    def __init__(self, capacity: int, filler: Callable[[int], bytes]) -> None:
        super().__init__()
        self.capacity, self.filler = capacity, filler

    def put(self, position: int, sector: bytes) -> None:
        if position < self.capacity:
            super().put(position, sector)

    def get(self, position: int, length: int) -> bytes:
        if position >= self.capacity:
            return self.filler(position)[:length]
        return super().get(position, length)


class Wrapping(Stick):
    """Claims more than it has: its addresses start again from 0."""

    def __init__(self, capacity: int) -> None:
        super().__init__()
        self.capacity = capacity

    def put(self, position: int, sector: bytes) -> None:
        super().put(position % self.capacity, sector)

    def get(self, position: int, length: int) -> bytes:
        return super().get(position % self.capacity, length)


class Worn(Stick):
    """Some sectors cannot be read any more."""

    def __init__(self, sectors: Iterable[int], code: int = errno.EIO) -> None:
        super().__init__()
        self.sectors, self.code = set(sectors), code

    def get(self, position: int, length: int) -> bytes:
        if position // SECTOR in self.sectors:
            raise OSError(self.code, os.strerror(self.code))
        return super().get(position, length)


def zeros(_: int) -> bytes:
    return bytes(SECTOR)


def ones(_: int) -> bytes:
    return b"\xff" * SECTOR


def noise(position: int) -> bytes:
    return content(SECTOR, position + 10**9)


def fill(stick: Stick, sizes: Sequence[int]) -> list[MediaFile]:
    files = []
    for number, size in enumerate(sizes):
        data = content(size, number)
        files.append(MediaFile(stick.write(f"v{number}", data), digests(data)))
    return files


@pytest.mark.parametrize("filler", [zeros, ones, noise])
def test_a_stick_that_drops_what_it_cannot_hold(filler: Callable[[int], bytes]) -> None:
    stick = Dropping(20 * PIECE + 3 * SECTOR, filler)
    files = fill(stick, [8 * PIECE, 8 * PIECE, 8 * PIECE, 5 * PIECE + 100])
    check = check_media(files, opener=stick.open)
    assert check.verdict is Verdict.FAKE_CAPACITY
    assert check.genuine == 20 * PIECE
    assert "wrong after it" in check.why
    assert [file.ok for file in check.files] == [True, True, False, False]
    assert check.document()["genuineBytes"] == 20 * PIECE


@pytest.mark.parametrize("filler", [zeros, ones])
def test_one_large_extent_beyond_the_real_end(filler: Callable[[int], bytes]) -> None:
    data = content(4 * MIB)
    stick = Dropping(MIB, filler)
    path = stick.write("v", data)
    extents = digests(data, MIB)
    extents = [extents[0], Extent(MIB, 3 * MIB, Digest.of(data[MIB:]))]
    check = check_media([MediaFile(path, extents)], opener=stick.open)
    assert check.verdict is Verdict.FAKE_CAPACITY


@pytest.mark.parametrize("times", [1.2, 2.0, 3.7])
def test_a_stick_that_wraps_around(times: float) -> None:
    capacity = 10 * PIECE + 5 * SECTOR
    stick = Wrapping(capacity)
    size = int(capacity * times) // 4 // SECTOR * SECTOR
    check = check_media(fill(stick, [size] * 4), opener=stick.open)
    assert check.verdict is Verdict.FAKE_CAPACITY
    assert check.genuine == capacity
    assert "at another" in check.why
    assert not check.files[0].ok
    assert check.files[-1].ok


def test_a_file_whose_tail_repeats_its_head(tmp_path: Path) -> None:
    data = content(20 * PIECE)
    path = written(tmp_path, "a", data[: 10 * PIECE] * 2)
    check = check_media([MediaFile(path, digests(data))])
    assert check.verdict is Verdict.FAKE_CAPACITY
    assert check.genuine == 10 * PIECE


def test_content_that_repeats_by_itself_is_no_fake(tmp_path: Path) -> None:
    """Tied tensors, runs of zeros: with a flipped bit somewhere it is still only damage."""
    data = content(5 * PIECE) * 4 + bytes(20 * PIECE) + content(PIECE, 2)
    bad = bytearray(data)
    bad[40 * PIECE + 5] ^= 1
    path = written(tmp_path, "a", bytes(bad))
    check = check_media([MediaFile(path, digests(data))])
    assert check.verdict is Verdict.DAMAGED
    assert only(check) == [(40 * PIECE, PIECE, Kind.DIFFERS)]


def test_many_samples_are_thinned_out_and_still_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bundler.media.judge._SAMPLES", 32)
    stick = Wrapping(16 * PIECE)
    check = check_media(fill(stick, [8 * PIECE] * 4), opener=stick.open)
    assert check.verdict is Verdict.FAKE_CAPACITY
    assert check.genuine == 16 * PIECE


@pytest.mark.parametrize("kind", [digests, exact])
def test_unreadable_sectors_are_told_and_the_rest_is_read(
    kind: Callable[[bytes], list[Extent]],
) -> None:
    data = content(2 * WINDOW + 7 * SECTOR)
    bad = {3, 4, 700, WINDOW // SECTOR + 1, 2 * WINDOW // SECTOR + 6}
    stick = Worn(bad)
    check = check_media([MediaFile(stick.write("v", data), kind(data))], opener=stick.open)
    assert check.verdict is Verdict.DAMAGED
    unreadable = [(a, n) for a, n, k in only(check) if k is Kind.UNREADABLE]
    assert unreadable == [
        (3 * SECTOR, 2 * SECTOR),
        (700 * SECTOR, SECTOR),
        (WINDOW + SECTOR, SECTOR),
        (2 * WINDOW + 6 * SECTOR, SECTOR),
    ]
    assert check.files[0].checked == len(data) - len(bad) * SECTOR
    others = {k for _, _, k in only(check)} - {Kind.UNREADABLE}
    assert others == ({Kind.UNVERIFIED} if kind is digests else set())
    assert all(a % PIECE + n <= PIECE for a, n, k in only(check) if k is Kind.UNVERIFIED)


def test_a_dead_region_is_not_probed_sector_by_sector() -> None:
    """Each failed read may cost the kernel a minute of retries."""
    data = content(2 * WINDOW)
    stick = Worn(range(WINDOW // SECTOR))
    path = stick.write("v", data)
    source = Opened(stick, *stick.files["v"])
    check = check_media([MediaFile(path, digests(data))], opener=lambda _: source)
    assert only(check) == [(0, WINDOW, Kind.UNREADABLE)]
    assert len(source.reads) < 150


@pytest.mark.parametrize("code", [errno.ENODEV, errno.ENOMEDIUM, errno.EACCES])
def test_a_stick_that_is_pulled_ends_it(code: int) -> None:
    stick = Worn({5}, code)
    with pytest.raises(StorageFailure):
        check_media(fill(stick, [PIECE]), opener=stick.open)


def test_most_extents_that_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bundler.media.check._MOST_BAD", 3)
    data = content(40 * SECTOR)
    stick = Worn(range(0, 40, 4))
    check = check_media([MediaFile(stick.write("v", data), exact(data))], opener=stick.open)
    assert only(check) == [
        (0, SECTOR, Kind.UNREADABLE),
        (4 * SECTOR, SECTOR, Kind.UNREADABLE),
        (8 * SECTOR, 29 * SECTOR, Kind.UNREADABLE),
    ]


# -- windows --------------------------------------------------------------------------------------


@settings(max_examples=15)
@given(
    spots=st.lists(
        st.tuples(st.integers(0, 3 * WINDOW), st.integers(1, WINDOW + 10)), min_size=1, max_size=6
    )
)
def test_any_range_reads_as_it_is(spots: list[tuple[int, int]]) -> None:
    stick = Stick()
    data = DATA
    stick.files["v"] = (0, len(data))
    stick.cells = bytearray(data)
    with Windows(stick.open(Path("v"))) as windows:
        for offset, length in spots:
            got = b"".join(bytes(part.data or b"") for part in windows.parts(offset, length))
            assert got == data[offset : offset + length]


DATA = content(2 * WINDOW + 12345)
