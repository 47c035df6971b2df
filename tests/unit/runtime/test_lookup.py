"""Guesses at what comes next."""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import cycle, islice

import pytest

from runtime.engine.lookup import MOST, Lookup, Pace

CHEAP = 0.05


def trusted(tokens: Sequence[int]) -> Lookup:
    """One whose guesses were right for long, and which then saw these."""
    lookup = Lookup([])
    for token in islice(cycle([901, 902, 903, 904]), 200):
        lookup.tell(token)
    for token in tokens:
        lookup._add(token)
    return lookup


def test_what_followed_the_same_tokens_before_is_guessed() -> None:
    lookup = trusted([1, 2, 3, 4, 5, 6, 1, 2, 3])
    assert lookup.guess(MOST, CHEAP) == [4, 5, 6, 1]
    assert lookup.guess(2, CHEAP) == [4, 5]
    assert lookup.guess(0, CHEAP) == []
    lookup.tell(9)
    assert lookup.guess(MOST, CHEAP) == []


def test_the_latest_place_counts() -> None:
    assert trusted([1, 2, 3, 4, 1, 2, 3, 5, 1, 2, 3]).guess(1, CHEAP) == [5]


def test_repetition_is_guessed() -> None:
    assert trusted([7] * 8).guess(MOST, CHEAP) == [7]
    assert trusted([1, 2] * 4).guess(MOST, CHEAP) == [1, 2]


def test_nothing_is_guessed_of_short_or_new_text() -> None:
    for tokens in ([], [1, 2, 3], range(100)):
        lookup = Lookup([])
        for token in tokens:
            lookup.tell(token)
        assert lookup.guess(MOST, CHEAP) == []


def test_a_prompt_that_repeats_is_no_reason_to_guess() -> None:
    assert Lookup([1, 2, 3] * 40).guess(MOST, CHEAP) == []


def test_guessing_begins_where_it_would_have_been_right_and_ends_where_not() -> None:
    lookup = Lookup([])
    began = 0
    while not lookup.guess(MOST, 0.5):
        lookup.tell(began % 5)
        began += 1
        assert began < 30
    assert began > 10
    wrong = 0
    while lookup.guess(MOST, 0.5) and lookup.guess(MOST, 0.5)[0] != 99:
        for token in (99, *islice(cycle(range(5)), 4)):  # the run of three comes again
            lookup.tell(token)
        wrong += 1
        assert wrong < 10


@pytest.mark.parametrize(
    ("cost", "count"), [(0.05, MOST), (0.6, MOST), (0.85, 1), (0.95, 0), (1.0, 0)]
)
def test_the_dearer_a_row_the_fewer_are_guessed(cost: float, count: int) -> None:
    lookup = trusted([1, 2, 3, 4, 5, 6, 1, 2, 3])
    lookup._share = 0.97
    assert len(lookup.guess(MOST, cost)) == count


def test_guesses_are_what_a_search_would_find() -> None:
    chance = random.Random(1)
    tokens = [chance.randrange(3) for _ in range(60)]
    lookup = Lookup(tokens[:5])
    for end in range(5, 60):
        found = [at for at in range(3, end) if tokens[at - 3 : at] == tokens[end - 3 : end]]
        expected = tokens[found[-1] : end][:MOST] if found else []
        lookup._share = 1.0
        assert lookup.guess(MOST, CHEAP) == expected
        lookup.tell(tokens[end])


def test_what_a_guessed_row_costs_is_measured() -> None:
    for extra in (0.1, 0.7):
        pace = Pace()
        pace.tell(5, 10)  # nothing to compare it with yet
        for _ in range(60):
            pace.tell(1, 1000)
            pace.tell(5, int(1000 * (1 + 4 * extra)))
        assert abs(pace.cost - extra) < 0.02
