"""The engine: continues sequences of tokens, many at once, one step at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from runtime.messages import Event, Task


def nothing() -> None:
    """For :meth:`Engine.step`, when nobody waits for it."""


class Engine(Protocol):
    """One loaded model and the sequences that it is continuing.

    Driven by one thread, the main one: ``submit`` and ``cancel`` between steps, ``step`` in a loop
    while ``busy``. Every task ends with exactly one of :data:`runtime.messages.LAST`.
    """

    @property
    def busy(self) -> bool:
        """Whether a call of :meth:`step` would do anything."""
        ...

    def submit(self, task: Task) -> None:
        """Queue a task. Faults of the task itself come out of :meth:`step` as ``Failed``."""
        ...

    def cancel(self, task_id: int) -> None:
        """End a task with ``Finished(reason="cancelled")`` at the next step, if it is known."""
        ...

    def step(self, decoded: Callable[[], None] = nothing) -> list[Event]:
        """Decode once, for all sequences that have something to decode; return what came of it.

        Args:
            decoded: Called when it was decoded, and the next tokens are not chosen yet. Decoding
                takes all processors, choosing takes one.
        """
        ...

    def close(self) -> None:
        """Free the model. Tasks in flight are dropped without an event."""
        ...
