"""The engine on llama.cpp, through llama-cpp-python's low-level API.

The only module that imports ``llama_cpp``. Everything that needs no llama.cpp lies beside it: the
steps, prompts, slots, sampling plans, the text of answers. Calls that abort the process on wrong
arguments are checked before they are made: batch size, number of sequences.
"""

from __future__ import annotations

import ctypes
import math
import re
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import llama_cpp.llama_cpp as lib
import numpy as np
import numpy.typing as npt

from runtime.engine.constraint import Constraint, Constraints
from runtime.engine.continuous import ContinuousEngine
from runtime.engine.guard import Guard
from runtime.engine.prompt import PromptBuilder
from runtime.engine.sampling import Plan
from runtime.engine.threads import physical_cores
from runtime.messages import WorkerSpec
from schemas import limits
from schemas.errors import LoadFailed, WorkerFailed

_SPECIAL: Final = lib.LLAMA_TOKEN_ATTR_CONTROL | lib.LLAMA_TOKEN_ATTR_UNKNOWN
_CACHE_LINE: Final = re.compile(r"(?:kv_cache|memory_recurrent)\w*: +size = +([0-9.]+) MiB")
_MICROBATCH: Final = 512
_LOG_LINES: Final = 400
# ggml.h, enum ggml_log_level; llama-cpp-python's own table is an older one.
_LOG_ERROR: Final = 4
_LOG_LEVELS: Final = frozenset({2, 3, _LOG_ERROR})  # information, warnings, errors


class _Log:
    """Keeps the engine's last lines, and nothing on the terminal."""

    def __init__(self) -> None:
        self._lines: deque[str] = deque(maxlen=_LOG_LINES)
        self._errors: deque[str] = deque(maxlen=4)
        # Kept for the life of the process: llama.cpp holds the pointer.
        self._callback = lib.llama_log_callback(self._take)
        lib.llama_log_set(self._callback, ctypes.c_void_p(0))

    def _take(self, level: int, text: bytes, _data: object) -> None:
        if level not in _LOG_LEVELS:
            return
        line = text.decode("utf-8", "replace").strip()
        self._lines.append(line)
        if level == _LOG_ERROR:
            self._errors.append(line)

    def clear(self) -> None:
        """Forget everything: another model is to be loaded."""
        self._lines.clear()
        self._errors.clear()

    def why(self) -> str:
        """The last errors."""
        return " / ".join(self._errors) or "it gave no reason"

    def cache_bytes(self) -> int:
        """Size of the key/value cache, which the engine tells nobody but its log."""
        sizes = (size for line in self._lines for size in _CACHE_LINE.findall(line))
        return int(sum(map(float, sizes)) * limits.MIB)


_log = _Log()
lib.llama_backend_init()


class _Vocabulary:
    """A model's tokens; a :class:`runtime.engine.prompt.Tokenizer`."""

    def __init__(self, model: Any) -> None:
        self._vocab = lib.llama_model_get_vocab(model)
        self.size: int = lib.llama_vocab_n_tokens(self._vocab)
        self.bos: int = lib.llama_vocab_bos(self._vocab)
        self.eos: int = lib.llama_vocab_eos(self._vocab)
        self.add_bos: bool = lib.llama_vocab_get_add_bos(self._vocab)
        self.infill: tuple[int, int, int] = (
            lib.llama_vocab_fim_pre(self._vocab),
            lib.llama_vocab_fim_suf(self._vocab),
            lib.llama_vocab_fim_mid(self._vocab),
        )
        self._pieces: dict[int, bytes] = {}
        self._buffer = ctypes.create_string_buffer(256)

    def ends(self, token: int) -> bool:
        """Whether the model says with this token that it is done."""
        return bool(lib.llama_vocab_is_eog(self._vocab, token))

    def spelling(self, token: int) -> str:
        """A token's own text; empty for "there is none"."""
        if token < 0:
            return ""
        return (lib.llama_vocab_get_text(self._vocab, token) or b"").decode("utf-8", "replace")

    @cached_property
    def special_texts(self) -> Sequence[str]:
        return [
            self.spelling(token)
            for token in range(self.size)
            if lib.llama_vocab_get_attr(self._vocab, token) & _SPECIAL
        ]

    @cached_property
    def longest_text(self) -> int:
        return max(len(self.piece(token)) for token in range(self.size)) or 1

    def piece(self, token: int) -> bytes:
        """What a token adds to the text; nothing for special ones."""
        piece = self._pieces.get(token)
        if piece is None:
            piece = self._pieces[token] = self._make_piece(token)
        return piece

    def _make_piece(self, token: int) -> bytes:
        arguments = (0, False)
        size = lib.llama_token_to_piece(
            self._vocab, token, self._buffer, len(self._buffer), *arguments
        )
        if size >= 0:
            return self._buffer.raw[:size]
        buffer = ctypes.create_string_buffer(-size)
        lib.llama_token_to_piece(self._vocab, token, buffer, -size, *arguments)
        return buffer.raw

    def tokenize(self, text: str, *, special: bool) -> list[int]:
        data = text.encode("utf-8", "replace")
        room = len(data) + 8  # a token per byte and a few that a vocabulary puts in front
        while True:
            tokens = np.empty(room, dtype=np.int32)
            pointer = tokens.ctypes.data_as(ctypes.POINTER(ctypes.c_int32))
            count = lib.llama_tokenize(self._vocab, data, len(data), pointer, room, False, special)
            if count >= 0:
                return [int(token) for token in tokens[:count]]
            if -count <= room:
                raise WorkerFailed("the engine cannot tokenise the prompt")
            room = -count


class _Batch:
    """A ``llama_batch`` on NumPy arrays of our own, so that rows are filled by slices."""

    def __init__(self, rows: int) -> None:
        self.rows = rows
        self.token = np.zeros(rows, dtype=np.int32)
        self.position = np.zeros(rows, dtype=np.int32)
        self.sequence = np.zeros(rows, dtype=np.int32)
        self.wanted = np.zeros(rows, dtype=np.int8)
        self._counts = np.ones(rows, dtype=np.int32)
        self._pointers = self.sequence.ctypes.data + 4 * np.arange(rows, dtype=np.uintp)
        self._whole = self._view(0, rows)

    def view(self, start: int, end: int) -> Any:
        """Rows ``start`` to ``end`` as llama.cpp takes them; good until the next call."""
        if start:
            return self._view(start, end)
        self._whole.n_tokens = end
        return self._whole

    def _view(self, start: int, end: int) -> Any:
        def at(array: npt.NDArray[Any], kind: Any) -> Any:
            return ctypes.cast(array.ctypes.data + start * array.itemsize, ctypes.POINTER(kind))

        return lib.llama_batch(
            n_tokens=end - start,
            token=at(self.token, ctypes.c_int32),
            embd=None,
            pos=at(self.position, ctypes.c_int32),
            n_seq_id=at(self._counts, ctypes.c_int32),
            seq_id=at(self._pointers, ctypes.POINTER(ctypes.c_int32)),
            logits=at(self.wanted, ctypes.c_int8),
        )


@dataclass(frozen=True, slots=True)
class _Sampler:
    """What chooses the tokens of one answer.

    Attributes:
        chain: A ``llama_sampler`` chain; None for the argmax.
        constraint: The form that it is held to, if any.
    """

    chain: Any
    constraint: Constraint | None


class _Context:
    """One model with one context; a :class:`runtime.engine.continuous.Backend`."""

    def __init__(self, spec: WorkerSpec, n_context: int, parallel: int) -> None:
        self._model = _load_model(spec)
        self._context = _make_context(self._model, spec, n_context, parallel)
        self._memory = lib.llama_get_memory(self._context)
        self._window: int = lib.llama_model_n_swa(self._model)
        self.vocabulary = _Vocabulary(self._model)
        self._constraints = Constraints(self.vocabulary)
        self.n_vocab = self.vocabulary.size
        self.rows: int = lib.llama_n_batch(self._context)
        self._batch = _Batch(self.rows)
        self.ends = self.vocabulary.ends
        self.piece = self.vocabulary.piece

    @property
    def template(self) -> str | None:
        """The chat template that the model brings along."""
        source = lib.llama_model_chat_template(self._model, None)
        return source.decode("utf-8", "replace") if source else None

    @property
    def model_bytes(self) -> int:
        """Size of the weights."""
        return int(lib.llama_model_size(self._model))

    def close(self) -> None:
        """Free model and context; nothing works afterwards."""
        if self._context:
            lib.llama_free(self._context)
            lib.llama_model_free(self._model)
        self._context = self._model = None

    # -- positions and rows -----------------------------------------------------------------------

    def keep(self, sequence: int, count: int) -> int:
        """Drop all but the first ``count`` positions of a sequence; how many are left."""
        if self._window and count:
            # A sliding window has forgotten what lies before it.
            oldest = lib.llama_memory_seq_pos_min(self._memory, sequence)
            count = count if 0 <= oldest <= max(0, count - self._window) else 0
        if lib.llama_memory_seq_rm(self._memory, sequence, count, -1):
            return count
        # Recurrent memory cannot lose a part; removing everything never fails.
        lib.llama_memory_seq_rm(self._memory, sequence, -1, -1)
        return 0

    def put(
        self, row: int, tokens: Sequence[int], position: int, sequence: int, *, wanted: bool
    ) -> None:
        """Fill rows of the batch from ``row`` on; compute the last one's logits if wanted."""
        batch, end = self._batch, row + len(tokens)
        batch.token[row:end] = tokens
        batch.position[row:end] = range(position, position + len(tokens))
        batch.sequence[row:end] = sequence
        batch.wanted[row:end] = 0
        batch.wanted[end - 1] = wanted

    def decode(self, start: int, end: int) -> bool:
        """Decode rows ``start`` to ``end``; false if there is no room for so many at once.

        Raises:
            WorkerFailed: It cannot be done.
        """
        code = lib.llama_decode(self._context, self._batch.view(start, end))
        if code not in (0, 1):
            raise WorkerFailed("the engine cannot decode", why=f"llama_decode gave {code}")
        return bool(code == 0)

    # -- choosing ---------------------------------------------------------------------------------

    def sampler(self, samplers: Plan, prompt: Sequence[int], form: str) -> _Sampler:
        """Build the chain, with the prompt as history for penalties, and the constraint."""
        constraint = self._constraints.make(form) if form else None
        return _Sampler(self._chain(samplers, prompt), constraint)

    def _chain(self, samplers: Plan, prompt: Sequence[int]) -> Any:
        if samplers.is_argmax:
            return None
        chain = lib.llama_sampler_chain_init(lib.llama_sampler_chain_default_params())
        for sampler in self._links(samplers):
            lib.llama_sampler_chain_add(chain, sampler)
        if samplers.penalties is not None:
            for token in prompt[-samplers.penalties.last_n :]:
                lib.llama_sampler_accept(chain, token)
        return chain

    def free(self, sampler: _Sampler) -> None:
        """Free a chain and what it is made of."""
        if sampler.chain is not None:
            lib.llama_sampler_free(sampler.chain)

    def choose(self, row: int, sampler: _Sampler) -> int:
        """The next token, by the logits of a row, counted from the last decode's ``start``."""
        if (constraint := sampler.constraint) is None:
            return self._sample(row, sampler.chain)
        # The most probable token fits nearly always, and one is looked at faster than all.
        fits = sampler.chain is None and constraint.allows(int(self._logits(row).argmax()))
        if not fits:
            constraint.mask(self._logits(row))
        token = self._sample(row, sampler.chain)
        if not self.ends(token):
            constraint.accept(token)
        return token

    def complete(self, sampler: _Sampler) -> bool:
        """Whether the answer has its whole form, and nothing can follow."""
        return sampler.constraint is not None and sampler.constraint.complete

    def _sample(self, row: int, chain: Any) -> int:
        if chain is None:
            return int(self._logits(row).argmax())
        return int(lib.llama_sampler_sample(chain, self._context, row))

    def _links(self, samplers: Plan) -> Iterator[Any]:
        size = self.n_vocab
        if samplers.bias:
            biases = (lib.llama_logit_bias * len(samplers.bias))(
                *(lib.llama_logit_bias(*pair) for pair in samplers.bias)
            )
            yield lib.llama_sampler_init_logit_bias(size, len(biases), biases)
        if (penalties := samplers.penalties) is not None:
            yield lib.llama_sampler_init_penalties(
                size, penalties.last_n, penalties.repeat, penalties.frequency, penalties.presence
            )
        if samplers.top_k is not None:
            yield lib.llama_sampler_init_top_k(samplers.top_k)
        if samplers.typical_p is not None:
            yield lib.llama_sampler_init_typical(samplers.typical_p, 1)
        if samplers.top_p is not None:
            yield lib.llama_sampler_init_top_p(samplers.top_p, 1)
        if samplers.min_p is not None:
            yield lib.llama_sampler_init_min_p(samplers.min_p, 1)
        if samplers.temperature is None:
            yield lib.llama_sampler_init_greedy()
        else:
            yield lib.llama_sampler_init_temp(samplers.temperature)
            yield lib.llama_sampler_init_dist(samplers.seed)

    def _logits(self, row: int) -> npt.NDArray[np.float32]:
        pointer = lib.llama_get_logits_ith(self._context, row)
        return np.ctypeslib.as_array(pointer, (self.n_vocab,))

    def logprob(self, row: int, token: int, alternatives: int) -> dict[str, Any]:
        """A token's log-probability before any sampling, and those of the most probable ones."""
        logits = self._logits(row)
        top = float(logits.max())
        total = top + math.log(float(np.exp(logits - top).sum()))

        def entry(which: int) -> dict[str, Any]:
            piece = self.piece(which)
            return {
                "token": piece.decode("utf-8", "replace"),
                "logprob": float(logits[which]) - total,
                "bytes": list(piece),
            }

        best: list[int] = []
        if alternatives:
            best = np.argpartition(logits, -alternatives)[-alternatives:].tolist()
            best = [which for which in best if math.isfinite(logits[which])]
            best.sort(key=lambda which: -float(logits[which]))
        return {**entry(token), "top_logprobs": [entry(which) for which in best]}


class LlamaEngine(ContinuousEngine):
    """One GGUF model on llama.cpp.

    Args:
        spec: What to load and how.
        guard: Limits for chat templates; made here if not given.

    Raises:
        LoadFailed: The engine refuses the model, or it does not fit in memory.
    """

    def __init__(self, spec: WorkerSpec, guard: Guard | None = None) -> None:
        parallel = min(max(spec.num_parallel, 1), limits.NUM_PARALLEL)
        self.context_length = max(spec.context_length, limits.LEAST_CONTEXT_TOKENS)
        _log.clear()
        self._llama = _Context(spec, self.context_length, parallel)
        self.model_bytes = self._llama.model_bytes
        self.kv_bytes = _log.cache_bytes()
        vocabulary = self._llama.vocabulary
        prompts = PromptBuilder(
            vocabulary,
            spec.template or self._llama.template,
            guard or Guard(),
            self.context_length,
            bos_text=vocabulary.spelling(vocabulary.bos),
            eos_text=vocabulary.spelling(vocabulary.eos),
        )
        super().__init__(self._llama, prompts, parallel=parallel, n_context=self.context_length)

    @property
    def description(self) -> str:
        """Name, version and instruction flags of the engine, for people."""
        flags = lib.llama_print_system_info().decode("utf-8", "replace")
        on = re.findall(r"(\w+) = 1\b", flags)
        return f"llama.cpp {lib.llama_version().decode()} ({' '.join(on)})"

    def close(self) -> None:
        """Free the model. Jobs in flight are dropped without an event."""
        super().close()
        self._llama.close()


def _load_model(spec: WorkerSpec) -> Any:
    parameters = lib.llama_model_default_params()
    parameters.n_gpu_layers = spec.num_gpu
    parameters.load_mode = lib.LLAMA_LOAD_MODE_MMAP
    model = lib.llama_model_load_from_file(spec.model_path.encode(), parameters)
    if not model:
        raise _load_failed("the engine refuses the model")
    if lib.llama_model_has_encoder(model) or not lib.llama_model_has_decoder(model):
        lib.llama_model_free(model)
        raise LoadFailed("the model does not generate text", why="it has no plain decoder")
    return model


def _make_context(model: Any, spec: WorkerSpec, n_context: int, parallel: int) -> Any:
    threads = spec.num_threads if spec.num_threads > 0 else physical_cores()
    cells = n_context * parallel
    rows = max(min(spec.num_batch, cells), parallel)
    parameters = lib.llama_context_default_params()
    parameters.n_ctx = cells
    parameters.n_batch = rows
    parameters.n_ubatch = min(rows, _MICROBATCH)
    parameters.n_seq_max = parallel
    parameters.n_outputs_max = parallel  # one row of logits each, not one per row of the batch
    parameters.n_threads = threads
    parameters.n_threads_batch = threads
    parameters.kv_unified = True
    parameters.swa_full = False
    context = lib.llama_init_from_model(model, parameters)
    if not context:
        lib.llama_model_free(model)
        raise _load_failed("the model's context does not fit")
    return context


def _load_failed(what: str) -> LoadFailed:
    return LoadFailed(
        what,
        why=_log.why(),
        hint="Check the model with `sealift show`, or give it less context.",
    )
