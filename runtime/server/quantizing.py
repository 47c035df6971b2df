"""A blob with weights becomes one with fewer bits each, for ``/api/create``."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path
from typing import Any, Final

from registry.digest import Digest
from registry.staging import StagingArea
from registry.verify import DigestWriter, storage_errors
from runtime.quantizing import expected_bytes, quantize
from runtime.server.backend import Backend
from schemas import limits
from schemas.errors import ServerBusy, UnsupportedRequest

_NAME: Final = "quantized.gguf"


class Quantization:
    """One of them.

    Args:
        backend: Where the blobs lie, and what starts the process.
        source: The blob.
        was: The type of its weights.
        kind: The type that they are to have.

    Attributes:
        result: The new blob, once :meth:`lines` has come to its end.
    """

    def __init__(self, backend: Backend, source: Digest, was: str, kind: str) -> None:
        self._backend = backend
        self._source = source
        self._was = was
        self._kind = kind
        self.result: Digest | None = None

    async def lines(self) -> AsyncGenerator[dict[str, Any], None]:
        """Do it; yields how far it is, in Ollama's words. Closing the iterator ends it.

        Raises:
            UnsupportedRequest: Nothing here can do it.
            ServerBusy: Another one is under way.
            SealiftError: As :func:`runtime.quantizing.quantize`.
            StorageFull: There is no room.
        """
        backend = self._backend
        if backend.spawner is None:
            raise UnsupportedRequest("create-time quantization is not supported")
        if backend.quantizing.locked():
            raise ServerBusy("server busy, please try again", why="another model is quantized")
        async with backend.quantizing:
            area = await backend.run(backend.store.blobs.stage("quantize").__enter__)
            try:
                target = area.folder / _NAME
                await backend.run(target.touch, 0o600)
                source = backend.store.blobs.path(self._source)
                work = quantize(backend.spawner, source, target, self._kind)
                async with aclosing(work) as ticks:
                    async for _ in ticks:
                        yield self._line(*await backend.run(_sizes, source, target))
                self.result = await backend.run(_accept, area, target)
                await backend.run(self._install, area)
            finally:
                await backend.run(area.__exit__, None, None, None)

    def _line(self, total: int, written: int) -> dict[str, Any]:
        done = written / expected_bytes(total, self._was, self._kind)
        return {
            "status": f"quantizing {self._was} model to {self._kind}",
            "digest": str(self._source),
            "total": total,
            "completed": int(total * min(done, 1.0)),
        }

    def _install(self, area: StagingArea) -> None:
        with self._backend.store.lock():
            area.install()


def _sizes(source: Path, target: Path) -> tuple[int, int]:
    return source.stat().st_size, target.stat().st_size


def _accept(area: StagingArea, target: Path) -> Digest:
    """Hash what was written, and let it wait for its name."""
    found = DigestWriter()
    with storage_errors("cannot store the quantized weights"), target.open("rb") as file:
        while data := file.read(limits.IO_CHUNK):
            found.write(data)
        os.fsync(file.fileno())
        target.rename(area.part(found.digest))
    area.accept(found.digest, found.size)
    return found.digest
