"""What slots held before: bounded, and the most useful stays."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from runtime.engine.attic import Attic, Kept
from runtime.engine.backend import State


def kept(*tokens: int, size: int = 1) -> Kept:
    return Kept(list(tokens), 0, State(None, size))


@given(
    st.lists(st.tuples(st.lists(st.integers(0, 1), min_size=1), st.integers(1, 9))),
    st.integers(0, 20),
)
def test_it_never_holds_more_than_its_limit(
    sequences: list[tuple[list[int], int]], limit: int
) -> None:
    attic = Attic(limit)
    for tokens, size in sequences:
        attic.put(kept(*tokens, size=size))
        assert attic.bytes == sum(each.state.size for each in attic.kept) <= limit


def test_what_was_used_last_stays() -> None:
    attic = Attic(2)
    first, second = kept(1), kept(2)
    attic.put(first)
    attic.put(second)
    attic.used(first)
    attic.put(third := kept(3))
    assert attic.kept == [first, third]


def test_a_longer_one_takes_the_place_of_its_beginning() -> None:
    attic = Attic(10)
    attic.put(kept(1, 2))
    attic.put(longer := kept(1, 2, 3))
    assert attic.kept == [longer]
    assert attic.holds([1, 2])
    assert not attic.holds([1, 2, 3, 4])


def test_what_is_larger_than_all_of_it_drives_nobody_out() -> None:
    attic = Attic(4)
    attic.put(small := kept(1))
    attic.put(kept(2, size=5))
    assert attic.kept == [small]
