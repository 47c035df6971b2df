"""How much memory a model takes once it is loaded in a certain way: arithmetic, no engine.

Weights, states, keys and values are exact, by the formulas of llama.cpp as vendored in
llama-cpp-python 0.3.36 (``src/llama-kv-cache.cpp``, ``src/llama-kv-cache-iswa.cpp``,
``src/llama-memory-recurrent.cpp``). The buffers of a computation follow from the graph that the
engine builds; theirs is an upper estimate by the tensors that live at one time
(``src/llama-graph.cpp``). What the process itself needs was measured.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from registry.gguf.tables import TENSOR_TYPES
from runtime.fit.shape import Layer, Shape
from runtime.messages import WorkerSpec
from schemas import limits
from schemas.errors import UsageError

_ROWS: Final = {kind.name.lower(): (kind.block, kind.block_bytes) for kind in TENSOR_TYPES.values()}
_PADDING: Final = 256  # cells; llama-context.cpp, n_ctx
_MICROBATCH: Final = 512  # as runtime.engine.llama.context
_OUTPUTS: Final = 5  # rows of logits at least: a token and four guessed ones
_EMBEDDED: Final = 64  # sequences at once, as runtime.engine.llama.embedding
_FLOAT: Final = 4
_MASK_FLASH: Final = 2  # bytes per element: 16-bit floats
_STREAMS: Final = 7  # hidden states that live at one time, measured
_HALVES: Final = 2  # of a feed-forward block
_SMALL: Final = limits.MIB  # norms, what tensors are aligned to
_PER_ROW: Final = 64  # positions, sequences, outputs
# Measured: interpreter, NumPy, the engine's library and the frames in flight; per token its text in
# the engine and here; per merge its entry in the engine's table.
_PROCESS: Final = 56 * limits.MIB
_PER_TOKEN: Final = 320
_PER_MERGE: Final = 160


@dataclass(frozen=True, slots=True)
class Estimate:
    """Bytes in main memory, and on accelerators.

    Attributes:
        weights: Of the model, mapped from its file or copied from it.
        cache: Keys, values and states.
        compute: Buffers of a computation.
        process: The worker itself, with the vocabulary.
        prompts: What prompts may take whose place in the cache another one took.
        device: Of weights and cache, what lies on accelerators instead.
        projector: For pictures: another model's weights and buffers, and a picture.
    """

    weights: int
    cache: int
    compute: int
    process: int
    prompts: int = 0
    device: int = 0
    projector: int = 0

    @property
    def total(self) -> int:
        """In main memory."""
        own = self.cache + self.compute + self.process + self.prompts + self.projector
        return self.weights + own

    @property
    def own(self) -> int:
        """In main memory, without the weights: what no other process can share."""
        return self.total - self.weights

    def document(self) -> dict[str, int]:
        """For JSON."""
        return {
            "weights": self.weights,
            "cache": self.cache,
            "compute": self.compute,
            "process": self.process,
            "prompts": self.prompts,
            "projector": self.projector,
            "total": self.total,
            "device": self.device,
        }


def estimate(shape: Shape, spec: WorkerSpec) -> Estimate:
    """What a worker takes that loads a model of this shape.

    Args:
        shape: Of the model.
        spec: How it is loaded. ``num_gpu`` counts from the last layer on, the output as one more;
            negative counts as none.

    Raises:
        UsageError: There is no such type of cache.
    """
    device_layers = min(max(spec.num_gpu, 0), len(shape.layers) + 1)
    first = len(shape.layers) + 1 - device_layers  # the first layer that is not in main memory
    offloaded = sum(layer.weights for layer in shape.layers[first:])
    measure = _embedder if shape.pools else _generator
    cache, device_cache, compute = measure(shape, spec, first)
    return Estimate(
        weights=shape.weights + shape.doubled - offloaded,
        cache=cache,
        compute=compute,
        process=_PROCESS + _PER_TOKEN * shape.vocabulary + _PER_MERGE * shape.merges,
        prompts=0 if shape.pools else min(spec.prompt_cache, cache + device_cache),
        device=offloaded + device_cache,
        projector=0 if shape.pools else shape.sees,
    )


def embedding(shape: Shape, spec: WorkerSpec) -> int:
    """Bytes more, once a model that makes text is asked for vectors too."""
    return 0 if shape.pools else sum(_embedder(shape, spec, len(shape.layers) + 1))


def _generator(shape: Shape, spec: WorkerSpec, first: int) -> tuple[int, int, int]:
    """Cache in main memory, cache elsewhere, buffers: a context that makes text.

    Each sequence has cells of its own (``kv_unified`` off).
    """
    sequences = max(spec.num_parallel, 1)
    asked = max(spec.context_length, limits.LEAST_CONTEXT_TOKENS) * sequences
    cells = _padded(_padded(asked) // sequences)  # of each sequence
    batch = max(min(spec.num_batch, asked), sequences)
    rows = min(batch, _MICROBATCH)
    windowed = _padded(min(cells, shape.window + rows)) if shape.window else 0
    row = _row_size(spec.kv_type)
    sizes = [sequences * _layer_bytes(layer, cells, windowed, row) for layer in shape.layers]
    compute = _compute(shape, rows, cells, windowed, flash=spec.flash_attention != "off")
    outputs = min(batch, max(sequences, _OUTPUTS))
    logits = _FLOAT * shape.vocabulary * outputs
    return sum(sizes[:first]), sum(sizes[first:]), compute + logits


def _embedder(shape: Shape, spec: WorkerSpec, first: int) -> tuple[int, int, int]:
    """As :func:`_generator`, of a context that makes vectors: all rows of a text at once.

    All sequences share the cells.
    """
    rows = min(spec.context_length, limits.EMBED_TOKENS)
    sequences = min(_EMBEDDED, rows)
    cells = _padded(rows)
    windowed = _padded(min(cells, shape.window * sequences + rows)) if shape.window else 0
    row = _row_size(spec.kv_type)
    sizes = [
        _layer_bytes(layer, cells, windowed, row) + layer.state * (sequences - 1)
        for layer in shape.layers
    ]
    compute = _compute(shape, rows, cells, windowed, flash=spec.flash_attention != "off")
    vectors = _FLOAT * (shape.vocabulary + shape.embedding) * sequences
    return sum(sizes[:first]), sum(sizes[first:]), compute + vectors


def _layer_bytes(layer: Layer, cells: int, windowed: int, row: Callable[[int], int]) -> int:
    """What a layer keeps of so many cells, and the state of one sequence."""
    held = windowed if layer.windowed else cells
    return held * (row(layer.key) + row(layer.value)) + layer.state


def _compute(shape: Shape, rows: int, cells: int, windowed: int, *, flash: bool) -> int:
    """Buffers of the largest graph: one microbatch over a full cache."""
    mask = rows * (cells + windowed) * (_MASK_FLASH if flash else _FLOAT)
    scores = 0 if flash else _FLOAT * rows * max(cells, windowed) * shape.heads
    widest = max((layer.key + layer.value for layer in shape.layers), default=0)
    attention = shape.queries + widest
    states = sum(layer.state > 0 for layer in shape.layers[:1])  # a recurrent model's own streams
    width = _STREAMS * shape.embedding + max(_HALVES * shape.inner, attention)
    streams = _FLOAT * rows * (width + states * shape.embedding)
    return mask + scores + streams + _PER_ROW * rows + _SMALL


def _padded(cells: int) -> int:
    return -(-cells // _PADDING) * _PADDING


def _row_size(kind: str) -> Callable[[int], int]:
    """``ggml_row_size`` of a type."""
    if kind not in _ROWS:
        raise UsageError(f"there is no cache of type {kind[:40]!r}")
    block, block_bytes = _ROWS[kind]
    return lambda width: -(-width // block) * block_bytes


def longest_context(shape: Shape, spec: WorkerSpec, room: int, most: int) -> int:
    """The longest context per sequence that fits, in steps of 256 tokens.

    Args:
        shape: Of the model.
        spec: How it would be loaded otherwise.
        room: Bytes that there are.
        most: Tokens; not looked beyond.

    Returns:
        Tokens, ``most`` at most; 0 if not even the shortest fits.
    """

    def fits(context: int) -> bool:
        return estimate(shape, replace(spec, context_length=context)).total <= room

    if fits(most):
        return most
    return _PADDING * _largest(lambda steps: fits(steps * _PADDING), most // _PADDING)


def most_sequences(shape: Shape, spec: WorkerSpec, room: int) -> int:
    """The most sequences at once that fit, each with the context of ``spec``; 0 if not one does."""

    def fits(count: int) -> bool:
        return estimate(shape, replace(spec, num_parallel=count)).total <= room

    return _largest(fits, limits.NUM_PARALLEL)


def _largest(fits: Callable[[int], bool], most: int) -> int:
    """The largest number up to ``most`` that fits, where all smaller ones do; 0 if none does."""
    low, high = 0, most
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle) else (low, middle - 1)
    return low
