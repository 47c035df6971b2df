"""SIGKILL at any moment: the state before or the state after, and the next attempt simply works."""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from registry.gc import collect
from registry.store import Store
from tests.gguf_files import Pieces, tensor
from tests.support.bundle_simulator import Forgery, digest, forge, twin
from tests.support.publisher_simulator import Simulator
from tests.support.site import Site, check_sound
from tests.support.sticks import Stored, by_segments, carry, pieces

BUNDLE = Path(sys.executable).with_name("bundle")
MODEL = "library/tiny:1"
FLOATS = 1 << 20
LARGE = Pieces(
    tensors=(
        tensor("token_embd.weight", (32, 4), 2, 0),
        tensor("output_norm.weight", (FLOATS,), 0, 96),
    ),
    data_bytes=96 + 4 * FLOATS,
).build()
Stick = Callable[[bytes], Path]


@pytest.fixture
def large(publisher: Simulator, stick: Stick) -> Path:
    """A good bundle of 4 MiB."""
    return stick(forge(twin(publisher), Forgery(weights=LARGE)))


def run_killing(repository: Path, tmp_path: Path, *argv: object) -> dict[str, int]:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.killing", *map(str, argv)],
        cwd=repository,
        env={**os.environ, "TMPDIR": str(scratch)},
        capture_output=True,
        text=True,
        check=False,
        timeout=250,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    counts: dict[str, int] = json.loads(done.stdout)
    print(counts)
    return counts


def test_imports_killed_at_random_moments(
    repository: Path, site: Site, large: Path, tmp_path: Path
) -> None:
    pristine = site.copy(tmp_path / "home")
    counts = run_killing(repository, tmp_path, "imports", pristine.home, large, MODEL, 120, 1)
    assert counts["killed"] >= 120
    assert counts["left-staging"] >= 10  # or the moments were not spread over the work


def test_imports_of_volumes_killed_at_random_moments(
    repository: Path, site: Site, publisher: Simulator, tmp_path: Path
) -> None:
    """Over what was left, and over what that left; never is more than one segment read again."""
    pristine = site.copy(tmp_path / "home")
    piece = 256 << 10
    # Zeros would be in their place before they came.
    model = LARGE[: -4 * FLOATS] + random.Random(4).randbytes(4 * FLOATS)
    way = Stored("identity", tuple(pieces(model, piece)), piece)
    carried = carry(
        twin(publisher),
        Forgery(weights=model),
        encodings={digest(model): way},
        layout=by_segments(4),
    )
    assert len(carried.volumes) == 5
    stick = tmp_path / "stick"
    carried.put(stick)
    counts = run_killing(repository, tmp_path, "imports", pristine.home, stick, MODEL, 100, 3)
    assert counts["killed"] >= 100
    assert counts["left-staging"] >= 10
    assert counts["most-repeated"] <= 1


def test_bundling_killed_at_random_moments(repository: Path, tmp_path: Path) -> None:
    source = tmp_path / "tiny.gguf"
    source.write_bytes(LARGE)
    counts = run_killing(repository, tmp_path, "creates", tmp_path, source, 40, 2)
    assert counts["killed"] >= 40


def start_import(site: Site, path: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [BUNDLE, "import", path],
        env={**os.environ, "SEALIFT_HOME": str(site.home)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def kill(process: subprocess.Popen[str]) -> int:
    process.kill()
    process.communicate(timeout=250)
    return process.returncode


def test_installed_command_killed(site: Site, large: Path, tmp_path: Path) -> None:
    target = site.copy(tmp_path / "home")
    before = target.snapshot().catalogue
    moments = random.Random(3)
    for _ in range(5):
        process = start_import(target, large)
        time.sleep(moments.uniform(0.05, 0.8))
        code = kill(process)
        if check_sound(target.home):
            assert code in (0, -signal.SIGKILL)
            assert target.imports() >= 1
        else:
            assert code == -signal.SIGKILL
            assert target.snapshot().catalogue == before
    assert target.bundle("import", large).code == 0
    assert check_sound(target.home) == [MODEL]
    assert list((target.home / "staging").iterdir()) == []


def test_killed_between_the_blobs_and_the_commit(site: Site, large: Path, tmp_path: Path) -> None:
    """The one moment that chance hits least: held open by another writer of the catalogue."""
    target = site.copy(tmp_path / "home")
    before = target.snapshot()
    with closing(sqlite3.connect(target.home / "catalog.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        process = start_import(target, large)
        deadline = time.monotonic() + 60
        while len(list((target.home / "blobs" / "sha256").iterdir())) < 3:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert kill(process) == -signal.SIGKILL
        other.execute("ROLLBACK")
    assert check_sound(target.home) == []
    assert target.snapshot().catalogue == before.catalogue
    with Store.open(target.home) as store:
        assert collect(store).removed == ()  # too young: their import may still be under way
        assert len(collect(store, grace_seconds=0).removed) == 3
    assert target.snapshot().blobs == before.blobs
    assert target.bundle("import", large).code == 0
    assert check_sound(target.home) == [MODEL]


def test_interrupted_between_the_blobs_and_the_commit(
    site: Site, large: Path, tmp_path: Path
) -> None:
    """SIGINT in the same moment is an orderly end: the store is as before, and goes on from there."""
    target = site.copy(tmp_path / "home")
    before = target.snapshot()
    with closing(sqlite3.connect(target.home / "catalog.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        process = start_import(target, large)
        deadline = time.monotonic() + 60
        while len(list((target.home / "blobs" / "sha256").iterdir())) < 3:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        time.sleep(0.1)
        other.execute("ROLLBACK")
    out, err = process.communicate(timeout=250)
    assert process.returncode == 130, err
    assert "Traceback" not in out + err
    after = target.snapshot()
    assert (after.blobs, after.catalogue) == (before.blobs, before.catalogue)
