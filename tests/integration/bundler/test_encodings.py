"""What somebody who holds the publisher's keys can do by encodings: one attack each, validly signed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bundler.importer import Wishes
from bundler.isolated import import_paths, verify_paths
from schemas import limits
from schemas.errors import (
    BlobsMissing,
    ContentError,
    ContentMismatch,
    MalformedArchive,
    MalformedDocument,
    OutsideClosure,
    SealiftError,
)
from schemas.render import Output
from tests.support.bundle_simulator import Edit, Forgery, digest, forge, twin, untouched
from tests.support.publisher_simulator import Simulator
from tests.support.site import Site, check_line, check_sound
from tests.support.sticks import (
    PIECE,
    Stored,
    by_segments,
    carry,
    frame,
    pieces,
    recipe,
    stored,
    weights,
)
from tests.support.zstd_frames import Frame, bomb, raw_block, skippable

BASE = weights(1)
MODEL = weights(2)
NAME = "library/tiny:1"


@pytest.fixture(scope="module")
def based(publisher: Simulator, site: Site, tmp_path_factory: pytest.TempPathFactory) -> Site:
    """A site that holds the base of the deltas."""
    folder = tmp_path_factory.mktemp("based")
    target = site.copy(folder / "home")
    path = folder / "base.tar"
    path.write_bytes(forge(twin(publisher), Forgery("library/base:1", BASE)))
    run(import_paths, target, path)
    return target


def run(command: Callable[..., object], site: Site, path: Path) -> None:
    with Output(quiet=True).progress() as meter:
        command(site.home, [path], Wishes(), meter)


def check_attack(
    site: Site,
    publisher: Simulator,
    folder: Path,
    way: Stored,
    *wanted: type[SealiftError],
    source: bytes = MODEL,
    descriptor: Edit = untouched,
) -> list[SealiftError]:
    """Refused in one file and in volumes, by both commands; nothing of it is believed."""
    found = []
    before = site.snapshot()
    for layout in (None, by_segments(2)):
        newer = twin(publisher)
        newer.bump()
        carried = carry(
            newer,
            Forgery(NAME, source),
            encodings={digest(source): way},
            requires={base: len(BASE) for base in way.bases},
            layout=layout,
            descriptor=descriptor,
            sequence=2,
        )
        carried.put(folder / "stick")
        for command in (verify_paths, import_paths):
            with pytest.raises(wanted) as caught:
                run(command, site, folder / "stick")
            check_line(caught.value.document())
            found.append(caught.value)
        for path in (folder / "stick").iterdir():
            path.unlink()
        after = site.snapshot()
        assert (after.blobs, after.catalogue) == (before.blobs, before.catalogue)
    return found


@pytest.fixture
def target(based: Site, tmp_path: Path) -> Site:
    return based.copy(tmp_path / "home")


# -- zstd -----------------------------------------------------------------------------------------

RAW = pieces(MODEL)
GOOD = [frame(raw) for raw in RAW]
FRAMES: dict[str, bytes] = {
    "bomb that declares it": bomb(1 << 40, 40_000),
    "bomb that declares less": bomb(PIECE, 1000),
    "bomb that declares nothing": Frame(raw_block(bytes(9)), None, window=0xF0).build(),
    "window of a terabyte": Frame(raw_block(RAW[0]), PIECE, window=0xF8).build(),
    "dictionary": Frame(raw_block(RAW[0]), PIECE, dictionary=7).build(),
    "two frames": frame(RAW[0][:100]) + frame(RAW[0][100:]),
    "frame and skippable one": GOOD[0] + skippable(b"hidden"),
    "skippable one and frame": skippable(b"hidden") + GOOD[0],
    "frame and more": GOOD[0] + b"x",
    "shorter": frame(RAW[0][:-1]),
    "longer": frame(RAW[0] + b"x"),
    "no frame": RAW[0],
    "cut": GOOD[0][:-1],
    "another piece": GOOD[1],
}


@pytest.mark.parametrize("flaw", FRAMES)
def test_signed_frame_that_is_none(
    flaw: str, publisher: Simulator, target: Site, tmp_path: Path
) -> None:
    way = Stored("zstd", (FRAMES[flaw], *GOOD[1:]), PIECE)
    check_attack(target, publisher, tmp_path, way, ContentError)


@pytest.mark.parametrize("encoding", ["identity", "zstd", "zstd-planes2", "zstd-planes4"])
def test_signed_segments_of_another_blob(
    encoding: str, publisher: Simulator, target: Site, tmp_path: Path
) -> None:
    """Each segment is what was signed; together they are not the blob."""
    other = stored(BASE, encoding)
    check_attack(target, publisher, tmp_path, other, ContentMismatch)


@pytest.mark.parametrize("encoding", ["identity", "zstd", "zstd-planes2", "zstd-planes4"])
def test_signed_segments_in_another_order(
    encoding: str, publisher: Simulator, target: Site, tmp_path: Path
) -> None:
    good = stored(MODEL, encoding)
    first, second, *rest = good.segments
    way = Stored(encoding, (second, first, *rest), PIECE)
    check_attack(target, publisher, tmp_path, way, ContentMismatch)


def test_planes_where_plain_was_signed(publisher: Simulator, target: Site, tmp_path: Path) -> None:
    way = stored(MODEL, "zstd-planes2").segments
    for encoding in ("zstd", "zstd-planes4"):
        check_attack(target, publisher, tmp_path, Stored(encoding, way, PIECE), ContentMismatch)


def edited(**fields: Any) -> Edit:
    """Edit the model's entry in the contents table."""

    def edit(table: dict[str, Any]) -> None:
        item = next(c for c in table["contents"] if c["digest"] == digest(MODEL))
        for key, value in fields.items():
            if value is None:
                item.pop(key)
            else:
                item[key] = value(item[key]) if callable(value) else value

    return edit


HUGE = [{"size": 2**40, "digest": digest(b"x")}]
ENTRIES: dict[str, tuple[str, Edit]] = {
    "piece that cannot be held": ("zstd", edited(piece=limits.PIECE_BYTES + 1)),
    "piece of a segment": ("zstd", edited(piece=limits.SEGMENT_BYTES)),
    "piece beyond any": ("identity", edited(piece=limits.SEGMENT_BYTES + 1)),
    "piece of nothing": ("zstd", edited(piece=0)),
    "piece below nothing": ("zstd", edited(piece=-1)),
    "smaller piece": ("zstd", edited(piece=PIECE - 1)),
    "segment that cannot be held": ("zstd", edited(segments=lambda s: HUGE + s[1:])),
    "large segment that others make up for": (
        "identity",
        edited(
            segments=lambda s: [
                {**s[0], "size": s[0]["size"] + 1},
                {**s[1], "size": s[1]["size"] - 1},
                *s[2:],
            ]
        ),
    ),
    "segment of nothing": ("zstd", edited(segments=lambda s: [{**s[0], "size": 0}, *s[1:]])),
    "segment of less": ("zstd", edited(segments=lambda s: [{**s[0], "size": -5}, *s[1:]])),
    "one segment less": ("zstd", edited(segments=lambda s: s[:-1])),
    "one segment more": ("zstd", edited(segments=lambda s: [*s, s[0]])),
    "no segments": ("zstd", edited(segments=[])),
    "segments left out": ("zstd", edited(segments=None)),
    "bases of no delta": ("zstd", edited(encoding="zstd", bases=[digest(BASE)])),
    "segment by another hash": (
        "zstd",
        edited(segments=lambda s: [{**s[0], "digest": f"sha512:{'0' * 128}"}, *s[1:]]),
    ),
    "segment as it is by another hash": (
        "identity",
        edited(segments=lambda s: [{**s[0], "digest": f"sha512:{'0' * 128}"}, *s[1:]]),
    ),
    "encoding of tomorrow": ("zstd", edited(encoding="brotli")),
    "delta without a base": ("zstd", edited(encoding="delta")),
}
ENTRIES["bases of no delta"] = (
    "zstd",
    lambda table: next(c for c in table["contents"] if c["digest"] == digest(MODEL)).update(
        bases=[digest(BASE)]
    ),
)


@pytest.mark.parametrize("flaw", ENTRIES)
def test_signed_entry_that_cannot_be(
    flaw: str, publisher: Simulator, target: Site, tmp_path: Path
) -> None:
    encoding, edit = ENTRIES[flaw]
    way = stored(MODEL, encoding)
    kinds = (MalformedDocument, MalformedArchive)
    check_attack(target, publisher, tmp_path, way, *kinds, descriptor=edit)


@pytest.mark.parametrize("which", [0, 1])
def test_manifest_or_config_in_another_encoding(
    which: int, publisher: Simulator, target: Site, tmp_path: Path
) -> None:
    """They are read before anything is decoded, so they travel as they are."""

    def edit(table: dict[str, Any]) -> None:
        item = table["contents"][which]
        segment = {"size": item["size"], "digest": item["digest"]}
        item.update(encoding="zstd", piece=PIECE, segments=[segment])

    way = stored(MODEL, "whole")
    check_attack(target, publisher, tmp_path, way, ContentError, descriptor=edit)


# -- deltas ---------------------------------------------------------------------------------------

START, LENGTH = 6000, 9000
SIZE = len(MODEL)
LITERALS = MODEL[:START] + MODEL[START + LENGTH :]
REST = SIZE - START - LENGTH


def delta(
    operations: list[tuple[int, int, int]], literals: bytes = LITERALS, **more: Any
) -> Stored:
    bases = more.pop("bases", (digest(BASE),))
    size = more.pop("size", SIZE)
    head = recipe(size, operations, more.pop("said", len(literals)), more.pop("count", len(bases)))
    return Stored("delta", (head, literals), 16 << 20, bases)


def around(*middle: tuple[int, int, int]) -> list[tuple[int, int, int]]:
    return [(0, 0, START), *middle, (0, 0, REST)]


RECIPES: dict[str, Stored] = {
    "reads past its base": delta(around((1, len(BASE) - LENGTH + 1, LENGTH))),
    "reads far past its base": delta(around((1, 2**63, LENGTH))),
    "wraps around": delta(around((1, 2**64 - 1, LENGTH))),
    "length wraps around": delta([(0, 0, START), (1, 0, 2**64 - 1)]),
    "names a base that it has not": delta(around((2, 0, LENGTH))),
    "names a base far away": delta(around((2**32 - 1, 0, LENGTH))),
    "makes too much": delta(around((1, START, LENGTH + 1))),
    "makes too little": delta(around((1, START, LENGTH - 1))),
    "makes another size": delta(around((1, START, LENGTH)), size=SIZE + 1),
    "makes a terabyte": delta(around((1, START, LENGTH)), size=2**40),
    "operation of nothing": delta(around((1, START, 0), (1, START, LENGTH))),
    "literal with an offset": delta([(0, 5, START), (1, START, LENGTH), (0, 0, REST)]),
    "uses no base": delta([(0, 0, SIZE)], MODEL),
    "splits one copy in two": delta(around((1, START, 10), (1, START + 10, LENGTH - 10))),
    "lies about its literals": delta(around((1, START, LENGTH)), said=len(LITERALS) - 1),
    "lies about its bases": delta(around((1, START, LENGTH)), count=2),
    "yields other bytes": delta(around((1, 0, LENGTH))),
    "other literals": delta(around((1, START, LENGTH)), LITERALS[::-1]),
    "is no recipe": Stored("delta", (b"x" * 60, LITERALS), 16 << 20, (digest(BASE),)),
    "is cut": Stored("delta", (recipe(SIZE, [(1, 0, SIZE)], 0)[:-1],), 16 << 20, (digest(BASE),)),
    "is nothing but a head": Stored(
        "delta", (recipe(SIZE, [], len(LITERALS)), LITERALS), 16 << 20, (digest(BASE),)
    ),
    "has no literals": Stored(
        "delta", (recipe(SIZE, around((1, START, LENGTH)), len(LITERALS)),), 1, (digest(BASE),)
    ),
}


@pytest.mark.parametrize("flaw", RECIPES)
def test_signed_recipe_that(flaw: str, publisher: Simulator, target: Site, tmp_path: Path) -> None:
    check_attack(target, publisher, tmp_path, RECIPES[flaw], ContentError)


def test_delta_upon_itself(publisher: Simulator, target: Site, tmp_path: Path) -> None:
    way = delta(around((1, START, LENGTH)), bases=(digest(MODEL),))
    check_attack(target, publisher, tmp_path, way, MalformedDocument)


def test_delta_whose_base_nobody_requires(
    publisher: Simulator, target: Site, tmp_path: Path
) -> None:
    way = delta(around((1, START, LENGTH)))
    kinds = (MalformedDocument, OutsideClosure)
    check_attack(
        target, publisher, tmp_path, way, *kinds, descriptor=lambda t: t.update(requires=[])
    )


def test_base_of_another_size(publisher: Simulator, target: Site, tmp_path: Path) -> None:
    """A recipe that fits the size that is signed must not reach the base that is there."""
    way = delta(around((1, START, LENGTH)))

    def edit(table: dict[str, Any]) -> None:
        table["requires"][0]["size"] += 1000

    check_attack(target, publisher, tmp_path, way, BlobsMissing, descriptor=edit)


def test_base_that_is_not_here(publisher: Simulator, site: Site, tmp_path: Path) -> None:
    way = delta(around((1, START, LENGTH)))
    target = site.copy(tmp_path / "empty")
    check_attack(target, publisher, tmp_path, way, BlobsMissing)


GENUINE = MODEL[:START] + BASE[START : START + LENGTH] + MODEL[START + LENGTH :]


@pytest.mark.parametrize("change", ["flipped", "zeroed", "cut"])
def test_base_that_rotted_since(
    change: str, publisher: Simulator, target: Site, tmp_path: Path
) -> None:
    """The recipe is right; what lies in the store under the base's digest is not any more."""
    path = target.home / "blobs" / digest(BASE).replace(":", "/")
    path.chmod(0o644)
    data = bytearray(BASE)
    data[START + 5] ^= 1
    rotten = {"flipped": bytes(data), "zeroed": bytes(len(BASE)), "cut": BASE[: START + 10]}
    path.write_bytes(rotten[change])
    way = delta(around((1, START, LENGTH)))
    kinds = (ContentMismatch, BlobsMissing)
    errors = check_attack(target, publisher, tmp_path, way, *kinds, source=GENUINE)
    assert all("doctor" in e.hint or isinstance(e, BlobsMissing) for e in errors)
    path.write_bytes(BASE)
    newer = twin(publisher)
    newer.bump()
    carried = carry(
        newer,
        Forgery(NAME, GENUINE),
        encodings={digest(GENUINE): way},
        requires={digest(BASE): len(BASE)},
        sequence=2,
    )
    run(import_paths, target, carried.put(tmp_path / "good")[0])
    assert check_sound(target.home) == ["library/base:1", NAME]


def test_base_is_left_as_it_was(publisher: Simulator, target: Site, tmp_path: Path) -> None:
    """Whatever a recipe does, it only reads."""
    path = target.home / "blobs" / digest(BASE).replace(":", "/")
    before = path.read_bytes(), path.stat().st_ino
    check_attack(target, publisher, tmp_path, RECIPES["yields other bytes"], ContentMismatch)
    assert (path.read_bytes(), path.stat().st_ino) == before
