"""The HTTP surface in this process: a real socket and store, simulated workers."""

from __future__ import annotations

import asyncio
import ipaddress
import json
import socket
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from aiohttp import web

from registry.store import Store
from runtime.integrity import Damages, Integrity, Verify
from runtime.leases import Bounds
from runtime.loading import VerifiedStart
from runtime.scheduler import Scheduler
from runtime.server.app import make_runner
from runtime.server.backend import Backend
from runtime.server.governance import govern
from schemas.settings import Serve, Settings
from tests.gguf_files import tiny_gguf
from tests.serving import install
from tests.support.simulated_worker import SimulatedMachine

NAME = "library/tiny:latest"


@dataclass
class Site:
    """A served store.

    Attributes:
        client: Talks to it.
        machine: Starts its workers.
        scheduler: Its scheduler.
        port: On 127.0.0.1.
        store: Its store.
        runner: Of its application.
    """

    client: httpx.AsyncClient
    machine: SimulatedMachine
    scheduler: Scheduler
    port: int
    store: Store
    runner: web.AppRunner

    async def post(self, path: str, body: dict[str, Any]) -> httpx.Response:
        return await self.client.post(path, json=body)

    async def chat(self, text: str = "one two", **fields: Any) -> httpx.Response:
        messages = [{"role": "user", "content": text}]
        return await self.post("/api/chat", {"model": "tiny", "messages": messages, **fields})

    async def raw(self, *parts: bytes) -> bytes:
        """Send bytes as they stand, read until the server closes."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            for part in parts:
                writer.write(part)
                await writer.drain()
            async with asyncio.timeout(10):
                return await reader.read()
        finally:
            writer.close()


@asynccontextmanager
async def served(home: Path, settings: Serve | None = None, **bounds: int) -> AsyncIterator[Site]:
    """Serve a store with one tiny model in it."""
    install(home, tiny_gguf(home.parent / "tiny.gguf"), NAME)
    serve = settings or Serve()
    machine, integrity = SimulatedMachine(), Integrity(Verify(serve.verify_weights))
    with Store.open(home) as store, ThreadPoolExecutor(2) as pool:
        governance = govern(Settings(home, serve), ipaddress.ip_address("127.0.0.1"), None)
        start = VerifiedStart(
            machine.start, integrity, pool, Damages(store), governance.metrics.loaded
        )
        scheduler = Scheduler(start, Bounds(**bounds))
        sandbox: dict[str, object] = {"process": "front-end"}
        backend = Backend(serve, store, scheduler, pool, sandbox, integrity)
        runner = make_runner(backend, governance)
        governance.start()
        await runner.setup()
        listener = socket.create_server(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        await web.SockSite(runner, listener).start()
        url = f"http://127.0.0.1:{port}"
        async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=20) as client:
            try:
                yield Site(client, machine, scheduler, port, store, runner)
            finally:
                await scheduler.close()
                await runner.cleanup()
                if governance.audit is not None:
                    governance.audit.close()


def lines(response: httpx.Response) -> list[dict[str, Any]]:
    """The objects of an NDJSON body."""
    return [json.loads(line) for line in response.text.splitlines()]


def events(response: httpx.Response) -> list[Any]:
    """The documents of an SSE body, and its end mark as it stands."""
    texts = response.text.split("\n\n")
    assert texts.pop() == ""
    found = [text.removeprefix("data: ") for text in texts]
    return [text if text == "[DONE]" else json.loads(text) for text in found]
