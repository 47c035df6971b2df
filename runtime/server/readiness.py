"""Does a model answer, right now? What a load balancer needs to know before it sends anybody here.

A token that came for anybody within the last seconds is proof enough. Else one is made. However
many probes ask, one token at a time is made for them: probing is no way to load a server down.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import aclosing
from contextvars import Context
from dataclasses import dataclass, field
from typing import Final

from aiohttp import web

from registry.digest import Digest
from runtime.messages import LAST, Embed, Job, Sampling, Task, Text
from runtime.models import Model
from runtime.options import NO_OPTIONS
from runtime.server.answering import raise_if_failed
from runtime.server.backend import Backend
from runtime.server.requests import COMPLETION, parse_model
from schemas import limits
from schemas.errors import SealiftError, WorkerFailed

_WORD: Final = "Hello"


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a model answers.

    Attributes:
        model: As it was asked for.
        ready: Whether.
        why: Why not; for people.
        age: Seconds since it last did; None if it never did.
    """

    model: str
    ready: bool
    why: str = ""
    age: float | None = None

    def document(self) -> dict[str, object]:
        """As JSON."""
        found: dict[str, object] = {"model": self.model, "generates": self.ready}
        if self.why:
            found["why"] = self.why
        if self.age is not None:
            found["seconds_ago"] = round(self.age, 1)
        return found


@dataclass(slots=True, eq=False)
class Readiness:
    """Remembers when models last answered, and asks them.

    Args:
        backend: What answers.
        proofs: When each model last made a token for anybody, by the monotonic clock.
    """

    backend: Backend
    proofs: dict[Digest, float]
    _trials: dict[str, asyncio.Task[str]] = field(default_factory=dict)

    async def check(self, name: str) -> Verdict:
        """See whether a model answers, for ``READY_WAIT_SECONDS`` at most.

        What takes longer (it may have to be loaded) goes on, for the next one who asks.

        Raises:
            SealiftError: There is no such model, or it is not served.
        """
        _, reference = parse_model(name)
        model = await self.backend.model(reference, name)
        age = self._age(model)
        if age is not None and age <= limits.READY_SECONDS:
            return Verdict(name, ready=True, age=age)
        trial = self._trials.get(name)
        if trial is None:
            # In a context of its own: what is watched is users' requests.
            coroutine = self._try(name)
            trial = asyncio.create_task(coroutine, name="readiness", context=Context())
            self._trials[name] = trial
            trial.add_done_callback(lambda _: self._trials.pop(name, None))
        await asyncio.wait((trial,), timeout=limits.READY_WAIT_SECONDS)
        if not trial.done():
            return Verdict(name, ready=False, why="no token yet", age=age)
        why = "cancelled" if trial.cancelled() else trial.result()
        return Verdict(name, ready=not why, why=why, age=self._age(model))

    async def close(self) -> None:
        """End what is under way."""
        trials = list(self._trials.values())
        for trial in trials:
            trial.cancel()
        if trials:
            await asyncio.wait(trials)

    def _age(self, model: Model) -> float | None:
        at = self.proofs.get(model.digest)
        return None if at is None else time.monotonic() - at

    async def _try(self, name: str) -> str:
        """Make a token; returns why that failed, or nothing."""
        try:
            await self._token(name)
        except SealiftError as error:
            return error.line()
        return ""

    async def _token(self, name: str) -> None:
        _, reference = parse_model(name)
        model = await self.backend.to_serve(reference, name)
        scheduler = self.backend.scheduler
        # A model that is loaded otherwise than a plain request would load it stays as it is.
        spec = scheduler.spec_of(model) or self.backend.spec(model, NO_OPTIONS)
        async with (
            scheduler.lease(model, spec) as lease,
            aclosing(lease.run(_task(model, lease.job_id))) as events,
        ):
            async for event in events:
                raise_if_failed(event)
                if isinstance(event, LAST):
                    self.proofs[model.digest] = time.monotonic()
                    return
        raise WorkerFailed("the worker ended a task without a last word")


def _task(model: Model, job_id: int) -> Task:
    if COMPLETION not in model.capabilities:
        return Embed(job_id, (_WORD,))
    return Job(job_id, Text(_WORD), Sampling(temperature=0.0, num_predict=1))


READINESS: Final = web.AppKey("readiness", Readiness)
