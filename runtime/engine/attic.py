"""What slots held before others took them: keys and values of prompts, kept in memory for a while.

A conversation that lost its slot goes on from here without being computed anew. Bounded in bytes;
what was asked for longest ago goes first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from runtime.engine.backend import State
from runtime.engine.slots import common_prefix


@dataclass(frozen=True, slots=True, eq=False)
class Kept:
    """One saved sequence.

    Attributes:
        cached: As in :class:`runtime.engine.slots.Slot`.
        exact: Likewise.
        state: Its keys and values.
    """

    cached: list[int]
    exact: int
    state: State


class Attic:
    """Saved sequences, the one used last at the end.

    Args:
        limit: Most bytes in all; 0 keeps nothing.

    Attributes:
        kept: In the order in which they were used.
        bytes: Of all.
        limit: As above.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.kept: list[Kept] = []
        self.bytes = 0

    def holds(self, tokens: Sequence[int]) -> bool:
        """Whether one of them begins with all of these."""
        return any(common_prefix(kept.cached, tokens) == len(tokens) for kept in self.kept)

    def used(self, kept: Kept) -> None:
        """It was of use just now."""
        self.kept.remove(kept)
        self.kept.append(kept)

    def put(self, kept: Kept) -> None:
        """Keep one more, in place of those that it goes on from, and of the oldest."""
        if kept.state.size > self.limit:
            return
        for other in list(self.kept):
            if common_prefix(other.cached, kept.cached) == len(other.cached):
                self._drop(other)
        while self.bytes + kept.state.size > self.limit:
            self._drop(self.kept[0])
        self.kept.append(kept)
        self.bytes += kept.state.size

    def _drop(self, kept: Kept) -> None:
        self.kept.remove(kept)
        self.bytes -= kept.state.size
