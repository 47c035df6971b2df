"""Blobs and staging areas: whole or not at all."""

from __future__ import annotations

import errno
import io
import os
import stat
import time
from pathlib import Path

import pytest

from registry import linuxio
from registry.blobs import BlobStore, StagingArea
from registry.digest import Digest
from schemas import limits
from schemas.errors import (
    AlreadyExists,
    ContentMismatch,
    InvalidName,
    NotFound,
    StorageFailure,
    StorageFull,
)
from tests.store_models import backdate, snapshot

DATA = b"some bytes" * 1000
DIGEST = Digest.of(DATA)


@pytest.fixture
def blobs(tmp_path: Path) -> BlobStore:
    store = BlobStore(tmp_path)
    store.prepare()
    return store


def put(blobs: BlobStore, data: bytes = DATA) -> Digest:
    with blobs.stage() as area:
        digest = area.add_bytes(data)
        area.install()
    return digest


def test_install_puts_exactly_the_bytes_in_place(blobs: BlobStore) -> None:
    with blobs.stage() as area:
        staged = area.add(io.BytesIO(DATA), DIGEST, len(DATA))
        assert staged == area.path(DIGEST)
        assert staged.read_bytes() == DATA
        assert area.digests == {DIGEST}
        assert not blobs.has(DIGEST)
        area.install()
        assert blobs.has(DIGEST)
        assert area.digests == frozenset()
        assert area.bytes_added == len(DATA)
    path = blobs.path(DIGEST)
    assert path == blobs.root / "blobs" / "sha256" / DIGEST.hex
    assert path.read_bytes() == DATA
    assert stat.S_IMODE(path.stat().st_mode) == 0o444
    assert list(blobs) == [DIGEST]
    assert list(blobs.staging.iterdir()) == []


def test_modes_do_not_depend_on_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        blobs = BlobStore(tmp_path)
        blobs.prepare()
        put(blobs)
    finally:
        os.umask(before)
    assert stat.S_IMODE(blobs.path(DIGEST).stat().st_mode) == 0o444
    assert stat.S_IMODE(blobs.staging.stat().st_mode) == 0o700


def test_reading(blobs: BlobStore) -> None:
    put(blobs)
    assert blobs.size(DIGEST) == len(DATA)
    assert blobs.has(DIGEST, len(DATA))
    assert not blobs.has(DIGEST, len(DATA) + 1)
    assert blobs.read(DIGEST, len(DATA)) == DATA
    with blobs.open(DIGEST) as file:
        assert file.read() == DATA
    with pytest.raises(ContentMismatch, match="too large"):
        blobs.read(DIGEST, len(DATA) - 1)


def test_what_is_not_there(blobs: BlobStore) -> None:
    assert not blobs.has(DIGEST)
    assert list(blobs) == []
    with pytest.raises(NotFound):
        blobs.size(DIGEST)
    with pytest.raises(NotFound):
        blobs.open(DIGEST)
    with pytest.raises(NotFound):
        blobs.read(DIGEST, 10)
    with pytest.raises(NotFound):
        blobs.verify(DIGEST)


def rot(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.chmod(0o600)
    path.write_bytes(data)


def test_rot_is_seen(blobs: BlobStore) -> None:
    put(blobs)
    assert blobs.verify(DIGEST)
    rot(blobs.path(DIGEST))
    assert not blobs.verify(DIGEST)
    with pytest.raises(ContentMismatch):
        blobs.read(DIGEST, len(DATA))


def test_foreign_files_are_neither_counted_nor_touched(blobs: BlobStore) -> None:
    put(blobs)
    foreign = blobs.path(DIGEST).with_name("README")
    foreign.write_text("hello")
    assert list(blobs) == [DIGEST]
    assert foreign.exists()


@pytest.mark.parametrize(
    "claimed",
    [
        (DIGEST, len(DATA) + 1),
        (DIGEST, len(DATA) - 1),
        (DIGEST, 0),
        (Digest.of(b"other"), len(DATA)),
    ],
    ids=["short", "cut", "empty", "wrong"],
)
def test_a_bad_blob_leaves_nothing(blobs: BlobStore, claimed: tuple[Digest, int]) -> None:
    before = snapshot(blobs.root)
    with pytest.raises(ContentMismatch), blobs.stage() as area:
        area.add(io.BytesIO(DATA), *claimed)
    assert snapshot(blobs.root) == before


def test_a_bad_blob_does_not_spoil_the_others(blobs: BlobStore) -> None:
    with blobs.stage() as area:
        area.add_bytes(b"good")
        with pytest.raises(ContentMismatch):
            area.add(io.BytesIO(DATA + b"x"), DIGEST, len(DATA), at_end=True)
        assert not area.path(DIGEST).exists()
        area.add(io.BytesIO(DATA), DIGEST, len(DATA))
        area.install()
    assert set(blobs) == {DIGEST, Digest.of(b"good")}


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_leaving_without_install_removes_everything(
    blobs: BlobStore, error: type[BaseException]
) -> None:
    put(blobs, b"before")
    before = snapshot(blobs.root)

    def fail() -> None:
        with blobs.stage("batch-1") as area:
            area.add_bytes(DATA)
            area.claim(Digest.of(b"before"), 6)
            raise error

    with pytest.raises(error):
        fail()
    assert snapshot(blobs.root) == before


def test_an_area_is_usable_only_inside_its_context(blobs: BlobStore) -> None:
    area = blobs.stage()
    with pytest.raises(StorageFailure):
        area.path(DIGEST)
    with area:
        pass
    with pytest.raises(StorageFailure):
        area.add_bytes(DATA)


@pytest.mark.parametrize("batch", ["..", "a/b", "A", "x" * 65, "a\x00", ""])
def test_bad_batch_names(blobs: BlobStore, batch: str) -> None:
    with pytest.raises(InvalidName):
        blobs.stage(batch)


def test_areas_lie_in_staging(blobs: BlobStore) -> None:
    with blobs.stage() as one, blobs.stage("import-1") as two:
        assert one.folder.parent == two.folder.parent == blobs.staging
        assert two.folder.name.startswith("import-1-")


def test_the_same_blob_twice(blobs: BlobStore) -> None:
    with blobs.stage() as area:
        area.add(io.BytesIO(DATA), DIGEST, len(DATA))
        with pytest.raises(AlreadyExists):
            area.add(io.BytesIO(DATA), DIGEST, len(DATA))
        assert area.add_bytes(DATA) == DIGEST
        area.install()
    put(blobs)
    assert list(blobs) == [DIGEST]


def test_install_keeps_what_is_there(blobs: BlobStore) -> None:
    put(blobs)
    inode = blobs.path(DIGEST).stat().st_ino
    put(blobs)
    assert blobs.path(DIGEST).stat().st_ino == inode


def test_install_replaces_a_truncated_file(blobs: BlobStore) -> None:
    put(blobs)
    path = blobs.path(DIGEST)
    path.chmod(0o600)
    path.write_bytes(DATA[:-1])
    put(blobs)
    assert blobs.verify(DIGEST)


def test_sha512_has_its_own_folder(blobs: BlobStore) -> None:
    import hashlib

    digest = Digest("sha512", hashlib.sha512(DATA).hexdigest())
    with blobs.stage() as area:
        area.add(io.BytesIO(DATA), digest, len(DATA))
        area.install()
    assert blobs.path(digest).parent.name == "sha512"
    assert list(blobs) == [digest]
    assert blobs.verify(digest)


def test_a_claimed_blob_survives_its_removal(blobs: BlobStore) -> None:
    put(blobs)
    with blobs.stage() as area:
        assert area.claim(DIGEST, len(DATA))
        assert area.claim(DIGEST, len(DATA))
        assert not area.claim(Digest.of(b"absent"), 6)
        assert area.bytes_added == 0
        blobs.path(DIGEST).unlink()
        area.install()
    assert blobs.verify(DIGEST)
    assert blobs.path(DIGEST).stat().st_nlink == 1


def test_a_claim_without_hard_links_renews_the_grace_time(
    blobs: BlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on exFAT."""

    def no_links(*_: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    put(blobs)
    backdate(blobs.path(DIGEST), 1000)
    monkeypatch.setattr(os, "link", no_links)
    with blobs.stage() as area:
        assert area.claim(DIGEST, len(DATA))
        assert area.digests == frozenset()
        area.install()
    assert time.time() - blobs.path(DIGEST).stat().st_mtime < 500


def test_a_claim_of_another_size_fails(blobs: BlobStore) -> None:
    put(blobs)
    with blobs.stage() as area:
        assert not area.claim(DIGEST, len(DATA) + 1)


def test_live_areas_are_seen_and_kept(blobs: BlobStore) -> None:
    assert blobs.live_areas() == 0
    with blobs.stage() as one, blobs.stage() as two:
        one.add_bytes(DATA)
        assert blobs.live_areas() == 2
        assert BlobStore(blobs.root).clear_abandoned() == 0
        assert one.path(DIGEST).exists()
        assert two.folder.is_dir()
    assert blobs.live_areas() == 0


def abandoned(blobs: BlobStore, name: str, *, lock: bool = True) -> Path:
    folder = blobs.staging / name
    folder.mkdir()
    (folder / "sha256-00").write_bytes(b"half a bl")
    if lock:
        (blobs.staging / f"{name}.lock").touch()
    return folder


@pytest.mark.parametrize("lock", [True, False])
def test_abandoned_areas_are_cleared(blobs: BlobStore, lock: bool) -> None:
    abandoned(blobs, "dead", lock=lock)
    assert blobs.live_areas() == 0
    BlobStore(blobs.root).prepare()
    assert list(blobs.staging.iterdir()) == []


def test_an_orphaned_lock_is_cleared(blobs: BlobStore) -> None:
    (blobs.staging / "dead.lock").touch()
    assert blobs.clear_abandoned() == 1
    assert list(blobs.staging.iterdir()) == []


def test_clearing_follows_no_links(blobs: BlobStore, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("keep me")
    (blobs.staging / "link").symlink_to(outside)
    folder = abandoned(blobs, "dead")
    (folder / "link").symlink_to(outside / "precious")
    blobs.clear_abandoned()
    assert (outside / "precious").read_text() == "keep me"
    assert list(blobs.staging.iterdir()) == []


def test_a_link_planted_in_staging_is_not_written_through(blobs: BlobStore, tmp_path: Path) -> None:
    target = tmp_path / "target"
    with blobs.stage() as area:
        for planted in (area.path(DIGEST), area.part(DIGEST)):
            planted.symlink_to(target)
        area.add(io.BytesIO(DATA), DIGEST, len(DATA))
        assert not area.path(DIGEST).is_symlink()
    assert not target.exists()


def test_a_declared_size_beyond_the_disk_is_told_at_once(blobs: BlobStore) -> None:
    before = snapshot(blobs.root)

    class Untouched(io.RawIOBase):
        def readable(self) -> bool:
            return True

    free = os.statvfs(blobs.root)
    size = min(free.f_frsize * free.f_blocks * 2, 2**62)
    with pytest.raises(StorageFull), blobs.stage() as area:
        area.add(io.BufferedReader(Untouched()), DIGEST, size)
    assert snapshot(blobs.root) == before


def test_progress_reaches_the_caller(blobs: BlobStore) -> None:
    steps: list[int] = []
    data = b"x" * (2 * limits.IO_CHUNK + 1)
    with blobs.stage() as area:
        area.add(io.BytesIO(data), Digest.of(data), len(data), steps.append)
    assert sum(steps) == len(data)


def test_preparing_a_place_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageFailure):
        BlobStore(tmp_path / "file").prepare()
    with pytest.raises(StorageFailure), StagingArea(BlobStore(tmp_path), tmp_path / "file"):
        pass


@pytest.mark.parametrize("known", [True, False])
def test_many_small_blobs_are_synced_before_they_wait(
    blobs: BlobStore, monkeypatch: pytest.MonkeyPatch, known: bool
) -> None:
    """All at once where the file system is known to do that for good, else each by itself."""
    if not known:
        monkeypatch.setattr(linuxio, "_WHOLLY_SYNCED", frozenset())
    synced = set()
    together = []
    fsync, sync_file_system = os.fsync, linuxio.sync_file_system

    def one(fd: int) -> None:
        fsync(fd)
        synced.add(os.fstat(fd).st_ino)

    def everything(fd: int) -> bool:
        together.append(sync_file_system(fd))
        return together[-1]

    monkeypatch.setattr(os, "fsync", one)
    monkeypatch.setattr(linuxio, "sync_file_system", everything)
    with blobs.stage() as area:
        digests = [area.add_bytes(b"%d" % number) for number in range(100)]
        assert not any(area.path(digest).suffix == "" for digest in digests)
        area.settle()
        files = {area.path(digest).stat().st_ino for digest in digests}
        assert all(area.path(digest).suffix == "" for digest in digests)
    assert len(together) == 1
    assert together[0] or files <= synced
    assert known or not together[0]
