"""The scheduler, over simulated workers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import replace
from typing import NoReturn

import pytest

from runtime.leases import Bounds, Lease
from runtime.messages import Chat, Finished, Job, Message, Piece, WorkerSpec
from runtime.models import Model
from runtime.scheduler import Scheduler
from schemas.errors import LoadFailed, SealiftError, ServerBusy, WorkerFailed
from tests.support.models import model
from tests.support.simulated_worker import SimulatedMachine

A, B, C = model("a"), model("b"), model("c")


@pytest.fixture
async def machine() -> SimulatedMachine:
    return SimulatedMachine()


def scheduler(machine: SimulatedMachine, **bounds: int) -> Scheduler:
    return Scheduler(machine.start, Bounds(**bounds))


def spec(which: Model, context: int = 4096) -> WorkerSpec:
    return WorkerSpec(model_path=str(which.weights), context_length=context)


async def ask(
    scheduler: Scheduler,
    which: Model = A,
    text: str = "one two",
    *,
    context: int = 4096,
    keep_alive_ms: int | None = None,
) -> str:
    """One whole request."""
    async with scheduler.lease(which, spec(which, context), keep_alive_ms) as lease:
        return await read(lease, text)


async def read(lease: Lease, text: str = "one two") -> str:
    job = Job(lease.job_id, Chat((Message("user", text),)))
    pieces: list[str] = []
    async with aclosing(lease.run(job)) as events:
        async for event in events:
            if isinstance(event, Piece):
                pieces.append(event.text)
            if isinstance(event, Finished):
                return "".join(pieces).strip()
    raise AssertionError("no last event")


async def until(condition: Callable[[], bool]) -> None:
    """Let the others run until something holds."""
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - states of others, which have no event
            await asyncio.sleep(0.001)


async def test_one_request(machine: SimulatedMachine) -> None:
    s = scheduler(machine)
    assert await ask(s) == "one two"
    (entry,) = s.loaded()
    assert entry.model is A
    assert (entry.running, entry.waiting) == (0, 0)
    await s.close()
    assert machine.alive == []


async def test_many_askers_load_once_and_take_turns(machine: SimulatedMachine) -> None:
    s = scheduler(machine, parallel=2)
    machine.load.clear()
    tasks = [asyncio.create_task(ask(s, text=f"n{n}")) for n in range(20)]
    await until(lambda: s.waiting == 20)
    machine.load.set()
    assert await asyncio.gather(*tasks) == [f"n{n}" for n in range(20)]
    assert machine.starts == 1
    assert machine.workers[0].most == 2
    assert [job.id for job in machine.workers[0].jobs] == list(range(1, 21))
    await s.close()


async def test_the_queue_is_bounded_over_all_models(machine: SimulatedMachine) -> None:
    s = scheduler(machine, queue=2, models=1)
    machine.pace.clear()
    running = asyncio.create_task(ask(s))
    await until(lambda: bool(machine.workers) and machine.workers[0].running == 1)
    waiting = [asyncio.create_task(ask(s)), asyncio.create_task(ask(s, B))]
    await until(lambda: s.waiting == 2)
    with pytest.raises(ServerBusy) as caught:
        await ask(s, C)
    assert caught.value.line() == (
        "server busy, please try again.  maximum pending requests exceeded"
    )
    assert machine.starts == 1
    machine.pace.set()
    await asyncio.gather(running, *waiting)
    await s.close()


async def test_a_full_queue_does_not_stop_a_model_that_is_free(machine: SimulatedMachine) -> None:
    s = scheduler(machine, queue=1, models=2)
    await ask(s, B)
    machine.pace.clear()
    tasks = [asyncio.create_task(ask(s))]
    await until(lambda: machine.starts == 2 and s.waiting == 0)
    tasks.append(asyncio.create_task(ask(s)))
    await until(lambda: s.waiting == 1)
    tasks.append(asyncio.create_task(ask(s, B)))
    await until(lambda: machine.workers[0].running == 1)
    machine.pace.set()
    await asyncio.gather(*tasks)
    await s.close()


async def test_keep_alive_unloads(machine: SimulatedMachine) -> None:
    s = scheduler(machine, keep_alive_ms=30)
    await ask(s)
    (entry,) = s.loaded()
    assert entry.expires is not None
    await until(lambda: s.loaded() == [] and machine.workers[0].stopped)
    await ask(s, keep_alive_ms=-1)
    (entry,) = s.loaded()
    assert entry.expires is None
    await asyncio.sleep(0.06)
    assert len(s.loaded()) == 1
    await ask(s, keep_alive_ms=0)
    await until(lambda: s.loaded() == [])
    await s.close()


async def test_eviction_prefers_the_idle_with_the_shortest_keep_alive(
    machine: SimulatedMachine,
) -> None:
    s = scheduler(machine, models=2)
    await ask(s, A, keep_alive_ms=50_000)
    await ask(s, B, keep_alive_ms=90_000)
    await ask(s, C)
    assert {entry.model.name for entry in s.loaded()} == {"b:latest", "c:latest"}
    await s.close()


async def test_eviction_waits_for_running_requests_and_is_fair(machine: SimulatedMachine) -> None:
    s = scheduler(machine, models=1)
    machine.pace.clear()
    order: list[str] = []

    async def note(which: Model) -> None:
        await ask(s, which)
        order.append(which.name)

    tasks = [asyncio.create_task(note(which)) for which in (A, A, B, A)]
    await until(lambda: s.waiting == 3)
    assert not machine.workers[0].stopped
    machine.pace.set()
    await asyncio.gather(*tasks)
    assert order == ["a:latest", "a:latest", "b:latest", "a:latest"]
    assert machine.starts == 3
    await s.close()


async def test_another_context_length_reloads(machine: SimulatedMachine) -> None:
    s = scheduler(machine)
    await ask(s, context=2048)
    await ask(s, context=2048)
    assert machine.starts == 1
    await ask(s, context=4096)
    assert machine.starts == 2
    assert [worker.spec.context_length for worker in machine.alive] == [4096]
    await s.close()


async def test_two_names_of_one_model_share_a_worker(machine: SimulatedMachine) -> None:
    s = scheduler(machine)
    await ask(s, A)
    await ask(s, replace(A, reference=B.reference))
    assert machine.starts == 1
    await s.close()


async def test_a_failed_load_is_told_to_all_and_tried_again_by_the_next(
    machine: SimulatedMachine,
) -> None:
    s = scheduler(machine)
    machine.broken.add(str(A.weights))
    machine.load.clear()
    tasks = [asyncio.create_task(ask(s)) for _ in range(3)]
    await until(lambda: s.waiting == 3)
    machine.load.set()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(result, LoadFailed) for result in results)
    machine.broken.clear()
    assert await ask(s) == "one two"
    assert machine.starts == 2
    await s.close()


async def test_a_dead_worker_fails_its_requests_and_the_next_gets_another(
    machine: SimulatedMachine,
) -> None:
    s = scheduler(machine, parallel=2)
    machine.pace.clear()
    tasks = [asyncio.create_task(ask(s)) for _ in range(3)]
    await until(lambda: bool(machine.workers) and machine.workers[0].running == 2)
    machine.workers[0].die()
    results = await asyncio.gather(*tasks[:2], return_exceptions=True)
    assert all(isinstance(result, WorkerFailed) for result in results)
    machine.pace.set()
    assert await tasks[2] == "one two"
    assert machine.starts == 2
    await s.close()


async def test_a_worker_that_died_while_idle_is_not_used(machine: SimulatedMachine) -> None:
    s = scheduler(machine)
    await ask(s)
    machine.workers[0].die()
    assert await ask(s) == "one two"
    assert machine.starts == 2
    await s.close()


async def test_cancelling_a_running_request_closes_its_job(machine: SimulatedMachine) -> None:
    s = scheduler(machine)
    machine.pace.clear()
    task = asyncio.create_task(ask(s))
    await until(lambda: bool(machine.workers) and machine.workers[0].running == 1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert machine.workers[0].cancelled == [1]
    assert machine.workers[0].running == 0
    machine.pace.set()
    assert await ask(s) == "one two"
    assert machine.starts == 1
    await s.close()


async def test_cancelling_a_waiting_request_leaves_the_queue(machine: SimulatedMachine) -> None:
    s = scheduler(machine)
    machine.load.clear()
    task = asyncio.create_task(ask(s))
    await until(lambda: s.waiting == 1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert s.waiting == 0
    machine.load.set()
    assert await ask(s) == "one two"
    assert machine.starts == 1
    await s.close()


async def test_cancelling_in_the_moment_of_the_grant_gives_the_turn_back(
    machine: SimulatedMachine,
) -> None:
    s = scheduler(machine)
    await ask(s)
    machine.pace.clear()
    first = asyncio.create_task(ask(s))
    await until(lambda: machine.workers[0].running == 1)
    second = asyncio.create_task(ask(s))
    await until(lambda: s.waiting == 1)
    first.cancel()
    await asyncio.sleep(0)  # the release grants the second its turn …
    second.cancel()  # … which it never takes up
    await asyncio.gather(first, second, return_exceptions=True)
    machine.pace.set()
    assert await ask(s) == "one two"
    assert s.loaded()[0].running == 0
    await s.close()


async def test_unload_waits_for_running_requests(machine: SimulatedMachine) -> None:
    s = scheduler(machine)
    assert not await s.unload(A)
    machine.pace.clear()
    task = asyncio.create_task(ask(s))
    await until(lambda: bool(machine.workers) and machine.workers[0].running == 1)
    unload = asyncio.create_task(s.unload(A))
    await asyncio.sleep(0.01)
    assert not unload.done()
    machine.pace.set()
    assert await task == "one two"
    assert await unload
    assert machine.alive == []
    await s.close()


async def test_closing_turns_everybody_away(machine: SimulatedMachine) -> None:
    s = scheduler(machine)
    machine.pace.clear()
    running = asyncio.create_task(ask(s))
    await until(lambda: bool(machine.workers) and machine.workers[0].running == 1)
    waiting = asyncio.create_task(ask(s))
    await until(lambda: s.waiting == 1)
    await s.close()
    results = await asyncio.gather(running, waiting, return_exceptions=True)
    assert all(isinstance(result, ServerBusy) for result in results)
    with pytest.raises(ServerBusy, match="stopping"):
        await ask(s)
    assert machine.alive == []


async def test_closing_while_loading(machine: SimulatedMachine) -> None:
    s = scheduler(machine)
    machine.load.clear()
    task = asyncio.create_task(ask(s))
    await until(lambda: machine.starts == 1)
    await s.close()
    with pytest.raises(ServerBusy):
        await task
    assert machine.workers == []


async def test_probe_asks_every_worker(machine: SimulatedMachine) -> None:
    s = scheduler(machine)
    await ask(s, A)
    await ask(s, B)
    assert [entry.model.name for entry, _ in await s.probe()] == ["b:latest", "a:latest"]
    await s.close()


@pytest.mark.parametrize("seed", range(8))
async def test_any_mix_ends_with_nothing_left_over(machine: SimulatedMachine, seed: int) -> None:
    """Requests, cancellations, deaths and reloads in random order: all answered, none lost."""
    import random

    chance = random.Random(seed)
    s = scheduler(machine, models=2, parallel=2, queue=100, keep_alive_ms=2)
    ended = 0

    async def one() -> None:
        nonlocal ended
        await asyncio.sleep(chance.random() / 50)
        try:
            await ask(s, chance.choice((A, B, C)), context=chance.choice((2048, 4096)))
        except WorkerFailed:
            pass
        finally:
            ended += 1

    tasks = [asyncio.create_task(one()) for _ in range(60)]
    for _ in range(15):
        await asyncio.sleep(chance.random() / 200)
        chance.choice(tasks).cancel()
        if machine.alive:
            chance.choice(machine.alive).die()
        assert len(machine.alive) <= 2 + 1  # one may be ending while the next starts
    async with asyncio.timeout(10):
        await asyncio.gather(*tasks, return_exceptions=True)
    assert s.waiting == 0
    await until(lambda: s.loaded() == [])
    await s.close()
    assert machine.alive == []


async def test_a_defect_while_loading_leaves_nobody_waiting(
    machine: SimulatedMachine, caplog: pytest.LogCaptureFixture
) -> None:
    async def defective(_: WorkerSpec) -> NoReturn:
        await asyncio.sleep(0)
        raise ZeroDivisionError

    s = Scheduler(defective, Bounds())
    with pytest.raises(SealiftError, match="internal error"):
        await ask(s)
    assert s.loaded() == []
    await s.close()
    assert "ZeroDivisionError" in caplog.text
