"""The front-end's side of a worker: start it, give it jobs, hear when it dies."""

from __future__ import annotations

import asyncio
import itertools
import signal
import socket
from collections.abc import AsyncGenerator, Callable, Iterator
from dataclasses import asdict, replace
from typing import Any, Final, Protocol, Self, TypeVar, cast

from runtime.messages import (
    LAST,
    Event,
    Task,
    WorkerReady,
    WorkerSpec,
    event_from_document,
    task_document,
)
from runtime.worker.frames import FrameDecoder, NeedData, encode
from schemas import limits
from schemas.errors import LoadFailed, SealiftError, WorkerFailed

T = TypeVar("T")

_STATUS_SECONDS: Final = 1.0  # between a socket's end and the launcher's word on why


class Spawner(Protocol):
    """What starts and ends processes (:class:`runtime.launcher.client.Launcher`)."""

    async def spawn(self) -> tuple[socket.socket, int]:
        """Start a worker; this end of the socket to it, and its process id."""
        ...

    def watch(self, pid: int, callback: Callable[[int], None]) -> None:
        """Call back once with the exit status."""
        ...

    def kill(self, pid: int) -> None:
        """End a worker at once, if it still runs."""
        ...


class Worker:
    """One worker process with one loaded model. Made by :meth:`start`; used from one event loop.

    Attributes:
        ready: What the worker reported.
        closed: Done when the process is gone; its result says why.
    """

    def __init__(self, launcher: Spawner, pid: int) -> None:
        loop = asyncio.get_running_loop()
        self._launcher = launcher
        self._pid = pid
        self._transport: asyncio.Transport | None = None
        # By the id on the wire, which is ours and never used twice: what still arrives for a job
        # that was cancelled is nobody else's. With each the caller's own id.
        self._jobs: dict[int, tuple[int, asyncio.Queue[Event | WorkerFailed]]] = {}
        self._numbers = itertools.count(1)
        self._greeting: asyncio.Future[dict[str, Any]] = loop.create_future()
        self._probes: list[asyncio.Future[list[dict[str, Any]]]] = []
        self._exit: asyncio.Future[int] = loop.create_future()
        self._stopping = False
        self._ready: WorkerReady | None = None
        self._obituary: asyncio.Task[None] | None = None
        self.closed: asyncio.Future[str] = loop.create_future()
        launcher.watch(pid, self._exited)

    # -- what the scheduler calls -----------------------------------------------------------------

    @classmethod
    async def start(cls, launcher: Spawner, spec: WorkerSpec, seconds: float | None = None) -> Self:
        """Start a process and load a model in it.

        Args:
            launcher: Starts the process.
            spec: The model and how to load it.
            seconds: To wait for the model; None waits as long as it takes.

        Raises:
            LoadFailed: The engine refuses the model, or takes too long.
            SandboxUnavailable: The process cannot be confined here.
            WorkerFailed: It could not be started, or died while loading.
        """
        channel, pid = await launcher.spawn()
        worker = cls(launcher, pid)
        try:
            await asyncio.get_running_loop().create_unix_connection(
                lambda: _Protocol(worker), sock=channel
            )
            worker._send({"spec": asdict(spec)})
            async with asyncio.timeout(seconds):
                greeting = await worker._greeting
        except TimeoutError:
            worker.kill()
            raise LoadFailed(
                "the model did not load in time", why=f"more than {seconds} s"
            ) from None
        except BaseException:
            worker.kill()
            raise
        worker._ready = WorkerReady(**greeting)
        return worker

    @property
    def ready(self) -> WorkerReady:
        """What the worker reported when its model was loaded."""
        if self._ready is None:
            raise WorkerFailed("the worker is not ready")
        return self._ready

    @property
    def alive(self) -> bool:
        """Whether it can still take a job."""
        return self._transport is not None and not self._stopping and not self.closed.done()

    async def run(self, task: Task) -> AsyncGenerator[Event, None]:
        """Run a task and yield its events, of which the last is one of ``LAST``.

        Closing the iterator early, or cancelling whoever waits on it, cancels the task.

        Args:
            task: Its events carry its id; two tasks with one id do not get in each other's way.

        Raises:
            WorkerFailed: The process is gone or died. The task is lost.
        """
        if not self.alive:
            raise WorkerFailed("the worker is gone")
        queue: asyncio.Queue[Event | WorkerFailed] = asyncio.Queue()
        number = next(self._numbers)
        self._jobs[number] = (task.id, queue)
        over = False
        try:
            self._send({"op": "submit", "task": task_document(replace(task, id=number))})
            while not over:
                event = await queue.get()
                over = isinstance(event, (*LAST, WorkerFailed))
                if isinstance(event, WorkerFailed):
                    raise event
                yield event
        finally:
            del self._jobs[number]
            if not over and self.alive:
                self._send({"op": "cancel", "id": number})

    async def probe(self) -> list[dict[str, Any]]:
        """Try every way out from inside the worker; what came of each attempt, as JSON objects.

        Raises:
            WorkerFailed: The process is gone or died.
        """
        if not self.alive:
            raise WorkerFailed("the worker is gone")
        future: asyncio.Future[list[dict[str, Any]]] = asyncio.get_running_loop().create_future()
        self._probes.append(future)
        self._send({"op": "probe"})
        return await future

    async def stop(self) -> None:
        """End the process: gently, then by force. Jobs in flight end with ``WorkerFailed``."""
        self._stopping = True
        if not self.closed.done():
            self._send({"op": "stop"})
            try:
                async with asyncio.timeout(limits.WORKER_STOP_SECONDS):
                    await asyncio.shield(self.closed)
            except TimeoutError:
                self.kill()
        await asyncio.shield(self.closed)

    def kill(self) -> None:
        """End the process at once."""
        self._stopping = True
        self._launcher.kill(self._pid)
        if self._transport is not None:
            self._transport.abort()

    # -- what the protocol calls ------------------------------------------------------------------

    def connected(self, transport: asyncio.Transport) -> None:
        """The socket is in the event loop."""
        self._transport = transport

    def received(self, document: dict[str, Any]) -> None:
        """One frame from the worker."""
        if "events" in document:
            for entry in document["events"]:
                event = event_from_document(entry)
                if event.job in self._jobs:  # else its caller has gone
                    job, queue = self._jobs[event.job]
                    queue.put_nowait(event if event.job == job else replace(event, job=job))
        elif "probe" in document:
            _resolve(self._probes.pop(0), document["probe"])
        elif "ready" in document:
            _resolve(self._greeting, document["ready"])
        elif "failed" in document and not self._greeting.done():
            self._greeting.set_exception(reported(document["failed"]))

    def lost(self, why: str) -> None:
        """The socket is closed.

        Args:
            why: What the worker did wrong, if that is why.
        """
        self._transport = None
        self._obituary = asyncio.get_running_loop().create_task(self._tell_everybody(why))

    async def _tell_everybody(self, why: str) -> None:
        why = why or await self._status()
        self._launcher.kill(self._pid)  # a worker without its socket is of no use, whatever it does
        for _, queue in self._jobs.values():
            queue.put_nowait(self._died(why))
        self._reject(self._greeting, why)
        while self._probes:
            self._reject(self._probes.pop(), why)
        _resolve(self.closed, why)

    def _reject(self, future: asyncio.Future[Any], why: str) -> None:
        if not future.done():
            future.set_exception(self._died(why))
            future.exception()  # marked as seen: nobody may be waiting

    async def _status(self) -> str:
        try:
            async with asyncio.timeout(_STATUS_SECONDS):
                status = await asyncio.shield(self._exit)
        except TimeoutError:
            return "it closed its connection"
        return ending(status)

    def _died(self, why: str) -> WorkerFailed:
        if self._stopping:
            return WorkerFailed("the model was unloaded", hint="Ask again.")
        return WorkerFailed("the model's worker died", why=why, hint="Ask again: it starts anew.")

    def _exited(self, status: int) -> None:
        _resolve(self._exit, status)

    def _send(self, document: dict[str, Any]) -> None:
        if self._transport is not None:
            self._transport.write(encode(document))


class _Protocol(asyncio.Protocol):
    """Bytes of the socket to documents, without a task in between."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._decoder = FrameDecoder(limits.WORKER_FRAME_BYTES)
        self._why = ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._worker.connected(self._transport)

    def data_received(self, data: bytes) -> None:
        self._decoder.feed(data)
        try:
            while not isinstance(document := self._decoder.next_document(), NeedData):
                self._worker.received(document)
        except (WorkerFailed, LookupError, TypeError) as error:
            # A worker that was taken over may send anything; it gets no second chance.
            self._why = f"it broke the protocol ({type(error).__name__})"
            self._transport.abort()

    def connection_lost(self, _error: Exception | None) -> None:
        self._worker.lost(self._why)


def _resolve(future: asyncio.Future[T], result: T) -> None:
    if not future.done():
        future.set_result(result)


def ending(status: int) -> str:
    """How a process ended, for people; the status is as in :attr:`subprocess.Popen.returncode`."""
    if status >= 0:
        return f"it ended with status {status}"
    try:
        name = signal.Signals(-status).name
    except ValueError:
        name = str(-status)
    return f"it was ended by signal {name}"


def reported(document: dict[str, Any]) -> SealiftError:
    """The error that a worker reported, as what it was."""
    kind = next((k for k in _kinds(SealiftError) if k.code == document["code"]), LoadFailed)
    return kind(document["what"], why=document["why"], hint=document["hint"])


def _kinds(root: type[SealiftError]) -> Iterator[type[SealiftError]]:
    yield root
    for child in root.__subclasses__():
        yield from _kinds(child)
