"""Several at once: imports, collection, removal."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from bundler.importer import Wishes
from bundler.isolated import import_paths
from registry.gc import collect
from registry.reference import Reference
from registry.store import Store
from schemas.errors import StoreBusy
from schemas.render import Output
from tests.support.bundle_simulator import Forgery, forge, twin
from tests.support.publisher_simulator import Simulator
from tests.support.site import Site, check_sound

BUNDLE = Path(sys.executable).with_name("bundle")
Stick = Callable[[bytes], Path]


def start(site: Site, bundle: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [BUNDLE, "import", bundle],
        env={**os.environ, "SEALIFT_HOME": str(site.home)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run_at_once(site: Site, *bundles: Path) -> list[tuple[int, str]]:
    """Import all of them; none can commit before all have verified.

    Somebody else writes to the catalogue until each has its blobs in staging or in the store.
    """
    with closing(sqlite3.connect(site.home / "catalog.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        running = [start(site, bundle) for bundle in bundles]
        deadline = time.monotonic() + 60
        while not all_begun(site, len(bundles)):
            assert time.monotonic() < deadline
            assert [process.poll() for process in running] == [None] * len(bundles)
            time.sleep(0.02)
        time.sleep(1)  # now they only read some kilobytes before they need the lock
        other.execute("ROLLBACK")
    found = []
    for process in running:
        out, err = process.communicate(timeout=250)
        assert "Traceback" not in out + err
        found.append((process.returncode, err))
    return found


def all_begun(site: Site, count: int) -> bool:
    """Whether one import has installed its three blobs and all believe their bundles.

    How many blobs the others stage depends on how many they find installed already.
    """
    areas = [path for path in (site.home / "staging").iterdir() if path.is_dir()]
    installed = len(list((site.home / "blobs" / "sha256").iterdir())) >= 3
    return len(areas) == count and installed


def test_same_bundle_twice_at_once(site: Site, good: bytes, stick: Stick, tmp_path: Path) -> None:
    target = site.copy(tmp_path / "home")
    path = stick(good)
    found = run_at_once(target, path, path, path)
    assert [code for code, _ in found] == [0, 0, 0], found
    assert check_sound(target.home) == ["library/tiny:1"]
    assert target.imports() == 3
    assert list((target.home / "staging").iterdir()) == []


def test_two_bundles_at_once(
    site: Site, publisher: Simulator, good: bytes, stick: Stick, tmp_path: Path
) -> None:
    """The faster one wins; the other says so, and is right when it is run again."""
    target = site.copy(tmp_path / "home")
    newer = twin(publisher)
    newer.bump()
    second = tmp_path / "second.tar"
    second.write_bytes(forge(newer, Forgery(name="library/tiny:2"), sequence=2))
    first = stick(good)
    found = run_at_once(target, first, second)
    codes = sorted(code for code, _ in found)
    assert codes == [0, StoreBusy.exit_code], found
    assert len(check_sound(target.home)) == 1
    assert target.bundle("import", second).code == 0
    assert "library/tiny:2" in check_sound(target.home)


def test_import_while_collection_and_removal_run(
    site: Site, good: bytes, stick: Stick, tmp_path: Path
) -> None:
    """Collection without any grace time, over and over, never takes what an import counts on."""
    target = site.copy(tmp_path / "home")
    path = stick(good)
    done = threading.Event()
    failures: list[BaseException] = []

    def collecting() -> None:
        try:
            with Store.open(target.home) as store:
                while not done.is_set():
                    collect(store, grace_seconds=0)
        except BaseException as error:
            failures.append(error)
            raise

    collector = threading.Thread(target=collecting)
    collector.start()
    try:
        for _ in range(12):
            with Output(quiet=True).progress() as meter:
                import_paths(target.home, [path], Wishes(), meter)
            assert check_sound(target.home) == ["library/tiny:1"]
            with Store.open(target.home) as store:
                store.remove_model(Reference.parse("library/tiny:1"))
    finally:
        done.set()
        collector.join()
    assert failures == []
    with Store.open(target.home) as store:
        collect(store, grace_seconds=0)
    assert target.snapshot().blobs == site.snapshot().blobs


def test_removed_while_it_is_imported_again(
    site: Site, good: bytes, stick: Stick, tmp_path: Path
) -> None:
    """The import claimed the blobs; then somebody else removes the model and its blobs."""
    target = site.copy(tmp_path / "home")
    path = stick(good)
    assert target.bundle("import", path).code == 0
    with closing(sqlite3.connect(target.home / "catalog.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        other.execute("DELETE FROM tags")
        blobs = list((target.home / "blobs" / "sha256").iterdir())
        for blob in blobs:
            os.utime(blob, (0, 0))
        process = start(target, path)
        deadline = time.monotonic() + 60
        # Installing touches a blob that is there, then gives the claim's own link back.
        while not all(blob.stat().st_mtime and blob.stat().st_nlink == 1 for blob in blobs):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        other.execute("COMMIT")
    assert process.communicate(timeout=250)[1] == ""
    assert process.returncode == 0
    assert check_sound(target.home) == ["library/tiny:1"]
