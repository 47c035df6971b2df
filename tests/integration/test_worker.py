"""A real worker process with the real model: sandbox, cancellation, crashes, stopping."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import psutil
import pytest

from runtime.launcher.client import Launcher
from runtime.messages import (
    Chat,
    Event,
    Failed,
    Finished,
    Job,
    Message,
    Piece,
    Sampling,
    Started,
    WorkerSpec,
)
from runtime.worker.client import Worker
from schemas.errors import LoadFailed, NotFound, WorkerFailed
from tests.support.waiting import eventually, gone

pytestmark = pytest.mark.model

LOOP = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"


def chat(number: int, text: str, *, template: str | None = None, **sampling: object) -> Job:
    prompt = Chat((Message("user", text),), template=template)
    return Job(number, prompt, Sampling(**sampling))  # type: ignore[arg-type]


@asynccontextmanager
async def launched() -> AsyncIterator[Launcher]:
    launcher = Launcher.start()
    try:
        yield launcher
    finally:
        launcher.close()


@asynccontextmanager
async def running(model: Path, **how: int) -> AsyncIterator[tuple[Worker, Launcher]]:
    async with launched() as launcher:
        spec = WorkerSpec(str(model), **{"context_length": 512, "num_threads": 1, **how})  # type: ignore[arg-type]
        worker = await Worker.start(launcher, spec, 60)
        try:
            yield worker, launcher
        finally:
            await worker.stop()


async def collect(worker: Worker, job: Job) -> list[Event]:
    return [event async for event in worker.run(job)]


def text(events: list[Event]) -> str:
    return "".join(event.text for event in events if isinstance(event, Piece))


async def test_it_answers_and_is_confined(model_gguf: Path) -> None:
    async with running(model_gguf) as (worker, _):
        ready = worker.ready
        assert ready.sandbox["seccomp"].startswith("enforced")
        assert ready.context_length == 512
        assert ready.model_bytes > 50_000_000
        assert ready.kv_bytes > 1_000_000
        assert ready.engine.startswith("llama.cpp")
        events = await collect(worker, chat(1, "Hello!", num_predict=8))
        assert isinstance(events[0], Started)
        assert isinstance(events[-1], Finished)
        assert text(events)
        attempts = await worker.probe()
        assert len(attempts) > 5
        assert {attempt["outcome"] for attempt in attempts} == {"refused"}


async def test_the_process_has_nothing_it_does_not_need(
    model_gguf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEALIFT_SECRET", "do-not-inherit")
    async with running(model_gguf) as (worker, launcher):
        process = psutil.Process(worker.ready.pid)
        assert process.ppid() == launcher.pid
        assert os.getpgid(process.pid) == process.pid, "a terminal's Ctrl-C is not for it"
        assert os.getsid(process.pid) == os.getsid(0), "to an autogroup it would be one task"
        if os.geteuid() == 0:  # a process that cannot be dumped shows these to root only
            assert "SEALIFT_SECRET" not in process.environ()
            kinds = sorted(fd.readlink().name.split(":")[0] for fd in _descriptors(process.pid))
            assert "null" in kinds
            assert kinds.count("socket") == 1


def _descriptors(pid: int) -> list[Path]:
    return list(Path(f"/proc/{pid}/fd").iterdir())


async def test_closing_the_iterator_frees_the_slot_at_once(model_gguf: Path) -> None:
    async with running(model_gguf) as (worker, _):
        async with aclosing(worker.run(chat(1, "Tell me a long story."))) as events:
            async for event in events:
                if isinstance(event, Piece):
                    break
        # With one slot, this starts only because the other job was ended.
        events_of_next = await asyncio.wait_for(collect(worker, chat(2, "Hi", num_predict=2)), 30)
        assert isinstance(events_of_next[-1], Finished)


async def test_cancelling_the_task_cancels_the_job(model_gguf: Path) -> None:
    async with running(model_gguf) as (worker, _):
        task = asyncio.create_task(collect(worker, chat(1, "Tell me a long story.")))
        await asyncio.sleep(0.5)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        events = await asyncio.wait_for(collect(worker, chat(2, "Hi", num_predict=2)), 30)
        assert isinstance(events[-1], Finished)


async def test_jobs_share_a_worker(model_gguf: Path) -> None:
    questions = ["Name a colour.", "Name a fish.", "Name a river."]
    async with running(model_gguf, num_parallel=2) as (worker, _):
        jobs = [
            chat(i, question, temperature=0, num_predict=12) for i, question in enumerate(questions)
        ]
        together = await asyncio.gather(*(collect(worker, job) for job in jobs))
        for job, events in zip(jobs, together, strict=True):
            assert {event.job for event in events} == {job.id}
            assert isinstance(events[-1], Finished)
            assert text(events)


async def test_a_killed_worker_fails_each_request_once_and_another_can_start(
    model_gguf: Path,
) -> None:
    async with launched() as launcher:
        spec = WorkerSpec(str(model_gguf), context_length=512, num_parallel=2)
        worker = await Worker.start(launcher, spec, 60)
        jobs = [chat(i, "Tell me a long story.") for i in range(3)]
        tasks = [asyncio.create_task(collect(worker, job)) for job in jobs]
        await asyncio.sleep(0.5)
        os.kill(worker.ready.pid, signal.SIGKILL)
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(result) for result in results] == [WorkerFailed] * 3
        assert "SIGKILL" in str(results[0])
        assert "SIGKILL" in await worker.closed
        assert not worker.alive
        with pytest.raises(WorkerFailed):
            await collect(worker, chat(9, "Hi"))
        with pytest.raises(WorkerFailed):
            await worker.probe()
        await worker.stop()
        again = await Worker.start(launcher, spec, 60)
        assert text(await collect(again, chat(1, "Hi", num_predict=3)))
        await again.stop()


async def test_a_template_bomb_is_one_failed_job(model_gguf: Path) -> None:
    async with running(model_gguf) as (worker, _):
        events = await collect(worker, chat(1, "Hi", template="{{ 'a' * 1000000000000 }}"))
        assert [type(event) for event in events] == [Failed]
        doubling = (
            "{% set n = namespace(x='ab') %}"
            "{% for i in range(99) %}{% set n.x = n.x ~ n.x %}{% endfor %}"
        )
        events = await collect(worker, chat(2, "Hi", template=doubling))
        assert [type(event) for event in events] == [Failed]
        assert text(await collect(worker, chat(3, "Hi", num_predict=3)))


@pytest.mark.slow
async def test_an_endless_template_is_stopped(model_gguf: Path) -> None:
    async with running(model_gguf) as (worker, _):
        events = await asyncio.wait_for(collect(worker, chat(1, "Hi", template=LOOP)), 60)
        assert isinstance(events[-1], Failed)
        assert events[-1].code == "malformed-model"


async def test_stopping_ends_the_process_and_what_runs(model_gguf: Path) -> None:
    async with running(model_gguf) as (worker, _):
        task = asyncio.create_task(collect(worker, chat(1, "Tell me a long story.")))
        await asyncio.sleep(0.3)
        pid = worker.ready.pid
        await worker.stop()
        assert "status 0" in await worker.closed
        with pytest.raises(WorkerFailed, match="unloaded"):
            await task
        await asyncio.to_thread(eventually, lambda: gone(pid))


async def test_a_file_that_is_no_model(tmp_path: Path) -> None:
    path = tmp_path / "not.gguf"
    path.write_bytes(b"GARBAGE" * 100)
    async with launched() as launcher:
        with pytest.raises(LoadFailed, match="invalid magic"):
            await Worker.start(launcher, WorkerSpec(str(path)), 60)


async def test_a_truncated_model(model_gguf: Path, tmp_path: Path) -> None:
    path = tmp_path / "short.gguf"
    shutil.copy(model_gguf, path)
    os.truncate(path, 5_000_000)
    async with launched() as launcher:
        with pytest.raises(LoadFailed, match="file bounds"):
            await Worker.start(launcher, WorkerSpec(str(path)), 60)


async def test_a_model_that_is_not_there(tmp_path: Path) -> None:
    async with launched() as launcher:
        with pytest.raises(NotFound):
            await Worker.start(launcher, WorkerSpec(str(tmp_path / "none.gguf")), 60)


async def test_a_load_that_takes_too_long_leaves_no_process(
    model_gguf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with launched() as launcher:
        pids: list[int] = []

        def watch(pid: int, _done: object) -> None:
            pids.append(pid)

        monkeypatch.setattr(launcher, "watch", watch)
        with pytest.raises(LoadFailed, match="in time"):
            await Worker.start(launcher, WorkerSpec(str(model_gguf)), 0.01)
        [pid] = pids
        await asyncio.to_thread(eventually, lambda: gone(pid))


async def test_workers_end_with_the_launcher(model_gguf: Path) -> None:
    async with running(model_gguf) as (worker, launcher):
        pid = worker.ready.pid
        os.kill(launcher.pid, signal.SIGKILL)
        await asyncio.to_thread(eventually, lambda: gone(pid))
        with pytest.raises(WorkerFailed):
            await launcher.spawn()


async def test_interrupts_are_the_front_ends_business(model_gguf: Path) -> None:
    async with running(model_gguf) as (worker, launcher):
        os.kill(worker.ready.pid, signal.SIGINT)
        os.kill(launcher.pid, signal.SIGINT)
        assert text(await collect(worker, chat(1, "Hi", num_predict=3)))
