"""Texts to vectors: a context of its own, made when first needed, many texts per decode.

A pooled vector needs all tokens of its text in one microbatch of llama.cpp, so batch, microbatch
and context have one size.
"""

from __future__ import annotations

import base64
from collections import deque
from dataclasses import dataclass, field
from typing import Final

import llama_cpp.llama_cpp as lib
import numpy as np

from runtime.engine.llama.batch import Batch
from runtime.engine.llama.loading import Model
from runtime.messages import Embed, Embedded, Event, Failed
from schemas import limits
from schemas.errors import PromptTooLong, SealiftError, UsageError, WorkerFailed

_SEQUENCES: Final = 64
_POOLED: Final = (
    lib.LLAMA_POOLING_TYPE_MEAN,
    lib.LLAMA_POOLING_TYPE_CLS,
    lib.LLAMA_POOLING_TYPE_LAST,
)


@dataclass(slots=True, eq=False)
class _Request:
    job: Embed
    texts: list[list[int]]
    vectors: list[str] = field(default_factory=list)


class Embedder:
    """Embeds texts of one model.

    Args:
        model: Loaded. One that was made to generate text gets the mean of its last layer.
        n_context: Most tokens per text.

    Raises:
        LoadFailed: The context does not fit in memory.
    """

    def __init__(self, model: Model, n_context: int) -> None:
        rows = min(n_context, limits.EMBED_TOKENS)
        parameters = model.context_parameters()
        parameters.n_ctx = parameters.n_batch = parameters.n_ubatch = rows
        parameters.n_seq_max = min(_SEQUENCES, rows)
        parameters.embeddings = True
        if not model.pooling:
            parameters.pooling_type = lib.LLAMA_POOLING_TYPE_MEAN
        self._vocabulary = model.vocabulary
        self._context = model.context(parameters)
        self._memory = lib.llama_get_memory(self._context)
        self._rows = rows
        self._batch = Batch(rows)
        self._width: int = lib.llama_model_n_embd(model.pointer)
        self._queue: deque[_Request] = deque()
        if lib.llama_pooling_type(self._context) not in _POOLED:
            self.close()
            raise UsageError("the model makes no embeddings")

    @property
    def busy(self) -> bool:
        """Whether :meth:`step` has anything to do."""
        return bool(self._queue)

    def submit(self, job: Embed) -> list[Event]:
        """Queue a job; what it fails of comes out at once."""
        try:
            texts = [self._tokens(text, truncate=job.truncate) for text in job.texts]
        except SealiftError as error:
            return [failed(job.id, error)]
        self._queue.append(_Request(job, texts))
        return []

    def cancel(self, job_id: int) -> bool:
        """Forget a job; whether it was there."""
        left = deque(r for r in self._queue if r.job.id != job_id)
        known = len(left) < len(self._queue)
        self._queue = left
        return known

    def step(self) -> list[Event]:
        """Decode as many texts of the first job as fit at once."""
        request = self._queue[0]
        ahead = request.texts[len(request.vectors) :]
        try:
            request.vectors += self._embed(ahead) if ahead else []
        except WorkerFailed as error:
            self._queue.popleft()
            return [failed(request.job.id, error)]
        if len(request.vectors) < len(request.texts):
            return []
        self._queue.popleft()
        tokens = sum(map(len, request.texts))
        return [Embedded(request.job.id, tuple(request.vectors), tokens)]

    def close(self) -> None:
        """Free the context."""
        if self._context:
            lib.llama_free(self._context)
        self._context = None

    def _tokens(self, text: str, *, truncate: bool) -> list[int]:
        if len(text) > self._rows * self._vocabulary.longest_text:
            if not truncate:
                raise _too_long()
            text = text[: self._rows * self._vocabulary.longest_text]
        tokens = self._vocabulary.tokenize(text, special=False, enclose=True)
        if len(tokens) <= self._rows:
            return tokens or [max(self._vocabulary.bos, self._vocabulary.eos, 0)]
        if not truncate:
            raise _too_long()
        last = tokens[-1:] if tokens[-1] in (self._vocabulary.eos, self._vocabulary.sep) else []
        return tokens[: self._rows - len(last)] + last

    def _embed(self, texts: list[list[int]]) -> list[str]:
        """The vectors of the first texts, as many as fit, each of length 1."""
        row = count = 0
        batch = self._batch
        for tokens in texts[:_SEQUENCES]:
            end = row + len(tokens)
            if end > self._rows:
                break
            batch.token[row:end] = tokens
            batch.position[row:end] = range(len(tokens))
            batch.sequence[row:end] = count
            batch.wanted[row:end] = 1
            row, count = end, count + 1
        if self._memory:
            lib.llama_memory_clear(self._memory, True)
        code = lib.llama_decode(self._context, batch.view(0, row))
        if code != 0:
            raise WorkerFailed("the engine cannot embed", why=f"llama_decode gave {code}")
        return [self._vector(sequence) for sequence in range(count)]

    def _vector(self, sequence: int) -> str:
        pointer = lib.llama_get_embeddings_seq(self._context, sequence)
        if not pointer:
            raise WorkerFailed("the engine gave no embedding")
        vector = np.ctypeslib.as_array(pointer, (self._width,)).astype("<f4")
        length = float(np.linalg.norm(vector))
        return base64.b64encode((vector / length if length else vector).tobytes()).decode()


def failed(job: int, error: SealiftError) -> Failed:
    """The event that ends a job with an error."""
    return Failed(job, error.code, error.what, error.why, error.hint)


def _too_long() -> PromptTooLong:
    return PromptTooLong("the input length exceeds the context length")
