"""What the handlers share: the catalogue behind a bounded thread pool, and the scheduler."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, TypeVar

from registry.digest import Digest
from registry.gguf import GGUFHeader, read_header_file
from registry.reference import Reference
from registry.store import Store
from registry.withdrawals import Withdrawal
from runtime.integrity import Integrity
from runtime.messages import WorkerSpec
from runtime.mirror.service import Mirror
from runtime.models import Model, Models, base_spec
from runtime.options import Options
from runtime.sandbox import attempt_all
from runtime.scheduler import Scheduler
from runtime.watching import WATCHER
from runtime.worker.client import Spawner
from schemas import limits
from schemas.errors import NotFound, PolicyRefused, SealiftError
from schemas.settings import Serve

T = TypeVar("T")
_LOG: Final = logging.getLogger("sealift.server")


@dataclass(frozen=True, slots=True)
class Backend:
    """Everything behind the HTTP surface.

    Attributes:
        settings: How to serve.
        store: Open; touched only in the pool's threads.
        scheduler: Hands out leases on models.
        pool: Its few threads do all that touches the disk.
        sandbox: The front-end's own sandbox report, as JSON.
        integrity: Knows the files that loaded models were verified from.
        noted: Withdrawals that requests met, and that are in the logs already.
        mirror: What pull and push talk with; None where nothing may be reached.
        uploads: Blobs on their way in.
        spawner: Starts what quantizes; None where nothing can.
        quantizing: Held while it runs: it takes all processors.
    """

    settings: Serve
    store: Store
    scheduler: Scheduler
    pool: Executor
    sandbox: dict[str, object] = field(default_factory=dict, hash=False)
    integrity: Integrity = field(default_factory=Integrity)
    noted: set[tuple[Digest, Withdrawal]] = field(default_factory=set, hash=False)
    mirror: Mirror | None = None
    uploads: set[object] = field(default_factory=set, hash=False)
    spawner: Spawner | None = None
    quantizing: asyncio.Lock = field(default_factory=asyncio.Lock, hash=False)

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

    async def to_serve(self, reference: Reference, name: str) -> Model:
        """One model that a request wants an answer of.

        Looked up anew for every request, so what is withdrawn meanwhile ends here, loaded or not.

        Args:
            reference: Which one.
            name: The same as the client wrote it, for the message.

        Raises:
            NotFound: No such name.
            ModelWithdrawn: Its publisher or this site took it back.
            PolicyRefused: Only signed models are served, and this is none.
            RateLimited: It has been asked enough for now.
        """
        try:
            model, unchanged, signed = await self.run(self._examined, reference)
        except NotFound:
            raise NotFound(f"model '{name}' not found") from None
        found = model.withdrawal
        if found is not None:
            await self.run(self._note, model, found)
            if found.stops:
                self.scheduler.retire(model)
                raise found.refusal(name)
        if not signed:
            raise PolicyRefused(
                f"model '{name}' is not served",
                why="no publisher that this site trusts has signed it",
                hint="Import a bundle that has it, or set signed_only = false",
            )
        if not unchanged:
            _LOG.warning("%s: its file has changed, and is checked again", model.name)
            self.scheduler.retire(model)
        watcher = WATCHER.get()
        if watcher is not None:
            watcher.resolved(model)
        return model

    def _examined(self, reference: Reference) -> tuple[Model, bool, bool]:
        """A model; whether its file is as it was verified; whether its signature is in order."""
        model = Models(self.store).get(reference)
        signed = not self.settings.signed_only or self.store.catalogue.withdrawals.trusted(
            model.digest
        )
        return model, all(map(self.integrity.unchanged, model.files)), signed

    async def withdrawn(self) -> dict[Digest, Withdrawal]:
        """Every model in the store that something is withdrawn of."""
        return await self.run(self.store.catalogue.withdrawals.all)

    def _note(self, model: Model, found: Withdrawal) -> None:
        """Say so in the log, and in the audit log, once for each reason."""
        key = (model.digest, found)
        if key in self.noted:
            return
        self.noted.add(key)
        _LOG.warning("%s: %s", model.name, found.line())
        if not found.stops:
            return
        detail = {"manifest": str(model.digest), **found.document()}
        event = self.store.audit_event("model.refuse", model.name, detail, outcome="refused")
        try:
            with self.store.catalogue.transaction() as tx:
                tx.add_audit_event(event)
        except SealiftError as error:  # refused all the same; the next request tries again
            self.noted.discard(key)
            _LOG.warning("the refusal could not be recorded: %s", error.line())

    async def header(self, model: Model) -> GGUFHeader:
        """The model file's header, read and checked anew.

        Raises:
            MalformedModel: It no longer is what was imported.
        """
        return await self.run(read_header_file, model.weights)

    async def projector_header(self, model: Model) -> GGUFHeader | None:
        """The same of its projector; None if it has none."""
        if model.projector is None:
            return None
        return await self.run(partial(read_header_file, model.projector, projectors=True))

    def spec(self, model: Model, options: Options) -> WorkerSpec:
        """How a worker loads a model for a request with these options."""
        return model.worker_spec(
            options,
            context=self.settings.context_length,
            parallel=min(max(self.settings.num_parallel, 1), limits.NUM_PARALLEL),
            threads=self.settings.num_threads,
            base=base_spec(self.settings),
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
        except NotFound:
            raise
        except SealiftError:
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
        mirror = self.mirror.document() if self.mirror is not None else None
        egress = "POSSIBLE" if not refused else "mirror only" if mirror else "off"
        return {"egress": egress, "mirror": mirror, "processes": processes}
