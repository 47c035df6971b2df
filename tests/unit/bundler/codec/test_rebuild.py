"""Rebuilding: the right bytes, or an error; by whatever way the kernel offers."""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import threading
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bundler.archive.rebuild import Rebuilt, rebuild
from bundler.archive.recipe import Recipe, RecipeBuilder
from registry.digest import Digest
from schemas.errors import ContentMismatch, MalformedArchive, StorageFailure, StorageFull
from tests.support.deltas import Open, noise

BLOCK = 4096
BASES = (noise(5 * BLOCK + 100, 1), noise(9_000_000, 2))
LITERALS = noise(3_000_000, 3)
# A literal first, runs on whole blocks and off them, from both bases, one of them twice.
STEPS: tuple[tuple[int | None, int, int], ...] = (
    (None, 0, BLOCK),
    (0, 2 * BLOCK, 2 * BLOCK),
    (1, 3 * BLOCK + 5, 8_500_000),
    (None, 0, 2_900_000),
    (0, 7, 20_000),
    (1, 0, 123),
)


def recipe_of(steps: tuple[tuple[int | None, int, int], ...]) -> tuple[Recipe, bytes, bytes]:
    """A recipe, the literals that it takes, and what it makes."""
    builder = RecipeBuilder()
    parts = []
    taken = 0
    for base, offset, length in steps:
        if base is None:
            builder.literal(length)
            parts.append(LITERALS[taken : taken + length])
            taken += length
        else:
            builder.copy(base, offset, length)
            parts.append(BASES[base][offset : offset + length])
    return builder.build(2), LITERALS[:taken], b"".join(parts)


RECIPE, TAKEN, RESULT = recipe_of(STEPS)
DIGEST = Digest.of(RESULT)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("bases")
    for number, data in enumerate(BASES):
        (folder / str(number)).write_bytes(data)
    return folder / "0", folder / "1"


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    before = threading.active_count()
    yield
    assert threading.active_count() == before


def portions(data: bytes, length: int = 1_000_003) -> Iterator[bytes]:
    for start in range(0, len(data), length):
        yield data[start : start + length]
        yield b""


def test_a_blob_comes_out(tmp_path: Path, files: tuple[Path, Path]) -> None:
    steps: list[int] = []
    with Open(tmp_path / "out", *files) as fds:
        done = rebuild(RECIPE, fds.bases, portions(TAKEN), fds.out, DIGEST, progress=steps.append)
    assert (tmp_path / "out").read_bytes() == RESULT
    assert done.literal == len(TAKEN)
    assert done.shared + done.copied == RECIPE.copied
    assert sum(steps) == len(RESULT)


@given(cuts=st.lists(st.integers(0, len(TAKEN)), max_size=10))
def test_portions_of_literals_do_not_matter(
    cuts: list[int], files: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory
) -> None:
    bounds = sorted({0, len(TAKEN), *cuts})
    out = tmp_path_factory.mktemp("out") / "out"
    with Open(out, *files) as fds:
        rebuild(
            RECIPE,
            fds.bases,
            (memoryview(TAKEN)[start:end] for start, end in pairwise(bounds)),
            fds.out,
            DIGEST,
        )
    out.unlink()


@pytest.mark.parametrize("start", [0, 1, BLOCK, BLOCK + 1, 9_000_000, len(RESULT) - 1, len(RESULT)])
def test_it_goes_on_where_it_stopped(start: int, tmp_path: Path, files: tuple[Path, Path]) -> None:
    with Open(tmp_path / "out", *files) as fds:
        os.pwrite(fds.out, RESULT[:start], 0)
        rest = portions(TAKEN[RECIPE.literals_before(start) :])
        done = rebuild(RECIPE, fds.bases, rest, fds.out, DIGEST, start=start)
    assert (tmp_path / "out").read_bytes() == RESULT
    assert done.shared + done.copied + done.literal == len(RESULT) - start


def test_what_was_there_already_is_verified_too(tmp_path: Path, files: tuple[Path, Path]) -> None:
    with Open(tmp_path / "out", *files) as fds:
        os.pwrite(fds.out, b"?" + RESULT[1:BLOCK], 0)
        with pytest.raises(ContentMismatch, match="came out wrong"):
            rebuild(RECIPE, fds.bases, [], fds.out, DIGEST, start=len(RESULT))
        rest = portions(TAKEN[BLOCK:])
        with pytest.raises(ContentMismatch, match="came out wrong"):
            rebuild(RECIPE, fds.bases, rest, fds.out, DIGEST, start=BLOCK)


class Sharing:
    """A file system with reflinks, as ioctl_ficlonerange(2) describes them."""

    def __init__(self) -> None:
        self.calls = 0

    def ioctl(self, fd: int, request: int, argument: bytes) -> int:
        assert request == 0x4020940D
        self.calls += 1
        source, offset, length, to = struct.unpack("=qQQQ", argument)
        if offset % BLOCK or length % BLOCK or to % BLOCK:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        data = os.pread(source, length, offset)
        assert len(data) == length
        os.pwrite(fd, data, to)
        return 0


def test_whole_blocks_are_shared_where_that_is_possible(
    tmp_path: Path, files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel = Sharing()
    monkeypatch.setattr(fcntl, "ioctl", kernel.ioctl)
    steps = (
        (1, 5, BLOCK),
        (0, BLOCK + 5, 3 * BLOCK + 50),
        (None, 0, 10),
        (1, 2 * BLOCK, BLOCK - 1),
    )
    recipe, taken, result = recipe_of(steps)
    with Open(tmp_path / "out", *files) as fds:
        done = rebuild(recipe, fds.bases, [taken], fds.out, Digest.of(result))
    assert (tmp_path / "out").read_bytes() == result
    assert done == Rebuilt(0, len(result) - 10, 10)  # never on the same place within a block
    steps = ((1, BLOCK, BLOCK - 7), (0, BLOCK - 7, 3 * BLOCK), (None, 0, 7), (1, 0, 2 * BLOCK))
    recipe, taken, result = recipe_of(steps)
    with Open(tmp_path / "out", *files) as fds:
        done = rebuild(recipe, fds.bases, [taken], fds.out, Digest.of(result))
    assert (tmp_path / "out").read_bytes() == result
    assert done == Rebuilt(4 * BLOCK, 2 * BLOCK - 7, 7)
    assert kernel.calls == 2


@pytest.mark.parametrize("code", [errno.EOPNOTSUPP, errno.EXDEV, errno.ENOTTY, errno.EINVAL])
def test_where_nothing_can_be_shared_it_is_copied_and_not_asked_again(
    code: int, tmp_path: Path, files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []

    def refuse(*_: object) -> int:
        calls.append(code)
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "ioctl", refuse)
    recipe, taken, result = recipe_of(
        ((0, 0, BLOCK), (0, 0, 2 * BLOCK), (0, 0, BLOCK), (1, 0, BLOCK))
    )
    with Open(tmp_path / "out", *files) as fds:
        done = rebuild(recipe, fds.bases, [taken], fds.out, Digest.of(result))
    assert done == Rebuilt(0, len(result), 0)
    assert len(calls) == 2  # once per base


def test_without_copies_inside_the_kernel_it_is_read_and_written(
    tmp_path: Path, files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> int:
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

    monkeypatch.setattr(fcntl, "ioctl", refuse)
    monkeypatch.setattr(os, "copy_file_range", refuse)
    with Open(tmp_path / "out", *files) as fds:
        rebuild(RECIPE, fds.bases, portions(TAKEN), fds.out, DIGEST)
    assert (tmp_path / "out").read_bytes() == RESULT


@pytest.mark.parametrize(
    ("code", "error"), [(errno.ENOSPC, StorageFull), (errno.EIO, StorageFailure)]
)
@pytest.mark.parametrize("call", ["ioctl", "copy_file_range", "pwrite", "preadv"])
def test_a_disk_that_fails_is_told(
    call: str,
    code: int,
    error: type[Exception],
    tmp_path: Path,
    files: tuple[Path, Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: object) -> int:
        raise OSError(code, os.strerror(code))

    with Open(tmp_path / "out", *files) as fds:
        monkeypatch.setattr(fcntl if call == "ioctl" else os, call, fail)
        with pytest.raises(error):
            rebuild(RECIPE, fds.bases, portions(TAKEN), fds.out, DIGEST)
        monkeypatch.undo()


@pytest.mark.parametrize("where", [2 * BLOCK, 4 * BLOCK - 1])
def test_a_base_that_rotted_is_seen(where: int, tmp_path: Path, files: tuple[Path, Path]) -> None:
    rotten = tmp_path / "rotten"
    data = bytearray(BASES[0])
    data[where] ^= 1
    rotten.write_bytes(data)
    with Open(tmp_path / "out", rotten, files[1]) as fds, pytest.raises(ContentMismatch) as caught:
        rebuild(RECIPE, fds.bases, portions(TAKEN), fds.out, DIGEST)
    assert "may be damaged" in caught.value.hint


def test_a_base_that_shrank_is_seen(tmp_path: Path, files: tuple[Path, Path]) -> None:
    short = tmp_path / "short"
    short.write_bytes(BASES[0][: 3 * BLOCK])
    with Open(tmp_path / "out", short, files[1]) as fds, pytest.raises(ContentMismatch):
        rebuild(RECIPE, fds.bases, portions(TAKEN), fds.out, DIGEST)


def test_bases_in_the_wrong_order_are_seen(tmp_path: Path, files: tuple[Path, Path]) -> None:
    with Open(tmp_path / "out", files[1], files[0]) as fds, pytest.raises(ContentMismatch):
        rebuild(RECIPE, fds.bases, portions(TAKEN), fds.out, DIGEST)
    with Open(tmp_path / "out", files[1]) as fds, pytest.raises(ValueError, match="1 files"):
        rebuild(RECIPE, fds.bases, portions(TAKEN), fds.out, DIGEST)


def test_a_recipe_that_makes_other_bytes_is_seen(tmp_path: Path, files: tuple[Path, Path]) -> None:
    other, taken, _ = recipe_of(((1, 1, 8_500_000), *STEPS[3:]))
    with Open(tmp_path / "out", *files) as fds, pytest.raises(ContentMismatch, match="wrong"):
        rebuild(other, fds.bases, portions(taken), fds.out, DIGEST)


@pytest.mark.parametrize(
    ("literals", "error"),
    [
        (TAKEN[:-1], ContentMismatch),
        (b"", ContentMismatch),
        (TAKEN + b"\0", MalformedArchive),
        (b"\0" + TAKEN[1:], ContentMismatch),
    ],
)
def test_wrong_literals_are_seen(
    literals: bytes, error: type[Exception], tmp_path: Path, files: tuple[Path, Path]
) -> None:
    with Open(tmp_path / "out", *files) as fds, pytest.raises(error):
        rebuild(RECIPE, fds.bases, portions(literals), fds.out, DIGEST)


def test_bytes_left_in_the_file_are_seen(tmp_path: Path, files: tuple[Path, Path]) -> None:
    with Open(tmp_path / "out", *files) as fds:
        os.ftruncate(fds.out, len(RESULT) + 1)
        with pytest.raises(ContentMismatch, match="came out wrong"):
            rebuild(RECIPE, fds.bases, portions(TAKEN), fds.out, DIGEST)
