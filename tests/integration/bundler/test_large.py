"""More than one segment of 64 MiB: what an interruption costs, and the room that an import takes."""

from __future__ import annotations

import io
import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from bundler.importer import Wishes, import_bundle
from bundler.isolated import import_paths
from bundler.journal import Journal
from registry.store import Store
from schemas import limits
from schemas.render import Output
from tests.gguf_files import Pieces, tensor
from tests.support.bundle_simulator import Forgery, digest, twin
from tests.support.publisher_simulator import Simulator
from tests.support.site import Site, check_sound
from tests.support.sticks import Carried, Stored, by_segments, carry, frame, pieces, planes, recipe
from tests.support.trip import Trip

MIB = limits.MIB
NAME = "library/large:1"
BUNDLE = Path(sys.executable).with_name("bundle")
HEADER = 4096  # more than a model file has before its noise
SLACK = MIB  # heads, headers, and what a pipe has in flight


def large(size: int, seed: int = 1) -> bytes:
    """A valid model file of noise, a little over ``size`` bytes."""
    floats = size // 4
    header = Pieces(
        tensors=(
            tensor("token_embd.weight", (32, 4), 2, 0),
            tensor("output_norm.weight", (floats,), 0, 96),
        ),
        data_bytes=96,
    ).build()
    return header + random.Random(seed).randbytes(4 * floats)


def stored(data: bytes, encoding: str, base: bytes = b"") -> Stored:
    """In pieces as large as ``bundle create`` makes them."""
    piece = limits.PIECE_BYTES
    if encoding == "identity":
        return Stored("identity", (data,))
    if encoding == "segments":
        return Stored("identity", tuple(pieces(data, 16 * MIB)), 16 * MIB)
    if encoding == "delta":
        part = len(data) // 8
        literals = data[:HEADER] + data[part:]
        copied = [(0, 0, HEADER), (1, HEADER, part - HEADER), (0, 0, len(data) - part)]
        script = recipe(len(data), copied, len(literals))
        return Stored("delta", (script, *pieces(literals, piece)), 64 * MIB, (digest(base),))
    count = int(encoding[-1]) if "planes" in encoding else 1
    frames = tuple(frame(planes(each, count)) for each in pieces(data, piece))
    return Stored(encoding, frames, piece)


def bundle(publisher: Simulator, data: bytes, encoding: str, **more: Any) -> Carried:
    return carry(
        twin(publisher),
        Forgery(NAME, data),
        encodings={digest(data): stored(data, encoding, more.pop("base", b""))},
        **more,
    )


@pytest.fixture
def target(site: Site, tmp_path: Path) -> Site:
    return site.copy(tmp_path / "home")


# -- resuming -------------------------------------------------------------------------------------


def position(process: int, path: Path) -> int:
    """Where another process stands in a file; 0 if it has not opened it."""
    try:
        for link in Path(f"/proc/{process}/fd").iterdir():
            if link.readlink() == path:
                text = Path(f"/proc/{process}/fdinfo/{link.name}").read_text(encoding="ascii")
                return int(text.split()[1])
    except OSError:  # closed meanwhile, or just ending
        pass
    return 0


def killed_at(site: Site, path: Path, place: int) -> int:
    """Import, and SIGKILL as soon as it has read so far; how far it had come."""
    with subprocess.Popen(
        [BUNDLE, "import", path],
        env={**os.environ, "SEALIFT_HOME": str(site.home)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    ) as process:
        while position(process.pid, path) < place:
            assert process.poll() is None, process.communicate()
        process.send_signal(signal.SIGSTOP)
        reached = position(process.pid, path)
        process.kill()
    assert process.returncode == -signal.SIGKILL
    return reached


class Counting(io.FileIO):
    """Counts the bytes that are read."""

    count = 0

    def readinto(self, buffer: Any, /) -> int:
        found = super().readinto(buffer)
        self.count += found or 0
        return found or 0


@pytest.mark.parametrize("encoding", ["identity", "zstd-planes4"])
def test_killed_import_of_one_file_repeats_at_most_one_segment(
    encoding: str, publisher: Simulator, target: Site, tmp_path: Path
) -> None:
    """Counted in bytes read of the bundle, over two kills."""
    path = tmp_path / "models.tar"
    path.write_bytes(bundle(publisher, large(160 * MIB), encoding).head)
    total = path.stat().st_size
    first = killed_at(target, path, 70 * MIB)
    assert target.models() == []
    second = killed_at(target, path, max(first, 135 * MIB))
    assert target.models() == []
    with (
        Counting(path) as source,
        Store.open(target.home) as store,
        Output(quiet=True).progress() as meter,
    ):
        now = datetime.now(UTC)
        import_bundle(store, source, {}, wishes=Wishes(), now=now, progress=meter)
    print(first, second, source.count, total)
    assert source.count <= total - second + limits.SEGMENT_BYTES + SLACK
    assert check_sound(target.home) == [NAME]
    assert list((target.home / "staging").iterdir()) == []


def test_killed_rebuilding_of_a_delta_goes_on(
    publisher: Simulator, target: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When all has come and the blob is half made: nothing of the bundle is read again."""
    _, _, path = delta_on(publisher, target, tmp_path, 96 * MIB)
    noted: list[int] = []

    class PowerLost(BaseException):
        pass

    real = Journal.front_done

    def once(journal: Journal, which: Any, count: int) -> None:
        real(journal, which, count)
        noted.append(count)
        if len(noted) == 2:
            raise PowerLost

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "front_done", once)
        with pytest.raises(PowerLost):
            bring(target, path)
    (stored_part,) = (target.home / "staging").glob("*/*.delta")
    assert stored_part.stat().st_blocks * 512 < stored_part.stat().st_size - 4 * MIB  # given back
    with (
        Counting(path) as source,
        Store.open(target.home) as store,
        Output(quiet=True).progress() as meter,
    ):
        now = datetime.now(UTC)
        import_bundle(store, source, {}, wishes=Wishes(), now=now, progress=meter)
    assert source.count < SLACK
    assert NAME in check_sound(target.home)


# -- room -----------------------------------------------------------------------------------------


def bring(site: Site, *paths: Path) -> None:
    with Output(quiet=True).progress() as meter:
        import_paths(site.home, list(paths), Wishes(), meter)


def delta_on(
    publisher: Simulator, site: Site, folder: Path, size: int
) -> tuple[bytes, bytes, Path]:
    """A delta that is seven eighths literals, and its base in the store."""
    data, base = large(size, 3), large(size // 8, 3)  # the same noise after another header
    assert base[HEADER : size // 8] == data[HEADER : size // 8]
    older = folder / "base.tar"
    older.write_bytes(carry(twin(publisher), Forgery("library/base:1", base)).head)
    bring(site, older)
    newer = twin(publisher)
    newer.bump()
    path = folder / "delta.tar"
    carried = bundle(
        newer, data, "delta", base=base, requires={digest(base): len(base)}, sequence=2
    )
    path.write_bytes(carried.head)
    return base, data, path


def used(folder: Path) -> int:
    """Bytes that a folder takes on the disk; a file with two names counts once."""
    found = {}
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                status = os.lstat(os.path.join(parent, name))  # noqa: PTH118 - in a hurry
            except FileNotFoundError:
                continue
            found[status.st_ino] = status.st_blocks * 512
    return sum(found.values())


@contextmanager
def peak_of(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], int]]:
    """The most room taken beyond what was taken before: looked at all the time, and at each sync."""
    before, most, over = used(folder), [0], threading.Event()

    def look() -> None:
        most[0] = max(most[0], used(folder) - before)

    def looking(sync: Callable[[int], None]) -> Callable[[int], None]:
        def one(fd: int) -> None:
            look()
            sync(fd)

        return one

    def poll() -> None:
        while not over.wait(0.005):
            look()

    with monkeypatch.context() as patch:
        for name in ("fsync", "fdatasync"):
            patch.setattr(os, name, looking(getattr(os, name)))
        poller = threading.Thread(target=poll)
        poller.start()
        try:
            yield lambda: most[0]
        finally:
            over.set()
            poller.join()


@pytest.mark.parametrize("most", [None, 2])
@pytest.mark.parametrize("encoding", ["segments", "zstd"])
def test_peak_of_the_disk(
    encoding: str,
    most: int | None,
    publisher: Simulator,
    target: Site,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The payload and a segment: in one file, and in volumes of two segments."""
    data = large(66 * MIB)
    layout = None if most is None else by_segments(most)
    paths = bundle(publisher, data, encoding, layout=layout).put(tmp_path / "stick")
    with peak_of(target.home, monkeypatch) as peak:
        bring(target, *paths)
    print(encoding, most, peak() / len(data))
    assert len(data) <= peak() <= len(data) + 4 * MIB < len(data) + limits.SEGMENT_BYTES
    assert check_sound(target.home) == [NAME]


def test_peak_of_the_disk_of_a_delta(
    publisher: Simulator, target: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its stored bytes, seven eighths of the blob, make room for it."""
    _, data, path = delta_on(publisher, target, tmp_path, 144 * MIB)
    with peak_of(target.home, monkeypatch) as peak:
        bring(target, path)
    print("delta", peak() / len(data))
    assert peak() <= len(data) + limits.SEGMENT_BYTES
    assert NAME in check_sound(target.home)


def test_peak_of_the_disk_with_parity(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lost volume is made again while it is read: nothing is written but the blob."""
    trip = Trip(tmp_path)
    source = tmp_path / "large.gguf"
    data = large(66 * MIB)
    source.write_bytes(data)
    options = ("--compression", "none", "--volume-size", "20Mi", "--parity", "1")
    stick = tmp_path / "stick"
    stick.mkdir()
    made = trip.near.bundle(
        "create", source, "-n", NAME, *options, "-o", stick / "m.tar", *trip.secret
    )
    assert made.code == 0, made
    (stick / "m.v002.tar").unlink()
    site = trip.site("peak")
    with peak_of(site.home, monkeypatch) as peak:
        bring(site, stick)
    print("parity", peak() / len(data))
    assert peak() <= len(data) + 4 * MIB
    assert check_sound(site.home) == [NAME]
