"""``sealift serve``: the front-end process, from an open port to a quick end."""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import logging
import signal
import socket
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from typing import Final

from schemas.errors import DependencyMissing, EnvironmentFault, UsageError

try:
    from aiohttp import web
except ImportError as missing:
    raise DependencyMissing(
        "cannot serve models", why=str(missing), hint='Install "sealift[serve]"'
    ) from missing

from registry.store import Store
from runtime.launcher import Launcher
from runtime.leases import Bounds, RunningWorker
from runtime.messages import WorkerSpec
from runtime.sandbox import SandboxReport, confine_front_end
from runtime.scheduler import Scheduler
from runtime.server.app import make_runner
from runtime.server.backend import Backend
from runtime.server.logs import logging_to_stderr
from runtime.worker.client import Worker
from schemas import limits
from schemas.settings import Serve, Settings

_LOG: Final = logging.getLogger("sealift.server")
_BACKLOG: Final = 128
_DEFAULT_PORT: Final = 11434
_DEFAULT_MODELS: Final = 3  # Ollama's for a machine without a GPU


class Listener(socket.socket):
    """A socket that listens already: the confined front-end may not call ``listen`` again."""

    def listen(self, backlog: int = _BACKLOG, /) -> None:
        """Nothing to do."""


def run(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT.

    The order is the point: what needs a privilege comes first, then the front-end gives up for good
    to connect, to bind and to start anything, and only then is the first request accepted.

    Raises:
        UsageError: The address is not a loopback address.
        EnvironmentFault: The port is taken; store, launcher or sandbox are not to be had.
    """
    with ExitStack() as stack:
        store = stack.enter_context(Store.open(settings.home))
        listener = stack.enter_context(bind(settings.serve.host))
        launcher = stack.enter_context(closing(Launcher.start()))
        time.tzset()  # reads its files while it may
        report = confine_front_end(writable=[settings.home])
        asyncio.run(_serve(settings.serve, store, listener, launcher, report))


def bind(host: str) -> Listener:
    """Listen on a loopback address.

    Args:
        host: ``address:port``, ``localhost:port`` or ``[address]:port``; port 0 draws a free one.

    Raises:
        UsageError: Not an address, or not loopback.
        EnvironmentFault: The port is taken or not allowed.
    """
    address, port = _parse_host(host)
    family = socket.AF_INET6 if address.version == 6 else socket.AF_INET
    listener = Listener(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((str(address), port))
        socket.socket.listen(listener, _BACKLOG)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise EnvironmentFault(
                f"cannot listen on {host}",
                why="the port is in use",
                hint="Stop the other server, or set another address with --host",
            ) from None
        raise EnvironmentFault(f"cannot listen on {host}", why=str(error.strerror)) from None
    return listener


def _parse_host(host: str) -> tuple[ipaddress.IPv4Address | ipaddress.IPv6Address, int]:
    name, colon, port = host.rpartition(":")
    if not colon or (":" in name and not name.startswith("[")):
        name, port = host, str(_DEFAULT_PORT)
    name = name.strip("[]")
    if not (port.isascii() and port.isdecimal() and len(port) <= 5 and int(port) < 65536):
        raise UsageError(f"{host[:80]!r} has no valid port", hint="Write it like 127.0.0.1:11434")
    try:
        address = ipaddress.ip_address("127.0.0.1" if name == "localhost" else name)
    except ValueError:
        raise UsageError(
            f"{host[:80]!r} is not an address", hint="Write it like 127.0.0.1:11434"
        ) from None
    if not address.is_loopback:
        raise UsageError(
            f"refusing to listen on {address}",
            why="only loopback is served: other machines would need TLS and keys",
            hint="Use 127.0.0.1, ::1 or localhost",
        )
    return address, int(port)


async def _serve(
    settings: Serve, store: Store, listener: Listener, launcher: Launcher, report: SandboxReport
) -> None:
    async def start(spec: WorkerSpec) -> RunningWorker:
        return await Worker.start(launcher, spec, settings.load_timeout_ms / 1000)

    scheduler = Scheduler(
        start,
        Bounds(
            parallel=min(max(settings.num_parallel, 1), limits.NUM_PARALLEL),
            models=settings.max_loaded_models or _DEFAULT_MODELS,
            queue=max(settings.max_queue, 1),
            keep_alive_ms=settings.keep_alive_ms,
        ),
    )
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    with logging_to_stderr(), ThreadPoolExecutor(limits.STORE_THREADS, "store") as pool:
        backend = Backend(settings, store, scheduler, pool, report.document())
        runner = make_runner(backend)
        await runner.setup()
        try:
            await web.SockSite(runner, listener, backlog=_BACKLOG).start()
            _announce(listener, report)
            await stop.wait()
            _LOG.info("stopping")
        finally:
            await asyncio.gather(*(site.stop() for site in runner.sites))
            await scheduler.close()
            await runner.cleanup()


def _announce(listener: Listener, report: SandboxReport) -> None:
    """The line that scripts wait for; always the real port."""
    host, port = listener.getsockname()[:2]
    name = f"[{host}]" if ":" in host else host
    layers = f"seccomp {report.seccomp}, Landlock {report.landlock}"
    sys.stderr.write(f"listening on http://{name}:{port} · egress off: {layers}\n")
    sys.stderr.flush()
