"""Which sequence of the context a job gets, and how much of its prompt is there already."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from schemas import limits

# A slot is taken for its cache only if it holds more than this share of the prompt (llama-server's
# --slot-prompt-similarity); below it, the least recently used one loses less.
SIMILARITY: Final = 0.1
_STRIDE: Final = 256


@dataclass(slots=True, eq=False)
class Slot:
    """One sequence of the context.

    Attributes:
        id: Its sequence number.
        cached: Tokens whose keys and values lie in the context, in order from position 0.
        exact: How many of them, from the first, were computed in whole chunks by themselves: bit
            for bit what they would be if nobody else had been there.
        used: When it was last given out (a counter).
        taken: Whether a job has it.
    """

    id: int
    cached: list[int] = field(default_factory=list)
    exact: int = 0
    used: int = 0
    taken: bool = False

    def forget(self, count: int) -> None:
        """Only the first ``count`` are left."""
        del self.cached[count:]
        self.exact = min(self.exact, count)


def common_prefix(left: Sequence[int], right: Sequence[int]) -> int:
    """Length of the longest common beginning. Compares in strides, at C speed."""
    end = min(len(left), len(right))
    at = 0
    while at + _STRIDE <= end and left[at : at + _STRIDE] == right[at : at + _STRIDE]:
        at += _STRIDE
    while at < end and left[at] == right[at]:
        at += 1
    return at


def usable(cached: Sequence[int], whole: int, prompt: Sequence[int], *, exact: bool) -> int:
    """How many tokens of a prompt need not be computed where these are.

    Args:
        cached: Tokens whose keys and values are there.
        whole: As :attr:`Slot.exact`.
        prompt: One token of it at least is computed: its logits are where the answer begins.
        exact: Whether the rest must come out bit for bit as if all had been computed now.
    """
    common = min(common_prefix(cached, prompt), len(prompt) - 1)
    if not exact:
        return common
    common = min(common, whole)
    return common - common % limits.PROMPT_TOKENS_BESIDE


def choose(slots: Sequence[Slot], prompt: Sequence[int], *, exact: bool = False) -> Slot | None:
    """The free slot that saves most work: by longest common prefix, then least recently used.

    Returns:
        None if every slot is taken.
    """
    free = [slot for slot in slots if not slot.taken]
    if not free:
        return None

    def saved(slot: Slot) -> int:
        return usable(slot.cached, slot.exact, prompt, exact=exact)

    best = max(free, key=lambda slot: (saved(slot), -slot.used))
    if saved(best) > SIMILARITY * len(prompt):
        return best
    return min(free, key=lambda slot: slot.used)
