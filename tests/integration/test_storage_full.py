"""A disk that fills: one clear error, and the store byte for byte as it was."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from registry.gc import collect
from registry.store import Store
from schemas import limits
from tests.store_models import install, snapshot, tiny

SCRIPT = Path(__file__).with_name("store_filler.py")
MOUNT_SIZE = 16 * limits.MIB


def run(home: Path, size: int, piece: int, *, limit: int = 0) -> str:
    """Import ``size`` bytes in a process of its own; returns what it reports."""
    result = subprocess.run(
        [sys.executable, str(SCRIPT), str(home), str(size), str(piece), str(limit)],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        cwd=SCRIPT.parents[2],
    )
    assert result.stderr == ""
    return result.stdout.strip()


@pytest.fixture
def home(tmp_path: Path) -> Path:
    with Store.open(tmp_path / "home") as store:
        install(store, tiny(), "acme/before:1")
    return tmp_path / "home"


@pytest.mark.parametrize("size", [8 * limits.MIB, 256 * limits.KIB], ids=["large", "small"])
def test_a_file_size_limit(home: Path, size: int) -> None:
    before = snapshot(home)
    assert run(home, size, size, limit=size // 2).startswith("storage-full")
    assert snapshot(home) == before
    assert run(home, size, size) == "done"


def test_a_commit_that_does_not_fit(home: Path) -> None:
    """Each blob is small enough, the catalogue's journal is not."""
    before = snapshot(home)
    size, piece = 2000, 4
    assert run(home, size, piece, limit=40 * limits.KIB).startswith("storage-")
    after = snapshot(home)
    left = {name for name in after if name not in before}
    assert len(left) == size // piece  # blobs that nobody refers to yet
    assert {name: data for name, data in after.items() if name not in left} == before
    with Store.open(home) as store:
        assert len(collect(store, grace_seconds=0).removed) == size // piece
    assert run(home, size, piece) == "done"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A tmpfs of a few MiB; as root only."""
    point = tmp_path / "disk"
    point.mkdir()
    if os.geteuid() != 0:
        yield point  # then a limit on the file size has to do
        return
    command = ["mount", "-t", "tmpfs", "-o", f"size={MOUNT_SIZE}", "tmpfs", str(point)]
    if subprocess.run(command, check=False, capture_output=True).returncode != 0:
        yield point
        return
    try:
        yield point
    finally:
        subprocess.run(["umount", str(point)], check=True)


@pytest.mark.parametrize("piece", [2 * MOUNT_SIZE, 64 * limits.KIB], ids=["one", "many"])
def test_a_small_disk(small_disk: Path, piece: int) -> None:
    home = small_disk / "home"
    with Store.open(home) as store:
        install(store, tiny(), "acme/before:1")
    before = snapshot(home)
    limit = 0 if small_disk.is_mount() else 48 * limits.KIB
    report = run(home, 2 * MOUNT_SIZE, piece, limit=limit)
    assert report.startswith("storage-full")
    assert "Free some space" in report
    assert snapshot(home) == before
    assert run(home, limits.MIB, limits.MIB) == "done"
    with Store.open(home) as store:
        assert len(store.catalogue.models()) == 1
