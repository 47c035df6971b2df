"""The engine on llama.cpp, through llama-cpp-python's low-level API.

The only module that imports ``llama_cpp``. Everything that needs no llama.cpp lies beside it: prompts,
slots, sampling plans, the text of answers. Calls that abort the process on wrong arguments are
checked before they are made: batch size, number of sequences.
"""

from __future__ import annotations

import ctypes
import math
import re
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final

import llama_cpp.llama_cpp as lib
import numpy as np
import numpy.typing as npt

from runtime.engine.answer import Answer
from runtime.engine.guard import Guard
from runtime.engine.prompt import PromptBuilder
from runtime.engine.sampling import Plan, plan
from runtime.engine.slots import Slot, choose, common_prefix
from runtime.engine.threads import physical_cores
from runtime.messages import Event, Failed, Finished, FinishReason, Job, Started, WorkerSpec
from schemas import limits
from schemas.errors import LoadFailed, SealiftError, WorkerFailed

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
        self.lines: deque[str] = deque(maxlen=_LOG_LINES)
        self.errors: deque[str] = deque(maxlen=4)
        # Kept for the life of the process: llama.cpp holds the pointer.
        self._callback = lib.llama_log_callback(self._take)
        lib.llama_log_set(self._callback, ctypes.c_void_p(0))

    def _take(self, level: int, text: bytes, _data: object) -> None:
        if level not in _LOG_LEVELS:
            return
        line = text.decode("utf-8", "replace").strip()
        self.lines.append(line)
        if level == _LOG_ERROR:
            self.errors.append(line)


_log = _Log()
lib.llama_backend_init()


class _Vocabulary:
    """A model's tokens; a :class:`runtime.engine.prompt.Tokenizer`."""

    def __init__(self, model: Any) -> None:
        self._vocab = lib.llama_model_get_vocab(model)
        self.size: int = lib.llama_vocab_n_tokens(self._vocab)
        self.bos: int = lib.llama_vocab_bos(self._vocab)
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

    @property
    def eos_text(self) -> str:
        """The spelling of the end-of-sequence token."""
        return self.spelling(lib.llama_vocab_eos(self._vocab))

    @cached_property
    def special_texts(self) -> Sequence[str]:
        return [
            self.spelling(token)
            for token in range(self.size)
            if lib.llama_vocab_get_attr(self._vocab, token) & _SPECIAL
        ]

    @cached_property
    def longest_text(self) -> int:
        return max(1, *(len(self.piece(token)) for token in range(self.size)))

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


@dataclass(slots=True)
class _Sequence:
    """A job that has a slot."""

    job: Job
    slot: Slot
    prompt: list[int]
    reused: int
    answer: Answer
    sampler: Any
    limit: float
    began: int
    prompt_ns: int = 0
    output: list[int] = field(default_factory=list)
    following: int = -1  # the token to decode next; -1 while the prompt is not done

    @property
    def waiting(self) -> Sequence[int]:
        """Tokens of the prompt that are not in the context yet."""
        return self.prompt[len(self.slot.cached) :]


@dataclass(frozen=True, slots=True)
class _Share:
    """Rows of a batch that belong to one sequence.

    Attributes:
        sequence: Whose.
        start: First row.
        end: Row after the last.
        wanted: Whether the last row's logits are.
    """

    sequence: _Sequence
    start: int
    end: int
    wanted: bool


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

    def view(self, start: int, end: int) -> Any:
        """Rows ``start`` to ``end`` as llama.cpp takes them."""

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


class LlamaEngine:
    """One GGUF model on llama.cpp; an :class:`runtime.engine.Engine`.

    ``num_parallel`` sequences share one context. A step decodes one token of every sequence that
    answers, then prompt tokens, fewer of them while others answer. What a slot computed stays in it,
    so a prompt that begins like an earlier one starts behind the common part. That changes the shape
    of batches and with it the last bits of logits, so a job that names a seed starts from nothing:
    the same seed then gives the same answer, as long as it is alone.

    Args:
        spec: What to load and how.
        guard: Limits for chat templates; made here if not given.

    Raises:
        LoadFailed: The engine refuses the model, or it does not fit in memory.
    """

    def __init__(self, spec: WorkerSpec, guard: Guard | None = None) -> None:
        self._parallel = min(max(spec.num_parallel, 1), limits.NUM_PARALLEL)
        self._n_context = max(spec.context_length, 8)
        self._model = self._load_model(spec)
        self._context = self._make_context(spec)
        self._memory = lib.llama_get_memory(self._context)
        self._vocabulary = _Vocabulary(self._model)
        self._window: int = lib.llama_model_n_swa(self._model)
        self._guard = guard or Guard()
        self._prompts = PromptBuilder(
            self._vocabulary,
            spec.template or self._own_template(),
            self._guard,
            self._n_context,
            bos_text=self._vocabulary.spelling(self._vocabulary.bos),
            eos_text=self._vocabulary.eos_text,
        )
        self._batch = _Batch(lib.llama_n_batch(self._context))
        self._slots = [Slot(number) for number in range(self._parallel)]
        self._queue: deque[Job] = deque()
        self._running: list[_Sequence] = []
        self._cancelled: set[int] = set()
        self._turn = 0

    # -- loading --------------------------------------------------------------------------------

    def _load_model(self, spec: WorkerSpec) -> Any:
        parameters = lib.llama_model_default_params()
        parameters.n_gpu_layers = spec.num_gpu
        parameters.load_mode = lib.LLAMA_LOAD_MODE_MMAP
        _log.errors.clear()
        _log.lines.clear()
        model = lib.llama_model_load_from_file(spec.model_path.encode(), parameters)
        if not model:
            raise _load_failed("the engine refuses the model")
        if lib.llama_model_has_encoder(model) or not lib.llama_model_has_decoder(model):
            lib.llama_model_free(model)
            raise LoadFailed("the model does not generate text", why="it has no plain decoder")
        return model

    def _make_context(self, spec: WorkerSpec) -> Any:
        threads = spec.num_threads if spec.num_threads > 0 else physical_cores()
        cells = self._n_context * self._parallel
        rows = min(max(spec.num_batch, self._parallel, 1), cells)
        parameters = lib.llama_context_default_params()
        parameters.n_ctx = cells
        parameters.n_batch = rows
        parameters.n_ubatch = min(rows, _MICROBATCH)
        parameters.n_seq_max = self._parallel
        parameters.n_outputs_max = self._parallel  # one row of logits each, not one per batch row
        parameters.n_threads = threads
        parameters.n_threads_batch = threads
        parameters.kv_unified = True
        parameters.swa_full = False
        context = lib.llama_init_from_model(self._model, parameters)
        if not context:
            lib.llama_model_free(self._model)
            raise _load_failed("the model's context does not fit")
        return context

    def _own_template(self) -> str | None:
        source = lib.llama_model_chat_template(self._model, None)
        return source.decode("utf-8", "replace") if source else None

    @property
    def context_length(self) -> int:
        """Tokens of context per sequence."""
        return self._n_context

    @property
    def model_bytes(self) -> int:
        """Size of the weights."""
        return int(lib.llama_model_size(self._model))

    @property
    def kv_bytes(self) -> int:
        """Size of the cache, as the engine reported it while loading."""
        sizes = (match for line in _log.lines for match in _CACHE_LINE.findall(line))
        return int(sum(map(float, sizes)) * limits.MIB)

    @property
    def description(self) -> str:
        """Name, version and instruction flags."""
        flags = lib.llama_print_system_info().decode("utf-8", "replace")
        on = re.findall(r"(\w+) = 1\b", flags)
        return f"llama.cpp {lib.llama_version().decode()} ({' '.join(on)})"

    def close(self) -> None:
        """Free the model. Jobs in flight are dropped without an event."""
        for sequence in self._running:
            _free(sequence.sampler)
        self._running.clear()
        self._queue.clear()
        if self._context:
            lib.llama_free(self._context)
            lib.llama_model_free(self._model)
        self._context = self._model = None

    # -- the engine's interface -------------------------------------------------------------------

    @property
    def busy(self) -> bool:
        """Whether a call of :meth:`step` would do anything."""
        return bool(self._running or self._queue)

    def submit(self, job: Job) -> None:
        """Queue a job. Faults of the job itself come out of :meth:`step` as ``Failed``."""
        self._queue.append(job)

    def cancel(self, job_id: int) -> None:
        """End a job at the next step; unknown ids are ignored."""
        known = (*(s.job for s in self._running), *self._queue)
        if any(job.id == job_id for job in known):
            self._cancelled.add(job_id)

    def step(self) -> list[Event]:
        """Decode once, for all sequences that have something to decode; return what came of it."""
        events: list[Event] = []
        if self._cancelled:
            events += self._end_cancelled()
        while self._queue and len(self._running) < self._parallel:
            events += self._admit(self._queue.popleft())
        if self._running:
            shares = self._fill()
            events += self._decode(shares, 0, shares[-1].end)
        return events

    # -- jobs come and go -------------------------------------------------------------------------

    def _end_cancelled(self) -> Iterator[Event]:
        cancelled, self._cancelled = self._cancelled, set()
        for sequence in [s for s in self._running if s.job.id in cancelled]:
            yield self._finish(sequence, "cancelled")
        for job in [job for job in self._queue if job.id in cancelled]:
            self._queue.remove(job)
            yield Finished(job.id, "cancelled", 0, 0, 0, 0)

    def _admit(self, job: Job) -> list[Event]:
        began = time.monotonic_ns()
        try:
            prompt = self._prompts.build(job)
            samplers = plan(job.sampling, n_vocab=self._vocabulary.size, n_context=self._n_context)
        except SealiftError as error:
            return [Failed(job.id, error.code, error.what, error.why, error.hint)]
        slot = choose(self._slots, prompt)
        if slot is None:  # never: step() admits only while fewer run than there are slots
            raise WorkerFailed("the engine has no free slot")
        reused = self._reuse(slot, prompt, fresh=job.sampling.seed >= 0)
        self._turn += 1
        slot.taken, slot.used = True, self._turn
        wanted = job.sampling.num_predict
        self._running.append(
            _Sequence(
                job=job,
                slot=slot,
                prompt=prompt,
                reused=reused,
                answer=Answer(job.id, job.sampling.stop),
                sampler=None if samplers.is_argmax else self._build(samplers, prompt),
                limit=wanted if wanted >= 0 else math.inf,
                began=began,
            )
        )
        return []

    def _reuse(self, slot: Slot, prompt: list[int], *, fresh: bool) -> int:
        """Keep of a slot what the prompt begins with; drop the rest. Returns the tokens kept."""
        # One token at least is decoded: its logits are where the answer begins.
        keep = 0 if fresh else min(common_prefix(slot.cached, prompt), len(prompt) - 1)
        if self._window and keep:
            # A sliding window has forgotten what is before it.
            oldest = lib.llama_memory_seq_pos_min(self._memory, slot.id)
            keep = keep if 0 <= oldest <= max(0, keep - self._window) else 0
        if not lib.llama_memory_seq_rm(self._memory, slot.id, keep, -1):
            # Recurrent memory cannot lose a part.
            lib.llama_memory_seq_rm(self._memory, slot.id, -1, -1)
            keep = 0
        del slot.cached[keep:]
        return keep

    def _build(self, samplers: Plan, prompt: list[int]) -> Any:
        chain = lib.llama_sampler_chain_init(lib.llama_sampler_chain_default_params())
        for sampler in self._links(samplers):
            lib.llama_sampler_chain_add(chain, sampler)
        if samplers.penalties is not None:
            for token in prompt[-samplers.penalties.last_n :]:
                lib.llama_sampler_accept(chain, token)
        return chain

    def _links(self, samplers: Plan) -> Iterator[Any]:
        size = self._vocabulary.size
        if samplers.bias:
            biases = (lib.llama_logit_bias * len(samplers.bias))(*samplers.bias)
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

    def _finish(self, sequence: _Sequence, reason: FinishReason) -> Finished:
        self._release(sequence)
        now = time.monotonic_ns()
        prompt_ns = sequence.prompt_ns or now - sequence.began
        return Finished(
            job=sequence.job.id,
            reason=reason,
            prompt_tokens=len(sequence.prompt),
            output_tokens=len(sequence.output),
            prompt_ns=prompt_ns,
            eval_ns=now - sequence.began - prompt_ns,
            context=(*sequence.prompt, *sequence.output) if sequence.job.want_context else (),
        )

    def _release(self, sequence: _Sequence) -> None:
        self._running.remove(sequence)
        sequence.slot.taken = False
        _free(sequence.sampler)

    # -- one step -----------------------------------------------------------------------------------

    def _fill(self) -> list[_Share]:
        """Fill the batch: a token of every answer, then of prompts what there is room for."""
        shares: list[_Share] = []
        row = 0
        for sequence in self._running:
            if sequence.following >= 0:
                self._put(row, sequence, [sequence.following])
                shares.append(_Share(sequence, row, row + 1, wanted=True))
                row += 1
        end = min(self._batch.rows, row + limits.PROMPT_TOKENS_BESIDE) if row else self._batch.rows
        for sequence in self._running:
            if sequence.following < 0 and row < end:
                done = len(sequence.slot.cached)
                tokens = sequence.prompt[done : done + end - row]
                self._put(row, sequence, tokens)
                last = done + len(tokens) == len(sequence.prompt)
                shares.append(_Share(sequence, row, row + len(tokens), wanted=last))
                self._batch.wanted[row + len(tokens) - 1] = last
                row += len(tokens)
        return shares

    def _put(self, row: int, sequence: _Sequence, tokens: list[int]) -> None:
        batch, count, position = self._batch, len(tokens), len(sequence.slot.cached)
        batch.token[row : row + count] = tokens
        batch.position[row : row + count] = range(position, position + count)
        batch.sequence[row : row + count] = sequence.slot.id
        batch.wanted[row : row + count] = 0
        batch.wanted[row + count - 1] = 1

    def _decode(self, shares: list[_Share], start: int, end: int) -> list[Event]:
        """Decode rows ``start`` to ``end``, in halves if they find no room at once."""
        code = lib.llama_decode(self._context, self._batch.view(start, end))
        if code == 1 and self._purge():
            code = lib.llama_decode(self._context, self._batch.view(start, end))
        if code == 0:
            return self._settle(shares, start, end)
        if code == 1 and end - start > 1:
            middle = (start + end) // 2
            return [*self._decode(shares, start, middle), *self._decode(shares, middle, end)]
        return self._give_up(shares, start, end, code)

    def _purge(self) -> bool:
        """Empty the slots that no job has. Returns whether there was anything to empty."""
        idle = [slot for slot in self._slots if not slot.taken and slot.cached]
        for slot in idle:
            lib.llama_memory_seq_rm(self._memory, slot.id, -1, -1)
            slot.cached.clear()
        return bool(idle)

    def _give_up(self, shares: list[_Share], start: int, end: int, code: int) -> list[Event]:
        events: list[Event] = []
        for share in shares:
            sequence = share.sequence
            if share.start < end and share.end > start and sequence in self._running:
                self._release(sequence)
                lib.llama_memory_seq_rm(self._memory, sequence.slot.id, -1, -1)
                sequence.slot.cached.clear()
                error = WorkerFailed("the engine cannot decode", why=f"llama_decode gave {code}")
                events.append(Failed(sequence.job.id, error.code, error.what, error.why))
        return events

    def _settle(self, shares: list[_Share], start: int, end: int) -> list[Event]:
        """Book what was decoded, and choose the next token where logits are."""
        events: list[Event] = []
        for share in shares:
            first, after = max(share.start, start), min(share.end, end)
            if first >= after or share.sequence not in self._running:
                continue
            share.sequence.slot.cached += self._batch.token[first:after].tolist()
            if share.wanted and after == share.end:
                events += self._advance(share.sequence, after - 1 - start)
        return events

    def _advance(self, sequence: _Sequence, row: int) -> Iterator[Event]:
        if not sequence.prompt_ns:
            sequence.prompt_ns = time.monotonic_ns() - sequence.began
            yield Started(
                sequence.job.id, len(sequence.prompt), sequence.reused, sequence.prompt_ns
            )
            if not sequence.limit:
                yield self._finish(sequence, "length")
                return
        if sequence.sampler is None:
            token = int(self._logits(row).argmax())
        else:
            token = lib.llama_sampler_sample(sequence.sampler, self._context, row)
        if self._vocabulary.ends(token):
            yield from self._end(sequence, "stop")
            return
        sequence.output.append(token)
        sampling = sequence.job.sampling
        logprob = self._logprob(row, token, sampling.top_logprobs) if sampling.logprobs else None
        piece = sequence.answer.feed(self._vocabulary.piece(token), logprob)
        if piece is not None:
            yield piece
        sequence.following = token
        if sequence.answer.stopped:
            yield self._finish(sequence, "stop")
        elif len(sequence.output) >= sequence.limit or len(sequence.slot.cached) >= self._n_context:
            yield from self._end(sequence, "length")

    def _end(self, sequence: _Sequence, reason: FinishReason) -> Iterator[Event]:
        piece = sequence.answer.finish()
        if piece is not None:
            yield piece
        yield self._finish(sequence, reason)

    def _logits(self, row: int) -> npt.NDArray[np.float32]:
        pointer = lib.llama_get_logits_ith(self._context, row)
        return np.ctypeslib.as_array(pointer, (self._vocabulary.size,))

    def _logprob(self, row: int, token: int, alternatives: int) -> dict[str, Any]:
        logits = self._logits(row)
        top = float(logits.max())
        total = top + math.log(float(np.exp(logits - top).sum()))

        def entry(which: int) -> dict[str, Any]:
            piece = self._vocabulary.piece(which)
            return {
                "token": piece.decode("utf-8", "replace"),
                "logprob": float(logits[which]) - total,
                "bytes": list(piece),
            }

        best: list[int] = []
        if alternatives:
            best = np.argpartition(logits, -alternatives)[-alternatives:].tolist()
            best.sort(key=lambda which: -float(logits[which]))
        return {**entry(token), "top_logprobs": [entry(which) for which in best]}


def _free(sampler: Any) -> None:
    if sampler is not None:
        lib.llama_sampler_free(sampler)


def _load_failed(what: str) -> LoadFailed:
    return LoadFailed(
        what,
        why=" / ".join(_log.errors) or "it gave no reason",
        hint="Check the model with `sealift show`, or give it less context.",
    )
