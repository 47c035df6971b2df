"""Starting a worker for a model whose file is hashed meanwhile: no answer before both are done."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from pathlib import Path
from typing import Final

from runtime.integrity import Integrity
from runtime.leases import RunningWorker, StartWorker
from runtime.messages import WorkerSpec
from schemas.errors import SealiftError, StoreDamaged

_LOG: Final = logging.getLogger("sealift.server")


class VerifiedStart:
    """Starts workers (:data:`runtime.leases.StartWorker`).

    The worker loads while the file is hashed, so that this costs no time where there is a core to
    spare. A worker whose file turns out wrong ends before anybody hears of it; it is confined, so
    what it read cannot do more than waste its time.

    Args:
        start: Starts a worker.
        integrity: Hashes, in a thread of ``pool``.
        pool: For hashing alone: a large model takes a while.
        damaged: Called in such a thread where a file is not what was imported.
        done: Called with the seconds that it took; None if it failed.
    """

    def __init__(
        self,
        start: StartWorker,
        integrity: Integrity,
        pool: Executor,
        damaged: Callable[[Path, StoreDamaged], None],
        done: Callable[[float | None], None],
    ) -> None:
        self._start = start
        self._integrity = integrity
        self._pool = pool
        self._damaged = damaged
        self._done = done

    async def __call__(self, spec: WorkerSpec) -> RunningWorker:
        """Start a worker.

        Raises:
            StoreDamaged: The file is not what was imported.
            SealiftError: The worker could not be started or confined, or the model not be loaded.
        """
        began = time.monotonic()
        loading = asyncio.ensure_future(self._start(spec))
        try:
            loop = asyncio.get_running_loop()
            for path in filter(None, (spec.model_path, spec.projector_path, spec.adapter_path)):
                await loop.run_in_executor(self._pool, self._check, Path(path))
            worker = await loading
        except BaseException:
            self._done(None)
            await _drop(loading)
            raise
        self._done(time.monotonic() - began)
        return worker

    def _check(self, path: Path) -> None:
        began = time.monotonic()
        try:
            read = self._integrity.check(path)
        except StoreDamaged as error:
            _LOG.error("%s", error.line())
            self._damaged(path, error)
            raise
        if read:
            _LOG.info("blob %s verified in %.1f s", path.name[:12], time.monotonic() - began)


async def _drop(loading: Awaitable[RunningWorker]) -> None:
    """End a worker that nobody waits for any more."""
    task = asyncio.ensure_future(loading)
    task.cancel()
    try:
        worker = await task
    except (asyncio.CancelledError, SealiftError):
        return
    await worker.stop()
