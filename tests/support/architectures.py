"""Models of several architectures with real measures that the engine loads, and nothing in them.

The tensors are holes in sparse files: they cost no room on the disk, and all weights are zero.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np

Dims = tuple[int, ...]
EMBEDDING = 512
INNER = 1536
BLOCKS = 6
HEADS = 8
TOKENS = ("<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)))


@dataclass(frozen=True)
class Kind:
    """An architecture.

    Attributes:
        name: As the engine calls it.
        keys: Metadata beside the usual ones, without the name in front.
        block: The tensors of a block, by its number; dimensions as the engine writes them.
        more: Tensors outside of blocks, beside the embedding and the last norm.
    """

    name: str
    keys: Mapping[str, int | float | list[int]]
    block: Callable[[int], Mapping[str, Dims]]
    more: Mapping[str, Dims]


def attention(groups: int, size: int) -> dict[str, Dims]:
    return {
        "attn_norm": (EMBEDDING,),
        "attn_q": (EMBEDDING, HEADS * size),
        "attn_k": (EMBEDDING, groups * size),
        "attn_v": (EMBEDDING, groups * size),
        "attn_output": (HEADS * size, EMBEDDING),
    }


FEED: dict[str, Dims] = {
    "ffn_norm": (EMBEDDING,),
    "ffn_gate": (EMBEDDING, INNER),
    "ffn_up": (EMBEDDING, INNER),
    "ffn_down": (INNER, EMBEDDING),
}
NORMS: dict[str, Dims] = {
    "post_attention_norm": (EMBEDDING,),
    "post_ffw_norm": (EMBEDDING,),
}
_MAMBA = {"ssm.conv_kernel": 4, "ssm.inner_size": 1024, "ssm.state_size": 16}
_MAMBA_BLOCK: dict[str, Dims] = {
    "attn_norm": (EMBEDDING,),
    "ssm_in": (EMBEDDING, 2048),
    "ssm_conv1d": (4, 1024),
    "ssm_conv1d.bias": (1024,),
    "ssm_x": (1024, 32 + 2 * 16),
    "ssm_dt": (32, 1024),
    "ssm_dt.bias": (1024,),
    "ssm_a": (16, 1024),
    "ssm_d": (1024,),
    "ssm_out": (1024, EMBEDDING),
}
_GEMMA3 = {
    "attention.key_length": 64,
    "attention.value_length": 64,
    "attention.head_count_kv": 4,
    "attention.sliding_window": 512,
}
_EXPERTS: dict[str, Dims] = {
    "ffn_norm": (EMBEDDING,),
    "ffn_gate_inp": (EMBEDDING, 8),
    "ffn_gate_exps": (EMBEDDING, 256, 8),
    "ffn_up_exps": (EMBEDDING, 256, 8),
    "ffn_down_exps": (256, EMBEDDING, 8),
}
_HEAD_NORMS: dict[str, Dims] = {"attn_q_norm": (64,), "attn_k_norm": (64,)}
_CONV: dict[str, Dims] = {
    "attn_norm": (EMBEDDING,),
    "shortconv.conv": (3, EMBEDDING),
    "shortconv.in_proj": (EMBEDDING, 3 * EMBEDDING),
    "shortconv.out_proj": (EMBEDDING, EMBEDDING),
}


def _lfm2(number: int) -> Mapping[str, Dims]:
    own = {**attention(2, 64), **_HEAD_NORMS} if number % 3 == 2 else _CONV
    return {**own, **FEED}


_PLAIN = ("ssm_a", "ssm_conv1d.weight", "shortconv.conv.weight")
KINDS = (
    Kind("llama", {"attention.head_count_kv": 8}, lambda _: {**attention(8, 64), **FEED}, {}),
    Kind("llama", {"attention.head_count_kv": 2}, lambda _: {**attention(2, 64), **FEED}, {}),
    Kind(
        "gemma2",
        {
            "attention.key_length": 128,
            "attention.value_length": 128,
            "attention.head_count_kv": 4,
            "attention.sliding_window": 1024,
        },
        lambda _: {**attention(4, 128), **FEED, **NORMS},
        {},
    ),
    Kind(
        "gemma3",
        _GEMMA3,
        lambda _: {**attention(4, 64), **FEED, **NORMS, **_HEAD_NORMS},
        {},
    ),
    Kind(
        "qwen3moe",
        {
            "attention.key_length": 64,
            "attention.value_length": 64,
            "attention.head_count_kv": 2,
            "expert_count": 8,
            "expert_used_count": 2,
            "expert_feed_forward_length": 256,
        },
        lambda _: {**attention(2, 64), **_EXPERTS, **_HEAD_NORMS},
        {},
    ),
    Kind("mamba", {**_MAMBA, "ssm.time_step_rank": 32}, lambda _: _MAMBA_BLOCK, {}),
    Kind(
        "lfm2",
        {"shortconv.l_cache": 3, "attention.head_count_kv": [0, 0, 2, 0, 0, 2]},
        _lfm2,
        {"token_embd_norm.weight": (EMBEDDING,)},
    ),
)


def write(path: Path, kind: Kind) -> Path:
    """Write one."""
    writer = gguf.GGUFWriter(path, kind.name)
    writer.add_type("model")
    writer.add_context_length(32_768)
    writer.add_embedding_length(EMBEDDING)
    writer.add_block_count(BLOCKS)
    writer.add_feed_forward_length(0 if kind.name == "mamba" else INNER)
    writer.add_head_count(0 if kind.name == "mamba" else HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    for key, value in kind.keys.items():
        name = f"{kind.name}.{key}"
        if isinstance(value, list):
            writer.add_array(name, value)
        else:
            writer.add_uint32(name, int(value))
    writer.add_tokenizer_model("llama")
    writer.add_token_list(list(TOKENS))
    writer.add_token_scores([0.0] * len(TOKENS))
    writer.add_token_types([2, 3, 3, *[6] * 256])
    tensors: dict[str, Dims] = {
        "token_embd.weight": (EMBEDDING, len(TOKENS)),
        "output_norm.weight": (EMBEDDING,),
        **kind.more,
    }
    if kind.name == "lfm2":  # its last norm has another name
        del tensors["output_norm.weight"]
    for number in range(BLOCKS):
        for name, dims in kind.block(number).items():
            bare = name in {"ssm_a", "ssm_d"} or name.endswith(".bias")
            tensors[f"blk.{number}.{name}" + ("" if bare else ".weight")] = dims
    size = 0
    for name, dims in tensors.items():
        # Norms, convolutions and the like are 32-bit floats, as converters write them.
        plain = len(dims) == 1 or name.endswith(_PLAIN)
        dtype = np.dtype(np.float32 if plain else np.float16)
        count = int(np.prod(dims)) * dtype.itemsize
        writer.add_tensor_info(name, tuple(reversed(dims)), dtype, count)
        size += -(-count // 32) * 32
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    with path.open("r+b") as file:
        end = file.seek(0, 2)
        file.truncate(-(-end // 32) * 32 + size)
    return path
