"""A delta on a file system that can share blocks: what the base has takes no room again."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from schemas import limits
from tests.support.site import check_sound
from tests.support.trip import BASE, Trip, model

DISK = 320 * limits.MIB  # XFS makes nothing smaller than 300 MiB


@pytest.fixture(params=["btrfs", "xfs"])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A file system in a file, mounted; that takes root."""
    kind, image, point = request.param, tmp_path / "image", tmp_path / "disk"
    program = shutil.which(f"mkfs.{kind}", path=f"{os.environ['PATH']}:/usr/sbin")
    if os.geteuid() != 0 or program is None:
        pytest.skip(f"needs root, and mkfs.{kind}")
    with image.open("wb") as file:
        file.truncate(DISK)
    subprocess.run([program, "-q", str(image)], check=True)
    point.mkdir()
    mount = ["mount", "-o", "loop", str(image), str(point)]
    done = subprocess.run(mount, check=False, capture_output=True, text=True)
    if done.returncode != 0:
        pytest.skip(f"nothing can be mounted here: {done.stderr.strip()}")
    try:
        yield point
    finally:
        subprocess.run(["umount", str(point)], check=True)


def used(disk: Path) -> int:
    subprocess.run(["sync", "--file-system", str(disk)], check=True)
    stat = os.statvfs(disk)
    return (stat.f_blocks - stat.f_bfree) * stat.f_frsize


def test_a_delta_takes_the_room_of_what_is_new(disk: Path, tmp_path: Path) -> None:
    (tmp_path / "trip").mkdir()
    trip = Trip(tmp_path / "trip")
    far = trip.site("far")
    assert far.bundle("import", trip.create(trip.base, "-n", BASE, name="base.tar")).code == 0
    inventory, _ = trip.inventory(far)
    new = model(tmp_path / "new.gguf", changed=3)
    delta = trip.create(new, "-n", "library/new:1", "--against", inventory, name="delta.tar")
    target = far.copy(disk / "home")
    before = used(disk)
    assert target.bundle("import", delta).code == 0
    assert used(disk) - before < new.stat().st_size // 2
    assert check_sound(target.home) == [BASE, "library/new:1"]
