"""Drawing a token among the few most probable ones, as nearly every job asks for.

Faster than llama.cpp's chain of samplers while caches are warm, for that makes a list of the whole
vocabulary first; between two decodes about as fast. The same steps in the same order: top-k, top-p,
min-p, temperature, draw.
"""

from __future__ import annotations

import math
import random
from typing import Final

import numpy as np
import numpy.typing as npt

from runtime.engine.sampling import Plan
from schemas.errors import WorkerFailed

MOST: Final = 256  # with more candidates llama.cpp's samplers are as fast
_ROWS: Final = 64  # of the table that logits are looked at as; fewer or more were slower


class Draw:
    """Chooses the tokens of one answer.

    Args:
        plan: One that :meth:`suits`.
    """

    __slots__ = ("_min_p", "_random", "_temperature", "_top_k", "_top_p")

    def __init__(self, plan: Plan) -> None:
        self._top_k = plan.top_k or MOST
        self._top_p = plan.top_p
        self._min_p = plan.min_p
        self._temperature = plan.temperature or 1.0
        self._random = random.Random(plan.seed)  # noqa: S311 - no secret

    @staticmethod
    def suits(plan: Plan) -> bool:
        """Whether the plan asks for nothing else."""
        return (
            plan.temperature is not None
            and plan.top_k is not None
            and plan.top_k <= MOST
            and plan.typical_p is None
            and plan.penalties is None
            and not plan.bias
        )

    def choose(self, logits: npt.NDArray[np.float32]) -> int:
        """The next token.

        Raises:
            WorkerFailed: No token is possible.
        """
        tokens = self._candidates(logits)
        values = logits[tokens]
        order = np.argsort(-values, kind="stable")[: self._top_k]
        best = float(values[order[0]]) if len(order) else -math.inf
        if not math.isfinite(best):
            raise WorkerFailed("the engine gave no token that is possible")
        below = values[order].astype(np.float64) - best
        weights = np.exp(below[: self._nucleus(below)] / self._temperature).cumsum()
        drawn = int(weights.searchsorted(self._random.random() * weights[-1], side="right"))
        return int(tokens[order[min(drawn, len(weights) - 1)]])

    def _candidates(self, logits: npt.NDArray[np.float32]) -> npt.NDArray[np.intp]:
        """The most probable tokens, and some that are not, in order of their numbers.

        The logits are looked at as a table. As many columns as there are tokens wanted have an
        element that is not below the least of these columns' highest, so nothing below it counts.
        """
        columns = len(logits) // _ROWS
        if columns <= self._top_k:
            return np.arange(len(logits))
        table = logits[: _ROWS * columns].reshape(_ROWS, columns)
        highest = table.max(axis=0)
        least = np.partition(highest, -self._top_k)[-self._top_k]
        if least == -math.inf:  # a form allows a few tokens only
            return np.flatnonzero(logits > least)
        some = np.flatnonzero(highest >= least)
        rows, which = np.nonzero(table[:, some] >= least)
        rest = np.flatnonzero(logits[_ROWS * columns :] >= least) + _ROWS * columns
        return np.concatenate((rows * columns + some[which], rest))

    def _nucleus(self, below: npt.NDArray[np.float64]) -> int:
        """How many of them top-p and min-p leave; one at least."""
        count = len(below)
        if self._top_p is not None:
            masses = np.exp(below).cumsum()
            count = min(int(masses.searchsorted(self._top_p * masses[-1])) + 1, count)
        if self._min_p is not None:
            count = int(np.count_nonzero(below[:count] >= math.log(self._min_p)))
        return max(count, 1)
