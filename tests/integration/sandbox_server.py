"""A small front-end as the real one is built, confined as the real one is.

Run by test_sandbox.py: ``python sandbox_server.py HOME CHANNEL``; prints a greeting line.
"""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import sqlite3
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

from aiohttp import web

from runtime.sandbox import attempt_all, confine_front_end


def count(home: Path) -> str:
    with closing(sqlite3.connect(home / "catalog.db")) as catalogue, catalogue:
        catalogue.execute("PRAGMA journal_mode=WAL")
        catalogue.execute("CREATE TABLE IF NOT EXISTS hits (at TEXT) STRICT")
        catalogue.execute("INSERT INTO hits VALUES (datetime('now'))")
        return str(catalogue.execute("SELECT count(*) FROM hits").fetchone()[0])


def store(home: Path) -> Path:
    """As the blob store does: stage, rename into another folder, seal."""
    for name in ("staging", "blobs"):
        (home / name).mkdir(exist_ok=True)
    staged = home / "staging" / "one"
    staged.write_bytes(b"x" * 300_000)
    staged.chmod(0o444)
    return staged.rename(home / "blobs" / "one")


def threads() -> str:
    """Several at once, each with its own socketpair-driven loop."""
    barrier = threading.Barrier(8)

    def body(number: int) -> int:
        barrier.wait(10)
        return asyncio.run(asyncio.sleep(0, number))

    with ThreadPoolExecutor(8) as pool:
        return str(sum(pool.map(body, range(8))))


def application(home: Path, channel: socket.socket) -> web.Application:
    async def plain(_: web.Request) -> web.Response:
        return web.Response(text="hello")

    async def counted(_: web.Request) -> web.Response:
        return web.Response(text=await asyncio.to_thread(count, home))

    async def file(_: web.Request) -> web.FileResponse:
        return web.FileResponse(await asyncio.to_thread(store, home))

    async def pool(_: web.Request) -> web.Response:
        return web.Response(text=await asyncio.to_thread(threads))

    async def handed_in(_: web.Request) -> web.Response:
        descriptors = socket.recv_fds(channel, 1, 1)[1]
        with socket.socket(fileno=descriptors[0]) as worker:
            worker.setblocking(False)
            return web.Response(body=await asyncio.get_running_loop().sock_recv(worker, 100))

    async def egress(_: web.Request) -> web.Response:
        attempts = await asyncio.to_thread(attempt_all)
        return web.json_response([attempt.document() for attempt in attempts])

    app = web.Application()
    app.router.add_get("/plain", plain)
    app.router.add_get("/count", counted)
    app.router.add_get("/file", file)
    app.router.add_get("/threads", pool)
    app.router.add_get("/handed-in", handed_in)
    app.router.add_get("/egress", egress)
    return app


async def serve(home: Path, channel: socket.socket) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    runner = web.AppRunner(application(home, channel), access_log=None)
    await runner.setup()
    listener = socket.create_server(("127.0.0.1", 0))
    await web.SockSite(runner, listener).start()
    report = confine_front_end(writable=[home])
    greeting = {"port": listener.getsockname()[1], "report": report.document()}
    sys.stdout.write(json.dumps(greeting) + "\n")
    sys.stdout.flush()
    await stop.wait()
    await runner.cleanup()


def main() -> None:
    with socket.socket(fileno=int(sys.argv[2])) as channel:
        asyncio.run(serve(Path(sys.argv[1]), channel))


if __name__ == "__main__":
    main()
