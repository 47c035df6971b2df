from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from runtime.engine.slots import Slot, choose, common_prefix

TOKENS = st.lists(st.integers(0, 2), max_size=600)


@given(TOKENS, TOKENS, TOKENS)
def test_common_prefix_is_the_naive_one(
    shared: list[int], left: list[int], right: list[int]
) -> None:
    left, right = shared + left, shared + right
    expected = next(
        (i for i, (a, b) in enumerate(zip(left, right, strict=False)) if a != b),
        min(len(left), len(right)),
    )
    assert common_prefix(left, right) == expected


def test_the_longest_common_prefix_wins() -> None:
    slots = [Slot(0, [1, 2, 3, 4], used=1), Slot(1, [1, 2, 9], used=2), Slot(2, [], used=0)]
    chosen = choose(slots, [1, 2, 3, 5])
    assert chosen is slots[0]


def test_else_the_least_recently_used() -> None:
    slots = [Slot(0, [9], used=5), Slot(1, [8], used=3), Slot(2, [7], used=4)]
    assert choose(slots, [1, 2, 3]) is slots[1]


def test_a_little_in_common_does_not_count() -> None:
    slots = [Slot(0, [1], used=5), Slot(1, [8], used=3)]
    assert choose(slots, list(range(1, 30))) is slots[1]


def test_taken_slots_are_left_alone() -> None:
    slots = [Slot(0, [1, 2, 3], taken=True), Slot(1)]
    assert choose(slots, [1, 2, 3]) is slots[1]
    slots[1].taken = True
    assert choose(slots, [1, 2, 3]) is None
