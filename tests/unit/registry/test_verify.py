"""One contract for every verified read and copy: right bytes pass, all others raise."""

from __future__ import annotations

import errno
import io
import os
import random
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.digest import Digest
from registry.pipeline import Readable
from registry.verify import (
    DigestWriter,
    VerifyingReader,
    copy_verified,
    digest_stream,
    hash_stream,
    read_exact_verified,
    storage_errors,
)
from schemas import limits
from schemas.errors import ContentMismatch, StorageFailure, StorageFull

Taker = Callable[[Readable, Digest, int, bool], bytes]

SIZES = (0, 1, 1000, limits.IO_CHUNK, limits.IO_CHUNK + 1, 5 * limits.IO_CHUNK + 7)


class Dribble:
    """A source that gives what it likes: up to ``most`` bytes per read, and has no readinto."""

    def __init__(self, data: bytes, most: int) -> None:
        self._file = io.BytesIO(data)
        self._most = most

    def read(self, n: int, /) -> bytes:
        return self._file.read(min(n, self._most))


def by_reader(source: Readable, digest: Digest, size: int, at_end: bool) -> bytes:
    reader = VerifyingReader(source, digest, size, at_end=at_end)
    parts = []
    while data := reader.read(100_000):
        parts.append(data)
    assert reader.verified
    return b"".join(parts)


def by_readinto(source: Readable, digest: Digest, size: int, at_end: bool) -> bytes:
    reader = VerifyingReader(source, digest, size, at_end=at_end)
    buffer, result = bytearray(77_777), bytearray()
    while count := reader.readinto(buffer):
        result += buffer[:count]
    assert reader.verified
    return bytes(result)


def at_once(source: Readable, digest: Digest, size: int, at_end: bool) -> bytes:
    return read_exact_verified(source, digest, size, at_end=at_end)


def by_copy(source: Readable, digest: Digest, size: int, at_end: bool) -> bytes:
    fd = os.memfd_create("copy")
    try:
        copy_verified(source, fd, digest, size, at_end=at_end)
        assert os.fstat(fd).st_size == size
        return os.pread(fd, size + 1, 0)
    finally:
        os.close(fd)


def by_hash(source: Readable, digest: Digest, size: int, at_end: bool) -> bytes:
    kept = io.BytesIO()

    class Tee:
        def read(self, n: int, /) -> bytes:
            data = source.read(n)
            kept.write(data)
            return data

    hash_stream(Tee(), digest, size, at_end=at_end)
    return kept.getvalue()[:size]


@pytest.fixture(params=[by_reader, by_readinto, at_once, by_copy, by_hash])
def take(request: pytest.FixtureRequest) -> Taker:
    taker: Taker = request.param
    return taker


def content(size: int) -> bytes:
    block = bytes(range(251))
    return (block * (size // len(block) + 1))[:size]


@pytest.mark.parametrize("size", SIZES)
def test_right_bytes_pass(take: Taker, size: int) -> None:
    data = content(size)
    assert take(io.BytesIO(data), Digest.of(data), size, True) == data


@pytest.mark.parametrize("size", SIZES)
def test_a_stream_may_go_on_behind(take: Taker, size: int) -> None:
    data = content(size)
    source = io.BytesIO(data + b"next member")
    assert take(source, Digest.of(data), size, False) == data
    assert source.read() == b"next member"


@pytest.mark.parametrize("size", SIZES)
def test_long_is_refused_at_the_end(take: Taker, size: int) -> None:
    data = content(size)
    with pytest.raises(ContentMismatch, match="longer"):
        take(io.BytesIO(data + b"x"), Digest.of(data), size, True)


@pytest.mark.parametrize("size", [s for s in SIZES if s])
def test_short_is_refused(take: Taker, size: int) -> None:
    data = content(size)
    with pytest.raises(ContentMismatch, match=f"{size - 1} of {size} bytes came"):
        take(io.BytesIO(data[:-1]), Digest.of(data), size, False)


@pytest.mark.parametrize("size", [s for s in SIZES if s])
@pytest.mark.parametrize("where", [0.0, 0.5, 1.0])
def test_one_flipped_bit_is_refused(take: Taker, size: int, where: float) -> None:
    data = content(size)
    wrong = bytearray(data)
    wrong[int((size - 1) * where)] ^= 1
    with pytest.raises(ContentMismatch, match="another digest"):
        take(io.BytesIO(bytes(wrong)), Digest.of(data), size, True)


@given(
    data=st.binary(max_size=300),
    most=st.integers(1, 40),
    extra=st.binary(max_size=3),
    cut=st.integers(0, 300),
)
def test_whatever_the_pieces(data: bytes, most: int, extra: bytes, cut: int) -> None:
    for take in (by_reader, by_readinto, at_once, by_copy, by_hash):
        digest = Digest.of(data)
        assert take(Dribble(data + extra, most), digest, len(data), False) == data
        if extra:
            with pytest.raises(ContentMismatch):
                take(Dribble(data + extra, most), digest, len(data), True)
        if cut < len(data):
            with pytest.raises(ContentMismatch):
                take(Dribble(data[:cut], most), digest, len(data), True)


@given(
    data=st.binary(min_size=1, max_size=200), pieces=st.integers(1, 50), flip=st.integers(0, 10**6)
)
def test_wrong_content_never_comes_out_whole(data: bytes, pieces: int, flip: int) -> None:
    wrong = bytearray(data)
    wrong[flip % len(data)] ^= 1 + flip % 255
    reader = VerifyingReader(io.BytesIO(bytes(wrong)), Digest.of(data), len(data))
    got: list[bytes] = []
    with pytest.raises(ContentMismatch):
        got.extend(iter(lambda: reader.read(pieces), b""))
    assert len(b"".join(got)) < len(data)
    assert not reader.verified


def test_sha512_works_too(take: Taker) -> None:
    import hashlib

    data = content(5000)
    digest = Digest("sha512", hashlib.sha512(data).hexdigest())
    assert take(io.BytesIO(data), digest, len(data), True) == data


def test_read_all_and_read_nothing() -> None:
    data = content(3 * limits.IO_CHUNK)
    reader = VerifyingReader(io.BytesIO(data), Digest.of(data), len(data))
    assert reader.read(0) == b""
    assert reader.readinto(bytearray()) == 0
    assert (reader.verified, reader.read(), reader.verified) == (False, data, True)
    assert reader.read() == reader.read(5) == b""


def test_copy_writes_from_where_the_descriptor_stands(tmp_path: Path) -> None:
    data = content(3 * limits.IO_CHUNK)
    with (tmp_path / "file").open("w+b", buffering=0) as file:
        file.write(b"head")
        copy_verified(io.BytesIO(data), file.fileno(), Digest.of(data), len(data))
        file.seek(0)
        assert file.read() == b"head" + data


class Zeros:
    """Many bytes, none of them stored."""

    def __init__(self, size: int) -> None:
        self._left = size

    def read(self, n: int, /) -> bytes:
        count = min(n, self._left)
        self._left -= count
        return bytes(count)


def test_a_large_blob_behind_another(tmp_path: Path) -> None:
    """More than one stride of writeback; the room is reserved behind what is there."""
    size = 65 * limits.MIB
    digest = digest_stream(Zeros(size), size)
    with (tmp_path / "file").open("w+b", buffering=0) as file:
        file.write(b"head")
        copy_verified(Zeros(size), file.fileno(), digest, size)
        assert file.tell() == os.fstat(file.fileno()).st_size == size + 4
        file.seek(0)
        assert file.read(5) == b"head\x00"


def test_a_pipe_takes_a_large_blob() -> None:
    size = 33 * limits.MIB
    digest = digest_stream(Zeros(size), size)
    reader, writer = os.pipe()
    came = 0

    def drain() -> None:
        nonlocal came
        while data := os.read(reader, limits.IO_CHUNK):
            came += len(data)

    thread = threading.Thread(target=drain)
    thread.start()
    try:
        copy_verified(Zeros(size), writer, digest, size)
    finally:
        os.close(writer)
        thread.join()
        os.close(reader)
    assert came == size


def test_progress_counts_every_byte_once() -> None:
    data = content(5 * limits.IO_CHUNK + 7)
    steps: list[int] = []
    fd = os.memfd_create("copy")
    try:
        copy_verified(io.BytesIO(data), fd, Digest.of(data), len(data), progress=steps.append)
    finally:
        os.close(fd)
    assert sum(steps) == len(data)
    assert len(steps) == 6
    assert digest_stream(io.BytesIO(data), len(data), steps.append) == Digest.of(data)
    assert sum(steps) == 2 * len(data)


def test_an_interrupt_in_progress_leaves_no_thread_behind() -> None:
    data = content(8 * limits.IO_CHUNK)

    def stop(count: int) -> None:
        raise KeyboardInterrupt

    fd = os.memfd_create("copy")
    try:
        with pytest.raises(KeyboardInterrupt):
            copy_verified(io.BytesIO(data), fd, Digest.of(data), len(data), progress=stop)
    finally:
        os.close(fd)
    assert not [t for t in threading.enumerate() if t.name == "sealift-hash"]


def test_digest_of_a_file_that_shrinks() -> None:
    with pytest.raises(ContentMismatch, match="4 of 9 bytes"):
        digest_stream(io.BytesIO(b"1234"), 9)


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
@pytest.mark.parametrize("with_sink", [True, False])
def test_digest_writer(algorithm: str, with_sink: bool) -> None:
    import hashlib

    sink = io.BytesIO()
    writer = DigestWriter(sink if with_sink else None, algorithm=algorithm)
    for part in (b"one", bytearray(b"two"), memoryview(b"three"), b""):
        assert writer.write(part) == len(part)
    assert writer.digest == Digest(algorithm, hashlib.new(algorithm, b"onetwothree").hexdigest())
    assert writer.size == 11
    assert sink.getvalue() == (b"onetwothree" if with_sink else b"")


def test_digest_writer_goes_on_after_partial_writes() -> None:
    class Narrow:
        taken = b""

        def write(self, data: memoryview, /) -> int:
            self.taken += bytes(data[:3])
            return min(3, len(data))

    sink = Narrow()
    DigestWriter(sink).write(b"0123456789")
    assert sink.taken == b"0123456789"


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_no_room_is_storage_full(code: int) -> None:
    with pytest.raises(StorageFull, match="cannot do it"), storage_errors("cannot do it"):
        raise OSError(code, os.strerror(code))


@pytest.mark.parametrize("code", [errno.EIO, errno.EACCES, errno.EROFS, errno.ENOENT, None])
def test_other_failures_are_storage_failures(code: int | None) -> None:
    with pytest.raises(StorageFailure, match="cannot do it"), storage_errors("cannot do it"):
        raise OSError(code, os.strerror(code)) if code else OSError("odd")


def test_a_full_device_is_told() -> None:
    data = content(3 * limits.IO_CHUNK)
    fd = os.open("/dev/full", os.O_WRONLY)
    try:
        with pytest.raises(StorageFull):
            copy_verified(io.BytesIO(data), fd, Digest.of(data), len(data))
        with pytest.raises(StorageFull):
            copy_verified(io.BytesIO(b"x"), fd, Digest.of(b"x"), 1)
    finally:
        os.close(fd)


def test_a_source_that_fails_is_a_storage_failure(take: Taker) -> None:
    class Broken:
        def read(self, n: int, /) -> bytes:
            raise OSError(errno.EIO, "Input/output error")

    expected = (StorageFailure, OSError)  # the plain readers leave it to their caller
    with pytest.raises(expected, match="Input/output"):
        take(Broken(), Digest.of(b"abc"), 3, False)


@pytest.mark.parametrize(
    "size", [0, 1, limits.IO_CHUNK, limits.IO_CHUNK + 1, 5 * limits.IO_CHUNK + 7]
)
def test_others_get_the_same_bytes_in_order(size: int) -> None:
    data = random.Random(size).randbytes(size)
    seen: list[list[bytes]] = [[], []]
    takers: list[Callable[[memoryview], object]] = [
        lambda view: seen[0].append(bytes(view)),
        lambda view: seen[1].append(bytes(view)),
    ]
    assert digest_stream(io.BytesIO(data), size, also=takers) == Digest.of(data)
    assert b"".join(seen[0]) == b"".join(seen[1]) == data


@pytest.mark.parametrize("size", [1, 9 * limits.IO_CHUNK])
def test_what_another_taker_raises_is_raised(size: int) -> None:
    def fail(_: memoryview) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        digest_stream(io.BytesIO(bytes(size)), size, also=[fail])
    assert not [t for t in threading.enumerate() if t.name == "sealift-hash"]
