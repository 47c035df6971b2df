"""What a model is made of, as far as memory goes, from the header of its file alone.

Everything follows llama.cpp as vendored in llama-cpp-python 0.3.36: ``src/llama-hparams.cpp`` for
the widths, ``src/llama-model.cpp`` (``load_hparams``, ``create_memory``) and ``src/models/*.cpp``
for which layers keep what. Where a header leaves something open the larger figure is taken.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from registry.gguf import GGUFArray, GGUFHeader, TensorInfo
from registry.gguf.tables import ValueType
from schemas import limits
from schemas.errors import MalformedModel

# Sliding windows: every how manieth layer sees everything, where the header does not say, and
# whether that layer comes first of its group. src/models/*.cpp, ``load_swa_pattern``.
_PATTERNS: Final[dict[str, tuple[int, bool]]] = {
    "afmoe": (4, False),
    "cohere2": (4, False),
    "cohere2moe": (4, True),
    "exaone-moe": (4, False),
    "exaone4": (4, False),
    "gemma2": (2, False),
    "gemma3": (6, False),
    "gemma3n": (5, False),
    "gpt-oss": (2, False),
    "laguna": (4, True),
    "llama4": (4, False),
    "mellum": (4, False),
    "muse-glimmer": (4, False),
    "olmo2": (4, False),
    "plamo3": (8, False),
    "smallthinker": (4, True),
}
# These take a pattern from the header only.
_BY_HEADER: Final = frozenset(
    {"dots3note", "gemma4", "granite_swa", "maple", "mimo2", "spark2_5", "step35"}
)
_WINDOWS: Final = {"gemma2": 4096, "exaone4": 4096, "llama4": 8192}  # set by the engine
_LONG_EXAONE: Final = 64  # layers: only the largest EXAONE 4 has windows
_WITHOUT_MEMORY: Final = frozenset(
    """
    bert dream eurobert gemma-embedding jina-bert-v2 jina-bert-v3 llada llada-moe modern-bert
    neo-bert nomic-bert nomic-bert-moe rnd1 wavtokenizer-dec
    """.split()  # noqa: SIM905 - reads better than quoted names
)
_RECURRENT: Final = frozenset({"mamba", "mamba2", "rwkv6", "rwkv6qwen2", "rwkv7", "arwkv7"})
# Hybrids whose recurrent layers are those without heads for keys.
_BY_HEADS: Final = frozenset(
    """
    jamba plamo2 granitehybrid lfm2 lfm2moe nemotron_h nemotron_h_moe kimi-linear kimi-k3
    bailingmoe3 glm5-next
    """.split()  # noqa: SIM905
)
# Hybrids where every so manieth layer attends.
_BY_INTERVAL: Final = {"qwen3next": 4, "qwen35": 4, "qwen35moe": 4, "qwen4exp": 4, "minimax-01": 8}
_SHARED_FROM: Final = {"gemma3n": 20}  # layers from here on use the keys of earlier ones
_FLOAT: Final = 4  # bytes; recurrent states are 32-bit floats


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer.

    Attributes:
        key: Elements that it keeps per token as keys; 0 for a layer that does not attend.
        value: As values.
        windowed: Whether it keeps only the last tokens, as many as the window is wide.
        state: Bytes that it keeps per sequence, however long that is.
        weights: Bytes.
    """

    key: int
    value: int
    windowed: bool
    state: int
    weights: int


@dataclass(frozen=True, slots=True)
class Shape:
    """A model's measures.

    Attributes:
        architecture: As the engine calls it.
        layers: In order.
        weights: Bytes of all tensors.
        doubled: Bytes that the engine keeps twice: an embedding that is also the output.
        window: Tokens that windowed layers keep.
        embedding: Width of the hidden state.
        heads: Of queries, at most.
        queries: Elements of all queries of a token, at most.
        inner: Elements per token between the two halves of the widest feed-forward block.
        vocabulary: Tokens.
        merges: Of the tokenizer.
        trained: Tokens of context that it was trained for; 0 if it does not say.
        pools: Whether it makes one vector of a text, and no text.
        sees: Bytes that a projector beside it takes, with the largest picture.
    """

    architecture: str
    layers: tuple[Layer, ...]
    weights: int
    doubled: int
    window: int
    embedding: int
    heads: int
    queries: int
    inner: int
    vocabulary: int
    merges: int
    trained: int
    pools: bool
    sees: int = 0


# Types that the engine copies into an order of its own, so that it does not map them any more: on
# x86-64 with AVX2 (ggml/src/ggml-cpu/repack.cpp), and for AMX (ggml/src/ggml-cpu/amx/amx.cpp).
_COPIED: Final = frozenset({"Q4_0", "Q4_K", "IQ4_NL", "MXFP4"})
_COPIED_AMX: Final = frozenset({"Q4_0", "Q4_1", "Q8_0", "Q4_K", "Q5_K", "Q6_K", "IQ4_XS", "F16"})
_PROCESSOR: Final = Path("/proc/cpuinfo")
_PROCESSOR_BYTES: Final = 64 * limits.KIB  # the first processor's entry


def copied_types(processor: str) -> frozenset[str]:
    """The types of tensors that the engine keeps outside of the mapped file.

    Args:
        processor: The text of ``/proc/cpuinfo``. An engine built without AMX copies less.
    """
    amx = {"amx_int8", "amx_tile"} <= set(processor.split())
    return _COPIED | _COPIED_AMX if amx else _COPIED


def _processor() -> str:
    try:
        with _PROCESSOR.open("rb") as file:
            return file.read(_PROCESSOR_BYTES).decode("ascii", "replace")
    except OSError:
        return ""


# Read as this is imported: later the front-end sees no such file.
COPIED: Final = copied_types(_processor())


def shape_of(header: GGUFHeader) -> Shape:
    """Measure a model.

    Raises:
        MalformedModel: It claims more layers than the engine takes.
    """
    return _Reader(header).shape()


class _Reader:
    """Reads one header; keys without the architecture's name in front."""

    def __init__(self, header: GGUFHeader) -> None:
        self._header = header
        self._name = header.architecture
        self._count = max(header.block_count or 0, 0)
        if self._count > limits.MODEL_LAYERS:
            raise MalformedModel(
                "the model's measures are out of bounds",
                why=f"{self._count} layers, the engine takes {limits.MODEL_LAYERS}",
            )

    def shape(self) -> Shape:
        header = self._header
        weights, inner_tensors = self._weights_by_layer()
        heads = self._each("attention.head_count")
        head_size = self._number("attention.key_length") or self._per_head(heads)
        merges = header.metadata.get("tokenizer.ggml.merges")
        return Shape(
            architecture=self._name,
            layers=self._layers(weights),
            weights=sum(tensor.size_bytes for tensor in header.tensors),
            doubled=self._doubled(),
            window=self._window(),
            embedding=header.embedding_length or 0,
            heads=max(heads, default=0),
            queries=max(heads, default=0) * head_size,
            inner=self._inner(inner_tensors),
            vocabulary=header.vocabulary_size or 0,
            merges=merges.count if isinstance(merges, GGUFArray) else 0,
            trained=header.context_length or 0,
            pools=f"{self._name}.pooling_type" in header.metadata,
        )

    # -- values -----------------------------------------------------------------------------------

    def _number(self, key: str) -> int:
        """A positive number; 0 if there is none."""
        return max(self._header.integer(f"{self._name}.{key}") or 0, 0)

    def _numbers(self, key: str) -> tuple[int, ...]:
        """An array of numbers or truths; empty if there is none."""
        value = self._header.metadata.get(f"{self._name}.{key}")
        if not isinstance(value, GGUFArray) or value.type in {
            ValueType.STRING,
            ValueType.FLOAT32,
            ValueType.FLOAT64,
        }:
            return ()
        return tuple(max(int(item), 0) for item in value.values()[: limits.MODEL_LAYERS])

    def _each(self, key: str, default: tuple[int, ...] = ()) -> tuple[int, ...]:
        """One number per layer, from one for all or one for each."""
        found = self._numbers(key)
        if found:
            return (*found, *(0,) * self._count)[: self._count]
        if f"{self._name}.{key}" in self._header.metadata:
            return (self._number(key),) * self._count
        return default or (0,) * self._count

    def _per_head(self, heads: tuple[int, ...]) -> int:
        first = heads[0] if heads else 0
        return (self._header.embedding_length or 0) // first if first else 0

    # -- layers -----------------------------------------------------------------------------------

    def _layers(self, weights: list[int]) -> tuple[Layer, ...]:
        keys, values = self._widths()
        windowed = self._windowed()
        recurrent, attends = self._kinds()
        state = self._state()
        return tuple(
            Layer(
                key=keys[n] if attends[n] else 0,
                value=values[n] if attends[n] else 0,
                windowed=windowed[n],
                state=state if recurrent[n] else 0,
                weights=weights[n],
            )
            for n in range(self._count)
        )

    def _widths(self) -> tuple[list[int], list[int]]:
        """Elements of keys and values per token, for each layer as if it attended."""
        heads = self._each("attention.head_count")
        groups = self._each("attention.head_count_kv", heads)
        size = self._per_head(heads)
        key = self._number("attention.key_length") or size
        value = self._number("attention.value_length") or size
        key_windowed = self._number("attention.key_length_swa") or key
        value_windowed = self._number("attention.value_length_swa") or value
        latent = bool(self._number("attention.key_length_mla"))  # values are part of the keys then
        index = self._number("attention.indexer.key_length")
        windowed = self._windowed()
        keys = [
            (key_windowed if windowed[n] else key) * groups[n] + index for n in range(self._count)
        ]
        values = [
            0 if latent else (value_windowed if windowed[n] else value) * groups[n]
            for n in range(self._count)
        ]
        return keys, values

    def _window(self) -> int:
        architecture = self._name
        if architecture == "exaone4" and self._count != _LONG_EXAONE:
            return 0
        if architecture not in _PATTERNS and architecture not in _BY_HEADER | {"lfm2"}:
            return 0
        asked = self._header.integer(f"{architecture}.attention.sliding_window")
        if architecture == "llama4":
            return 0 if asked == 0 else _WINDOWS[architecture]
        return max(asked if asked is not None else _WINDOWS.get(architecture, 0), 0)

    def _windowed(self) -> list[bool]:
        """Which layers have a window."""
        if not self._window():
            return [False] * self._count
        own = self._numbers("attention.sliding_window_pattern")
        if own:
            return [bool(flag) for flag in (*own, *(0,) * self._count)[: self._count]]
        if self._name == "lfm2":
            recurrent, _ = self._kinds()
            return [not state for state in recurrent]
        if self._name not in _PATTERNS:
            return [False] * self._count
        period, dense_first = _PATTERNS[self._name]
        period = self._number("attention.sliding_window_pattern") or period
        dense = 0 if dense_first else period - 1
        return [n % period != dense for n in range(self._count)]

    def _kinds(self) -> tuple[list[bool], list[bool]]:
        """Which layers have a state of fixed size, and which keep keys and values."""
        count, name = self._count, self._name
        every = [True] * count
        none = [False] * count
        if name in _WITHOUT_MEMORY:
            return none, none
        if name in _RECURRENT:
            return every, none
        if name == "falcon-h1":
            return every, every
        trunk = count - self._number("nextn_predict_layers")  # what predicts ahead is not loaded
        if name in _BY_HEADS:
            groups = self._each("attention.head_count_kv")
            widths = self._each("feed_forward_length")
            mixed = name.startswith("nemotron_h")  # there a layer may be a feed-forward block alone
            recurrent = [groups[n] == 0 and not (mixed and widths[n]) for n in range(count)]
        elif name in _BY_INTERVAL:
            own = self._numbers("attention.recurrent_layers")
            interval = self._number("full_attention_interval") or _BY_INTERVAL[name]
            recurrent = [
                bool(own[n]) if n < len(own) else (n + 1) % interval != 0 for n in range(count)
            ]
        else:
            recurrent = none
        recurrent = [recurrent[n] and n < trunk for n in range(count)]
        shared = self._number("attention.shared_kv_layers")
        last = min(trunk, count - shared, _SHARED_FROM.get(name, count))
        return recurrent, [not recurrent[n] and n < last for n in range(count)]

    def _state(self) -> int:
        """Bytes that a recurrent layer keeps per sequence (``n_embd_r``, ``n_embd_s``)."""
        embedding = self._header.embedding_length or 0
        heads = max(self._each("attention.head_count"), default=0)
        kernel = self._number("ssm.conv_kernel")
        if head := self._number("wkv.head_size"):
            shifts = self._number("token_shift_count") or 2
            return _FLOAT * embedding * (shifts + head)
        if cache := self._number("shortconv.l_cache"):
            return _FLOAT * embedding * (cache - 1)
        if head := self._number("kda.head_dim"):
            conv = 3 * (kernel - 1 if kernel else 3) * heads * head
            return _FLOAT * (conv + head * head * heads)
        if self._name == "minimax-01":
            head = self._number("attention.key_length") or self._per_head((heads,))
            return _FLOAT * head * head * heads
        inner, state = self._number("ssm.inner_size"), self._number("ssm.state_size")
        groups = self._number("ssm.group_count")
        return _FLOAT * (max(kernel - 1, 0) * (inner + 2 * groups * state) + inner * state)

    # -- weights ----------------------------------------------------------------------------------

    def _weights_by_layer(self) -> tuple[list[int], int]:
        """Bytes of each layer, and the widest feed-forward block that a tensor shows."""
        weights = [0] * self._count
        widest = 0
        for tensor in self._header.tensors:
            parts = tensor.name.split(".", 2)
            if len(parts) == 3 and parts[0] == "blk" and parts[1].isdecimal():
                number = int(parts[1])
                if number < self._count:
                    weights[number] += tensor.size_bytes
                if parts[2] in {"ffn_up.weight", "ffn_gate.weight"} and len(tensor.dims) > 1:
                    widest = max(widest, tensor.dims[1])
        return weights, widest

    def _inner(self, widest: int) -> int:
        """Elements per token of the widest feed-forward block, all experts of a token counted."""
        plain = max(widest, *self._each("feed_forward_length"), 0)
        expert = max(self._each("expert_feed_forward_length"), default=0)
        used = max(self._each("expert_used_count"), default=0)
        if used and not expert:
            expert = plain
        shared = self._number("expert_shared_feed_forward_length") or expert * self._number(
            "expert_shared_count"
        )
        recurrent = 2 * self._number("ssm.inner_size")
        return max(plain, expert * used + shared, recurrent)

    def _doubled(self) -> int:
        by_name: dict[str, TensorInfo] = {tensor.name: tensor for tensor in self._header.tensors}
        tied = by_name.get("token_embd.weight")
        if tied is None or "output.weight" in by_name or tied.type not in COPIED:
            return 0
        return tied.size_bytes
