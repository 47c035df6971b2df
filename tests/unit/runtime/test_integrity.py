"""Model files that are no longer what was imported, and workers that must not answer from them."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from registry.digest import Digest
from runtime.integrity import Integrity, Verify
from runtime.leases import RunningWorker
from runtime.loading import VerifiedStart
from runtime.messages import WorkerSpec
from schemas.errors import Cancelled, LoadFailed, StoreDamaged
from tests.support.simulated_worker import SimulatedMachine

DATA = os.urandom(3 * 1024 * 1024 + 5)


@pytest.fixture
def blob(tmp_path: Path) -> Path:
    digest = Digest.of(DATA)
    path = tmp_path / digest.algorithm / digest.hex
    path.parent.mkdir()
    path.write_bytes(DATA)
    return path


def rot(path: Path, at: int = 1_000_000) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)
        file.seek(at)
        file.write(bytes([byte[0] ^ 1]))


def test_a_good_blob_is_read_once(blob: Path) -> None:
    integrity = Integrity()
    assert integrity.unchanged(blob)
    assert integrity.check(blob)
    assert not integrity.check(blob)
    assert integrity.unchanged(blob)


def test_always_means_always(blob: Path) -> None:
    integrity = Integrity(Verify.ALWAYS)
    assert integrity.check(blob)
    assert integrity.check(blob)


def test_off_means_off(blob: Path) -> None:
    integrity = Integrity(Verify.OFF)
    rot(blob)
    assert not integrity.check(blob)
    assert integrity.unchanged(blob)


@pytest.mark.parametrize("damage", [rot, lambda p: p.write_bytes(DATA + b"x"), Path.unlink])
def test_damage_is_seen_before_loading(blob: Path, damage: Callable[[Path], object]) -> None:
    integrity = Integrity()
    damage(blob)
    for _ in range(2):
        with pytest.raises(StoreDamaged, match="doctor --scrub"):
            integrity.check(blob)


def test_damage_is_seen_while_loaded(blob: Path) -> None:
    integrity = Integrity()
    integrity.check(blob)
    times = blob.stat()
    rot(blob)
    os.utime(blob, ns=(times.st_atime_ns, times.st_mtime_ns))  # whoever did it covers their tracks
    assert not integrity.unchanged(blob)
    with pytest.raises(StoreDamaged):
        integrity.check(blob)
    rot(blob)  # the same bit again: healed
    assert integrity.check(blob)
    assert integrity.unchanged(blob)
    blob.unlink()
    assert not integrity.unchanged(blob)


def test_a_blob_known_to_be_wrong_is_not_read_again(
    blob: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    integrity = Integrity()
    rot(blob)
    with pytest.raises(StoreDamaged):
        integrity.check(blob)
    monkeypatch.setattr("runtime.integrity.hash_through", None)
    with pytest.raises(StoreDamaged):
        integrity.check(blob)


def test_it_can_be_ended(blob: Path) -> None:
    integrity = Integrity()
    integrity.close()
    with pytest.raises(Cancelled):
        integrity.check(blob)


def test_a_link_is_no_blob(blob: Path, tmp_path: Path) -> None:
    elsewhere = blob.rename(tmp_path / "elsewhere")
    blob.symlink_to(elsewhere)
    with pytest.raises(Exception, match="cannot read blob"):
        Integrity().check(blob)


# -- starting workers -----------------------------------------------------------------------------


class Starts:
    """Starts simulated workers for one blob, and keeps account."""

    def __init__(self, blob: Path) -> None:
        self.machine = SimulatedMachine()
        self.damaged: list[Path] = []
        self.done: list[float | None] = []
        self.pool = ThreadPoolExecutor(1)
        self.spec = WorkerSpec(str(blob))
        self.start = VerifiedStart(
            self.machine.start,
            Integrity(),
            self.pool,
            lambda path, _: self.damaged.append(path),
            self.done.append,
        )

    async def __call__(self) -> RunningWorker:
        return await self.start(self.spec)


async def test_a_worker_of_a_good_file(blob: Path) -> None:
    starts = Starts(blob)
    assert (await starts()).alive
    assert len(starts.done) == 1
    assert starts.done[0] is not None


async def test_a_worker_of_a_damaged_file_never_answers(blob: Path) -> None:
    starts = Starts(blob)
    rot(blob)
    with pytest.raises(StoreDamaged):
        await starts()
    assert starts.machine.alive == []
    assert starts.damaged == [blob]
    assert starts.done == [None]


async def test_the_damage_is_told_and_not_what_the_engine_said_of_it(blob: Path) -> None:
    starts = Starts(blob)
    starts.machine.broken.add(str(blob))
    with pytest.raises(LoadFailed):
        await starts()
    rot(blob)
    with pytest.raises(StoreDamaged):
        await starts()


async def test_whoever_does_not_wait_leaves_no_worker_behind(
    blob: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    starts = Starts(blob)
    gate = threading.Event()
    check = Integrity.check

    def slow(self: Integrity, path: Path) -> bool:
        gate.wait(10)
        return check(self, path)

    monkeypatch.setattr(Integrity, "check", slow)
    task = asyncio.create_task(starts.start(starts.spec))
    while not starts.machine.workers:  # noqa: ASYNC110 - states of others, which have no event
        await asyncio.sleep(0.001)
    task.cancel()
    gate.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert starts.machine.alive == []
