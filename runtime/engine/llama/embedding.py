"""Texts to vectors, or to scores: a context of its own, made when needed, many texts per decode.

A pooled vector needs all tokens of its text in one microbatch of llama.cpp, so batch, microbatch
and context have one size: a small one until a longer text comes. llama.cpp has room for the logits
of a whole microbatch, and a quarter of the room is some percent faster.
"""

from __future__ import annotations

import base64
import math
from collections import deque
from dataclasses import dataclass, field
from typing import Any, Final

import llama_cpp.llama_cpp as lib
import numpy as np

from runtime.engine.llama.batch import Batch
from runtime.engine.llama.loading import Model
from runtime.engine.llama.ranking import Pairs
from runtime.messages import Embed, Embedded, Event, Failed, Rank, Ranked
from schemas import limits
from schemas.errors import (
    PromptTooLong,
    SealiftError,
    UnsupportedRequest,
    UsageError,
    WorkerFailed,
)

_SEQUENCES: Final = 64
_TOGETHER: Final = 512  # tokens of several texts; four times as many took a quarter longer each
_POOLED: Final = (
    lib.LLAMA_POOLING_TYPE_MEAN,
    lib.LLAMA_POOLING_TYPE_CLS,
    lib.LLAMA_POOLING_TYPE_LAST,
    lib.LLAMA_POOLING_TYPE_RANK,
)


@dataclass(slots=True, eq=False)
class _Request:
    job: Embed | Rank
    texts: list[list[int]]
    results: list[Any] = field(default_factory=list)  # vectors or scores, as many as are done


class Embedder:
    """Embeds texts of one model; or ranks them, if it was made for that.

    Args:
        model: Loaded. One that was made to generate text gets the mean of its last layer.
        n_context: Most tokens per text.

    Raises:
        LoadFailed: The context does not fit in memory.
    """

    def __init__(self, model: Model, n_context: int) -> None:
        self._model = model
        self._vocabulary = model.vocabulary
        self._longest = min(n_context, limits.EMBED_TOKENS)
        self._context: Any = None
        self._open(min(self._longest, _TOGETHER))
        self._width: int = lib.llama_model_n_embd(model.pointer)
        self._queue: deque[_Request] = deque()
        pooling = lib.llama_pooling_type(self._context)
        self._ranking: Pairs | None = None
        if pooling == lib.LLAMA_POOLING_TYPE_RANK:
            self._ranking = Pairs(model.vocabulary, model.template_named("rerank"))
        if pooling not in _POOLED:
            self.close()
            raise UsageError("the model makes no embeddings")

    def _open(self, rows: int) -> None:
        """Make the context; nothing outlives a decode in the one that was there."""
        parameters = self._model.context_parameters()
        parameters.n_ctx = parameters.n_batch = parameters.n_ubatch = rows
        parameters.n_seq_max = min(_SEQUENCES, rows)
        parameters.embeddings = True
        if not self._model.pooling:
            parameters.pooling_type = lib.LLAMA_POOLING_TYPE_MEAN
        self._context = self._model.context(parameters)
        self._memory = lib.llama_get_memory(self._context)
        self._rows = rows
        self._batch = Batch(rows)

    def _grow(self) -> None:
        """Make room for the longest text, or leave things as they are."""
        before = self._rows
        self.close()  # first: both at once may not fit
        try:
            self._open(self._longest)
        except SealiftError:
            self._open(before)
            raise

    @property
    def busy(self) -> bool:
        """Whether :meth:`step` has anything to do."""
        return bool(self._queue)

    def submit(self, job: Embed | Rank) -> list[Event]:
        """Queue a job; what it fails of comes out at once."""
        try:
            if isinstance(job, Rank):
                texts = self._pairs(job)
            elif self._ranking is not None:
                raise UnsupportedRequest("the model ranks texts, it does not embed them")
            else:
                texts = [self._tokens(text, truncate=job.truncate) for text in job.texts]
            if max(map(len, texts), default=0) > self._rows:
                self._grow()
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
        ahead = request.texts[len(request.results) :]
        try:
            request.results += self._embed(ahead) if ahead else []
        except WorkerFailed as error:
            self._queue.popleft()
            return [failed(request.job.id, error)]
        if len(request.results) < len(request.texts):
            return []
        self._queue.popleft()
        tokens = sum(map(len, request.texts))
        kind = Embedded if self._ranking is None else Ranked
        return [kind(request.job.id, tuple(request.results), tokens)]

    def close(self) -> None:
        """Free the context."""
        if self._context:
            lib.llama_free(self._context)
        self._context = None

    def _tokens(self, text: str, *, truncate: bool) -> list[int]:
        if len(text) > self._longest * self._vocabulary.longest_text:
            if not truncate:
                raise _too_long()
            text = text[: self._longest * self._vocabulary.longest_text]
        tokens = self._vocabulary.tokenize(text, special=False, enclose=True)
        if len(tokens) <= self._longest:
            return tokens or [max(self._vocabulary.bos, self._vocabulary.eos, 0)]
        if not truncate:
            raise _too_long()
        last = tokens[-1:] if tokens[-1] in (self._vocabulary.eos, self._vocabulary.sep) else []
        return tokens[: self._longest - len(last)] + last

    def _pairs(self, job: Rank) -> list[list[int]]:
        if self._ranking is None:
            raise UnsupportedRequest("the model does not rank texts")
        pair = self._ranking.tokens
        return [pair(job.query, x, self._longest, truncate=job.truncate) for x in job.texts]

    def _embed(self, texts: list[list[int]]) -> list[Any]:
        """What comes of the first texts, as many as fit: vectors of length 1, or scores."""
        row = count = 0
        batch = self._batch
        for tokens in texts[:_SEQUENCES]:
            end = row + len(tokens)
            if row and end > min(self._rows, _TOGETHER):
                break
            batch.token[row:end] = tokens
            batch.position[row:end] = range(len(tokens))
            batch.sequence[row:end] = count
            batch.wanted[row:end] = 1
            row, count = end, count + 1
        if self._memory:
            lib.llama_memory_clear(self._memory, False)  # zeros would be written for nothing
        code = lib.llama_decode(self._context, batch.view(0, row))
        if code != 0:
            raise WorkerFailed("the engine cannot embed", why=f"llama_decode gave {code}")
        return [self._result(sequence) for sequence in range(count)]

    def _result(self, sequence: int) -> str | float:
        pointer = lib.llama_get_embeddings_seq(self._context, sequence)
        if not pointer:
            raise WorkerFailed("the engine gave no embedding")
        if self._ranking is not None:
            score = float(pointer[0])  # what follows, if anything, is other classes
            if not math.isfinite(score):
                raise WorkerFailed("the engine gave no score")
            return score
        vector = np.ctypeslib.as_array(pointer, (self._width,)).astype("<f4")
        length = float(np.linalg.norm(vector))
        return base64.b64encode((vector / length if length else vector).tobytes()).decode()


def failed(job: int, error: SealiftError) -> Failed:
    """The event that ends a job with an error."""
    return Failed(job, error.code, error.what, error.why, error.hint)


def _too_long() -> PromptTooLong:
    return PromptTooLong("the input length exceeds the context length")
