"""Where sequences lie: who gets which slot, what is copied into it, what is kept of who lost it."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Final

from runtime.engine.attic import Attic, Kept
from runtime.engine.backend import Backend
from runtime.engine.sight import Picture, untouched
from runtime.engine.slots import Slot, choose, usable
from schemas.errors import WorkerFailed

# Tokens: a long sequence is copied in the time in which a few are computed, whatever the model.
WORTH: Final = 8
_LEAST_KEPT: Final = 0.5  # share of a slot that a new owner leaves; what loses more is saved before
_NO_LIMIT: Final = 2**63


class Places:
    """The slots of one context.

    Args:
        backend: Has as many sequences.
        parallel: Number of slots.
        memory: Bytes for what lost its slot; 0 keeps none of it.
    """

    def __init__(self, backend: Backend, parallel: int, memory: int) -> None:
        self._backend = backend
        self.slots = [Slot(number) for number in range(parallel)]
        self.attic = Attic(memory)
        self._turn = 0

    def take(self, prompt: Sequence[int], *, exact: bool) -> Slot:
        """Give out a slot, with as much of the prompt in it as is known anywhere.

        Raises:
            WorkerFailed: All are taken.
        """
        slot = choose(self.slots, prompt, exact=exact)
        if slot is None:  # never: the engine admits only while fewer run than there are slots
            raise WorkerFailed("the engine has no free slot")
        self.fetch(slot, prompt, exact=exact)
        self._turn += 1
        slot.taken, slot.used = True, self._turn
        return slot

    def fetch(self, slot: Slot, prompt: Sequence[int], *, exact: bool) -> None:
        """Bring into a slot what is known of a prompt, from wherever it is."""
        have = usable(slot.cached, slot.exact, prompt, exact=exact)
        sources: list[Slot | Kept] = [*self.attic.kept, *(s for s in self.slots if s is not slot)]

        def known(source: Slot | Kept) -> int:
            return usable(source.cached, source.exact, prompt, exact=exact)

        best = max(sources, key=known, default=slot)
        if known(best) >= have + WORTH:
            if isinstance(best, Kept):
                self.attic.used(best)
            self._save(slot, 0)
            have = known(best) if self._copy(best, slot) else 0
        else:
            self._save(slot, have)
        slot.forget(self._backend.keep(slot.id, have))

    def leave_whole(self, slot: Slot, pictures: Sequence[Picture]) -> None:
        """Forget a picture of which a slot holds a part only."""
        count = untouched(pictures, len(slot.cached))
        if count < len(slot.cached):
            slot.forget(self._backend.keep(slot.id, count))

    def purge(self) -> bool:
        """Empty the slots that no job has. Returns whether there was anything to empty."""
        idle = [slot for slot in self.slots if not slot.taken and slot.cached]
        for slot in idle:
            self.empty(slot)
        return bool(idle)

    def empty(self, slot: Slot) -> None:
        """Forget what a slot holds."""
        slot.forget(self._backend.keep(slot.id, 0))

    def close_gap(self) -> None:
        """Have the taken slots lie side by side, so that they are computed in one go."""
        taken = sorted((slot for slot in self.slots if slot.taken), key=lambda slot: slot.id)
        neighbours = itertools.pairwise(taken)
        gap = next((a.id + 1 for a, b in neighbours if b.id > a.id + 1), -1)
        if gap >= 0:
            self._swap(taken[-1], next(slot for slot in self.slots if slot.id == gap))

    def _save(self, slot: Slot, kept: int) -> None:
        """Save what a slot holds if its next owner leaves less than half of it."""
        count = len(slot.cached)
        if self.attic.limit and count > WORTH and kept < _LEAST_KEPT * count:
            if self.attic.holds(slot.cached):
                return
            state = self._backend.save(slot.id, self.attic.limit)
            if state is not None:
                self.attic.put(Kept(list(slot.cached), slot.exact, state))

    def _copy(self, source: Slot | Kept, slot: Slot) -> bool:
        if isinstance(source, Kept):
            state = source.state
        else:
            saved = self._backend.save(source.id, _NO_LIMIT)
            if saved is None:
                return False
            state = saved
        done = self._backend.load(slot.id, state)
        slot.cached = list(source.cached) if done else []
        slot.exact = source.exact if done else 0
        return done

    def _swap(self, left: Slot, right: Slot) -> None:
        """Let two slots change places; both keep what they hold.

        Raises:
            WorkerFailed: It was lost on the way.
        """
        backend = self._backend
        states = [
            backend.save(slot.id, _NO_LIMIT) if slot.cached else None for slot in (left, right)
        ]
        left.id, right.id = right.id, left.id
        for slot in (left, right):
            backend.keep(slot.id, 0)  # both, before one is loaded: there may be no room for three
        lost = False
        for slot, state in zip((left, right), states, strict=True):
            if state is not None and not backend.load(slot.id, state):
                slot.forget(0)
                lost |= slot.taken
        if lost:
            raise WorkerFailed("the engine lost a sequence")
