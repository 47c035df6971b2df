"""Requests and tokens per minute, by a clock that the test sets."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.access.ratelimit import Limiter, Rates
from schemas.errors import RateLimited


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def limiter(clock: Clock) -> Limiter:
    return Limiter(clock)


def test_requests(limiter: Limiter, clock: Clock) -> None:
    rates = Rates(requests=3)
    for _ in range(3):
        limiter.admit("a", rates)
    with pytest.raises(RateLimited, match="rate limit reached for a: 3 requests per min") as found:
        limiter.admit("a", rates)
    assert found.value.seconds == pytest.approx(20)
    assert found.value.unit == "requests"
    limiter.admit("b", rates)
    clock.now += 19.9
    with pytest.raises(RateLimited):
        limiter.admit("a", rates)
    clock.now += 0.2
    limiter.admit("a", rates)


def test_tokens_are_drawn_afterwards(limiter: Limiter, clock: Clock) -> None:
    rates = Rates(tokens=100)
    limiter.admit("a", rates)
    limiter.charge("a", rates, 150)  # below zero: 50 that the next minute owes
    with pytest.raises(RateLimited) as found:
        limiter.admit("a", rates, "model x")
    assert found.value.seconds == pytest.approx(30)
    assert "for model x" in found.value.line()
    clock.now += 30.1
    limiter.admit("a", rates)


def test_a_refused_request_draws_nothing(limiter: Limiter, clock: Clock) -> None:
    rates = Rates(requests=2, tokens=10)
    limiter.charge("a", rates, 20)
    for _ in range(5):
        with pytest.raises(RateLimited):
            limiter.admit("a", rates)
    clock.now += 61
    limiter.admit("a", rates)
    limiter.admit("a", rates)


def test_no_bound_no_books(limiter: Limiter) -> None:
    for _ in range(1000):
        limiter.admit("a", Rates())
        limiter.charge("a", Rates(), 1000)
    assert not limiter._buckets


def test_buckets_do_not_pile_up(limiter: Limiter, clock: Clock) -> None:
    rates = Rates(requests=1)
    for number in range(3000):
        limiter.admit(str(number), rates)
        clock.now += 10
    assert len(limiter._buckets) <= 1100


@given(st.lists(st.tuples(st.floats(0, 30), st.integers(0, 50)), max_size=60))
def test_never_much_more_than_a_minute_allows(steps: list[tuple[float, int]]) -> None:
    clock = Clock()
    limiter, rates = Limiter(clock), Rates(requests=5, tokens=60)
    begin, requests, tokens = clock.now, 0, 0
    for wait, used in steps:
        clock.now += wait
        try:
            limiter.admit("a", rates)
        except RateLimited:
            continue
        requests += 1
        limiter.charge("a", rates, used)
        tokens += used
    minutes = (clock.now - begin) / 60
    assert requests <= 5 + 5 * minutes + 1e-6
    assert tokens <= 60 + 60 * minutes + 50 + 1e-6


def test_rates_are_not_negative() -> None:
    with pytest.raises(ValueError, match="negative"):
        Rates(requests=-1)
