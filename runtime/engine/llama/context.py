"""What decodes: one context with several sequences, and what chooses their tokens."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import llama_cpp.llama_cpp as lib
import numpy as np
import numpy.typing as npt

from runtime.engine.backend import State
from runtime.engine.constraint import Constraint, Constraints
from runtime.engine.drawing import Draw
from runtime.engine.form import Form
from runtime.engine.llama.batch import Batch
from runtime.engine.llama.loading import Model
from runtime.engine.lookup import MOST
from runtime.engine.sampling import Plan
from runtime.engine.sight import Picture
from schemas.errors import WorkerFailed

_MICROBATCH: Final = 512


@dataclass(frozen=True, slots=True)
class Sampler:
    """What chooses the tokens of one answer.

    Attributes:
        chain: A ``llama_sampler`` chain; None for the argmax, or where there is a draw.
        draw: What draws without a chain, if anything does.
        constraint: The form that it is held to, if any.
    """

    chain: Any
    draw: Draw | None
    constraint: Constraint | None


class Context:
    """A context that generates; a :class:`runtime.engine.backend.Backend`.

    Each sequence has keys and values of its own, so it looks at no cell of others, and what it
    computes does not depend on where theirs lie.

    Args:
        model: Loaded.
        n_context: Tokens per sequence.
        parallel: Number of sequences.

    Raises:
        LoadFailed: It does not fit in memory.
    """

    def __init__(self, model: Model, n_context: int, parallel: int) -> None:
        cells = n_context * parallel
        rows = max(min(model.spec.num_batch, cells), parallel)
        parameters = model.context_parameters()
        parameters.n_ctx = cells
        parameters.n_batch = rows
        parameters.n_ubatch = min(rows, _MICROBATCH)
        parameters.n_seq_max = parallel
        parameters.kv_unified = False
        # Rows of logits: one of each sequence, or several of one; not one per row of the batch.
        parameters.n_outputs_max = min(rows, max(parallel, 1 + MOST))
        self._context = model.context(parameters)
        self._memory = lib.llama_get_memory(self._context)
        self._window: int = lib.llama_model_n_swa(model.pointer)
        self.takes_back = not (
            self._window
            or lib.llama_model_is_recurrent(model.pointer)
            or lib.llama_model_is_hybrid(model.pointer)
            or rows <= MOST
        )
        self._constraints = Constraints(model.vocabulary)
        self.n_vocab = model.vocabulary.size
        self.rows: int = lib.llama_n_batch(self._context)
        self._batch = Batch(self.rows)
        self._views: dict[int, npt.NDArray[np.float32]] = {}  # of rows of logits, by address
        self.ends = model.vocabulary.ends
        self.piece = model.vocabulary.piece

    def close(self) -> None:
        """Free the context; nothing works afterwards."""
        if self._context:
            lib.llama_free(self._context)
        self._context = None

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

    def cut(self, sequence: int, start: int, end: int) -> bool:
        """Drop positions ``start`` to ``end``; those behind move up. False if that cannot be."""
        memory = self._memory
        if not (self.takes_back and lib.llama_memory_can_shift(memory)):
            return False
        if not lib.llama_memory_seq_rm(memory, sequence, start, end):
            return False
        lib.llama_memory_seq_add(memory, sequence, end, -1, start - end)
        return True

    def save(self, sequence: int, most: int) -> State | None:
        """Copy what a sequence holds; None if that is more than ``most`` bytes."""
        size = int(lib.llama_state_seq_get_size_ext(self._context, sequence, 0))
        if not 0 < size <= most:
            return None
        data = np.empty(size, dtype=np.uint8)
        done = lib.llama_state_seq_get_data_ext(self._context, _bytes(data), size, sequence, 0)
        return State(data, size) if done else None

    def load(self, sequence: int, state: State) -> bool:
        """Replace what a sequence holds; false if that failed and it is empty now."""
        self.keep(sequence, 0)
        done = lib.llama_state_seq_set_data_ext(
            self._context, _bytes(state.data), state.size, sequence, 0
        )
        if not done:
            self.keep(sequence, 0)
        return bool(done)

    def put(
        self, row: int, tokens: Sequence[int], position: int, sequence: int, *, wanted: int
    ) -> None:
        """Fill rows of the batch from ``row`` on; compute the logits of the last ``wanted``."""
        batch, end = self._batch, row + len(tokens)
        batch.token[row:end] = tokens
        batch.position[row:end] = range(position, position + len(tokens))
        batch.sequence[row:end] = sequence
        batch.wanted[row:end] = 0
        batch.wanted[end - wanted : end] = 1

    def decode(self, start: int, end: int) -> bool:
        """Decode rows ``start`` to ``end``; false if there is no room for so many at once.

        Raises:
            WorkerFailed: It cannot be done.
        """
        code = lib.llama_decode(self._context, self._batch.view(start, end))
        if code not in (0, 1):
            raise WorkerFailed("the engine cannot decode", why=f"llama_decode gave {code}")
        return bool(code == 0)

    def see(self, picture: Picture, position: int, sequence: int) -> bool:
        """Compute a picture from a position on; false if there is no room for it.

        Raises:
            UnsupportedRequest: It has too many rows that look at each other.
            WorkerFailed: It cannot be done.
        """
        code = picture.data.decode(
            self._context,
            position,
            sequence,
            rows=self.rows,
            together=min(self.rows, _MICROBATCH),
        )
        if code == 1:
            self.keep(sequence, position)
        elif code:
            raise WorkerFailed("the engine cannot compute the image", why=f"it gave {code}")
        return bool(code == 0)

    # -- choosing ---------------------------------------------------------------------------------

    def sampler(self, samplers: Plan, prompt: Sequence[int], form: Form | None) -> Sampler:
        """Build the chain, with the prompt as history for penalties, and the constraint."""
        constraint = self._constraints.make(form) if form is not None else None
        if Draw.suits(samplers):
            return Sampler(None, Draw(samplers), constraint)
        return Sampler(self._chain(samplers, prompt), None, constraint)

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

    def free(self, sampler: Sampler) -> None:
        """Free a chain and what it is made of."""
        if sampler.chain is not None:
            lib.llama_sampler_free(sampler.chain)

    def choose(self, row: int, sampler: Sampler, *, free: bool) -> int:
        """The next token, by the logits of a row, counted from the last decode's ``start``."""
        if (constraint := sampler.constraint) is None or free:
            return self._sample(row, sampler)
        # The most probable token fits nearly always, and one is looked at faster than all.
        greedy = sampler.chain is None and sampler.draw is None
        fits = greedy and constraint.allows(int(self._logits(row).argmax()))
        if not fits:
            constraint.mask(self._logits(row))
        token = self._sample(row, sampler)
        if not self.ends(token):
            constraint.accept(token)
        return token

    def trace(self, row: int) -> bytes:
        """The logits of a row, to be compared."""
        return self._logits(row).tobytes()

    def complete(self, sampler: Sampler) -> bool:
        """Whether the answer has its whole form, and nothing can follow."""
        return sampler.constraint is not None and sampler.constraint.complete

    def _sample(self, row: int, sampler: Sampler) -> int:
        if sampler.draw is not None:
            return sampler.draw.choose(self._logits(row))
        if sampler.chain is None:
            return int(self._logits(row).argmax())
        return int(lib.llama_sampler_sample(sampler.chain, self._context, row))

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
        address = ctypes.addressof(pointer.contents)
        view = self._views.get(address)  # made once: this runs per token, with cold caches
        if view is None:
            view = self._views[address] = np.ctypeslib.as_array(pointer, (self.n_vocab,))
        return view

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


def _bytes(data: npt.NDArray[np.uint8]) -> Any:
    return data.ctypes.data_as(ctypes.POINTER(ctypes.c_uint8))
