"""The front-end with a worker that answers at once: ``python serving_instant.py STORE PORT``."""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import AsyncGenerator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from aiohttp import web

from registry.store import Store
from runtime.leases import Bounds
from runtime.messages import Event, Finished, Piece, Started, Task, WorkerReady, WorkerSpec
from runtime.scheduler import Scheduler
from runtime.server.app import make_runner
from runtime.server.backend import Backend
from schemas.settings import Serve


class Instant:
    """A worker without a model."""

    alive = True

    def __init__(self, spec: WorkerSpec) -> None:
        self.ready = WorkerReady(0, 0, spec.context_length, 0, 0)

    async def run(self, task: Task) -> AsyncGenerator[Event, None]:
        """Say hello."""
        yield Started(task.id, 1, 0, 0)
        yield Piece(task.id, "hello")
        yield Finished(task.id, "stop", 1, 1, 0, 0)

    async def probe(self) -> list[dict[str, Any]]:
        """Nothing to try."""
        return []

    async def stop(self) -> None:
        """Nothing to end."""


async def _start(spec: WorkerSpec) -> Instant:
    return Instant(spec)


async def _serve(home: Path, port: int) -> None:
    with Store.open(home) as store, ThreadPoolExecutor(4) as pool:
        scheduler = Scheduler(_start, Bounds(parallel=64))
        runner = make_runner(Backend(Serve(num_parallel=64), store, scheduler, pool))
        await runner.setup()
        await web.SockSite(runner, socket.create_server(("127.0.0.1", port))).start()
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_serve(Path(sys.argv[1]), int(sys.argv[2])))
