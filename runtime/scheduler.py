"""Which models are loaded, who waits for them, and how long they stay.

A request takes a :class:`Lease` on a model. It waits its turn in one queue, first come first served
per model, bounded over all models. A model is loaded once however many ask for it, and stays loaded
for its keep-alive time after its last request. Everything here runs in one event loop; no
state changes while another part of this module is half-way.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import math
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from runtime.fit import Held, Need, Verdict
from runtime.leases import Bounds, Gate, Lease, Loaded, Runner, StartWorker, State, Ticket
from runtime.messages import Embed, Task, WorkerSpec
from runtime.models import Model
from runtime.watching import WATCHER
from schemas import limits
from schemas.errors import SealiftError, ServerBusy, WorkerFailed

_LOG: Final = logging.getLogger("sealift.scheduler")


class Scheduler:
    """Hands out leases on models.

    Args:
        start: Starts a worker; raises a ``SealiftError`` if it cannot.
        bounds: See :class:`Bounds`.
        gate: Keeps out what does not fit in memory; None lets everything in.
    """

    def __init__(self, start: StartWorker, bounds: Bounds, gate: Gate | None = None) -> None:
        self._start = start
        self._bounds = bounds
        self._gate = gate
        self._runners: dict[str, Runner] = {}
        self._queue: list[Ticket] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._jobs = itertools.count(1)
        self._closing = False

    # -- what requests call ---------------------------------------------------------------------

    @asynccontextmanager
    async def lease(
        self, model: Model, spec: WorkerSpec, keep_alive_ms: int | None = None
    ) -> AsyncIterator[Lease]:
        """Wait for a turn on a model, loading it first where needed.

        Args:
            model: Which one.
            spec: How it must be loaded; a worker loaded otherwise is replaced once it is idle.
            keep_alive_ms: How long it stays afterwards; None leaves that as it is.

        Raises:
            ServerBusy: Too many wait already, or the server is stopping.
            DoesNotFit: It would not fit in memory, whatever else were unloaded.
            SealiftError: The model could not be loaded.
        """
        runner = await self._turn(model, spec, keep_alive_ms)
        watcher = WATCHER.get()
        if watcher is not None:
            watcher.granted()
        try:
            yield Lease(runner, self._bury, self._admit, next(self._jobs))
        finally:
            self._release(runner)

    async def unload(self, model: Model) -> bool:
        """Free a model once its running requests are done; wait until it is.

        Returns:
            Whether it was loaded.
        """
        runner = self._runners.get(str(model.digest))
        if runner is None:
            return False
        self.retire(model)
        await runner.gone.wait()
        return True

    def retire(self, model: Model) -> None:
        """As :meth:`unload`, but nobody waits for it."""
        runner = self._runners.get(str(model.digest))
        if runner is not None:
            runner.keep_alive_ms = 0
            if runner.state is State.READY:
                self._retire(runner)

    def spec_of(self, model: Model) -> WorkerSpec | None:
        """How a model is loaded, or being loaded, now."""
        runner = self._runners.get(str(model.digest))
        return None if runner is None else runner.spec

    def loaded(self) -> list[Loaded]:
        """Every model in memory, the one that expires last first."""
        now, loop_now = datetime.now(UTC), asyncio.get_running_loop().time()
        found = []
        for runner in self._runners.values():
            if runner.worker is None or runner.state is State.GONE:
                continue
            expires = self._expiry(runner, loop_now)
            found.append(
                Loaded(
                    model=runner.model,
                    ready=runner.worker.ready,
                    expires=None if expires is None else now + timedelta(seconds=expires),
                    running=runner.running,
                    waiting=sum(ticket.key == runner.key for ticket in self._queue),
                )
            )
        latest = datetime.max.replace(tzinfo=UTC)
        return sorted(found, key=lambda entry: entry.expires or latest, reverse=True)

    @property
    def waiting(self) -> int:
        """Requests in the queue."""
        return len(self._queue)

    async def probe(self) -> list[tuple[Loaded, list[dict[str, Any]]]]:
        """Every way out, attempted inside every loaded worker."""
        entries = self.loaded()
        workers = [self._runners[str(entry.model.digest)].worker for entry in entries]
        return [
            (entry, await worker.probe())
            for entry, worker in zip(entries, workers, strict=True)
            if worker is not None
        ]

    async def close(self) -> None:
        """Turn everybody in the queue away and end all workers, running or not."""
        self._closing = True
        for ticket in self._queue:
            if not ticket.turn.done():
                ticket.turn.set_exception(_stopping())
        self._queue.clear()
        for runner in list(self._runners.values()):
            if runner.state is not State.LOADING:
                self._stop(runner)
        for task in list(self._tasks):
            if task.get_name() == "load":
                task.cancel()
        while self._tasks:
            await asyncio.wait(self._tasks)

    # -- turns ------------------------------------------------------------------------------------

    async def _turn(self, model: Model, spec: WorkerSpec, keep_alive_ms: int | None) -> Runner:
        if self._closing:
            raise _stopping()
        need = await self._need(model, spec)
        loop = asyncio.get_running_loop()
        ticket = Ticket(model, spec, keep_alive_ms, loop.create_future(), need)
        if len(self._queue) >= self._bounds.queue and not self._free_for(ticket):
            raise ServerBusy("server busy, please try again.  maximum pending requests exceeded")
        self._queue.append(ticket)
        self._dispatch()
        try:
            return await ticket.turn
        except asyncio.CancelledError:
            if ticket in self._queue:
                self._queue.remove(ticket)
            elif ticket.turn.done() and not ticket.turn.cancelled() and not ticket.turn.exception():
                self._release(ticket.turn.result())  # the turn came in the moment of leaving
            self._dispatch()
            raise

    def _free_for(self, ticket: Ticket) -> bool:
        runner = self._runners.get(ticket.key)
        return (
            runner is not None
            and self._can_run(runner, ticket)
            and all(other.key != ticket.key for other in self._queue)
        )

    def _can_run(self, runner: Runner, ticket: Ticket) -> bool:
        return (
            runner.state is State.READY
            and runner.spec == ticket.spec
            and runner.running < self._bounds.parallel
        )

    def _dispatch(self) -> None:
        """Look through the queue in order; grant, load and make room as far as possible now."""
        if self._closing:
            return
        self._drop_dead()
        ahead: set[str] = set()  # models with a request further ahead that still waits
        leaving = sum(r.state in (State.RETIRING, State.GONE) for r in self._runners.values())
        for ticket in list(self._queue):
            if ticket.key in ahead:
                continue
            runner = self._runners.get(ticket.key)
            if runner is not None and self._can_run(runner, ticket):
                self._queue.remove(ticket)
                self._grant(runner, ticket)
                continue
            fits = True
            if runner is None or runner.spec != ticket.spec:
                verdict = self._judge(ticket)
                if verdict is Verdict.NEVER:
                    continue
                fits = verdict is Verdict.FITS
            if runner is not None:
                if runner.state is State.READY and runner.spec != ticket.spec:
                    self._retire(runner)
            elif fits and len(self._runners) < self._bounds.models:
                self._load(ticket)
            elif leaving > 0:
                leaving -= 1
            elif (victim := self._victim(ahead)) is not None:
                self._retire(victim)
            ahead.add(ticket.key)

    def _grant(self, runner: Runner, ticket: Ticket) -> None:
        if ticket.turn.done():
            return  # its request was cancelled just now
        runner.running += 1
        runner.model = ticket.model  # of several names, `ps` shows the one that was last asked for
        runner.used = asyncio.get_running_loop().time()
        self._disarm(runner)
        if ticket.keep_alive_ms is not None:
            runner.keep_alive_ms = ticket.keep_alive_ms
        ticket.turn.set_result(runner)

    def _release(self, runner: Runner) -> None:
        runner.running -= 1
        self._settle(runner)
        self._dispatch()

    def _victim(self, ahead: set[str]) -> Runner | None:
        """Whom to unload for somebody else; never one that an earlier request waits for.

        Idle before busy, then the shortest keep-alive, then the one unused for longest.
        """
        candidates = [
            r for r in self._runners.values() if r.state is State.READY and r.key not in ahead
        ]

        def order(runner: Runner) -> tuple[bool, float, float]:
            stay = math.inf if runner.keep_alive_ms < 0 else runner.keep_alive_ms
            return (runner.running > 0, stay, runner.used)

        return min(candidates, key=order, default=None)

    # -- memory -----------------------------------------------------------------------------------

    async def _need(self, model: Model, spec: WorkerSpec) -> Need | None:
        runner = self._runners.get(str(model.digest))
        if self._gate is None or (runner is not None and runner.spec == spec):
            return runner.need if runner is not None else None
        return await self._gate.need(spec)

    def _judge(self, ticket: Ticket) -> Verdict:
        """Whether a ticket's model fits now. One that never will is turned away here."""
        if self._gate is None or ticket.need is None:
            return Verdict.FITS
        held = self._held()
        verdict = self._gate.judge(ticket.need, held)
        if verdict is Verdict.NEVER:
            self._queue.remove(ticket)
            error = self._gate.refusal(ticket.spec, ticket.need, held)
            _LOG.warning("%s is not loaded: %s", ticket.model.name, error.line())
            if not ticket.turn.done():
                ticket.turn.set_exception(error)
        return verdict

    async def _admit(self, runner: Runner, task: Task) -> None:
        """See that there is room for what a model's first embedding takes, and count it.

        Raises:
            DoesNotFit: There is not.
        """
        if self._gate is None or runner.counts_embedding or not isinstance(task, Embed):
            return
        more = await self._gate.embedding(runner.spec)
        need = runner.need
        if need is None or runner.counts_embedding:  # another request was faster
            return
        verdict = self._gate.judge(replace(need, own=more), self._held())
        if more and verdict is not Verdict.FITS:
            raise self._gate.refusal_of_more(more)
        runner.embeds = True
        runner.need = replace(need, own=need.own + more)

    def _held(self) -> list[Held]:
        return [held for runner in self._runners.values() if (held := runner.held) is not None]

    # -- loading and unloading --------------------------------------------------------------------

    def _load(self, ticket: Ticket) -> None:
        keep = ticket.keep_alive_ms
        runner = Runner(
            model=ticket.model,
            spec=ticket.spec,
            keep_alive_ms=self._bounds.keep_alive_ms if keep is None else keep,
            need=ticket.need,
        )
        self._runners[runner.key] = runner
        self._spawn(self._bring_up(runner), "load")

    async def _bring_up(self, runner: Runner) -> None:
        error = SealiftError("the model could not be loaded", why="internal error")
        try:
            runner.worker = await self._start(runner.spec)
        except SealiftError as reason:
            error = reason
        finally:  # whatever happened, nobody is left waiting
            if runner.worker is None:
                self._load_failed(runner, error)
            else:
                runner.state = State.READY
                runner.used = asyncio.get_running_loop().time()
                if self._closing:
                    self._stop(runner)
            self._dispatch()
            self._settle(runner)

    def _load_failed(self, runner: Runner, error: SealiftError) -> None:
        self._forget(runner)
        for ticket in [t for t in self._queue if t.key == runner.key and t.spec == runner.spec]:
            self._queue.remove(ticket)
            if not ticket.turn.done():
                ticket.turn.set_exception(error)

    def _settle(self, runner: Runner) -> None:
        """Decide what becomes of a runner that may be idle now."""
        if runner.running > 0 or runner.state in (State.LOADING, State.GONE):
            return
        if runner.state is State.RETIRING or runner.keep_alive_ms == 0:
            self._stop(runner)
        elif runner.keep_alive_ms > 0 and runner.timer is None:
            delay = runner.keep_alive_ms / 1000
            loop = asyncio.get_running_loop()
            runner.expires = loop.time() + delay
            runner.timer = loop.call_later(delay, self._expired, runner)

    def _expired(self, runner: Runner) -> None:
        runner.timer = None
        if runner.state is State.READY:
            self._retire(runner)

    def _retire(self, runner: Runner) -> None:
        """No new requests; gone once it is idle."""
        runner.state = State.RETIRING
        self._disarm(runner)
        self._settle(runner)

    def _stop(self, runner: Runner) -> None:
        if runner.state is State.GONE:
            return
        runner.state = State.GONE
        self._disarm(runner)
        self._spawn(self._end(runner), "stop")

    async def _end(self, runner: Runner) -> None:
        try:
            if runner.worker is not None:
                async with asyncio.timeout(limits.SHUTDOWN_SECONDS):
                    await runner.worker.stop()
        except TimeoutError:
            _LOG.warning("the worker of %s does not end", runner.model.name)
        except SealiftError as error:
            _LOG.warning("the worker of %s did not end well: %s", runner.model.name, error)
        finally:
            self._forget(runner)
            self._dispatch()

    def _bury(self, runner: Runner, error: WorkerFailed) -> SealiftError:
        """A worker died: whoever comes next gets another one. Returns what to tell its requests."""
        if self._closing:
            return _stopping()
        if self._runners.get(runner.key) is runner and runner.state is not State.GONE:
            _LOG.error("the worker of %s died: %s", runner.model.name, error)
            self._stop(runner)
            self._forget(runner)
            self._dispatch()
        return error

    def _drop_dead(self) -> None:
        """Workers that died while nobody used them."""
        for runner in list(self._runners.values()):
            dead = runner.worker is not None and not runner.worker.alive
            if dead and runner.state in (State.READY, State.RETIRING) and runner.running == 0:
                _LOG.error("the worker of %s died while idle", runner.model.name)
                self._stop(runner)
                self._forget(runner)

    def _forget(self, runner: Runner) -> None:
        runner.state = State.GONE
        if self._runners.get(runner.key) is runner:
            del self._runners[runner.key]
        runner.gone.set()

    def _disarm(self, runner: Runner) -> None:
        if runner.timer is not None:
            runner.timer.cancel()
            runner.timer = None
        runner.expires = None

    @staticmethod
    def _expiry(runner: Runner, now: float) -> float | None:
        """Seconds until it is unloaded; a busy one counts from now."""
        if runner.expires is not None:
            return max(runner.expires - now, 0.0)
        return None if runner.keep_alive_ms < 0 else runner.keep_alive_ms / 1000

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:
        task: asyncio.Task[None] = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (defect := task.exception()) is not None:
            _LOG.error("defect in the task %s", task.get_name(), exc_info=defect)


def _stopping() -> ServerBusy:
    return ServerBusy("the server is stopping", hint="Try again once it is up")
