"""The scheduler where memory is short: who is unloaded, who waits, who is turned away."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from contextlib import AsyncExitStack, aclosing

import pytest

from runtime.fit import Held, Memory, Need, Room, Verdict
from runtime.leases import Bounds
from runtime.messages import Embed, Embedded, WorkerSpec
from runtime.models import Model
from runtime.scheduler import Scheduler
from schemas import limits
from schemas.errors import DoesNotFit, MalformedModel
from tests.support.models import model
from tests.support.simulated_worker import SimulatedMachine

SMALL, OTHER, LARGE, HUGE = (model(name) for name in ("small", "other", "large", "huge"))
SIZES = {"small": 2, "other": 2, "large": 6, "huge": 20}  # GiB, half of it weights


class Machine:
    """A gate that knows the models' sizes; what loaded workers took is gone from the room."""

    def __init__(self, simulated: SimulatedMachine, size: int = 8) -> None:
        self.simulated = simulated
        self.size = size * limits.GIB
        self.memory = Memory(self.room)
        self.broken = False

    def room(self) -> Room:
        own = sum(need(worker.spec).own for worker in self.simulated.alive)
        return Room(self.size - own + limits.MEMORY_RESERVE_BYTES, "the machine")

    async def need(self, spec: WorkerSpec) -> Need:
        await asyncio.sleep(0)
        if self.broken:
            raise MalformedModel("the model rotted")
        return need(spec)

    def judge(self, wanted: Need, held: Iterable[Held]) -> Verdict:
        return self.memory.judge(wanted, held)

    async def embedding(self, spec: WorkerSpec) -> int:
        return 2 * limits.GIB

    def refusal_of_more(self, more: int) -> DoesNotFit:
        return DoesNotFit(f"{more} bytes more do not fit")

    def refusal(self, spec: WorkerSpec, wanted: Need, held: Iterable[Held]) -> DoesNotFit:
        return DoesNotFit(f"{spec.model_path} does not fit")


def need(spec: WorkerSpec) -> Need:
    half = SIZES[spec.model_path.rpartition("/")[2]] * limits.GIB // 2
    return Need(spec.model_path, mapped=half, own=half * spec.context_length // 4096)


def spec(which: Model, context: int = 4096) -> WorkerSpec:
    return WorkerSpec(str(which.weights), context_length=context)


@pytest.fixture
def machine() -> SimulatedMachine:
    return SimulatedMachine()


def scheduler(machine: SimulatedMachine, **bounds: int) -> Scheduler:
    return Scheduler(machine.start, Bounds(**bounds), Machine(machine))


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - states of others, which have no event
            await asyncio.sleep(0.001)


def names(s: Scheduler) -> set[str]:
    return {entry.model.reference.name for entry in s.loaded()}


async def use(s: Scheduler, which: Model, context: int = 4096) -> None:
    async with s.lease(which, spec(which, context)):
        pass


async def test_small_ones_share(machine: SimulatedMachine) -> None:
    s = scheduler(machine)
    await use(s, SMALL)
    await use(s, OTHER)
    assert names(s) == {"small", "other"}
    await s.close()


async def test_idle_ones_make_room(machine: SimulatedMachine) -> None:
    s = scheduler(machine)
    await use(s, SMALL)
    await use(s, OTHER)
    await use(s, LARGE)  # beside one of them, but not beside both
    assert names(s) == {"other", "large"}, "the one unused for longest went"
    await use(s, SMALL)
    assert names(s) == {"small", "large"}
    await s.close()


async def test_what_can_never_fit_is_turned_away_and_nobody_goes_for_it(
    machine: SimulatedMachine,
) -> None:
    s = scheduler(machine)
    await use(s, SMALL)
    with pytest.raises(DoesNotFit):
        await use(s, HUGE)
    with pytest.raises(DoesNotFit):
        await use(s, LARGE, context=16_384)
    assert names(s) == {"small"}
    assert machine.starts == 1
    assert s.waiting == 0
    await use(s, LARGE)
    await s.close()


async def test_a_loaded_model_is_kept_if_it_would_not_fit_as_asked_for(
    machine: SimulatedMachine,
) -> None:
    s = scheduler(machine)
    await use(s, LARGE)
    with pytest.raises(DoesNotFit):
        await use(s, LARGE, context=16_384)
    await use(s, LARGE)
    assert machine.starts == 1
    await s.close()


async def test_a_busy_one_is_waited_for(machine: SimulatedMachine) -> None:
    s = scheduler(machine)
    async with AsyncExitStack() as busy:
        await busy.enter_async_context(s.lease(OTHER, spec(OTHER)))
        await busy.enter_async_context(s.lease(SMALL, spec(SMALL)))
        waiting = asyncio.create_task(use(s, LARGE))
        await until(lambda: s.waiting == 1)
        await asyncio.sleep(0.01)
        assert not waiting.done()
        assert machine.starts == 2
    await waiting
    assert "large" in names(s)
    await s.close()


async def test_what_loads_counts_before_the_kernel_sees_it(machine: SimulatedMachine) -> None:
    s = scheduler(machine)
    machine.load.clear()
    tasks = [asyncio.create_task(use(s, which)) for which in (LARGE, SMALL, OTHER)]
    await until(lambda: machine.starts == 2)
    await asyncio.sleep(0.01)
    assert machine.starts == 2
    machine.load.set()
    await asyncio.gather(*tasks)
    await s.close()


async def test_a_file_that_rotted_is_told_before_anything_is_unloaded(
    machine: SimulatedMachine,
) -> None:
    gate = Machine(machine)
    s = Scheduler(machine.start, Bounds(models=1), gate)
    await use(s, SMALL)
    gate.broken = True
    with pytest.raises(MalformedModel):
        await use(s, LARGE)
    await use(s, SMALL)  # loaded as it is: nothing is read anew
    assert machine.starts == 1
    await s.close()


async def embed(s: Scheduler, which: Model) -> None:
    async with (
        s.lease(which, spec(which)) as lease,
        aclosing(lease.run(Embed(lease.job_id, ("text",)))) as events,
    ):
        assert [type(event) async for event in events] == [Embedded]


async def test_what_embeddings_take_counts_once(machine: SimulatedMachine) -> None:
    s = scheduler(machine)
    await use(s, SMALL)
    await embed(s, SMALL)
    await embed(s, SMALL)
    with pytest.raises(DoesNotFit, match="bytes more do not fit"):
        await embed(s, LARGE)  # 6 of 8 GiB are its own and the other's already
    await use(s, LARGE)
    await s.close()


async def test_cancelled_while_its_need_is_found_out(machine: SimulatedMachine) -> None:
    s = scheduler(machine)
    task = asyncio.create_task(use(s, SMALL))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert s.waiting == 0
    await use(s, SMALL)
    await s.close()
