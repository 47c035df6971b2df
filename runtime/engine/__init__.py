"""The engine: continues sequences of tokens, many at once, one step at a time."""

from __future__ import annotations

from typing import Protocol

from runtime.messages import Event, Job


class Engine(Protocol):
    """One loaded model and the sequences that it is continuing.

    Driven by one thread, the main one: ``submit`` and ``cancel`` between steps, ``step`` in a loop
    while ``busy``. Every job ends with exactly one ``Finished`` or ``Failed``.
    """

    @property
    def busy(self) -> bool:
        """Whether a call of :meth:`step` would do anything."""
        ...

    def submit(self, job: Job) -> None:
        """Queue a job. Faults of the job itself come out of :meth:`step` as ``Failed``."""
        ...

    def cancel(self, job_id: int) -> None:
        """End a job with ``Finished(reason="cancelled")`` at the next step, if it is known."""
        ...

    def step(self) -> list[Event]:
        """Decode once, for all sequences that have something to decode; return what came of it."""
        ...

    def close(self) -> None:
        """Free the model. Jobs in flight are dropped without an event."""
        ...
