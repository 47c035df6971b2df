"""Recipes: one way to write each, and nothing in them that could do harm."""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bundler.archive import recipe as module
from bundler.archive.codec import Encoding
from bundler.archive.recipe import RECIPE_BYTES, Operation, Recipe, RecipeBuilder, check_bases
from registry.digest import Digest
from schemas import limits
from schemas.errors import MalformedArchive, UnsupportedRequest

SIZES = (1000, 500)  # of the two bases
HEAD = struct.Struct(">16sQQHBBI")


@dataclass(frozen=True)
class Raw:
    """A recipe by hand, so that each field can be wrong."""

    operations: tuple[tuple[int, int, int], ...] = ((1, 0, 100), (0, 0, 50), (2, 10, 200))
    magic: bytes = b"sealift recipe\x00\x01"
    size: int = 350
    literals: int = 50
    bases: int = 2
    encoding: int = 1
    zero: int = 0
    count: int | None = None

    def build(self) -> bytes:
        count = len(self.operations) if self.count is None else self.count
        head = HEAD.pack(
            self.magic, self.size, self.literals, self.bases, self.encoding, self.zero, count
        )
        return head + b"".join(struct.pack(">IQQ", *one) for one in self.operations)

    def over(self, *operations: tuple[int, int, int]) -> Raw:
        """The same with other operations and sums that fit them."""
        return replace(
            self,
            operations=operations,
            size=sum(length for *_, length in operations),
            literals=sum(length for base, _, length in operations if base == 0),
        )


def parse(data: bytes, size: int = 350) -> Recipe:
    return Recipe.from_bytes(data, size=size, base_sizes=SIZES)


def test_a_recipe_is_read_and_written() -> None:
    recipe = parse(Raw().build())
    assert list(recipe) == [
        Operation(0, 0, 100),
        Operation(None, 0, 50),
        Operation(1, 10, 200),
    ]
    assert (recipe.size, recipe.literal_size, recipe.copied) == (350, 50, 300)
    assert recipe.encoding is Encoding.ZSTD
    assert recipe.to_bytes() == Raw().build()
    assert list(recipe.literal_ranges()) == [(100, 50)]


MOST = 2**64 - 1
FLAWED = {
    "empty": b"",
    "magic": Raw(magic=b"sealift chunks\x00\x01").build(),
    "version-2": Raw(magic=b"sealift recipe\x00\x02").build(),
    "encoding-3": Raw(encoding=3).build(),
    "encoding-delta": Raw(encoding=255).build(),
    "not-zero": Raw(zero=1).build(),
    "no-operation": Raw(operations=(), size=0, literals=0).build(),
    "count-one-more": Raw(count=4).build(),
    "count-one-less": Raw(count=2).build(),
    "count-huge": Raw(count=2**32 - 1).build(),
    "trailing-byte": Raw().build() + b"\0",
    "cut": Raw().build()[:-1],
    "size-of-another-blob": replace(Raw().over((1, 0, 1), (2, 0, 1)), size=350).build(),
    "size-more": Raw(size=351).build(),
    "bases-one": Raw(bases=1).build(),
    "bases-three": Raw(bases=3).build(),
    "base-unknown": Raw().over((1, 0, 100), (3, 0, 50), (2, 0, 200)).build(),
    "base-most": Raw().over((1, 0, 100), (2**32 - 1, 0, 50), (2, 0, 200)).build(),
    "base-unused": Raw().over((1, 0, 300), (0, 0, 50)).build(),
    "only-literals": Raw().over((0, 0, 350)).build(),
    "length-zero": Raw().over((1, 0, 100), (0, 0, 50), (2, 0, 200), (1, 7, 0)).build(),
    "literal-length-zero": Raw().over((1, 0, 150), (0, 0, 0), (2, 0, 200)).build(),
    "literal-with-offset": Raw().over((1, 0, 100), (0, 9, 50), (2, 0, 200)).build(),
    "copy-past-the-end": Raw().over((1, 950, 100), (0, 0, 50), (2, 0, 200)).build(),
    "copy-far-past-the-end": Raw().over((1, 2**63, 100), (0, 0, 50), (2, 0, 200)).build(),
    "copy-that-overflows": Raw().over((1, MOST - 50, 100), (0, 0, 50), (2, 0, 200)).build(),
    "copy-too-long": Raw().over((1, 0, 100), (0, 0, 50), (2, 499, 200)).build(),
    "length-most": replace(Raw(), operations=((1, 0, 100), (0, 0, MOST), (2, 0, 200))).build(),
    "lengths-short": Raw().over((1, 0, 100), (2, 0, 200)).build(),
    "lengths-long": replace(Raw().over((1, 0, 101), (0, 0, 50), (2, 0, 200)), size=350).build(),
    "literals-less-than-said": Raw(literals=51).build(),
    "literals-more-than-said": Raw(literals=0).build(),
    "copies-not-joined": Raw().over((1, 0, 50), (1, 50, 50), (0, 0, 50), (2, 0, 200)).build(),
    "literals-not-joined": Raw().over((1, 0, 100), (0, 0, 25), (0, 0, 25), (2, 0, 200)).build(),
}  # fmt: skip


@pytest.mark.parametrize("flaw", FLAWED)
def test_a_flawed_recipe_is_refused(flaw: str) -> None:
    with pytest.raises(MalformedArchive):
        parse(FLAWED[flaw])


def test_the_end_of_a_base_may_be_copied_and_runs_may_overlap() -> None:
    parse(Raw().over((1, 900, 100), (0, 0, 50), (2, 300, 200)).build())
    parse(Raw().over((1, 0, 100), (1, 50, 150), (2, 0, 100)).build())


def test_a_recipe_longer_than_any_is_not_looked_at() -> None:
    with pytest.raises(MalformedArchive, match="bytes"):
        parse(Raw().build() + bytes(RECIPE_BYTES))
    with pytest.raises(MalformedArchive, match="bytes"):
        parse(bytes(RECIPE_BYTES + 1))


@given(at=st.integers(0, len(Raw().build()) - 1), byte=st.integers(0, 255))
def test_a_changed_recipe_is_refused_or_still_within_bounds(at: int, byte: int) -> None:
    data = bytearray(Raw().build())
    data[at] = byte
    try:
        recipe = parse(bytes(data))
    except MalformedArchive:
        return
    assert recipe.to_bytes() == data
    assert sum(one.length for one in recipe) == 350
    for base, offset, length in recipe:
        assert base is None or offset + length <= SIZES[base]


@given(junk=st.binary(max_size=200), count=st.integers(0, 9))
def test_junk_is_refused(junk: bytes, count: int) -> None:
    for data in (junk, replace(Raw(), operations=(), count=count).build() + junk):
        try:
            parse(data)
        except MalformedArchive:
            continue


steps = st.lists(
    st.one_of(
        st.tuples(st.sampled_from([0, 1]), st.integers(0, 400), st.integers(1, 100)),
        st.tuples(st.none(), st.just(0), st.integers(1, 100)),
    ),
    max_size=30,
)


@given(steps=steps)
def test_a_built_recipe_is_a_proper_one(steps: list[tuple[int | None, int, int]]) -> None:
    builder = RecipeBuilder()
    wanted: list[tuple[int | None, int]] = []
    for base, offset, length in [(0, 0, 5), (1, 0, 5), *steps]:
        if base is None:
            builder.literal(length)
            wanted += [(None, 0)] * length
        else:
            builder.copy(base, offset, length)
            wanted += [(base, offset + at) for at in range(length)]
    recipe = builder.build(2, Encoding.PLANES4)
    assert parse(recipe.to_bytes(), len(wanted)) == recipe
    got: list[tuple[int | None, int]] = []
    for base, offset, length in recipe:
        got += [(base, offset + at if base is not None else 0) for at in range(length)]
    assert got == wanted


@given(steps=steps, start=st.integers(0, 4000))
def test_the_rest_of_a_recipe(steps: list[tuple[int | None, int, int]], start: int) -> None:
    builder = RecipeBuilder()
    for base, offset, length in [(0, 0, 5), *steps]:
        if base is None:
            builder.literal(length)
        else:
            builder.copy(base, offset, length)
    recipe = builder.build(2)
    position = min(start, recipe.size)
    literals = recipe.literals_before(start)
    for at, operation in recipe.since(start):
        assert at == position
        position += operation.length
        literals += operation.length if operation.base is None else 0
    assert position == recipe.size
    assert literals == recipe.literal_size


def test_a_builder_stops_at_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "RECIPE_OPERATIONS", 2)
    builder = RecipeBuilder()
    builder.copy(0, 0, 5)
    builder.copy(0, 5, 5)
    builder.literal(1)
    builder.literal(1)
    with pytest.raises(UnsupportedRequest):
        builder.copy(0, 0, 1)


def test_bases_are_other_blobs_each_once(monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = Digest.of(b"1"), Digest.of(b"2")
    check_bases(one, [two])
    with pytest.raises(MalformedArchive, match="of itself"):
        check_bases(one, [two, one])
    with pytest.raises(MalformedArchive, match="twice"):
        check_bases(one, [two, two])
    with pytest.raises(MalformedArchive, match="0 bases"):
        check_bases(one, [])
    monkeypatch.setattr(limits, "RECIPE_BASES", 1)
    with pytest.raises(MalformedArchive, match="2 bases"):
        check_bases(one, [two, Digest.of(b"3")])


def test_a_recipe_in_memory_is_as_long_as_in_the_bundle() -> None:
    assert module.RECIPE_BYTES < 6 * limits.MIB
