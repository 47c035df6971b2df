"""What the scheduler hands out and keeps account of: leases, loaded models, tickets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import Enum, auto
from typing import Any, Protocol

from runtime.fit import Held, Need, Verdict
from runtime.messages import Event, Task, WorkerReady, WorkerSpec
from runtime.models import Model
from runtime.watching import WATCHER
from schemas.errors import SealiftError, WorkerFailed


class RunningWorker(Protocol):
    """A worker process as the scheduler sees it (:class:`runtime.worker.client.Worker`)."""

    @property
    def ready(self) -> WorkerReady:
        """What it reported once its model was loaded."""
        ...

    @property
    def alive(self) -> bool:
        """Whether it can still take a job."""
        ...

    def run(self, task: Task) -> AsyncGenerator[Event, None]:
        """Run a task; closing the iterator cancels it.

        Raises:
            WorkerFailed: The process died.
        """
        ...

    async def probe(self) -> list[dict[str, Any]]:
        """Every way out, attempted from inside the worker."""
        ...

    async def stop(self) -> None:
        """End the process."""
        ...


StartWorker = Callable[[WorkerSpec], Awaitable[RunningWorker]]


class Gate(Protocol):
    """Tells whether a model fits in memory (:class:`runtime.fit.Memory`)."""

    async def need(self, spec: WorkerSpec) -> Need:
        """What a worker would take.

        Raises:
            SealiftError: The model's file is not what was imported.
        """
        ...

    def judge(self, need: Need, held: Iterable[Held]) -> Verdict:
        """Whether one more fits beside those that are there."""
        ...

    def refusal(self, spec: WorkerSpec, need: Need, held: Iterable[Held]) -> SealiftError:
        """Why it does not fit."""
        ...

    async def embedding(self, spec: WorkerSpec) -> int:
        """Bytes more that a worker takes once it is asked for vectors too."""
        ...

    def refusal_of_more(self, more: int) -> SealiftError:
        """Why a loaded model cannot have so many bytes more."""
        ...


@dataclass(frozen=True, slots=True)
class Bounds:
    """The scheduler's settings.

    Attributes:
        parallel: Requests running at once, per model.
        models: Models loaded at once.
        queue: Requests waiting at once, over all models.
        keep_alive_ms: How long an idle model stays, where no request says; negative: for ever.
    """

    parallel: int = 1
    models: int = 3
    queue: int = 512
    keep_alive_ms: int = 300_000

    def __post_init__(self) -> None:
        if min(self.parallel, self.models, self.queue) < 1:
            raise ValueError("every bound of the scheduler is at least 1")


@dataclass(frozen=True, slots=True)
class Loaded:
    """A loaded model, for ``ps``.

    Attributes:
        model: Under the name that it was last asked for by.
        ready: What its worker reported.
        expires: When it is unloaded if nobody asks any more, UTC; None: never.
        running: Requests being answered.
        waiting: Requests in the queue for it.
    """

    model: Model
    ready: WorkerReady
    expires: datetime | None
    running: int
    waiting: int


class State(Enum):
    """Of a runner."""

    LOADING = auto()
    READY = auto()
    RETIRING = auto()  # finishes what runs, takes nothing new
    GONE = auto()  # stopping or dead


@dataclass(slots=True, eq=False)
class Runner:
    """One worker, from the moment somebody asked for it."""

    model: Model
    spec: WorkerSpec
    keep_alive_ms: int
    state: State = State.LOADING
    worker: RunningWorker | None = None
    running: int = 0
    used: float = 0.0
    expires: float | None = None  # by the loop's clock
    timer: asyncio.TimerHandle | None = None
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    need: Need | None = None  # of memory
    embeds: bool = False  # whether that counts what vectors take

    @property
    def key(self) -> str:
        """What makes two models one: the manifest's digest."""
        return str(self.model.digest)

    @property
    def counts_embedding(self) -> bool:
        """Whether what its embeddings take is part of its need."""
        return self.embeds

    @property
    def held(self) -> Held | None:
        """What it takes of memory; None where nobody counts."""
        if self.need is None or self.worker is None:
            return None if self.need is None else Held(self.need, loaded=False)
        copied = min(self.worker.ready.copied_bytes, self.need.mapped)
        mapped = self.need.mapped - copied
        return Held(replace(self.need, mapped=mapped, own=self.need.own + copied), loaded=True)


@dataclass(slots=True, eq=False)
class Ticket:
    """A request that waits for its turn."""

    model: Model
    spec: WorkerSpec
    keep_alive_ms: int | None
    turn: asyncio.Future[Runner]
    need: Need | None = None

    @property
    def key(self) -> str:
        """What makes two models one: the manifest's digest."""
        return str(self.model.digest)


class Lease:
    """The right to run one job at a time on a loaded model, until the ``async with`` block ends."""

    def __init__(
        self,
        runner: Runner,
        bury: Callable[[Runner, WorkerFailed], SealiftError],
        admit: Callable[[Runner, Task], Awaitable[None]],
        job_id: int,
    ) -> None:
        if runner.worker is None:
            raise WorkerFailed("the worker is gone")
        self._runner = runner
        self._worker = runner.worker
        self._bury = bury
        self._admit = admit
        self.job_id = job_id

    @property
    def ready(self) -> WorkerReady:
        """What the model's worker reported when it was loaded."""
        return self._worker.ready

    async def run(self, task: Task) -> AsyncGenerator[Event, None]:
        """Run a task and yield its events. Close it (``aclosing``) to cancel the task at once.

        Raises:
            WorkerFailed: The worker died; the next request starts another one.
            DoesNotFit: It would take more memory than there is.
        """
        await self._admit(self._runner, task)
        watcher = WATCHER.get()
        if watcher is not None:
            watcher.submitted(task)
        try:
            async with aclosing(self._worker.run(task)) as events:
                async for event in events:
                    if watcher is not None:
                        watcher.happened(event)
                    yield event
        except WorkerFailed as error:
            raise self._bury(self._runner, error) from None
