"""Whether a row comes out the same, bit for bit, when others are computed beside it.

Many kernels compute each row by itself, many do not, and which one runs depends on the model, the
processor and the number of rows. So it is tried: now and then a row that must not depend on its
company is computed a second time alone. Where the two differ, such rows stay alone from then on.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from runtime.engine.stream import Stream

_CELLS: Final = 256  # llama.cpp looks at so many positions more at once
_LONG: Final = 2  # above that number of blocks all lengths count as one

Kind = tuple[int, int, int]
"""Rows in one go, blocks of the row's sequence, blocks of the longest one."""


class Company:
    """What is known of one context.

    Args:
        tries: Whether rows can be computed again; else such rows are always alone.
    """

    def __init__(self, *, tries: bool) -> None:
        self._tries = tries
        self._seen: dict[Kind, int] = {}
        self._differ: set[Kind] = set()

    def split(self, streams: Sequence[Stream]) -> tuple[list[Stream], list[Stream]]:
        """Those that may be computed together, by slot, and those that must be alone."""
        together = sorted(streams, key=lambda stream: stream.slot.id)
        alone: list[Stream] = []
        while True:
            kinds = self.kinds(together)
            unfit = [s for s, kind in kinds.items() if not self._tries or kind in self._differ]
            if not unfit:
                return together, alone
            alone += unfit
            together = [stream for stream in together if stream not in unfit]

    def kinds(self, together: Sequence[Stream]) -> dict[Stream, Kind]:
        """In what company rows would be; only those that must not depend on it, and have some."""
        kinds: dict[Stream, Kind] = {}
        if not any(stream.exact for stream in together):
            return kinds
        for run in _runs(together):
            longest = max(map(_blocks, run))
            for stream in run:
                if stream.exact and len(run) > 1:
                    kinds[stream] = (len(run), _blocks(stream), longest)
        return kinds

    def doubtful(self, kind: Kind) -> bool:
        """Whether to try again: the first times, then ever more seldom."""
        count = self._seen[kind] = self._seen.get(kind, 0) + 1
        return count & (count - 1) == 0

    def learn(self, kind: Kind, *, same: bool) -> None:
        """How a trial ended."""
        if not same:
            self._differ.add(kind)


def _blocks(stream: Stream) -> int:
    return min((len(stream.slot.cached) + stream.extra) // _CELLS, _LONG)


def _runs(together: Sequence[Stream]) -> list[list[Stream]]:
    """Those whose slots follow each other."""
    runs: list[list[Stream]] = []
    for stream in together:
        if runs and stream.slot.id == runs[-1][-1].slot.id + 1:
            runs[-1].append(stream)
        else:
            runs.append([stream])
    return runs
