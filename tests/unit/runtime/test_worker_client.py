"""The front-end's side against a worker that says anything: honest, dying, or taken over."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict
from typing import Any

import pytest

from runtime.messages import (
    Event,
    Failed,
    Finished,
    Job,
    Piece,
    Text,
    WorkerReady,
    WorkerSpec,
    event_document,
)
from runtime.worker.client import Worker
from runtime.worker.frames import FrameDecoder, NeedData, encode
from schemas.errors import LoadFailed, SandboxUnavailable, WorkerFailed

READY = {"ready": asdict(WorkerReady(1, 2, 512, 4, 5))}
SPEC = WorkerSpec("/model.gguf")


class Simulator:
    """Stands where launcher and worker process are: the other end of a real socket."""

    def __init__(self) -> None:
        self.ours, self.theirs = socket.socketpair()
        self.ours.setblocking(False)
        self.decoder = FrameDecoder()
        self.killed: list[int] = []
        self.end = asyncio.Event()
        self.callback: Callable[[int], None] = lambda _status: None

    async def spawn(self) -> tuple[socket.socket, int]:
        return self.theirs, 77

    def watch(self, pid: int, callback: Callable[[int], None]) -> None:
        self.callback = callback

    def kill(self, pid: int) -> None:
        self.killed.append(pid)
        self.end.set()

    def exit(self, status: int) -> None:
        self.ours.close()
        self.callback(status)

    async def send(self, *documents: dict[str, Any]) -> None:
        await self.send_bytes(b"".join(map(encode, documents)))

    async def send_bytes(self, data: bytes) -> None:
        await asyncio.get_running_loop().sock_sendall(self.ours, data)

    async def receive(self) -> dict[str, Any]:
        while isinstance(document := self.decoder.next_document(), NeedData):
            data = await asyncio.get_running_loop().sock_recv(self.ours, 4096)
            assert data, "the client closed the connection"
            self.decoder.feed(data)
        return document


@asynccontextmanager
async def started() -> AsyncIterator[tuple[Worker, Simulator]]:
    simulator = Simulator()
    task = asyncio.create_task(Worker.start(simulator, SPEC, 10))
    assert await simulator.receive() == {"spec": asdict(SPEC)}
    await simulator.send(READY)
    worker = await task
    try:
        yield worker, simulator
    finally:
        if simulator.ours.fileno() >= 0:
            simulator.exit(0)
        await worker.closed


def events(*some: Event) -> dict[str, Any]:
    return {"events": [event_document(event) for event in some]}


def finished(job: int) -> Finished:
    return Finished(job, "stop", 1, 1, 1, 1)


async def collect(worker: Worker, number: int) -> list[Event]:
    return [event async for event in worker.run(Job(number, Text("x")))]


async def test_events_find_their_jobs() -> None:
    async with started() as (worker, simulator):
        tasks = [asyncio.create_task(collect(worker, number)) for number in (1, 2)]
        assert [(await simulator.receive())["task"]["id"] for _ in tasks] == [1, 2]
        await simulator.send(events(Piece(2, "b"), Piece(1, "a"), Piece(9, "nobody's")))
        await simulator.send(events(finished(1), Failed(2, "usage", "what")))
        assert await tasks[0] == [Piece(1, "a"), finished(1)]
        assert await tasks[1] == [Piece(2, "b"), Failed(2, "usage", "what")]
        assert worker.ready.context_length == 512


async def test_leaving_early_sends_cancel_once() -> None:
    async with started() as (worker, simulator):
        stream = worker.run(Job(1, Text("x")))
        task = asyncio.create_task(stream.__anext__())
        await simulator.receive()
        await simulator.send(events(Piece(1, "a")))
        assert await task == Piece(1, "a")
        await stream.aclose()
        assert await simulator.receive() == {"op": "cancel", "id": 1}
        await simulator.send(events(Piece(1, "late"), finished(1)))
        again = asyncio.create_task(collect(worker, 1))
        number = (await simulator.receive())["task"]["id"]
        await simulator.send(events(Piece(1, "later"), finished(number)))
        assert await again == [finished(1)]


async def test_two_jobs_with_one_id_do_not_meet() -> None:
    async with started() as (worker, simulator):
        tasks = [asyncio.create_task(collect(worker, 5)) for _ in range(2)]
        first, second = [(await simulator.receive())["task"]["id"] for _ in tasks]
        await simulator.send(events(Piece(second, "b"), finished(first), finished(second)))
        assert await tasks[0] == [finished(5)]
        assert await tasks[1] == [Piece(5, "b"), finished(5)]


async def test_probes_are_answered_in_order() -> None:
    async with started() as (worker, simulator):
        tasks = [asyncio.create_task(worker.probe()) for _ in range(2)]
        assert await simulator.receive() == {"op": "probe"}
        await simulator.send({"probe": [{"kind": "tcp"}]}, {"probe": []})
        assert await asyncio.gather(*tasks) == [[{"kind": "tcp"}], []]


@pytest.mark.parametrize(
    "data",
    [
        b"\xff\xff\xff\xff",
        encode({}) + b"\x00\x00\x00\x01x",
        encode({"events": [{"kind": "unknown", "job": 1}]}),
        encode({"events": [{"kind": "piece"}]}),
        encode({"events": 7}),
        encode({"events": [7]}),
        encode({"probe": []}),
    ],
)
async def test_a_worker_that_breaks_the_protocol_is_ended(data: bytes) -> None:
    async with started() as (worker, simulator):
        tasks = [asyncio.create_task(collect(worker, number)) for number in (1, 2)]
        for _ in tasks:
            await simulator.receive()
        await simulator.send_bytes(data)
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(result) for result in results] == [WorkerFailed] * 2
        assert "protocol" in str(results[0])
        assert simulator.killed == [77]
        assert not worker.alive


async def test_a_death_is_told_with_its_cause() -> None:
    async with started() as (worker, simulator):
        task = asyncio.create_task(collect(worker, 1))
        probe = asyncio.create_task(worker.probe())
        await simulator.receive()
        simulator.exit(-6)
        with pytest.raises(WorkerFailed, match="SIGABRT"):
            await task
        with pytest.raises(WorkerFailed, match="SIGABRT"):
            await probe
        assert "SIGABRT" in await worker.closed


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("load-failed", LoadFailed),
        ("sandbox-unavailable", SandboxUnavailable),
        ("no-such-code", LoadFailed),
    ],
)
async def test_a_failed_start_is_the_error_it_was(code: str, kind: type[Exception]) -> None:
    simulator = Simulator()
    task = asyncio.create_task(Worker.start(simulator, SPEC))
    await simulator.receive()
    await simulator.send({"failed": {"code": code, "what": "w", "why": "y", "hint": "h"}})
    with pytest.raises(kind, match=r"w: y\. h"):
        await task
    assert simulator.killed
    simulator.exit(0)


async def test_dying_while_loading() -> None:
    simulator = Simulator()
    task = asyncio.create_task(Worker.start(simulator, SPEC))
    await simulator.receive()
    simulator.exit(1)
    with pytest.raises(WorkerFailed, match="status 1"):
        await task


async def test_a_worker_that_does_not_stop_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("schemas.limits.WORKER_STOP_SECONDS", 0.05)
    async with started() as (worker, simulator):
        task = asyncio.create_task(collect(worker, 1))
        await simulator.receive()
        stopping = asyncio.create_task(worker.stop())
        assert await simulator.receive() == {"op": "stop"}
        await asyncio.wait_for(simulator.end.wait(), 10)
        simulator.exit(-9)
        await stopping
        with pytest.raises(WorkerFailed, match="unloaded"):
            await task
