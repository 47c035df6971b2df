"""Volumes on their way: swapped, repeated, foreign, cut, grown, renamed. One flaw each, per encoding."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bundler.importer import Imported, Wishes
from bundler.isolated import import_paths, verify_paths
from schemas.errors import (
    ContentError,
    IncompleteBundle,
    MalformedArchive,
    MalformedDocument,
    NotABundle,
    NotFound,
    SealiftError,
    TruncatedBundle,
    UsageError,
)
from schemas.render import Output
from tests.support.bundle_simulator import Forgery, Member, digest, forge, members, tar, twin
from tests.support.publisher_simulator import Simulator
from tests.support.site import Site, check_line, check_sound, new_site, simulator
from tests.support.sticks import ENCODINGS, Carried, by_segments, carry, label, stored, weights

BASE = weights(1)
MODEL = weights(1)[:7000] + weights(2)[7000:14000] + weights(1)[14000:]
NAME = "library/tiny:1"


def bring(site: Site, *paths: Path, wishes: Wishes | None = None) -> Imported:
    with Output(quiet=True).progress() as meter:
        return import_paths(site.home, list(paths), wishes or Wishes(), meter)


@pytest.fixture(scope="module")
def based(publisher: Simulator, site: Site, tmp_path_factory: pytest.TempPathFactory) -> Site:
    """A site that holds the base of the deltas."""
    folder = tmp_path_factory.mktemp("based")
    target = site.copy(folder / "home")
    path = folder / "base.tar"
    path.write_bytes(forge(twin(publisher), Forgery("library/base:1", BASE)))
    bring(target, path)
    return target


def bundle(publisher: Simulator, encoding: str, most: int | None, **more: object) -> Carried:
    """The model in one encoding; with so many segments per volume."""
    source = MODEL if encoding != "delta" else DELTA
    way = stored(source, encoding, BASE)
    newer = twin(publisher)
    newer.bump()
    return carry(
        newer,
        Forgery(NAME, source),
        encodings={digest(source): way},
        requires={digest(BASE): len(BASE)} if encoding == "delta" else {},
        layout=None if most is None else by_segments(most),
        sequence=2,
        **more,  # type: ignore[arg-type]
    )


# What the recipe of the simulator can express: a range of the base at its own place.
DELTA = MODEL[:6000] + BASE[6000:15000] + weights(3)[15000:]
SPLIT = [encoding for encoding in ENCODINGS if encoding != "whole"]


@pytest.fixture
def target(based: Site, tmp_path: Path) -> Site:
    return based.copy(tmp_path / "home")


def check_installed(site: Site) -> None:
    assert check_sound(site.home) == ["library/base:1", NAME]
    assert list((site.home / "staging").iterdir()) == []


def refuse(site: Site, paths: Sequence[Path], *wanted: type[SealiftError]) -> SealiftError:
    """Refused by both commands; nothing is installed, and the store stays sound."""
    before = site.snapshot()
    found = []
    for command in (verify_paths, import_paths):
        try:
            with Output(quiet=True).progress() as meter:
                command(site.home, list(paths), Wishes(), meter)
        except SealiftError as error:
            found.append(error)
        else:
            raise AssertionError(f"{paths} were accepted")
    verified, imported = found
    assert isinstance(imported, wanted), imported
    assert isinstance(verified, wanted), verified
    check_line(imported.document())
    after = site.snapshot()
    assert (after.blobs, after.catalogue) == (before.blobs, before.catalogue)
    assert check_sound(site.home) == ["library/base:1"]
    return imported


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_every_encoding_in_one_file(
    encoding: str, publisher: Simulator, target: Site, tmp_path: Path
) -> None:
    paths = bundle(publisher, encoding, None).put(tmp_path / "stick")
    with Output(quiet=True).progress() as meter:
        verify_paths(target.home, paths, Wishes(), meter)
    bring(target, *paths)
    check_installed(target)


@pytest.mark.parametrize("most", [1, 3])
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_every_encoding_in_volumes(
    encoding: str, most: int, publisher: Simulator, target: Site, tmp_path: Path
) -> None:
    carried = bundle(publisher, encoding, most)
    assert len(carried.volumes) >= (1 if encoding in ("whole", "delta") else 8 // most)
    paths = carried.put(tmp_path / "stick")
    with Output(quiet=True).progress() as meter:
        verify_paths(target.home, [tmp_path / "stick"], Wishes(), meter)
    bring(target, *reversed(paths))
    check_installed(target)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_stored_bytes_of_one_file_changed(
    encoding: str, publisher: Simulator, target: Site, tmp_path: Path
) -> None:
    """One bit at the start, in the middle, and at the end of what is stored."""
    carried = bundle(publisher, encoding, None)
    *rest, last = members(carried.head)
    for place in (0, len(last.data) // 2, len(last.data) - 1):
        data = bytearray(last.data)
        data[place] ^= 16
        path = tmp_path / "models.tar"
        path.write_bytes(tar([*rest, last.with_data(bytes(data))]))
        refuse(target, [path], ContentError)
        assert list((target.home / "staging").iterdir()) == []


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_one_file_cut_or_grown(
    encoding: str, publisher: Simulator, target: Site, tmp_path: Path
) -> None:
    carried = bundle(publisher, encoding, None)
    path = tmp_path / "models.tar"
    for size in (len(carried.head) - 1, len(carried.head) - 12_000):
        path.write_bytes(carried.head[:size])
        refuse(target, [path], TruncatedBundle)
    path.write_bytes(carried.head + bytes(512))
    refuse(target, [path], MalformedArchive)
    assert list((target.home / "staging").iterdir()) == []


Change = Callable[[list[bytes], Carried], None]


def swapped_contents(volumes: list[bytes], _: Carried) -> None:
    """Labels stay, what follows them changes places."""
    first, second = members(volumes[0]), members(volumes[1])
    volumes[0] = tar([first[0], *second[1:]])
    volumes[1] = tar([second[0], *first[1:]])


def swapped_data(volumes: list[bytes], _: Carried) -> None:
    """Labels and headers stay."""
    first, second = members(volumes[0]), members(volumes[1])
    volumes[0] = tar([first[0], first[1].with_data(second[1].data)])
    volumes[1] = tar([second[0], second[1].with_data(first[1].data)])


def cut(volumes: list[bytes], _: Carried) -> None:
    volumes[0] = volumes[0][:-10_240]


def cut_by_one(volumes: list[bytes], _: Carried) -> None:
    volumes[0] = volumes[0][:-1]


def empty_after_label(volumes: list[bytes], _: Carried) -> None:
    volumes[0] = tar(members(volumes[0])[:1])


def grown(volumes: list[bytes], _: Carried) -> None:
    volumes[0] += b"\0"


def grown_member(volumes: list[bytes], _: Carried) -> None:
    volumes[0] = tar([*members(volumes[0]), Member.of("more", b"x")])


def label_of_another_number(volumes: list[bytes], carried: Carried) -> None:
    """The second volume says that it is the first, and there is no other first."""
    rest = members(volumes[1])[1:]
    volumes[0] = tar([label(carried.descriptor["id"], 1), *rest])


def label_twice(volumes: list[bytes], _: Carried) -> None:
    first = members(volumes[0])
    volumes[0] = tar([first[0], *first])


def label_with_more(volumes: list[bytes], _: Carried) -> None:
    first, *rest = members(volumes[0])
    volumes[0] = tar([first.with_data(first.data[:-1] + b',"x":1}'), *rest])


def label_of_parity(volumes: list[bytes], carried: Carried) -> None:
    rest = members(volumes[0])[1:]
    volumes[0] = tar([label(carried.descriptor["id"], 1, "parity"), *rest])


def label_of_no_number(volumes: list[bytes], carried: Carried) -> None:
    rest = members(volumes[0])[1:]
    volumes[0] = tar([label(carried.descriptor["id"], 10**6), *rest])


def bit(volumes: list[bytes], _: Carried) -> None:
    first, second = members(volumes[0])
    data = bytearray(second.data)
    data[len(data) // 2] ^= 1
    volumes[0] = tar([first, second.with_data(bytes(data))])


FLAWS: dict[Change, tuple[type[SealiftError], ...]] = {
    swapped_contents: (ContentError,),
    swapped_data: (ContentError,),
    cut: (UsageError,),  # nothing is left of it
    cut_by_one: (TruncatedBundle,),
    empty_after_label: (TruncatedBundle, MalformedArchive),
    grown: (MalformedArchive,),
    grown_member: (MalformedArchive,),
    label_of_another_number: (ContentError,),
    label_twice: (MalformedArchive,),
    label_with_more: (MalformedArchive,),
    label_of_parity: (IncompleteBundle,),
    label_of_no_number: (IncompleteBundle,),
    bit: (ContentError,),
}


@pytest.mark.parametrize("encoding", SPLIT)
@pytest.mark.parametrize("flaw", FLAWS, ids=lambda flaw: flaw.__name__)
def test_volume_with_a_flaw(
    flaw: Change, encoding: str, publisher: Simulator, target: Site, tmp_path: Path
) -> None:
    """It is refused; with the good volume the same command succeeds."""
    carried = bundle(publisher, encoding, 1)
    changed = list(carried.volumes)
    flaw(changed, carried)
    bad = Carried(carried.head, tuple(changed)).put(tmp_path / "bad")
    refuse(target, bad, *FLAWS[flaw])
    good = carried.put(tmp_path / "good")
    bring(target, *good)
    check_installed(target)


@pytest.mark.parametrize("encoding", SPLIT)
def test_volumes_renamed_shuffled_and_repeated(
    encoding: str, publisher: Simulator, target: Site, tmp_path: Path
) -> None:
    """Names and order say nothing; the second copy of a volume is one too many and no harm."""
    carried = bundle(publisher, encoding, 2)
    stick = tmp_path / "stick"
    stick.mkdir()
    files = [carried.head, *carried.volumes, *carried.volumes]
    for number, data in enumerate(files):
        (stick / f"{(number * 7919) % 101:03}.bin").write_bytes(data)
    bring(target, stick)
    check_installed(target)


def test_volume_of_another_bundle(publisher: Simulator, target: Site, tmp_path: Path) -> None:
    carried = bundle(publisher, "identity", 2)
    other = bundle(publisher, "identity", 2, bundle_id="f" * 32)
    for volumes in (
        other.volumes,
        (other.volumes[0], *carried.volumes[1:]),
        (*carried.volumes, other.volumes[0]),
    ):
        paths = [tmp_path / f"{n}.tar" for n in range(1 + len(volumes))]
        for path, data in zip(paths, (carried.head, *volumes), strict=True):
            path.write_bytes(data)
        refuse(target, paths, NotABundle, IncompleteBundle, UsageError)
    bring(target, *carried.put(tmp_path / "good"))
    check_installed(target)


def test_foreign_volume_under_this_bundles_label(
    publisher: Simulator, target: Site, tmp_path: Path
) -> None:
    """What it holds is signed too, by the same publisher, for another bundle."""
    carried = bundle(publisher, "identity", 2)
    foreign = carry(
        twin(publisher),
        Forgery("library/other:1", BASE),
        encodings={digest(BASE): stored(BASE, "identity")},
        layout=by_segments(2),
    )
    taken = members(foreign.volumes[0])[1:]
    volumes = (tar([members(carried.volumes[0])[0], *taken]), *carried.volumes[1:])
    refuse(target, Carried(carried.head, volumes).put(tmp_path / "stick"), MalformedArchive)


def test_two_heads(publisher: Simulator, target: Site, tmp_path: Path) -> None:
    carried = bundle(publisher, "identity", 2)
    stick = tmp_path / "stick"
    carried.put(stick)
    (stick / "more.tar").write_bytes(bundle(publisher, "zstd", None).head)
    refuse(target, [stick], UsageError)


def test_volumes_without_their_head(publisher: Simulator, target: Site, tmp_path: Path) -> None:
    carried = bundle(publisher, "identity", 2)
    _, *volumes = carried.put(tmp_path / "stick")
    refuse(target, volumes, NotFound)


def test_head_without_volumes(publisher: Simulator, target: Site, tmp_path: Path) -> None:
    head, *_ = bundle(publisher, "identity", 2).put(tmp_path / "stick")
    error = refuse(target, [head], IncompleteBundle)
    assert "1, 2, 3, 4" in error.why


def test_volume_table_that_a_publisher_got_wrong(
    publisher: Simulator, target: Site, tmp_path: Path
) -> None:
    """A segment twice, missing, in another order, of a blob that is not large, or of none."""

    def edit(change: Callable[[list[list[list[int]]]], object]) -> Callable[[object], None]:
        def apply(table: object) -> None:
            volumes = [v["parts"] for v in table["volumes"]]  # type: ignore[index]
            change(volumes)
            table["volumes"] = [{"parts": parts} for parts in volumes]  # type: ignore[index]

        return apply

    changes: list[Callable[[list[list[list[int]]]], object]] = [
        lambda v: v[0].append(v[0][0]),
        lambda v: v.append(v[0]),
        lambda v: v.pop(),
        lambda v: v.reverse(),
        lambda v: v[0].insert(0, [0, 0, 1]),
        lambda v: v[0].append([99, 0, 1]),
        lambda v: v[0].append([2, 1000, 1]),
        lambda v: v[0].append([2, -1, 1]),
        lambda v: v[0].append([2, 0, 0]),
        lambda v: v[0].append([2, 0, 2**62]),
    ]
    for number, change in enumerate(changes):
        good = bundle(publisher, "identity", 2).volumes
        head = forge_head(publisher, edit(change))
        paths = Carried(head, good).put(tmp_path / str(number))
        refuse(target, paths, MalformedDocument)


def forge_head(publisher: Simulator, apply: Callable[[object], None]) -> bytes:
    """A head whose table of volumes is edited before it is signed."""
    blob = digest(MODEL)

    def edit(table: dict[str, object]) -> None:
        item = next(c for c in table["contents"] if c["digest"] == blob)  # type: ignore[attr-defined]
        way = stored(MODEL, "identity")
        way.edit(item)
        number = table["contents"].index(item)  # type: ignore[attr-defined]
        layout = by_segments(2)([(number, len(way.segments))])
        table["volumes"] = [{"parts": [list(p) for p in v]} for v in layout]
        apply(table)

    newer = twin(publisher)
    newer.bump()
    whole = members(forge(newer, Forgery(NAME, MODEL), descriptor=edit, sequence=2))
    return tar([m for m in whole if not m.name.endswith(blob.removeprefix("sha256:"))])


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[Site, Path, Carried]:
    own = simulator()
    folder = tmp_path_factory.mktemp("flips")
    site = new_site(folder / "home", own)
    way = stored(MODEL, "zstd")
    carried = carry(
        twin(own), Forgery(NAME, MODEL), encodings={digest(MODEL): way}, layout=by_segments(3)
    )
    return site, folder, carried


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_flip_anywhere_in_a_volume(small: tuple[Site, Path, Carried], data: st.DataObject) -> None:
    """Verified, not imported: whatever is flipped, it is seen."""
    site, folder, carried = small
    number = data.draw(st.integers(0, len(carried.volumes) - 1))
    volume = bytearray(carried.volumes[number])
    for _ in range(data.draw(st.integers(1, 3))):
        volume[data.draw(st.integers(0, len(volume) - 1))] ^= data.draw(st.integers(1, 255))
    if bytes(volume) == carried.volumes[number]:
        return
    volumes = [*carried.volumes]
    volumes[number] = bytes(volume)
    paths = Carried(carried.head, tuple(volumes)).put(folder / "stick")
    error = refusal_of(site, paths)
    assert isinstance(error, ContentError | IncompleteBundle | UsageError), error


def refusal_of(site: Site, paths: Sequence[Path]) -> SealiftError:
    try:
        with Output(quiet=True).progress() as meter:
            verify_paths(site.home, list(paths), Wishes(), meter)
    except SealiftError as error:
        return error
    raise AssertionError("a flipped volume was accepted")
