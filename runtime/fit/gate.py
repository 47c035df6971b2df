"""Who gets in: whether one more model fits beside those that are loaded.

What the kernel says is free already lacks what loaded workers took for themselves, but not the
weights that they map: the kernel counts a file's pages as free, and would throw them out of memory
for somebody else, to be read from the disk again for every token. So they are taken off here, once
per file. Of a worker that is still loading the kernel has not seen much: all of it is taken off.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from enum import Enum, auto
from functools import lru_cache

from registry.gguf import projector_bytes, read_header_file
from runtime.fit.estimate import Estimate, embedding, estimate, longest_context
from runtime.fit.room import Room
from runtime.fit.shape import Shape, shape_of
from runtime.messages import WorkerSpec
from schemas import limits
from schemas.errors import DoesNotFit


@dataclass(frozen=True, slots=True)
class Need:
    """What a worker takes of main memory, in bytes.

    Attributes:
        file: The model's, whose pages all that map it share.
        mapped: Weights.
        own: Everything else.
    """

    file: str
    mapped: int
    own: int

    @property
    def total(self) -> int:
        """Both together."""
        return self.mapped + self.own


@dataclass(frozen=True, slots=True)
class Held:
    """What a worker that is there already takes.

    Attributes:
        need: As estimated; its weights as the worker itself told, once it is loaded.
        loaded: Whether it is, so that the kernel counts it.
    """

    need: Need
    loaded: bool


class Verdict(Enum):
    """Of one more model."""

    FITS = auto()
    LATER = auto()  # once others are gone
    NEVER = auto()  # not even then


class Memory:
    """What the scheduler asks before it loads a model.

    Args:
        room: What there is now; None where the kernel does not tell.
        most: Bytes for all models together; 0 for no such bound.
        offloads: Whether the engine can use accelerators.
    """

    def __init__(
        self,
        room: Callable[[], Room | None],
        *,
        most: int = 0,
        offloads: bool = False,
    ) -> None:
        self._room = room
        self._most = most
        self._offloads = offloads

    async def need(self, spec: WorkerSpec) -> Need:
        """What a worker would take.

        Raises:
            SealiftError: The model's file is not what was imported.
        """
        found = await asyncio.to_thread(self._estimate, spec)
        return Need(spec.model_path, found.weights, found.own)

    async def embedding(self, spec: WorkerSpec) -> int:
        """Bytes more that a worker takes once it is asked for vectors too."""
        return await asyncio.to_thread(lambda: embedding(shape_for(spec), spec))

    def judge(self, need: Need, held: Iterable[Held]) -> Verdict:
        """Whether one more fits beside those that are there."""
        held = list(held)
        room = self._room()
        if room is None:
            return Verdict.FITS
        free = room.bytes - limits.MEMORY_RESERVE_BYTES
        files = {h.need.file: h.need.mapped for h in held} | {need.file: need.mapped}
        mapped = sum(files.values())
        unseen = sum(h.need.own for h in held if not h.loaded)
        total = mapped + sum(h.need.own for h in held) + need.own
        if mapped + unseen + need.own <= free and not 0 < self._most < total:
            return Verdict.FITS
        return Verdict.LATER if need.total <= self._could_be_free(held, free) else Verdict.NEVER

    def refusal(self, spec: WorkerSpec, need: Need, held: Iterable[Held]) -> DoesNotFit:
        """Why it does not fit, in figures, and what would."""
        room = self._room()
        free = (room.bytes if room is not None else 0) - limits.MEMORY_RESERVE_BYTES
        could = max(self._could_be_free(list(held), free), 0)
        bounded = 0 < self._most <= could
        limit = "the setting max_memory" if bounded or room is None else room.limit
        found = self._estimate(spec)
        spare = max(could - (found.total - found.prompts), -1) // limits.MIB
        longest = longest_context(shape_for(spec), self._placed(spec), could, spec.context_length)
        hint = (
            f"Set prompt_cache to {spare} MiB or less"
            if spare >= 0
            else f"Ask for at most {longest} tokens of context (num_ctx)"
            if longest >= limits.USEFUL_CONTEXT_TOKENS
            else "Take a smaller model, or a stronger quantization of it"
        )
        sees = f"projector {_size(found.projector)}, " if found.projector else ""
        return DoesNotFit(
            # Ollama's words, which its clients look for.
            f"model requires more system memory ({_size(need.total)}) than is available "
            f"({_size(could)})",
            why=f"weights {_size(found.weights)}, {sees}cache {_size(found.cache)} for "
            f"{spec.num_parallel} x {spec.context_length} tokens, buffers "
            f"{_size(found.compute + found.process)}, old prompts {_size(found.prompts)}; "
            f"the limit is {limit}",
            hint=f"{hint}; `sealift fit` shows what fits",
        )

    def refusal_of_more(self, more: int) -> DoesNotFit:
        """Why a loaded model cannot have so many bytes more."""
        room = self._room()
        free = (room.bytes if room is not None else 0) - limits.MEMORY_RESERVE_BYTES
        return DoesNotFit(
            f"embeddings require more system memory ({_size(more)}) than is available "
            f"({_size(free)})",
            why="a model that makes text needs a second context for them",
            hint="Take a model made for embeddings, give this one less context, or unload others",
        )

    def _could_be_free(self, held: list[Held], free: int) -> int:
        """Bytes that there were if all others went.

        Of those that still load the kernel may have seen much or little: rather wait than refuse.
        """
        could = free + sum(h.need.own for h in held)
        return min(could, self._most) if self._most > 0 else could

    def _estimate(self, spec: WorkerSpec) -> Estimate:
        return estimate(shape_for(spec), self._placed(spec))

    def _placed(self, spec: WorkerSpec) -> WorkerSpec:
        """The same with the number of layers that really go to an accelerator."""
        return placed(spec, offloads=self._offloads)


def placed(spec: WorkerSpec, *, offloads: bool) -> WorkerSpec:
    """A specification whose ``num_gpu`` is what the engine makes of it."""
    if not offloads:
        return replace(spec, num_gpu=0)
    return replace(spec, num_gpu=limits.MODEL_LAYERS + 1) if spec.num_gpu < 0 else spec


def shape_for(spec: WorkerSpec) -> Shape:
    """The shape of a model that is to be loaded; errors as of :func:`shape_at`."""
    shape = shape_at(spec.model_path, spec.projector_path)
    if not spec.adapter_path:
        return shape
    adapter = read_header_file(spec.adapter_path, adapter=True)
    more = sum(tensor.size_bytes for tensor in adapter.tensors)
    return replace(shape, doubled=shape.doubled + more)


@lru_cache(maxsize=64)
def shape_at(path: str, projector: str = "") -> Shape:
    """The shape of a model in the store, whose files never change.

    Args:
        path: Of its weights.
        projector: Of its projector; empty if it has none.

    Raises:
        MalformedModel: It is not what was imported.
        NotFound: It is gone.
    """
    shape = shape_of(read_header_file(path))
    if not projector:
        return shape
    return replace(shape, sees=projector_bytes(read_header_file(projector, projectors=True)))


def _size(count: int) -> str:
    """As Ollama writes it."""
    count = max(count, 0)
    unit, name = (limits.GIB, "GiB") if count >= limits.GIB else (limits.MIB, "MiB")
    return f"{count / unit:.1f} {name}"
