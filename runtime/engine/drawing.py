"""Drawing a token among the few most probable ones, as nearly every job asks for.

A third of the time of llama.cpp's chain of samplers, which makes a list of the whole vocabulary
first. The same steps in the same order: top-k, top-p, min-p, temperature, draw.
"""

from __future__ import annotations

import math
import random
from bisect import bisect_left, bisect_right
from itertools import accumulate
from typing import Final

import numpy as np
import numpy.typing as npt

from runtime.engine.sampling import Plan
from schemas.errors import WorkerFailed

MOST: Final = 256  # with more candidates llama.cpp's samplers are as fast
_NEAR: Final = 6.0  # logits below the best that are looked at first
_FAR: Final = 40.0  # what is farther below, times the temperature, has a chance of 10^-17
_CROWD: Final = 8  # so many times top-k candidates are more than need be


class Draw:
    """Chooses the tokens of one answer.

    Args:
        plan: One that :meth:`suits`.
    """

    __slots__ = ("_far", "_min_p", "_near", "_random", "_temperature", "_top_k", "_top_p")

    def __init__(self, plan: Plan) -> None:
        self._top_k = plan.top_k or MOST
        self._top_p = plan.top_p
        self._min_p = plan.min_p
        self._temperature = plan.temperature or 1.0
        self._random = random.Random(plan.seed)  # noqa: S311 - no secret
        self._far = _FAR * max(self._temperature, 1.0)
        self._near = _NEAR

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
        best = float(logits.max())
        if not math.isfinite(best):
            raise WorkerFailed("the engine gave no token that is possible")
        tokens, below = self._top(logits, best)
        count = self._nucleus(below)
        weights = list(accumulate([math.exp(x / self._temperature) for x in below[:count]]))
        drawn = self._random.random() * weights[-1]
        return tokens[min(bisect_right(weights, drawn), count - 1)]

    def _top(self, logits: npt.NDArray[np.float32], best: float) -> tuple[list[int], list[float]]:
        """The most probable tokens, best first, and how far their logits are below the best."""
        while True:
            found = np.flatnonzero(logits >= best - self._near)
            if len(found) >= self._top_k or self._near >= self._far:
                break
            self._near = min(self._near * 1.5, self._far)
        if len(found) > _CROWD * self._top_k:
            self._near *= 0.8
        values = logits[found]
        if len(found) > self._top_k:
            chosen = np.argpartition(values, -self._top_k)[-self._top_k :]
            found, values = found[chosen], values[chosen]
        order = np.argsort(-values, kind="stable")
        return found[order].tolist(), (values[order] - np.float32(best)).tolist()

    def _nucleus(self, below: list[float]) -> int:
        """How many of them top-p and min-p leave; one at least."""
        count = len(below)
        if self._top_p is not None:
            masses = list(accumulate(map(math.exp, below)))
            count = min(bisect_left(masses, self._top_p * masses[-1]) + 1, count)
        if self._min_p is not None:
            least = math.log(self._min_p)
            count = sum(x >= least for x in below[:count])
        return max(count, 1)
