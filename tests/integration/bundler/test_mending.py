"""Two sticks, damaged labels, lost and grown volumes: what can be read together is read together."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from bundler import mending
from bundler.importer import Imported, Wishes
from bundler.isolated import import_paths, verify_paths
from bundler.media import Extent
from bundler.mending import Pieced
from schemas.errors import ContentError, IncompleteBundle, SealiftError, UsageError
from schemas.render import Output
from tests.integration.bundler.test_differential import damage, names
from tests.support.bundle_simulator import Forgery, digest, twin
from tests.support.publisher_simulator import Simulator
from tests.support.site import Site, check_sound
from tests.support.sticks import Carried, by_segments, carry, stored, weights
from tests.support.trip import BASE, Trip

NAME = "library/tiny:1"
MODEL = weights(5)


def bundle(publisher: Simulator, encoding: str = "identity", **more: object) -> Carried:
    """Eight segments in four volumes."""
    return carry(
        twin(publisher),
        Forgery(NAME, MODEL),
        encodings={digest(MODEL): stored(MODEL, encoding)},
        layout=by_segments(2),
        **more,  # type: ignore[arg-type]
    )


def bring(site: Site, *paths: Path, wishes: Wishes | None = None) -> Imported:
    with Output(quiet=True).progress() as meter:
        return import_paths(site.home, list(paths), wishes or Wishes(), meter)


def check(site: Site, *paths: Path) -> None:
    with Output(quiet=True).progress() as meter:
        verify_paths(site.home, list(paths), Wishes(), meter)


@pytest.fixture
def target(site: Site, tmp_path: Path) -> Site:
    return site.copy(tmp_path / "home")


def flip(at: int) -> Callable[[bytes], bytes]:
    def change(data: bytes) -> bytes:
        return data[:at] + bytes([data[at] ^ 8]) + data[at + 1 :]

    return change


def cut(at: int) -> Callable[[bytes], bytes]:
    return lambda data: data[:at]


FIRST, SECOND = 1024 + 512 + 100, 1024 + 512 + 4096 + 100  # inside the segments of a volume
COPIES: dict[str, tuple[Callable[[bytes], bytes], Callable[[bytes], bytes]]] = {
    "first is damaged": (flip(FIRST), bytes),
    "second is damaged": (bytes, flip(FIRST)),
    "first is cut off": (cut(5000), bytes),
    "first has grown": (lambda data: data + b"more", bytes),
    "damaged in different segments": (flip(FIRST), flip(SECOND)),
    "one cut off, one damaged before": (cut(SECOND), flip(FIRST)),
    "one damaged in its header": (flip(1024 + 130), flip(SECOND)),
    "one damaged in its label": (flip(600), flip(SECOND)),
    "one unlabelled": (flip(20), flip(SECOND)),
}


@pytest.mark.parametrize("encoding", ["identity", "zstd", "zstd-planes4"])
@pytest.mark.parametrize("flaw", COPIES)
def test_two_copies_of_a_volume(
    flaw: str, encoding: str, publisher: Simulator, target: Site, tmp_path: Path
) -> None:
    """Whatever is wrong with one is taken from the other, if need be segment by segment."""
    carried = bundle(publisher, encoding)
    sticks = tmp_path / "one", tmp_path / "two"
    for stick, change in zip(sticks, COPIES[flaw], strict=True):
        first, second, *rest = carried.volumes
        Carried(carried.head, (first, change(second), *rest)).put(stick)
    (sticks[1] / "models.tar").unlink()
    check(target, *sticks)
    bring(target, *sticks)
    assert check_sound(target.home) == [NAME]
    assert list((target.home / "staging").iterdir()) == []


def test_both_copies_damaged_in_one_place(
    publisher: Simulator, target: Site, tmp_path: Path
) -> None:
    carried = bundle(publisher)
    for name in ("one", "two"):
        first, second, *rest = carried.volumes
        Carried(carried.head, (first, flip(FIRST)(second), *rest)).put(tmp_path / name)
    (tmp_path / "two" / "models.tar").unlink()
    with pytest.raises(ContentError, match="not what was signed"):
        bring(target, tmp_path / "one", tmp_path / "two")
    assert target.models() == []


def test_copy_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bad sectors, and a medium that is gone."""
    good, bad = tmp_path / "good", tmp_path / "bad"
    for path in (good, bad):
        path.write_bytes(b"0123456789" * 1000)
    real = os.pread

    def broken(fd: int, count: int, at: int) -> bytes:
        if Path(f"/proc/self/fd/{fd}").readlink() == bad and at >= 5000:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real(fd, count, at)

    monkeypatch.setattr(os, "pread", broken)
    extents = [
        Extent(0, 5000, good.read_bytes()[:5000]),
        Extent(5000, 5000, good.read_bytes()[5000:]),
    ]
    with Pieced(extents, [bad, good], None) as file:
        assert file.readall() == good.read_bytes()


@pytest.mark.parametrize("encoding", ["identity", "zstd"])
def test_copy_whose_content_changes_between_two_reads(
    encoding: str,
    publisher: Simulator,
    target: Site,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is right when a copy is chosen, and another one when it is taken: the digests decide."""
    carried = bundle(publisher, encoding)
    sticks = tmp_path / "one", tmp_path / "two"
    for stick in sticks:
        first, second, *rest = carried.volumes
        change = flip(FIRST) if stick == sticks[0] else bytes
        Carried(carried.head, (first, change(second), *rest)).put(stick)
    (sticks[1] / "models.tar").unlink()
    good = (sticks[1] / "models.v002.tar").read_bytes()

    real = mending._is_right

    def chosen(fd: int, extent: Extent) -> bool:
        found = real(fd, extent)
        path = Path(f"/proc/self/fd/{fd}").readlink()
        if found and path.parent == sticks[1] and extent.length > 512:
            path.write_bytes(flip(extent.offset + 50)(good))
        return found

    with monkeypatch.context() as patch:
        patch.setattr(mending, "_is_right", chosen)
        with pytest.raises(ContentError):
            bring(target, *sticks)
    assert target.models() == []
    (sticks[1] / "models.v002.tar").write_bytes(good)
    bring(target, *sticks)
    assert check_sound(target.home) == [NAME]


# -- labels ---------------------------------------------------------------------------------------

LABELS: dict[str, Callable[[bytes], bytes]] = {
    "in the label": flip(600),
    "in its header": flip(20),
    "zeros": lambda d: bytes(1024) + d[1024:],
}


@pytest.mark.parametrize("flaw", LABELS)
@pytest.mark.parametrize("named", [True, False])
def test_damaged_label_is_a_damaged_volume(
    flaw: str, publisher: Simulator, target: Site, tmp_path: Path, *, named: bool
) -> None:
    """Without parity: it is told which volume to copy again. The others need not come again."""
    carried = bundle(publisher)
    first, second, *rest = carried.volumes
    paths = Carried(carried.head, (first, LABELS[flaw](second), *rest)).put(tmp_path / "stick")
    given = paths if named else [tmp_path / "stick"]
    commands: tuple[Callable[..., object], ...] = (check, bring)
    for command in commands:
        with pytest.raises(ContentError, match="volume 2 does not begin as it was written"):
            command(target, *given)
    good = carried.put(tmp_path / "good")
    bring(target, *good)
    assert check_sound(target.home) == [NAME]


def test_volume_that_is_nothing_any_more(
    publisher: Simulator, target: Site, tmp_path: Path
) -> None:
    """Named, it is refused by name; in a folder, its volume is missing."""
    carried = bundle(publisher)
    head, *volumes = carried.put(tmp_path / "stick")
    volumes[1].write_bytes(bytes(20_000))
    with pytest.raises(UsageError, match=r"models\.v002\.tar is no part of a bundle"):
        bring(target, head, *volumes)
    with pytest.raises(IncompleteBundle, match="missing: 2"):
        bring(target, tmp_path / "stick")


# -- several bundles on one stick ---------------------------------------------------------------


def test_named_head_among_other_bundles(publisher: Simulator, target: Site, tmp_path: Path) -> None:
    """A folder with the volumes of two bundles, all mixed."""
    stick = tmp_path / "stick"
    mine, other = bundle(publisher), bundle(publisher, bundle_id="f" * 32)
    stick.mkdir()
    for name, carried in (("a", mine), ("b", other)):
        (stick / f"{name}.tar").write_bytes(carried.head)
        for number, data in enumerate(carried.volumes, 1):
            (stick / f"{number}{name}.bin").write_bytes(data)
    commands: tuple[Callable[..., object], ...] = (check, bring)
    for command in commands:
        with pytest.raises(UsageError, match="several bundles"):
            command(target, stick)
    check(target, stick / "a.tar", stick)
    bring(target, stick / "b.tar", stick)
    assert check_sound(target.home) == [NAME]
    (stick / "a.tar").unlink()
    bring(target, stick)
    (stick / "b.tar").unlink()
    with pytest.raises(UsageError, match="volumes of several bundles"):
        bring(target, stick)


# -- parity ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trip(tmp_path_factory: pytest.TempPathFactory) -> Trip:
    return Trip(tmp_path_factory.mktemp("trip"))


@pytest.fixture(scope="module")
def written(trip: Trip, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Three volumes and two of parity, with the head."""
    stick = tmp_path_factory.mktemp("written")
    options = ("--compression", "none", "--volume-size", "1Mi", "--parity", "2")
    made = trip.near.bundle(
        "create", trip.base, "-n", BASE, *options, "-o", stick / "m.tar", *trip.secret
    )
    assert made.code == 0, made
    return {path.name: path.read_bytes() for path in sorted(stick.iterdir())}


@pytest.fixture
def stick(written: dict[str, bytes], tmp_path: Path) -> Path:
    folder = tmp_path / "stick"
    folder.mkdir()
    for name, data in written.items():
        (folder / name).write_bytes(data)
    return folder


def parities(stick: Path) -> list[Path]:
    return sorted(
        path for path in stick.iterdir() if b'"kind":"parity"' in path.read_bytes()[:1024]
    )


def test_import_says_what_it_mended(trip: Trip, stick: Path) -> None:
    """Lost, damaged, cut off in its label: by number, for people and for scripts."""
    (stick / "m.v002.tar").unlink()
    damage(stick / "m.v003.tar", 7000)
    for name in ("people", "scripts"):
        site = trip.site(f"mends-{name}")
        done = site.bundle("import", stick, *(["--json"] if name == "scripts" else []))
        assert done.code == 0, done
        if name == "scripts":
            assert done.document["mended"] == [2, 3]
        else:
            assert "volumes 2, 3: lost or damaged, made again from the parity" in done.out
        assert check_sound(site.home) == [BASE]


def test_nothing_was_mended(trip: Trip, stick: Path) -> None:
    site = trip.site("nothing-mended")
    assert site.bundle("import", stick, "--json").document["mended"] == []


@pytest.mark.parametrize("flaw", LABELS)
@pytest.mark.parametrize("named", [True, False])
def test_damaged_labels_with_parity(flaw: str, trip: Trip, stick: Path, *, named: bool) -> None:
    """As many as there is parity for; and the rest of such a volume still counts."""
    for number in (1, 2, 3):  # three of three, of which two could not be lost
        path = stick / f"m.v00{number}.tar"
        path.write_bytes(LABELS[flaw](path.read_bytes()) if number < 3 else path.read_bytes())
    site = trip.site(f"labels-{flaw.replace(' ', '-')}-{named}")
    given = sorted(stick.iterdir()) if named else [stick]
    done = site.bundle("import", *given, "--json")
    assert done.code == 0, done
    assert done.document["mended"] == [1, 2]
    assert check_sound(site.home) == [BASE]


def test_named_wreck_of_a_volume_with_parity(trip: Trip, stick: Path) -> None:
    """Nothing tells any more which one it was; it counts as lost."""
    (stick / "m.v002.tar").write_bytes(b"\0" * 4096)
    site = trip.site("wreck")
    done = site.bundle("import", *sorted(stick.iterdir()), "--json")
    assert done.code == 0, done
    assert done.document["mended"] == [2]


def test_copies_and_parity_together(trip: Trip, stick: Path, tmp_path: Path) -> None:
    """Two volumes are lost, all the parity there is; a third is damaged here and whole there."""
    (stick / "m.v001.tar").unlink()
    (stick / "m.v003.tar").unlink()
    more = tmp_path / "more"
    more.mkdir()
    (more / "m.v002.tar").write_bytes((stick / "m.v002.tar").read_bytes())
    damage(stick / "m.v002.tar", 5000)
    site = trip.site("together")
    assert site.bundle("import", stick).code == 11
    done = site.bundle("import", stick, more, "--json")
    assert done.code == 0, done
    assert done.document["mended"] == [1, 3]


def test_grown_volume_with_parity(trip: Trip, stick: Path) -> None:
    append(stick / "m.v002.tar", b"more")
    site = trip.site("grown")
    done = site.bundle("import", stick, "--json")
    assert done.code == 0, done


def append(path: Path, data: bytes) -> None:
    with path.open("ab") as file:
        file.write(data)


def both(path: Path) -> None:
    damage(path / "m.v003.tar", 10)
    damage(parities(path)[1], 2000)


FLAWS: dict[str, Callable[[Path], object]] = {
    "parity damaged": lambda path: damage(parities(path)[0], 300_000),
    "parity lost": lambda path: parities(path)[1].unlink(),
    "parity's label damaged": lambda path: damage(parities(path)[0], 520),
    "parity's end damaged": lambda path: parities(path)[0].write_bytes(
        parities(path)[0].read_bytes()[:-1] + b"x"
    ),
    "parity grown": lambda path: append(parities(path)[1], b"x" * 1000),
    "volume grown": lambda path: append(path / "m.v001.tar", b"\0"),
    "volume and parity damaged": both,
}


@pytest.mark.parametrize("flaw", FLAWS)
def test_repair_makes_everything_as_it_was(
    flaw: str, trip: Trip, stick: Path, written: dict[str, bytes]
) -> None:
    """Parity volumes too, and what was appended goes."""
    FLAWS[flaw](stick)
    changed = {path.name: path.read_bytes() for path in stick.iterdir()}
    assert changed != written
    looked = trip.near.bundle("repair", stick, "--dry-run")
    assert looked.code == 0, looked
    assert "nothing is damaged" not in looked.out
    assert {path.name: path.read_bytes() for path in stick.iterdir()} == changed
    done = trip.near.bundle("repair", stick, "--json")
    assert done.code == 0, done
    assert {path.name: path.read_bytes() for path in stick.iterdir()} == written
    assert names(stick) == list(written)
    again = trip.near.bundle("repair", stick)
    assert "nothing is damaged" in again.out


# -- want-lists -----------------------------------------------------------------------------------


def test_want_list_of_a_bundle_from_a_pipe(trip: Trip, tmp_path: Path) -> None:
    import subprocess
    import sys

    far = trip.site("pipe-far")
    assert far.bundle("import", trip.create(trip.base, "-n", BASE, name="base.tar")).code == 0
    inventory, key = trip.inventory(far)
    against = ("--against", inventory, "--site", key)
    bundle_file = trip.create(trip.base, "-n", "library/other:1", *against, name="less.tar")
    empty = trip.site("pipe-empty")
    done = subprocess.run(
        [Path(sys.executable).with_name("bundle"), "import", "-"],
        input=bundle_file.read_bytes(),
        env={**os.environ, "SEALIFT_HOME": str(empty.home)},
        capture_output=True,
        cwd=tmp_path,
        check=False,
        timeout=250,
    )
    assert done.returncode == 18, done
    (listed,) = tmp_path.glob("bundle-*.want")
    assert listed.name in done.stderr.decode()
    top_up = trip.create(trip.base, "-n", BASE, "--want", listed, name="topup.tar")
    assert empty.bundle("import", top_up).code == 0
    assert empty.bundle("import", bundle_file).code == 0


# -- selection ------------------------------------------------------------------------------------


@pytest.mark.parametrize("most", [None, 3])
def test_only_needs_no_base_of_other_models(
    most: int | None, publisher: Simulator, target: Site, tmp_path: Path
) -> None:
    """A delta of a model that is not asked for, upon a blob that nobody has."""
    base = weights(1)
    other = MODEL[:6000] + base[6000:15000] + weights(3)[15000:]
    carried = carry(
        twin(publisher),
        Forgery(NAME, MODEL),
        Forgery("library/other:1", other),
        encodings={
            digest(MODEL): stored(MODEL, "zstd"),
            digest(other): stored(other, "delta", base),
        },
        requires={digest(base): len(base)},
        layout=None if most is None else by_segments(most),
    )
    paths = carried.put(tmp_path / "stick")
    for path in paths[4:]:  # nothing that is wanted lies there: they need not even be whole
        path.write_bytes(path.read_bytes()[:1024] + bytes(100))
    with pytest.raises(SealiftError, match="made for a site that holds more"):
        bring(target, *paths)
    with Output(quiet=True).progress() as meter:
        verify_paths(target.home, paths, Wishes(only=(NAME,)), meter)
    bring(target, *paths, wishes=Wishes(only=(NAME,)))
    assert check_sound(target.home) == [NAME]
