"""Requests and tokens per minute, for each key and for each model. Pure: the clock is given.

Token buckets: a bucket holds as much as a minute allows and fills evenly. A request is let in while
there is something in every bucket that it draws from. How many tokens it takes is known only at its
end; they are drawn then, below zero where need be, and the next request waits for that.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from schemas import limits
from schemas.errors import RateLimited

REQUESTS: Final = "requests"
TOKENS: Final = "tokens"
_SWEEP: Final = 1024  # buckets after which full ones, which say nothing, are dropped


@dataclass(frozen=True, slots=True)
class Rates:
    """Bounds per minute; 0 is none.

    Attributes:
        requests: How many may come.
        tokens: Of prompts and answers.
    """

    requests: int = 0
    tokens: int = 0

    def __post_init__(self) -> None:
        if min(self.requests, self.tokens) < 0:
            raise ValueError("a rate is not negative")


@dataclass(slots=True)
class _Bucket:
    level: float
    at: float

    def filled(self, per_minute: int, now: float) -> float:
        """Its level now."""
        gain = (now - self.at) * per_minute / limits.RATE_WINDOW_SECONDS
        self.level = min(self.level + gain, per_minute)
        self.at = now
        return self.level


class Limiter:
    """Keeps account of who used how much.

    Args:
        clock: Seconds, monotonic.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._buckets: dict[tuple[str, str], _Bucket] = {}

    def admit(self, who: str, rates: Rates, shown: str = "") -> None:
        """Let one request in, or refuse it; a refused one draws nothing.

        Args:
            who: A key or a model.
            rates: What it is bound to.
            shown: What it is called in the message; by default the same.

        Raises:
            RateLimited: With the seconds until there is room again.
        """
        now = self._clock()
        for unit, bound, needed in ((REQUESTS, rates.requests, 1.0), (TOKENS, rates.tokens, 0.0)):
            if not bound:
                continue
            level = self._bucket(who, unit, bound, now).filled(bound, now)
            if level < needed or (unit == TOKENS and level <= 0):
                seconds = (needed - level) * limits.RATE_WINDOW_SECONDS / bound
                raise RateLimited(
                    f"rate limit reached for {shown or who}",
                    why=f"{bound} {unit} per minute",
                    unit=unit,
                    seconds=max(seconds, 0.001),
                )
        if rates.requests:
            self._buckets[who, REQUESTS].level -= 1

    def charge(self, who: str, rates: Rates, tokens: int) -> None:
        """Draw the tokens that a request took."""
        if rates.tokens and tokens:
            now = self._clock()
            bucket = self._bucket(who, TOKENS, rates.tokens, now)
            bucket.filled(rates.tokens, now)
            bucket.level -= tokens

    def _bucket(self, who: str, unit: str, bound: int, now: float) -> _Bucket:
        bucket = self._buckets.get((who, unit))
        if bucket is None:
            if len(self._buckets) >= _SWEEP:
                self._sweep(now)
            bucket = self._buckets[who, unit] = _Bucket(float(bound), now)
        return bucket

    def _sweep(self, now: float) -> None:
        """A bucket that nobody drew from for long enough is as full as a new one."""
        old = now - 60 * limits.RATE_WINDOW_SECONDS
        self._buckets = {key: b for key, b in self._buckets.items() if b.at > old or b.level < 0}
