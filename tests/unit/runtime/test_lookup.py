"""Guesses at what comes next."""

from __future__ import annotations

import random

from runtime.engine.lookup import MOST, Lookup, Pace


def test_what_followed_the_same_tokens_before_is_guessed() -> None:
    lookup = Lookup([1, 2, 3, 4, 5, 6, 1, 2, 3])
    assert lookup.guess(MOST) == [4, 5, 6, 1]
    assert lookup.guess(2) == [4, 5]
    assert lookup.guess(0) == []
    lookup.tell(9)
    assert lookup.guess(MOST) == []


def test_the_latest_place_counts() -> None:
    lookup = Lookup([1, 2, 3, 4, 1, 2, 3, 5])
    for token in (1, 2, 3):
        lookup.tell(token)
    assert lookup.guess(1) == [5]


def test_repetition_is_guessed() -> None:
    lookup = Lookup([7] * 8)
    assert lookup.guess(MOST) == [7]
    assert Lookup([1, 2] * 4).guess(MOST) == [1, 2]


def test_nothing_is_guessed_of_short_or_new_text() -> None:
    assert Lookup([]).guess(MOST) == []
    assert Lookup([1, 2, 3]).guess(MOST) == []
    assert Lookup(range(100)).guess(MOST) == []


def test_it_pauses_where_guessing_does_not_pay() -> None:
    lookup = Lookup([1, 2, 3] * 4)
    tries = 0
    while lookup.guess(MOST):
        lookup.learn(MOST, 0, 0.4)
        tries += 1
        assert tries < 10
    pause = 1
    while not lookup.guess(MOST):
        pause += 1
    assert pause > 10
    good = Lookup([1, 2, 3] * 4)
    for _ in range(100):
        assert good.guess(MOST)
        good.learn(MOST, MOST, 0.7)


def test_guesses_are_what_a_search_would_find() -> None:
    chance = random.Random(1)
    tokens = [chance.randrange(3) for _ in range(60)]
    lookup = Lookup(tokens[:5])
    for end in range(5, 60):
        found = [at for at in range(3, end) if tokens[at - 3 : at] == tokens[end - 3 : end]]
        expected = tokens[found[-1] : end][:MOST] if found else []
        assert lookup.guess(MOST) == expected
        lookup.tell(tokens[end])


def test_what_a_guessed_row_costs_is_measured() -> None:
    for extra in (0.1, 0.7):
        pace = Pace()
        pace.tell(5, 10)  # nothing to compare it with yet
        for _ in range(60):
            pace.tell(1, 1000)
            pace.tell(5, int(1000 * (1 + 4 * extra)))
        assert abs(pace.cost - extra) < 0.02


def test_guesses_that_are_half_right_pay_only_where_rows_are_cheap() -> None:
    for cost, pays in ((0.2, True), (0.7, False)):
        lookup = Lookup([1, 2, 3] * 4)
        asked = 0
        for _ in range(40):
            if lookup.guess(MOST):
                asked += 1
                lookup.learn(MOST, MOST // 2, cost)
        assert (asked == 40) == pays
