"""The engine on llama.cpp, through llama-cpp-python's low-level API.

The only package that imports ``llama_cpp``. Everything that needs no llama.cpp lies beside it: the
steps, prompts, slots, sampling plans, the text of answers. Calls that abort the process on wrong
arguments are checked before they are made: batch size, number of sequences.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import llama_cpp.llama_cpp as lib

from runtime.engine import nothing
from runtime.engine.continuous import ContinuousEngine
from runtime.engine.guard import Guard
from runtime.engine.llama.context import Context
from runtime.engine.llama.embedding import Embedder, failed
from runtime.engine.llama.loading import Model
from runtime.engine.llama.log import LOG
from runtime.engine.prompt import PromptBuilder
from runtime.engine.sight import Eyes
from runtime.messages import (
    Embed,
    Event,
    Finished,
    Job,
    Rank,
    Task,
    Tokenize,
    Tokenized,
    WorkerSpec,
)
from schemas import limits
from schemas.errors import SealiftError, UnsupportedRequest, UsageError


class LlamaEngine:
    """One GGUF model on llama.cpp; a :class:`runtime.engine.Engine`.

    Args:
        spec: What to load and how.
        guard: Limits for chat templates; made here if not given.

    Raises:
        LoadFailed: The engine refuses the model, or it does not fit in memory.
    """

    def __init__(self, spec: WorkerSpec, guard: Guard | None = None) -> None:
        parallel = min(max(spec.num_parallel, 1), limits.NUM_PARALLEL)
        self.context_length = max(spec.context_length, limits.LEAST_CONTEXT_TOKENS)
        LOG.clear()
        self._model = Model(spec)
        self._context: Context | None = None
        self._embedder: Embedder | None = None
        self._ready: list[Event] = []
        self._vocabulary = self._model.vocabulary
        self._projector: Any = None
        if spec.projector_path and not self._model.pooling:
            self._projector = self._eyes(spec.projector_path)
        guard = guard or Guard()
        prompts = self._prompts(guard, self.context_length)
        self._counting = self._prompts(guard, limits.CONTEXT_TOKENS)
        self._generator: ContinuousEngine | None = None
        try:
            if self._model.pooling:
                self._embedder = Embedder(self._model, self.context_length)
            else:
                self._context = Context(self._model, self.context_length, parallel)
                self._generator = ContinuousEngine(
                    self._context,
                    prompts,
                    parallel=parallel,
                    n_context=self.context_length,
                    memory=min(spec.prompt_cache, LOG.cache_bytes()),
                )
        except SealiftError:
            self.close()
            raise
        self.model_bytes = self._model.bytes
        self.kv_bytes = LOG.cache_bytes()
        self.buffers = LOG.buffers()

    @property
    def description(self) -> str:
        """Name, version and instruction flags of the engine, for people."""
        flags = lib.llama_print_system_info().decode("utf-8", "replace")
        on = re.findall(r"(\w+) = 1\b", flags)
        return f"llama.cpp {lib.llama_version().decode()} ({' '.join(on)})"

    @property
    def copied_bytes(self) -> int:
        """Of the weights, what the engine keeps in main memory beside the mapped file."""
        return sum(
            size
            for where, what, size in self.buffers
            if what == "model" and _in_memory(where) and not where.endswith("_Mapped")
        )

    @property
    def device_bytes(self) -> int:
        """Of all buffers, what lies on accelerators."""
        return sum(
            size
            for where, _, size in self.buffers
            if not _in_memory(where) and not where.endswith("_Host")
        )

    @property
    def busy(self) -> bool:
        """Whether a call of :meth:`step` would do anything."""
        return bool(
            self._ready
            or (self._generator is not None and self._generator.busy)
            or (self._embedder is not None and self._embedder.busy)
        )

    def submit(self, task: Task) -> None:
        """Queue a task. Faults of the task itself come out of :meth:`step` as ``Failed``."""
        try:
            if isinstance(task, Embed | Rank):
                if self._embedder is None and isinstance(task, Rank):
                    raise UnsupportedRequest("the model does not rank texts")
                if self._embedder is None:
                    self._embedder = Embedder(self._model, self.context_length)
                self._ready += self._embedder.submit(task)
            elif isinstance(task, Tokenize):
                self._ready.append(self._tokenize(task))
            elif self._generator is None:
                raise UnsupportedRequest("the model does not generate text")
            else:
                self._generator.submit(task)
        except SealiftError as error:
            self._ready.append(failed(task.id, error))

    def cancel(self, task_id: int) -> None:
        """End a task at the next step; unknown ids are ignored."""
        if self._generator is not None:
            self._generator.cancel(task_id)
        if self._embedder is not None and self._embedder.cancel(task_id):
            self._ready.append(Finished(task_id, "cancelled", 0, 0, 0, 0))

    def step(self, decoded: Callable[[], None] = nothing) -> list[Event]:
        """Decode once for all answers, and once for texts to be embedded."""
        events, self._ready = self._ready, []
        if self._generator is not None and self._generator.busy:
            events += self._generator.step(decoded)
        if self._embedder is not None and self._embedder.busy:
            events += self._embedder.step()
        return events

    def close(self) -> None:
        """Free the model. Tasks in flight are dropped without an event."""
        if self._generator is not None:
            self._generator.close()
        for part in (self._context, self._embedder, self._projector, self._model):
            if part is not None:
                part.close()

    def _prompts(self, guard: Guard, n_context: int) -> PromptBuilder:
        vocabulary = self._vocabulary
        return PromptBuilder(
            vocabulary,
            self._model.spec.template or self._model.template,
            guard,
            n_context,
            bos_text=vocabulary.spelling(vocabulary.bos),
            eos_text=vocabulary.spelling(vocabulary.eos),
            eyes=self._projector,
        )

    def _eyes(self, path: str) -> Eyes:
        # Most models do not see, and start faster without the library.
        from runtime.engine.llama.vision import Projector

        try:
            return Projector(self._model, path)
        except SealiftError:
            self._model.close()
            raise

    def _tokenize(self, task: Tokenize) -> Tokenized:
        if task.prompt is not None:
            job = Job(task.id, task.prompt, truncate=False)
            return Tokenized(task.id, tuple(self._counting.build(job).tokens))
        if any(not 0 <= token < self._vocabulary.size for token in task.tokens):
            raise UsageError("there is no such token")
        text = b"".join(map(self._vocabulary.piece, task.tokens)).decode("utf-8", "replace")
        return Tokenized(task.id, task.tokens, text)


def _in_memory(where: str) -> bool:
    """Whether a buffer lies in main memory; AMX is a way to compute, not a place."""
    return where.startswith(("CPU", "AMX"))
