"""Volumes in any order, from any stick, in several sittings; only some models; and going on again."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import TypeVar

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bundler.importer import Imported, Wishes, import_bundle
from bundler.isolated import import_paths
from registry import linuxio
from registry.digest import Digest
from registry.staging import StagingArea
from registry.store import Store
from schemas import limits
from schemas.errors import ContentError, IncompleteBundle, NotFound, SealiftError, StorageFailure
from schemas.render import Output
from tests.support.bundle_simulator import Forgery, blob_name, digest, twin
from tests.support.publisher_simulator import Simulator
from tests.support.site import Site, check_sound, new_site, simulator
from tests.support.sticks import (
    Carried,
    Stored,
    Watched,
    by_segments,
    carry,
    pieces,
    stored,
    weights,
)

T = TypeVar("T")
NAMES = ["library/a:1", "library/b:1", "library/c:1"]
WAYS = dict(zip(NAMES, ("identity", "zstd", "zstd-planes4"), strict=True))
MODELS = {name: weights(number) for number, name in enumerate(NAMES)}


def several(publisher: Simulator, most: int | None, **more: object) -> Carried:
    """Three models, each in another encoding."""
    return carry(
        twin(publisher),
        *(Forgery(name, MODELS[name]) for name in NAMES),
        encodings={digest(MODELS[n]): stored(MODELS[n], WAYS[n]) for n in NAMES},
        layout=None if most is None else by_segments(most),
        **more,  # type: ignore[arg-type]
    )


def bring(site: Site, *paths: Path, wishes: Wishes | None = None) -> Imported:
    with Output(quiet=True).progress() as meter:
        return import_paths(site.home, list(paths), wishes or Wishes(), meter)


def staged(site: Site) -> list[str]:
    return sorted(path.name for path in (site.home / "staging").iterdir())


@pytest.fixture
def target(site: Site, tmp_path: Path) -> Site:
    return site.copy(tmp_path / "home")


# -- any order, any stick, any number of sittings -------------------------------------------------


@pytest.fixture(scope="module")
def travel(tmp_path_factory: pytest.TempPathFactory) -> tuple[Site, Path, Carried, list[str]]:
    """A site, a folder, a bundle of ten volumes; and the blobs that one file would have brought."""
    own = simulator()
    folder = tmp_path_factory.mktemp("travel")
    site = new_site(folder / "home", own)
    reference = site.copy(folder / "reference")
    bring(reference, several(own, None).put(folder / "one")[0])
    carried = several(own, 3)
    carried.put(folder / "all")
    return site, folder, carried, [name for name in reference.snapshot().blobs if name]


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_any_order_in_any_sittings(
    travel: tuple[Site, Path, Carried, list[str]], data: st.DataObject
) -> None:
    """Whatever comes when, in the end the store has what one file would have brought."""
    site, folder, carried, _ = travel
    order = data.draw(st.permutations(range(1, len(carried.volumes) + 1)))
    cuts = data.draw(st.sets(st.integers(1, len(order) - 1), max_size=3))
    partial = data.draw(st.booleans())
    home = folder / "target"
    target = site.copy(home)
    try:
        edges = [0, *sorted(cuts), len(order)]
        for first, last in pairwise(edges):
            volumes = [folder / "all" / f"models.v{n:03}.tar" for n in order[first:last]]
            head = [folder / "all" / "models.tar"] if first == 0 or data.draw(st.booleans()) else []
            try:
                done = bring(target, *head, *volumes, wishes=Wishes(partial=partial))
            except IncompleteBundle:
                assert last < len(order)
            else:
                assert (last == len(order)) == (not done.waiting)
            check_sound(target.home)
        assert check_sound(home) == NAMES
        assert staged(target) == []
        blobs = {name for name in target.snapshot().files if name.startswith("blobs/sha256/")}
        large = {blob_name(digest(model)) for model in MODELS.values()}
        assert large < blobs
        assert len(blobs) == 9  # as many as one file brings: manifest, config, weights of each
    finally:
        shutil.rmtree(home)


def test_one_file_and_volumes_bring_the_same(
    travel: tuple[Site, Path, Carried, list[str]], tmp_path: Path
) -> None:
    site, folder, carried, blobs = travel
    target = site.copy(tmp_path / "home")
    bring(target, folder / "all")
    assert [name for name in target.snapshot().blobs if name] == blobs
    assert len(carried.volumes) == 8


def test_partial_installs_what_is_complete_and_the_rest_later(
    publisher: Simulator, target: Site, tmp_path: Path
) -> None:
    """--partial."""
    head, *volumes = several(publisher, 3).put(tmp_path / "stick")
    with pytest.raises(IncompleteBundle):
        bring(target, head, *volumes[:3])
    assert target.models() == []
    done = bring(target, head, wishes=Wishes(partial=True))
    assert [str(m.bundled.reference) for m in done.verified.models] == NAMES[:1]
    assert list(done.waiting) == NAMES[1:]
    assert check_sound(target.home) == NAMES[:1]
    with pytest.raises(IncompleteBundle):
        bring(target, volumes[3])
    assert check_sound(target.home) == NAMES[:1]
    done = bring(target, *volumes[4:])
    assert done.waiting == ()
    assert check_sound(target.home) == NAMES
    assert staged(target) == []


def test_command_tells_what_is_installed_and_what_waits(
    publisher: Simulator, target: Site, tmp_path: Path
) -> None:
    """Through the command, for people and for scripts."""
    head, *volumes = several(publisher, 3).put(tmp_path / "stick")
    stopped = target.bundle("import", head, *volumes[:3], "--json")
    assert stopped.code == IncompleteBundle.exit_code
    assert stopped.error["why"] == "missing: 4, 5, 6, 7, 8"
    done = target.bundle("import", head, "--partial", "--json")
    assert done.code == 0, done
    assert [model["name"] for model in done.document["models"]] == NAMES[:1]
    assert done.document["waiting"] == NAMES[1:]
    only = ("--only", "library/b:*")
    plain = target.bundle("import", head, *volumes[3:], *only)
    assert plain.code == 0, plain
    assert "library/b:1" in plain.out
    assert "library/c:1" not in plain.out
    seen = target.bundle("verify", tmp_path / "stick", *only, "--json")
    assert [model["name"] for model in seen.document["models"]] == NAMES[1:2]
    assert target.bundle("import", tmp_path / "stick", "--json").code == 0
    assert check_sound(target.home) == NAMES


def test_partial_of_nothing_complete(publisher: Simulator, target: Site, tmp_path: Path) -> None:
    head, *volumes = several(publisher, 3).put(tmp_path / "stick")
    with pytest.raises(IncompleteBundle):
        bring(target, head, volumes[1], wishes=Wishes(partial=True))
    assert target.models() == []


def test_volume_is_read_once_only(
    publisher: Simulator, target: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What came in an earlier sitting is not read again, even if it is at hand."""
    head, *volumes = several(publisher, 3).put(tmp_path / "stick")
    with pytest.raises(IncompleteBundle):
        bring(target, head, *volumes[:-1])
    for volume in volumes[:-1]:  # whatever becomes of what is behind their labels
        volume.write_bytes(volume.read_bytes()[:1536] + bytes(9000))
    bring(target, head, *volumes)
    assert check_sound(target.home) == NAMES


def test_head_of_another_bundle_between_sittings(
    publisher: Simulator, target: Site, tmp_path: Path
) -> None:
    """The same publisher signed both; each goes on with its own."""
    first = several(publisher, 3)
    newer = twin(publisher)
    newer.bump()
    way = stored(MODELS[NAMES[0]], "zstd")
    other = carry(
        newer,
        Forgery("library/a:2", MODELS[NAMES[0]]),
        encodings={digest(MODELS[NAMES[0]]): way},
        layout=by_segments(2),
        sequence=2,
    )
    head, *volumes = first.put(tmp_path / "first")
    strange, *others = other.put(tmp_path / "other")
    with pytest.raises(IncompleteBundle):
        bring(target, head, *volumes[:4])
    with pytest.raises(SealiftError) as caught:
        bring(target, strange, *volumes[4:])
    assert isinstance(caught.value, ContentError | IncompleteBundle)
    with pytest.raises(IncompleteBundle):
        bring(target, strange, *others[:1])
    assert target.models() == []
    bring(target, *volumes[4:])
    assert check_sound(target.home) == NAMES
    bring(target, *others)
    assert check_sound(target.home) == ["library/a:1", "library/a:2", *NAMES[1:]]
    assert staged(target) == []


def test_bundle_of_the_same_id_cut_otherwise(
    publisher: Simulator, target: Site, tmp_path: Path
) -> None:
    """What was journaled of one must not be taken for segments of the other."""
    model = MODELS[NAMES[0]]

    def cut(piece: int, *, newer: bool) -> Carried:
        own = twin(publisher)
        if newer:
            own.bump()
        return carry(
            own,
            Forgery(NAMES[0], model),
            encodings={digest(model): Stored("identity", tuple(pieces(model, piece)), piece)},
            layout=by_segments(2),
            bundle_id="a" * 32,
            sequence=2 if newer else 1,
        )

    head, *volumes = cut(4096, newer=False).put(tmp_path / "first")
    with pytest.raises(IncompleteBundle):
        bring(target, head, *volumes[:2])
    paths = cut(5000, newer=True).put(tmp_path / "second")
    try:
        bring(target, *paths)
    except ContentError:
        bring(target, *paths)
    assert check_sound(target.home) == NAMES[:1]


# -- selection ------------------------------------------------------------------------------------


@pytest.mark.parametrize("most", [None, 1, 3, 100])
@pytest.mark.parametrize(
    ("only", "wanted"),
    [
        (("library/b:*",), NAMES[1:2]),
        (("b:1",), NAMES[1:2]),
        (("LIBRARY/*",), NAMES),
        (("library/a", "library/c:1"), [NAMES[0], NAMES[2]]),
        (("*[bc]:1",), NAMES[1:]),
        (("c:1", "none"), NAMES[2:]),
    ],
)
def test_only(
    only: tuple[str, ...],
    wanted: list[str],
    most: int | None,
    publisher: Simulator,
    target: Site,
    tmp_path: Path,
) -> None:
    several(publisher, most).put(tmp_path / "stick")
    bring(target, tmp_path / "stick", wishes=Wishes(only=only))
    assert check_sound(target.home) == wanted
    assert staged(target) == []
    bring(target, tmp_path / "stick")
    assert check_sound(target.home) == NAMES


def test_only_of_what_is_not_there(publisher: Simulator, target: Site, tmp_path: Path) -> None:
    several(publisher, 3).put(tmp_path / "stick")
    before = target.snapshot()
    for pattern in ("library/d:*", "", "library/a:2", "[", "../*"):
        with pytest.raises(NotFound):
            bring(target, tmp_path / "stick", wishes=Wishes(only=(pattern,)))
    assert target.snapshot().installed == before.installed


def test_only_needs_no_other_volume(publisher: Simulator, target: Site, tmp_path: Path) -> None:
    head, *volumes = several(publisher, 3).put(tmp_path / "stick")
    for volume in volumes[3:]:
        volume.unlink()
    bring(target, tmp_path / "stick", wishes=Wishes(only=("library/a:1",)))
    assert check_sound(target.home) == NAMES[:1]
    assert head.exists()


@pytest.mark.parametrize("name", NAMES[1:])
def test_only_reads_only_what_it_needs(name: str, publisher: Simulator, target: Site) -> None:
    """Of the others not a byte where one can seek; of a pipe all is read and dropped."""
    carried = several(publisher, None)
    way = stored(MODELS[name], WAYS[name])
    others = sum(
        len(segment)
        for other in NAMES
        if other != name
        for segment in stored(MODELS[other], WAYS[other]).segments
    )
    source = watch(target, carried.head, Wishes(only=(name,)))
    assert source.count == len(carried.head) - others
    assert sum(map(len, way.segments)) < source.count
    assert check_sound(target.home) == [name]
    source = watch(target, carried.head, Wishes(only=(NAMES[0],)), seekable=False)
    assert source.count == len(carried.head)
    assert check_sound(target.home) == [NAMES[0], name]


def watch(
    site: Site,
    data: bytes,
    wishes: Wishes,
    trap: Callable[[int], None] = lambda _: None,
    *,
    seekable: bool = True,
) -> Watched:
    source = Watched(data, trap, seekable=seekable)
    with Store.open(site.home) as store, Output(quiet=True).progress() as meter:
        import_bundle(
            store,
            source,  # type: ignore[arg-type]
            {},
            wishes=wishes,
            now=datetime.now(UTC),
            progress=meter,
        )
    return source


def test_selection_from_a_pipe(publisher: Simulator, target: Site) -> None:
    done = subprocess.run(
        [Path(sys.executable).with_name("bundle"), "import", "-", "--only", "library/b:*"],
        input=several(publisher, None).head,
        env={**os.environ, "SEALIFT_HOME": str(target.home)},
        capture_output=True,
        check=False,
        timeout=250,
    )
    assert done.returncode == 0, done.stderr
    assert check_sound(target.home) == NAMES[1:2]


# -- interrupted ----------------------------------------------------------------------------------


def pulled(after: int) -> Callable[[int], None]:
    """The stick is gone from this byte on."""

    def trap(place: int) -> None:
        if place >= after:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    return trap


@pytest.mark.parametrize("seekable", [True, False])
def test_stick_pulled_in_the_middle(publisher: Simulator, target: Site, *, seekable: bool) -> None:
    """The area stays, and the same command goes on: whole segments are not read again."""
    data = several(publisher, None).head
    payload = sum(len(s) for n in NAMES for s in stored(MODELS[n], WAYS[n]).segments)
    begins = len(data) - payload
    counts = []
    for share in (0.2, 0.5, 0.9):
        with pytest.raises(StorageFailure, match="Input/output error"):
            watch(target, data, Wishes(), pulled(begins + int(payload * share)), seekable=seekable)
        assert target.models() == []
        assert staged(target)
    source = watch(target, data, Wishes(), seekable=seekable)
    counts.append(source.count)
    assert check_sound(target.home) == NAMES
    assert staged(target) == []
    if seekable:
        assert source.count < begins + payload * 0.4
    else:
        assert source.count == len(data)


def test_stick_whose_content_changes_between_two_reads(publisher: Simulator, target: Site) -> None:
    """Whoever would read a byte of it again would find zeros."""
    carried = several(publisher, None)

    class Changing(Watched):
        def seek(self, offset: int, whence: int = 0, /) -> int:
            place = super().seek(offset, whence)
            if whence == 0 and offset == 0:  # somebody reads from the start again
                self._file.getbuffer()[:] = bytes(len(carried.head))
            return place

    with Store.open(target.home) as store, Output(quiet=True).progress() as meter:
        import_bundle(
            store,
            Changing(carried.head),  # type: ignore[arg-type]
            {},
            wishes=Wishes(),
            now=datetime.now(UTC),
            progress=meter,
        )
    assert check_sound(target.home) == NAMES


def test_kept_head_is_believed_no_more_than_any(
    publisher: Simulator, target: Site, tmp_path: Path
) -> None:
    """What the stick gave at the second read is what is kept, and is verified like any head."""
    head, *volumes = several(publisher, 3).put(tmp_path / "stick")
    with pytest.raises(IncompleteBundle):
        bring(target, head, *volumes[:2])
    (kept,) = (target.home / "staging").glob("*/head.tar")
    good = kept.read_bytes()
    assert good == head.read_bytes()
    for bad in (
        b"",
        good[:-1],
        good[:600],
        bytes(len(good)),
        good.replace(b"library/a", b"library/z"),
    ):
        kept.write_bytes(bad)
        with pytest.raises(SealiftError):
            bring(target, *volumes[2:])
        assert target.models() == []
        check_sound(target.home)
    bring(target, head, *volumes[2:])
    assert check_sound(target.home) == NAMES


A, B, C = (digest(MODELS[name]).removeprefix("sha256:") for name in NAMES)
ALL = [*range(8)]
JOURNALS: dict[str, bytes] = {
    "empty": b"",
    "noise": os.urandom(5000),
    "no line ends": b"x" * 100_000,
    "zeros": bytes(10_000),
    "every segment": "".join(f"{d} {n}\n" for d in (A, B, C) for n in ALL).encode(),
    "one segment more": f"{A} 7\n".encode(),
    "segments that are none": f"{A} 999999999999999\n{B} 8\n".encode(),
    "front of all": f"{A} +{len(MODELS[NAMES[0]])}\n".encode(),
    "front beyond the end": f"{A} +999999999999999\n{B} +77777777\n".encode(),
    "blobs of nobody": b"".join(b"%064x %d\n" % (n, n) for n in range(2000)),
    "torn": f"{A} 7\n{B} 3\n{C} ".encode(),
    "minus": f"{A} -1\n{B} +-5\n".encode(),
    "huge": f"{A} 1\n".encode() * 200_000,
}


@pytest.mark.parametrize("name", JOURNALS)
def test_forged_journal(name: str, publisher: Simulator, target: Site, tmp_path: Path) -> None:
    """It is a hint: the digests decide, and at the latest the next run succeeds."""
    carried = several(publisher, 3)
    head, *volumes = carried.put(tmp_path / "stick")
    with pytest.raises(IncompleteBundle):
        bring(target, head, volumes[0], volumes[3], volumes[6])
    (journal,) = (target.home / "staging").glob("*/journal")
    journal.write_bytes(JOURNALS[name])
    attempts = 0
    while target.models() != NAMES:
        attempts += 1
        assert attempts <= 2
        try:
            bring(target, head, *volumes)
        except (ContentError, IncompleteBundle):
            assert target.models() == []
        check_sound(target.home)
    assert staged(target) == []


def test_every_line_of_a_journal_forged(publisher: Simulator, target: Site, tmp_path: Path) -> None:
    """A front that never came, of the blob that goes in by itself."""
    model = MODELS[NAMES[0]]
    data = carry(twin(publisher), Forgery(NAMES[0], model)).head
    for claim in (1, 4096, len(model) - 1, len(model), len(model) + 1, 10**15 - 1):
        with pytest.raises(StorageFailure):
            watch(target, data, Wishes(), pulled(len(data) - len(model) // 2 - 10_240))
        (journal,) = (target.home / "staging").glob("*/journal")
        journal.write_bytes(f"{A} +{claim}\n".encode())
        (part,) = (target.home / "staging").glob("*/*.part")
        part.write_bytes(bytes(len(model)))
        with pytest.raises(ContentError):
            watch(target, data, Wishes())
        assert target.models() == []
        assert staged(target) == []
    watch(target, data, Wishes())
    assert check_sound(target.home) == NAMES[:1]


# -- power loss -----------------------------------------------------------------------------------


class Power:
    """Remembers what was synced; a power loss leaves that and nothing else.

    The harshest file system that POSIX allows, for files: all that was written since a file's last
    sync is zeros, and what was never synced is not there.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
        self.synced: dict[int, bytes] = {}
        self._home = home
        for name in ("fsync", "fdatasync"):
            monkeypatch.setattr(os, name, self._remembering(getattr(os, name)))
        sync_all = linuxio.sync_file_system

        def remember_all(fd: int) -> bool:
            if not sync_all(fd):
                return False
            for path in home.rglob("*"):
                if path.is_file():
                    self.synced[path.stat().st_ino] = path.read_bytes()
            return True

        monkeypatch.setattr(linuxio, "sync_file_system", remember_all)

    def _remembering(self, sync: Callable[[int], None]) -> Callable[[int], None]:
        def remember(fd: int) -> None:
            sync(fd)
            path = Path(f"/proc/self/fd/{fd}")
            if path.is_file():
                self.synced[path.stat().st_ino] = path.read_bytes()

        return remember

    def lose(self) -> Counter[str]:
        """Put the staging area into the state that a loss of power leaves."""
        counts: Counter[str] = Counter()
        for path in list((self._home / "staging").glob("*/*")):
            now = path.read_bytes()
            kept = self.synced.get(path.stat().st_ino)
            if kept is None:
                path.unlink()
                counts["gone"] += 1
            elif kept != now:
                path.chmod(0o600)
                path.write_bytes(kept)
                counts["zeroed"] += 1
            else:
                counts["whole"] += 1
        return counts


@pytest.mark.parametrize("form", ["one", "volumes"])
def test_power_lost_at_every_step(
    form: str,
    publisher: Simulator,
    site: Site,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """After any number of syncs: what was not synced is gone, and the same command succeeds."""
    carried = several(publisher, None if form == "one" else 3)
    stick = tmp_path / "stick"
    carried.put(stick)
    lost: Counter[str] = Counter()
    for number, steps in enumerate(steps_of(site, stick, tmp_path, monkeypatch)):
        target = site.copy(tmp_path / f"lost{number}")
        with monkeypatch.context() as patch:
            power = Power(patch, target.home)
            fail_after(patch, steps)
            with pytest.raises(PowerLost):
                bring(target, stick)
            lost += power.lose()
        assert target.models() == []
        bring(target, stick)
        assert check_sound(target.home) == NAMES
        assert staged(target) == []
    assert lost["whole"] > 5  # else the test tests nothing
    assert lost["zeroed"] + lost["gone"] > 20


class PowerLost(BaseException):
    """Nothing may handle it."""


def fail_after(monkeypatch: pytest.MonkeyPatch, steps: int) -> None:
    """The power goes just before a sync."""
    left = [steps]

    def counted(sync: Callable[[int], T]) -> Callable[[int], T]:
        def one(fd: int) -> T:
            left[0] -= 1
            if left[0] < 0:
                raise PowerLost
            return sync(fd)

        return one

    for name in ("fsync", "fdatasync"):
        monkeypatch.setattr(os, name, counted(getattr(os, name)))
    monkeypatch.setattr(linuxio, "sync_file_system", counted(linuxio.sync_file_system))


def steps_of(
    site: Site, stick: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[int]:
    """Some of the numbers of syncs after which the power may go, until the blobs are installed."""
    count = [0]
    moved: list[int] = []
    with monkeypatch.context() as patch:
        for name in ("fsync", "fdatasync"):
            patch.setattr(os, name, counting(getattr(os, name), count))
        patch.setattr(linuxio, "sync_file_system", counting(linuxio.sync_file_system, count))
        install = StagingArea.install

        def noted(area: StagingArea, only: Collection[Digest] | None = None) -> None:
            moved.append(count[0])
            install(area, only)

        patch.setattr(StagingArea, "install", noted)
        bring(site.copy(tmp_path / "counted"), stick)
    return iter(range(3, moved[0], 4))


def counting(sync: Callable[[int], T], count: list[int]) -> Callable[[int], T]:
    def one(fd: int) -> T:
        count[0] += 1
        return sync(fd)

    return one


# -- room -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["one", "volumes"])
def test_peak_of_the_disk(
    form: str, publisher: Simulator, target: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At no sync does the store take more than the payload and a segment."""
    several(publisher, None if form == "one" else 3).put(tmp_path / "stick")
    payload = sum(map(len, MODELS.values()))
    peaks = [0]

    def used() -> int:
        seen = {}
        for path in target.home.rglob("*"):
            status = path.lstat()
            seen[status.st_ino] = status.st_blocks * 512
        return sum(seen.values())

    before = used()

    def looking(sync: Callable[[int], None]) -> Callable[[int], None]:
        def one(fd: int) -> None:
            sync(fd)
            peaks.append(used() - before)

        return one

    for name in ("fsync", "fdatasync"):
        monkeypatch.setattr(os, name, looking(getattr(os, name)))
    bring(target, tmp_path / "stick")
    rest = 512 * 1024  # catalogue with its log, manifests, journal, head, whole blocks
    assert payload < max(peaks) < payload + rest < payload + limits.SEGMENT_BYTES


def test_digest_of_the_models_is_the_simulators() -> None:
    """The names above are those of the store."""
    assert [Digest.of(MODELS[name]).hex for name in NAMES] == [A, B, C]
