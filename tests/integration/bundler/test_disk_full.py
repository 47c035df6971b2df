"""A disk that fills, by a small tmpfs and by a limit on the size of files."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from bundler.trust.publisher import Publisher
from schemas import limits
from schemas.errors import StorageFailure, StorageFull
from tests.gguf_files import Pieces, string
from tests.support.bundle_simulator import WEIGHTS, Forgery, forge, twin
from tests.support.publisher_simulator import Simulator
from tests.support.site import Site, check_line, check_sound

BUNDLE = Path(sys.executable).with_name("bundle")
FULL = (StorageFull.exit_code, StorageFailure.exit_code)
KIB = 1024
Stick = Callable[[bytes], Path]


def namespace() -> list[str]:
    """The command that runs another one where it may mount; empty where the system forbids it."""
    for options in (["--mount"], ["--user", "--map-root-user", "--mount"]):
        command = ["unshare", *options, "--"]
        probe = [*command, "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
        if not shutil.which("unshare"):
            break
        if subprocess.run(probe, capture_output=True, check=False).returncode == 0:
            return command
    return []


ENTER = namespace()


def on_small_disk(repository: Path, *argv: object) -> list[dict[str, Any]]:
    done = subprocess.run(
        [*ENTER, sys.executable, "-m", "tests.support.full_disk", *map(str, argv)],
        cwd=repository,
        capture_output=True,
        text=True,
        check=False,
        timeout=250,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


def with_file_limit(limit: int, home: Path, *argv: object) -> subprocess.CompletedProcess[str]:
    """The installed command, which may write files of at most so many bytes."""
    return subprocess.run(
        ["prlimit", f"--fsize={limit}", BUNDLE, *map(str, argv)],
        env={**os.environ, "SEALIFT_HOME": str(home)},
        capture_output=True,
        text=True,
        check=False,
        timeout=250,
        stdin=subprocess.DEVNULL,
    )


def check_result(found: dict[str, Any]) -> None:
    """Either all of it or, with one clear line, nothing."""
    if found["code"] == 0:
        assert found["models"] == ["library/tiny:1"]
        return
    assert found["code"] in FULL, found
    assert found["unchanged"], found
    assert found["models"] == []
    check_line(json.loads(found["err"])["error"])


@pytest.fixture
def medium(publisher: Simulator, stick: Stick) -> Path:
    """A bundle of some 400 KiB in several models: more than one thing can fail."""
    pieces = [
        Pieces().with_value("x.padding", string(bytes([65 + n]) * 100_000)).build()
        for n in range(4)
    ]
    models = [Forgery(weights=WEIGHTS)]
    models += [Forgery(name=f"library/m{n}:1", weights=p) for n, p in enumerate(pieces)]
    return stick(forge(twin(publisher), *models))


if ENTER:  # elsewhere the limit on files below has to do

    def test_store_on_a_disk_that_fills(
        repository: Path, site: Site, publisher: Simulator, stick: Stick, tmp_path: Path
    ) -> None:
        """From no room at all to enough, in steps of some pages."""
        disk = tmp_path / "disk"
        disk.mkdir()
        bundle = stick(forge(twin(publisher)))
        rooms = [*range(0, 240 * KIB, 8 * KIB), 400 * KIB, 2000 * KIB]
        found = on_small_disk(repository, "import", disk, site.home, bundle, "4m", *rooms)
        assert [each["room"] for each in found] == rooms
        for each in found:
            check_result(each)
        codes = [each["code"] for each in found]
        assert codes[0] in FULL
        assert codes[-1] == 0


@pytest.mark.parametrize("limit", [0, 100, 1000, 4 * KIB, 16 * KIB, 60 * KIB, 90 * KIB])
def test_store_may_not_write_larger_files(
    limit: int, site: Site, medium: Path, tmp_path: Path
) -> None:
    target = site.copy(tmp_path / "home")
    before = target.snapshot()
    done = with_file_limit(limit, target.home, "import", medium, "--json")
    assert done.returncode in FULL, done
    check_line(json.loads(done.stderr)["error"])
    assert target.snapshot().installed == before.installed
    assert target.bundle("import", medium).code == 0


@pytest.mark.parametrize("limit", [40 * KIB, 60 * KIB, 80 * KIB])
def test_commit_that_fails_takes_its_blobs_back(
    limit: int, site: Site, good: bytes, stick: Stick, tmp_path: Path
) -> None:
    """Each blob fits, the catalogue's log does not."""
    target = site.copy(tmp_path / "home")
    before = target.snapshot()
    done = with_file_limit(limit, target.home, "import", stick(good), "--json")
    assert done.returncode in FULL, done
    assert "catalogue" in json.loads(done.stderr)["error"]["what"]
    assert target.snapshot().installed == before.installed
    assert check_sound(target.home) == []


def test_blob_too_large_for_the_disk_is_told_before_it_is_copied(
    site: Site, publisher: Simulator, tmp_path: Path
) -> None:
    """A sparse bundle that claims, and has, more than any disk of a test machine."""
    free = shutil.disk_usage(tmp_path).free
    size = min(free + 2**30, 2**41)
    forged = Forgery(manifest=lambda m: m["layers"][0].update(size=size))
    bundle = tmp_path / "sparse.tar"
    bundle.write_bytes(forge(twin(publisher), forged))
    try:
        os.truncate(bundle, size + 2**20)
    except OSError:  # this file system has no files as large; then nobody can bring such a one
        return
    before = site.snapshot()
    outcome = site.bundle("import", bundle, "--json")
    assert outcome.code == StorageFull.exit_code, outcome
    check_line(outcome.error)
    assert site.snapshot().installed == before.installed


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with a publisher whose keys open fast."""
    home = tmp_path_factory.mktemp("connected") / "home"
    Publisher.init(
        home / "publisher",
        name="full",
        namespaces=["library"],
        passphrase=b"correct horse",
        kdf_rounds=1000,
    )
    (home / "passphrase").write_text("correct horse\n")
    (home / "tiny.gguf").write_bytes(WEIGHTS)
    return home


if ENTER:  # elsewhere the limit on files below has to do

    def test_stick_that_fills_while_a_bundle_is_written(
        repository: Path, workspace: Path, tmp_path: Path
    ) -> None:
        disk = tmp_path / "disk"
        disk.mkdir()
        argv = [
            str(workspace / "tiny.gguf"),
            "--passphrase-file",
            str(workspace / "passphrase"),
        ]
        rooms = [*range(0, 24 * KIB, 4 * KIB), 512 * KIB]
        found = on_small_disk(repository, "create", disk, workspace, json.dumps(argv), "1m", *rooms)
        for each in found:
            if each["code"] == 0:
                assert each["models"] == ["models.tar"]
            else:
                assert each["code"] == StorageFull.exit_code, each
                assert each["models"] == []
                check_line(json.loads(each["err"])["error"])
        assert [found[0]["code"], found[-1]["code"]] == [StorageFull.exit_code, 0]


@pytest.mark.parametrize("limit", [0, 500, 5 * KIB, 14 * KIB])
def test_bundle_may_not_become_as_large_as_it_must(
    limit: int, workspace: Path, tmp_path: Path
) -> None:
    output = tmp_path / "models.tar"
    done = with_file_limit(
        limit,
        workspace,
        "create",
        workspace / "tiny.gguf",
        "-o",
        output,
        "--passphrase-file",
        workspace / "passphrase",
        "--json",
    )
    assert done.returncode in FULL, done
    check_line(json.loads(done.stderr)["error"])
    assert list(tmp_path.iterdir()) == []


def test_root_that_does_not_fit(workspace: Path, tmp_path: Path) -> None:
    done = with_file_limit(100, workspace, "keys", "root", "-o", tmp_path / "root.json", "--json")
    assert done.returncode == StorageFull.exit_code, done
    assert list(tmp_path.iterdir()) == []


def test_commit_that_fails_keeps_what_came_of_volumes(workspace: Path, tmp_path: Path) -> None:
    """The volumes are on another continent by now; only the commit is done again."""
    source = tmp_path / "large.gguf"
    padding = string(bytes(range(32, 127)) * 10_000)
    source.write_bytes(Pieces().with_value("x.padding", padding).build())
    stick = tmp_path / "stick"
    stick.mkdir()
    head = stick / "models.tar"
    size = limits.VOLUME_BYTES_MIN
    options = ("--passphrase-file", workspace / "passphrase", "--volume-size", size)
    connected = Site(workspace)
    name = ("--name", "library/tiny:1", "--compression", "none")
    made = connected.bundle("create", source, "-o", head, *name, *options, "--json")
    assert made.code == 0, made
    root = tmp_path / "root.json"
    assert connected.bundle("keys", "root", "-o", root).code == 0
    target = Site(tmp_path / "home")
    fingerprint = made.document["rootFingerprint"]
    pin = ("trust", "init", "--root", root, "--fingerprint", fingerprint)
    assert target.bundle(*pin).code == 0
    before = target.snapshot()
    with closing(sqlite3.connect(target.home / "catalog.db", isolation_level=None)) as other:
        # Larger than the largest blob; the catalogue's log reaches it through this writer.
        other.execute("PRAGMA wal_autocheckpoint = 0")
        limit = source.stat().st_size + 60 * KIB
        other.execute("CREATE TABLE ballast (data BLOB)")
        while (target.home / "catalog.db-wal").stat().st_size < limit:
            other.execute("INSERT INTO ballast VALUES (zeroblob(4000))")
        done = with_file_limit(limit, target.home, "import", stick, "--json")
        other.execute("DROP TABLE ballast")
    assert done.returncode in FULL, done
    assert "catalogue" in json.loads(done.stderr)["error"]["what"]
    after = target.snapshot()
    assert after.blobs == before.blobs
    assert target.models() == []
    for volume in stick.glob("*.v*"):
        volume.unlink()
    again = target.bundle("import", head, "--json")
    assert again.code == 0, again
    assert check_sound(target.home) == ["library/tiny:1"]
