"""A working worker without a process or a model: it echoes words, at a pace that the test sets."""

from __future__ import annotations

import asyncio
import base64
import struct
from collections.abc import AsyncGenerator
from typing import Any

from runtime.messages import (
    Chat,
    Embed,
    Embedded,
    Event,
    Finished,
    Job,
    Piece,
    Rank,
    Ranked,
    Started,
    Task,
    Tokenize,
    Tokenized,
    WorkerReady,
    WorkerSpec,
)
from schemas.errors import LoadFailed, WorkerFailed


class SimulatedWorker:
    """Answers a conversation with its last turn's words, one per step.

    Attributes:
        running: Jobs being answered now.
        most: Most of them at once.
        cancelled: Jobs that were closed before their end.
    """

    def __init__(self, machine: SimulatedMachine, spec: WorkerSpec, pid: int) -> None:
        self.machine = machine
        self.spec = spec
        self.ready = WorkerReady(
            pid, 1, spec.context_length, 1000, 500, {"process": "worker"}, "sim"
        )
        self.jobs: list[Job] = []
        self.running = 0
        self.most = 0
        self.cancelled: list[int] = []
        self.dead = asyncio.Event()
        self.stopped = False

    @property
    def alive(self) -> bool:
        return not self.dead.is_set()

    def die(self) -> None:
        """As if the process had been killed."""
        self.dead.set()

    async def run(self, task: Task) -> AsyncGenerator[Event, None]:
        if isinstance(task, Embed):  # a text's vector: its length, and that of its first word
            yield Embedded(task.id, tuple(map(_vector, task.texts)), sum(map(len, task.texts)))
            return
        if isinstance(task, Rank):  # a text's score: how many words of the query it has
            asked = set(task.query.split())
            scores = tuple(float(len(asked & set(text.split()))) for text in task.texts)
            yield Ranked(task.id, scores, sum(map(len, task.texts)))
            return
        if isinstance(task, Tokenize):  # a token is a character
            yield Tokenized(task.id, *_tokens(task))
            return
        job = task
        self.jobs.append(job)
        self.running += 1
        self.most = max(self.most, self.running)
        finished = False
        try:
            words = _words(job)
            yield Started(job.id, len(words), 0, 1)
            limit = job.sampling.num_predict
            shown = words if limit < 0 else words[:limit]
            for word in shown:
                await self._step()
                yield Piece(job.id, word)
            reason = "stop" if shown == words else "length"
            finished = True
            yield Finished(
                job.id, "length" if reason == "length" else "stop", len(words), len(shown), 1, 1
            )
        finally:
            self.running -= 1
            if not finished:
                self.cancelled.append(job.id)

    async def _step(self) -> None:
        pace = asyncio.ensure_future(self.machine.pace.wait())
        death = asyncio.ensure_future(self.dead.wait())
        try:
            await asyncio.wait((pace, death), return_when=asyncio.FIRST_COMPLETED)
        finally:
            pace.cancel()
            death.cancel()
        if self.dead.is_set():
            raise WorkerFailed("the worker died", why="killed")

    async def probe(self) -> list[dict[str, Any]]:
        return [{"kind": "tcp", "target": "x", "outcome": "refused", "errno": "EPERM"}]

    async def stop(self) -> None:
        await asyncio.sleep(0)
        self.stopped = True
        self.dead.set()


class SimulatedMachine:
    """Starts such workers.

    Attributes:
        workers: All that were ever started.
        pace: Words come while it is set.
        load: Loading ends once it is set.
        broken: Paths of models that do not load.
    """

    def __init__(self) -> None:
        self.workers: list[SimulatedWorker] = []
        self.pace = asyncio.Event()
        self.pace.set()
        self.load = asyncio.Event()
        self.load.set()
        self.broken: set[str] = set()
        self.starts = 0

    async def start(self, spec: WorkerSpec) -> SimulatedWorker:
        self.starts += 1
        await self.load.wait()
        if spec.model_path in self.broken:
            raise LoadFailed("the engine refused the model")
        worker = SimulatedWorker(self, spec, 1000 + self.starts)
        self.workers.append(worker)
        return worker

    @property
    def alive(self) -> list[SimulatedWorker]:
        return [worker for worker in self.workers if worker.alive]


def _vector(text: str) -> str:
    return base64.b64encode(struct.pack("<2f", 0.6, 0.8 if text else -0.8)).decode()


def _tokens(task: Tokenize) -> tuple[tuple[int, ...], str]:
    if task.prompt is None:
        return task.tokens, "".join(map(chr, task.tokens))
    chat = isinstance(task.prompt, Chat)
    text = task.prompt.messages[-1].content if isinstance(task.prompt, Chat) else task.prompt.text
    return tuple(map(ord, ("> " if chat else "") + text)), ""


def _words(job: Job) -> list[str]:
    if isinstance(job.prompt, Chat):
        text = job.prompt.messages[-1].content
    else:  # a token is a character
        text = "".join(map(chr, job.prompt.context)) + job.prompt.text
    return [f"{word} " for word in text.split()]
