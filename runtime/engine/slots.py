"""Which sequence of the context a job gets, and how much of its prompt is there already."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

# A slot is taken for its cache only if it holds more than this share of the prompt (llama-server's
# --slot-prompt-similarity); below it, the least recently used one loses less.
SIMILARITY: Final = 0.1
_STRIDE: Final = 256


@dataclass(slots=True)
class Slot:
    """One sequence of the context.

    Attributes:
        id: Its sequence number.
        cached: Tokens whose keys and values lie in the context, in order from position 0.
        used: When it was last given out (a counter).
        taken: Whether a job has it.
    """

    id: int
    cached: list[int] = field(default_factory=list)
    used: int = 0
    taken: bool = False


def common_prefix(left: Sequence[int], right: Sequence[int]) -> int:
    """Length of the longest common beginning. Compares in strides, at C speed."""
    end = min(len(left), len(right))
    at = 0
    while at + _STRIDE <= end and left[at : at + _STRIDE] == right[at : at + _STRIDE]:
        at += _STRIDE
    while at < end and left[at] == right[at]:
        at += 1
    return at


def choose(slots: Sequence[Slot], prompt: Sequence[int]) -> Slot | None:
    """The free slot that saves most work: by longest common prefix, else least recently used.

    Returns:
        None if every slot is taken.
    """
    free = [slot for slot in slots if not slot.taken]
    if not free:
        return None
    best = max(free, key=lambda slot: common_prefix(slot.cached, prompt))
    if common_prefix(best.cached, prompt) > SIMILARITY * len(prompt):
        return best
    return min(free, key=lambda slot: slot.used)
