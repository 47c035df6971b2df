"""What a header tells of a model's layers: against what llama.cpp's sources say."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping

import pytest

from registry.gguf import read_header
from runtime.fit import Shape, shape_of
from runtime.fit.shape import copied_types
from schemas.errors import MalformedModel
from tests.gguf_files import Pieces, array, scalar, string, strings, tensor, u32

Value = int | bool | list[int] | list[bool]


def value(of: Value) -> bytes:
    if isinstance(of, bool):
        return scalar(7, "B", of)
    if isinstance(of, int):
        return u32(of)
    if all(isinstance(item, bool) for item in of):
        return array(7, [struct.pack("<B", item) for item in of])
    return array(5, [struct.pack("<i", item) for item in of])


def shape(
    architecture: str, keys: Mapping[str, Value], *tensors: tuple[str, tuple[int, ...]]
) -> Shape:
    """A model of these measures; its tensors are 32-bit floats."""
    offset, table = 0, []
    for name, dims in tensors or (("token_embd.weight", (32, 4)),):
        table.append(tensor(name, dims, 0, offset))
        size = 4
        for dim in dims:
            size *= dim
        offset += -(-size // 32) * 32
    pieces = Pieces(
        metadata=(
            ("general.architecture", string(architecture)),
            ("tokenizer.ggml.model", string("gpt2")),
            ("tokenizer.ggml.tokens", strings("a", "b", "c", "d")),
            ("tokenizer.ggml.merges", strings("a b", "b c")),
            *((f"{architecture}.{key}", value(of)) for key, of in keys.items()),
        ),
        tensors=tuple(table),
        data_bytes=offset,
    )
    data = pieces.build()
    return shape_of(read_header(data, len(data)))


PLAIN: dict[str, Value] = {
    "block_count": 4,
    "embedding_length": 64,
    "attention.head_count": 8,
    "context_length": 1000,
    "feed_forward_length": 200,
}


def keys(found: Shape) -> list[int]:
    return [layer.key for layer in found.layers]


def windowed(found: Shape) -> list[bool]:
    return [layer.windowed for layer in found.layers]


def states(found: Shape) -> list[bool]:
    return [layer.state > 0 for layer in found.layers]


def test_plain() -> None:
    found = shape("llama", PLAIN)
    assert keys(found) == [64] * 4
    assert [layer.value for layer in found.layers] == [64] * 4
    assert (found.heads, found.queries, found.inner, found.trained) == (8, 64, 200, 1000)
    assert (found.vocabulary, found.merges, found.window, found.pools) == (4, 2, 0, False)
    assert not any(windowed(found))


def test_grouped_queries_and_odd_heads() -> None:
    grouped = shape(
        "llama",
        {
            **PLAIN,
            "attention.head_count_kv": 2,
            "attention.key_length": 16,
            "attention.value_length": 24,
        },
    )
    assert keys(grouped) == [32] * 4
    assert [layer.value for layer in grouped.layers] == [48] * 4
    assert grouped.queries == 128
    by_layer = shape("openelm", {**PLAIN, "attention.head_count_kv": [1, 2, 3, 4]})
    assert keys(by_layer) == [8, 16, 24, 32]
    short = shape("openelm", {**PLAIN, "attention.head_count_kv": [1, 2]})
    assert keys(short) == [8, 16, 0, 0]


@pytest.mark.parametrize(
    ("architecture", "more", "expected"),
    [
        ("gemma3", {"attention.sliding_window": 512}, [True] * 5 + [False, True]),
        ("gemma2", {}, [True, False, True, False, True, False, True]),
        ("gpt-oss", {"attention.sliding_window": 128}, [True, False] * 3 + [True]),
        ("cohere2moe", {"attention.sliding_window": 64}, [False, *[True] * 3, False, True, True]),
        (
            "gemma3",
            {"attention.sliding_window": 512, "attention.sliding_window_pattern": 2},
            [True, False, True, False, True, False, True],
        ),
        (
            "gemma4",
            {
                "attention.sliding_window": 512,
                "attention.sliding_window_pattern": [True, False, False, True, True, True, False],
            },
            [True, False, False, True, True, True, False],
        ),
        ("gemma3", {}, [False] * 7),
        ("phi3", {"attention.sliding_window": 2047}, [False] * 7),  # the engine ignores it
        ("llama", {"attention.sliding_window": 4096}, [False] * 7),
        ("exaone4", {"attention.sliding_window": 4096}, [False] * 7),
    ],
)
def test_windows(architecture: str, more: dict[str, Value], expected: list[bool]) -> None:
    found = shape(architecture, {**PLAIN, "block_count": 7, **more})
    assert windowed(found) == expected
    assert bool(found.window) == any(expected)


def test_heads_of_another_size_in_windows() -> None:
    found = shape(
        "gemma4",
        {
            **PLAIN,
            "attention.sliding_window": 512,
            "attention.sliding_window_pattern": [True, True, True, False],
            "attention.key_length": 32,
            "attention.value_length": 32,
            "attention.key_length_swa": 16,
            "attention.value_length_swa": 16,
            "attention.head_count_kv": [4, 4, 4, 1],
        },
    )
    assert keys(found) == [64, 64, 64, 32]


def test_latent_attention_keeps_no_values() -> None:
    found = shape(
        "deepseek2",
        {
            **PLAIN,
            "attention.head_count_kv": 1,
            "attention.key_length": 576,
            "attention.value_length": 512,
            "attention.key_length_mla": 192,
            "attention.value_length_mla": 128,
        },
    )
    assert keys(found) == [576] * 4
    assert {layer.value for layer in found.layers} == {0}


SSM: dict[str, Value] = {"ssm.conv_kernel": 4, "ssm.inner_size": 128, "ssm.state_size": 16}


def test_recurrent_models_keep_states_only() -> None:
    mamba = shape("mamba", {"block_count": 2, "embedding_length": 64, **SSM})
    assert keys(mamba) == [0, 0]
    assert [layer.state for layer in mamba.layers] == [4 * (3 * 128 + 16 * 128)] * 2
    grouped = shape(
        "mamba2", {"block_count": 1, "embedding_length": 64, **SSM, "ssm.group_count": 2}
    )
    assert grouped.layers[0].state == 4 * (3 * (128 + 2 * 2 * 16) + 16 * 128)
    rwkv = shape("rwkv7", {"block_count": 1, "embedding_length": 64, "wkv.head_size": 32})
    assert rwkv.layers[0].state == 4 * 64 * (2 + 32)


def test_hybrids() -> None:
    by_heads = shape(
        "lfm2", {**PLAIN, "attention.head_count_kv": [0, 2, 0, 2], "shortconv.l_cache": 3}
    )
    assert keys(by_heads) == [0, 16, 0, 16]
    assert [layer.state for layer in by_heads.layers] == [4 * 64 * 2, 0, 4 * 64 * 2, 0]
    by_interval = shape("qwen3next", {**PLAIN, **SSM, "block_count": 8})
    assert states(by_interval) == [True, True, True, False] * 2
    assert [bool(key) for key in keys(by_interval)] == [False, False, False, True] * 2
    both = shape("falcon-h1", {**PLAIN, **SSM})
    assert all(states(both))
    assert all(keys(both))
    mixed = shape(
        "nemotron_h",
        {
            **PLAIN,
            **SSM,
            "attention.head_count_kv": [0, 0, 2, 0],
            "feed_forward_length": [0, 512, 0, 0],
        },
    )
    assert states(mixed) == [True, False, False, True]
    assert keys(mixed) == [0, 0, 16, 0]


def test_layers_that_share_or_are_not_loaded() -> None:
    shared = shape(
        "gemma4",
        {
            **PLAIN,
            "attention.shared_kv_layers": 1,
            "attention.sliding_window": 512,
            "attention.sliding_window_pattern": [True, False, True, False],
        },
    )
    assert keys(shared) == [64, 64, 64, 0]
    ahead = shape("glm4moe", {**PLAIN, "nextn_predict_layers": 1})
    assert keys(ahead) == [64, 64, 64, 0]


@pytest.mark.parametrize("architecture", ["bert", "nomic-bert", "gemma-embedding"])
def test_encoders_keep_nothing(architecture: str) -> None:
    found = shape(architecture, {**PLAIN, "pooling_type": 1, "attention.sliding_window": 512})
    assert not any(keys(found))
    assert found.pools


def test_experts_widen_the_buffers() -> None:
    found = shape("qwen3moe", {**PLAIN, "expert_feed_forward_length": 768, "expert_used_count": 8})
    assert found.inner == 8 * 768


def test_weights_by_layer() -> None:
    found = shape(
        "llama",
        {**PLAIN, "block_count": 2},
        ("token_embd.weight", (64, 4)),
        ("blk.0.attn_q.weight", (64, 64)),
        ("blk.1.ffn_up.weight", (64, 300)),
        ("blk.1.ffn_norm.weight", (64,)),
        ("blk.7.lost", (8,)),
        ("blk.x.lost", (8,)),
    )
    assert [layer.weights for layer in found.layers] == [4 * 64 * 64, 4 * (64 * 300 + 64)]
    assert found.weights == 4 * (64 * 4 + 64 * 64 + 64 * 300 + 64 + 16)
    assert found.inner == 300
    assert found.doubled == 0


def test_processors_with_amx_have_more_copied() -> None:
    plain = copied_types("flags\t\t: fpu avx2 avx512f amx_bf16\n")
    assert plain < copied_types("flags\t\t: fpu avx2 amx_bf16 amx_tile amx_int8\n")
    assert "Q4_1" not in plain
    assert "F32" not in copied_types("amx_tile amx_int8")
    assert copied_types("") == plain


@pytest.mark.parametrize(
    "spoil",
    [
        lambda: shape("llama", {**PLAIN, "block_count": 513}),
        lambda: shape("llama", {**PLAIN, "block_count": 2**32 - 1}),
    ],
)
def test_too_many_layers(spoil: Callable[[], Shape]) -> None:
    with pytest.raises(MalformedModel, match="layers, the engine takes 512"):
        spoil()


@pytest.mark.parametrize("architecture", ["llama", "mamba", "gemma3", "qwen3next", "falcon-h1"])
def test_a_header_that_tells_nothing_is_measured_all_the_same(architecture: str) -> None:
    found = shape(architecture, {})
    assert found.layers == ()
    bare = shape(architecture, {"block_count": 3})
    assert len(bare.layers) == 3
    assert {layer.key for layer in bare.layers} == {0}
