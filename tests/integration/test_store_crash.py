"""SIGKILL at any moment of an import: the state before or the state after, and it runs again."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from registry.gc import collect, scrub
from registry.reference import Reference
from registry.store import Store
from schemas.errors import StoreBusy
from tests.store_models import TinyModel, install, snapshot, tiny

VICTIM = Path(__file__).with_name("store_victim.py")
SIZE = 3_000_000  # several buffers
ROUNDS = 25


@contextmanager
def victim(home: Path, seed: int, point: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, str(VICTIM), str(home), f"acme/v{seed}:1", str(seed), str(SIZE), point],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=VICTIM.parents[2],
    )
    with process:
        try:
            expect(process, "ready")
            go_on(process)
            yield process
        finally:
            process.kill()


def expect(process: subprocess.Popen[str], line: str) -> None:
    assert process.stdout is not None
    assert process.stdout.readline() == f"{line}\n"


def go_on(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def kill(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.wait()


@pytest.fixture
def home(tmp_path: Path) -> Path:
    with Store.open(tmp_path / "home") as store:
        install(store, tiny(1000), "acme/before:1")
    return tmp_path / "home"


def check(store: Store, models: dict[str, TinyModel]) -> None:
    """Exactly these names, each with all its bytes, and nothing rotten."""
    found = {str(r.reference): r.manifest for r in store.catalogue.models()}
    assert found == {name: model.manifest for name, model in models.items()}
    report = scrub(store)
    assert report.clean
    assert {d for model in models.values() for d in model.digests} <= set(store.blobs)


@pytest.mark.parametrize("point", ["add", "locked", "installed", "written"])
def test_killed_at(home: Path, point: str) -> None:
    before = snapshot(home)
    with victim(home, 1, point) as process:
        expect(process, point)
        kill(process)
    with Store.open(home) as store:
        assert list(store.blobs.staging.iterdir()) == []
        with store.lock(timeout=0):
            pass
        check(store, {"acme/before:1": tiny(1000)})
    if point in ("add", "locked"):
        assert snapshot(home) == before
    with Store.open(home) as store:
        leftovers = set(store.blobs) - tiny(1000).digests
        new = tiny(1, SIZE).digests - tiny(1000).digests
        assert leftovers == (set() if point in ("add", "locked") else new)
        collect(store, grace_seconds=0)
        assert set(store.blobs) == tiny(1000).digests
        check(store, {"acme/before:1": tiny(1000)})
        install(store, tiny(1, SIZE), "acme/v1:1")
        check(store, {"acme/before:1": tiny(1000), "acme/v1:1": tiny(1, SIZE)})


def test_not_killed(home: Path) -> None:
    with victim(home, 1, "never") as process:
        expect(process, "done")
        assert process.wait(30) == 0
    with Store.open(home) as store:
        check(store, {"acme/before:1": tiny(1000), "acme/v1:1": tiny(1, SIZE)})


@pytest.mark.slow
def test_killed_at_random_moments(home: Path) -> None:
    """The import takes some 50 ms; the kill falls before, into and after it."""
    chance = random.Random(20)
    model = tiny(7, SIZE)
    for _ in range(ROUNDS):
        with victim(home, 7, "never") as process:
            time.sleep(chance.uniform(0, 0.08))
            kill(process)
        with Store.open(home) as store:
            names = {"acme/before:1": tiny(1000)}
            if store.catalogue.resolve(Reference.parse("acme/v7:1")):
                names["acme/v7:1"] = model
            check(store, names)
            assert list(store.blobs.staging.iterdir()) == []
            if len(names) == 2:
                store.remove_model(Reference.parse("acme/v7:1"))
            elif chance.random() < 0.5:  # else the next import meets the leftovers
                collect(store, grace_seconds=0)
                assert set(store.blobs) == tiny(1000).digests


def test_a_living_import_is_left_alone(home: Path) -> None:
    with victim(home, 1, "add") as process:
        expect(process, "add")
        with Store.open(home) as store:
            assert store.blobs.live_areas() == 1
            assert store.blobs.clear_abandoned() == 0
            collect(store, grace_seconds=0)
            assert store.remove_model(Reference.parse("acme/before:1")).removed == ()
        go_on(process)
        expect(process, "done")
    with Store.open(home) as store:
        check(store, {"acme/v1:1": tiny(1, SIZE)})


def test_who_holds_the_lock_is_named(home: Path) -> None:
    with victim(home, 1, "locked") as process, Store.open(home) as store:
        expect(process, "locked")
        with pytest.raises(StoreBusy) as caught, store.lock(timeout=0.05):
            pass
        assert caught.value.why in (f"process {process.pid}", "")
        kill(process)
        with store.lock(timeout=5):
            pass


def test_many_processes_at_once(tmp_path: Path) -> None:
    home = tmp_path / "shared"
    seeds = range(4)
    processes = [
        subprocess.Popen(
            [sys.executable, str(VICTIM), str(home), f"acme/v{n}:1", str(n), str(SIZE), "never"],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
            cwd=VICTIM.parents[2],
        )
        for n in seeds
    ]
    for process in processes:
        process.communicate("\n", timeout=60)
        assert process.returncode == 0
    with Store.open(home) as store:
        check(store, {f"acme/v{n}:1": tiny(n, SIZE) for n in seeds})
