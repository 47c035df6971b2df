"""Guesses at what comes next, out of what came before: the tokens behind the same few tokens.

Several tokens computed at once cost less than one after the other, so a guess that is right saves
time, and a wrong one costs some. Text that quotes, lists or repeats is guessed well; how well is
learnt while it is answered.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

_RUN: Final = 3  # tokens that must be the same
MOST: Final = 4  # tokens guessed at once
_COST: Final = 0.4  # of a guessed row, in steps of one row, until it has been measured
_MARGIN: Final = 0.1  # more hits than that, or guessing does not pay
_HOPE: Final = 0.85  # the share that is taken for granted at first, and after a pause
_MEMORY: Final = 0.85  # how much of the past counts beside each new guess
_PAUSE: Final = 24  # tokens without guesses after guessing did not pay


class Lookup:
    """Guesses for one answer.

    Args:
        tokens: What there is so far; more tokens are told one by one.
    """

    def __init__(self, tokens: Sequence[int]) -> None:
        self._tokens: list[int] = []
        self._behind: dict[tuple[int, ...], int] = {}
        self._share = _HOPE
        self._pause = 0
        for token in tokens:
            self.tell(token)

    def tell(self, token: int) -> None:
        """One more token of the text."""
        tokens = self._tokens
        if len(tokens) >= _RUN:
            self._behind[tuple(tokens[-_RUN:])] = len(tokens)
        tokens.append(token)

    def guess(self, most: int) -> list[int]:
        """What may come next; empty if nothing is known, or guessing does not pay here."""
        if self._pause:
            self._pause -= 1
            return []
        at = self._behind.get(tuple(self._tokens[-_RUN:]), 0)
        return self._tokens[at : at + min(most, MOST)] if at and most > 0 else []

    def learn(self, guessed: int, right: int, cost: float) -> None:
        """How many of the guessed tokens were right, and what one costs (:class:`Pace`)."""
        self._share = _mixed(self._share, right / guessed)
        if self._share < cost + _MARGIN:
            self._pause, self._share = _PAUSE, _HOPE


class Pace:
    """How long steps of one answer take.

    Attributes:
        cost: Of a guessed row, in steps of one row: 0 is nothing, 1 as much as without guessing.
    """

    def __init__(self) -> None:
        self.cost = _COST
        self._single = 0.0

    def tell(self, rows: int, took: int) -> None:
        """A step of so many rows took so many nanoseconds."""
        if rows == 1:
            self._single = _mixed(self._single or took, took)
        elif self._single:
            cost = (took / self._single - 1) / (rows - 1)
            self.cost = _mixed(self.cost, min(max(cost, 0.0), 1.0))


def _mixed(past: float, new: float) -> float:
    return _MEMORY * past + (1 - _MEMORY) * new
