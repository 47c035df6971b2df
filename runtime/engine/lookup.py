"""Guesses at what comes next, out of what came before: the tokens behind the same few tokens.

Several tokens computed at once cost less than one after the other, so a guess that is right saves
time, and a wrong one costs some. Text that quotes, lists or repeats is guessed well. How well is
learnt for nothing: whatever comes is compared with what would have been guessed, and only as many
tokens are guessed in earnest as were lately right often enough to pay.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

_RUN: Final = 3  # tokens that must be the same
MOST: Final = 4  # tokens guessed at once
_COST: Final = 0.5  # of a guessed row, in steps of one row, until it has been measured
_MARGIN: Final = 0.1  # a guess must be right so much more often than it costs
_MEMORY: Final = 0.85  # how much of the past counts beside what is new


class Lookup:
    """Guesses for one answer.

    Args:
        tokens: What there is so far; more tokens are told one by one.
    """

    def __init__(self, tokens: Sequence[int]) -> None:
        self._tokens: list[int] = []
        self._behind: dict[tuple[int, ...], int] = {}
        self._share = 0.0  # of guesses that would have been right
        for token in tokens:
            self._add(token)

    def tell(self, token: int) -> None:
        """One more token of the text."""
        at = self._place()
        if at:
            self._share = _mixed(self._share, self._tokens[at] == token)
        self._add(token)

    def guess(self, most: int, cost: float) -> list[int]:
        """What may come next; empty if nothing is known, or guessing does not pay here.

        Args:
            most: Tokens at most.
            cost: Of each (:class:`Pace`).
        """
        at = self._place()
        return self._tokens[at : at + min(most, self._worth(cost))] if at and most > 0 else []

    def _worth(self, cost: float) -> int:
        """How many in a row are right often enough."""
        count, right = 0, self._share
        while count < MOST and right > cost + _MARGIN:
            count, right = count + 1, right * self._share
        return count

    def _place(self) -> int:
        """Where what would be guessed begins; 0 if there is nothing."""
        return self._behind.get(tuple(self._tokens[-_RUN:]), 0)

    def _add(self, token: int) -> None:
        tokens = self._tokens
        if len(tokens) >= _RUN:
            self._behind[tuple(tokens[-_RUN:])] = len(tokens)
        tokens.append(token)


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
