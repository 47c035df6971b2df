"""``sealift serve``: the front-end process, from an open port to a quick end."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from schemas.errors import DependencyMissing

try:
    from aiohttp import web
except ImportError as missing:
    raise DependencyMissing(
        "cannot serve models", why=str(missing), hint='Install "sealift[serve]"'
    ) from missing

from registry.store import Store
from runtime.access.keyfile import FOLDER as ACCESS
from runtime.access.tls import Identity, load_identity
from runtime.fit import Memory, Meter, offloads
from runtime.integrity import Damages, Integrity, Verify
from runtime.launcher.client import Launcher
from runtime.leases import Bounds, RunningWorker
from runtime.loading import VerifiedStart
from runtime.messages import WorkerSpec
from runtime.mirror.service import Mirror
from runtime.sandbox import SandboxReport, confine_front_end
from runtime.scheduler import Scheduler
from runtime.server.app import make_runner
from runtime.server.audit import FOLDER as REQUESTS
from runtime.server.backend import Backend
from runtime.server.governance import Governance, govern
from runtime.server.listening import BACKLOG, Listener, bind, parse_host
from runtime.server.logs import JsonFormatter, logging_to_stderr
from runtime.worker.client import Worker
from schemas import limits
from schemas.settings import Serve, Settings

_LOG: Final = logging.getLogger("sealift.server")
_DEFAULT_MODELS: Final = 3  # Ollama's for a machine without a GPU


def run(settings: Settings, launcher: Launcher) -> None:
    """Serve until SIGTERM or SIGINT.

    The order is the point: what needs a privilege comes first, then the front-end gives up for good
    to connect, to bind and to start anything, and only then is the first request accepted.

    Args:
        settings: All of them.
        launcher: Started before; it gets a worker ready while this module and others are read.

    Raises:
        UsageError: The address is beyond loopback, and TLS or keys are missing; a setting is wrong.
        EnvironmentFault: The port is taken; store or sandbox are not to be had.
    """
    address, port = parse_host(settings.serve.host)
    serve = settings.serve
    with ExitStack() as stack:
        store = stack.enter_context(Store.open(settings.home))
        identity = None
        if serve.tls_cert or serve.tls_key:
            identity = load_identity(serve.tls_cert, serve.tls_key)
        governance = govern(settings, address, identity)
        if governance.audit is not None:
            stack.callback(governance.audit.close)
        listener = stack.enter_context(bind(address, port))
        meter = stack.enter_context(Meter())
        accelerated = offloads()
        if (mirror := Mirror.start(serve)) is not None:
            stack.callback(mirror.close)
        time.tzset()  # reads its files while it may
        readable, writable = reach(store)
        report = confine_front_end(readable=readable, writable=writable)
        gate = Memory(meter.room, most=settings.serve.max_memory * limits.MIB, offloads=accelerated)
        served = _Served(store, listener, launcher, report, gate, governance, identity, mirror)
        asyncio.run(_serve(serve, served))


@dataclass(frozen=True, slots=True)
class _Served:
    """What was made before the sandbox closed."""

    store: Store
    listener: Listener
    launcher: Launcher
    report: SandboxReport
    gate: Memory
    governance: Governance
    identity: Identity | None
    mirror: Mirror | None


def reach(store: Store) -> tuple[list[Path], list[Path]]:
    """What the front-end reads, and what it writes: of the site's home only its own part.

    The private keys of site and publisher are not; those of TLS were read before.
    """
    home = store.home
    database = [home / f"catalog.db{suffix}" for suffix in ("", "-wal", "-shm")]
    folders = [home / name for name in ("blobs", "staging", REQUESTS)]
    written = [path for path in (*folders, *database, home / "lock") if path.exists()]
    return [home / ACCESS], written


async def _serve(settings: Serve, served: _Served) -> None:
    governance, store = served.governance, served.store
    integrity = Integrity(Verify(settings.verify_weights))

    async def start(spec: WorkerSpec) -> RunningWorker:
        return await Worker.start(served.launcher, spec, settings.load_timeout_ms / 1000)

    hashers = ThreadPoolExecutor(limits.HASH_THREADS, "verify")
    scheduler = Scheduler(
        VerifiedStart(start, integrity, hashers, Damages(store), governance.metrics.loaded),
        Bounds(
            parallel=min(max(settings.num_parallel, 1), limits.NUM_PARALLEL),
            models=settings.max_loaded_models or _DEFAULT_MODELS,
            queue=max(settings.max_queue, 1),
            keep_alive_ms=settings.keep_alive_ms,
        ),
        served.gate,
    )
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    with (
        hashers,
        logging_to_stderr(settings.log_format),
        ThreadPoolExecutor(limits.STORE_THREADS, "store") as pool,
    ):
        document = served.report.document()
        backend = Backend(
            settings,
            store,
            scheduler,
            pool,
            document,
            integrity,
            mirror=served.mirror,
            spawner=served.launcher,
        )
        runner = make_runner(backend, governance)
        governance.start()
        await runner.setup()
        try:
            context = served.identity.context if served.identity else None
            await web.SockSite(
                runner, served.listener, backlog=BACKLOG, ssl_context=context
            ).start()
            _announce(served, settings.log_format)
            await stop.wait()
            _LOG.info("stopping")
        finally:
            integrity.close()
            await asyncio.gather(*(site.stop() for site in runner.sites))
            await scheduler.close()
            await runner.cleanup()


def _announce(served: _Served, form: str) -> None:
    """The line that scripts wait for; always the real port. Never lost, as log lines may be."""
    host, port = served.listener.getsockname()[:2]
    name = f"[{host}]" if ":" in host else host
    scheme = "https" if served.identity else "http"
    layers = f"seccomp {served.report.seccomp}, Landlock {served.report.landlock}"
    egress = f"to {served.mirror.address} only" if served.mirror else "off"
    line = f"listening on {scheme}://{name}:{port} · egress {egress}: {layers}"
    if form == "json":
        record = logging.makeLogRecord({"name": _LOG.name, "levelname": "INFO", "msg": line})
        line = JsonFormatter().format(record)
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()
