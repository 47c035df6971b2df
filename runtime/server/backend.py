"""What the handlers share: the catalogue behind a bounded thread pool, and the scheduler."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import Any, TypeVar

from registry.gguf import GGUFHeader, read_header_file
from registry.reference import Reference
from registry.store import Store
from runtime.messages import WorkerSpec
from runtime.models import Model, Models
from runtime.options import Options
from runtime.sandbox import attempt_all
from runtime.scheduler import Scheduler
from schemas import limits
from schemas.errors import NotFound, UnsupportedRequest
from schemas.settings import Serve

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Backend:
    """Everything behind the HTTP surface.

    Attributes:
        settings: How to serve.
        store: Open; touched only in the pool's threads.
        scheduler: Hands out leases on models.
        pool: Its few threads do all that touches the disk.
        sandbox: The front-end's own sandbox report, as JSON.
    """

    settings: Serve
    store: Store
    scheduler: Scheduler
    pool: Executor
    sandbox: dict[str, object] = field(default_factory=dict, hash=False)

    async def run(self, call: Callable[..., T], *arguments: Any) -> T:
        """Call something that touches the disk, in one of the pool's threads."""
        return await asyncio.get_running_loop().run_in_executor(self.pool, call, *arguments)

    async def models(self) -> list[Model]:
        """Every model, the newest first."""
        return await self.run(Models(self.store).all)

    async def model(self, reference: Reference, name: str) -> Model:
        """One model.

        Args:
            reference: Which one.
            name: The same as the client wrote it, for the message.

        Raises:
            NotFound: No such name.
        """
        try:
            return await self.run(Models(self.store).get, reference)
        except NotFound:
            raise NotFound(f"model '{name}' not found") from None

    async def header(self, model: Model) -> GGUFHeader:
        """The model file's header, read and checked anew.

        Raises:
            MalformedModel: It no longer is what was imported.
        """
        return await self.run(read_header_file, model.weights)

    def spec(self, model: Model, options: Options) -> WorkerSpec:
        """How a worker loads a model for a request with these options."""
        return model.worker_spec(
            options,
            context=self.settings.context_length,
            parallel=min(max(self.settings.num_parallel, 1), limits.NUM_PARALLEL),
            threads=self.settings.num_threads,
        )

    async def copy(self, source: Reference, target: Reference) -> None:
        """Give a model a second name.

        Raises:
            NotFound: No model ``source``.
        """
        await self.run(self.store.copy_model, source, target)

    async def delete(self, reference: Reference, name: str) -> None:
        """Take a model's name away, and free its memory if that was its last.

        Raises:
            NotFound: No such name.
        """
        try:
            model: Model | None = await self.model(reference, name)
        except UnsupportedRequest:
            model = None  # in the store, but nothing that could be loaded
        await self.run(self.store.remove_model, reference)
        if model is not None and all(m.digest != model.digest for m in await self.models()):
            self.scheduler.retire(model)

    async def egress(self) -> dict[str, Any]:
        """Every way out, attempted inside the front-end and inside every loaded worker."""
        attempts = await self.run(attempt_all)
        processes: list[dict[str, Any]] = [
            {
                "process": "front-end",
                "sandbox": self.sandbox,
                "attempts": [attempt.document() for attempt in attempts],
            }
        ]
        for entry, tried in await self.scheduler.probe():
            processes.append(
                {
                    "process": "worker",
                    "model": entry.model.name,
                    "sandbox": entry.ready.sandbox,
                    "attempts": tried,
                }
            )
        refused = all(a["outcome"] == "refused" for p in processes for a in p["attempts"])
        return {"egress": "off" if refused else "POSSIBLE", "processes": processes}
