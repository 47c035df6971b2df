"""Arithmetic of memory: cells, types of cache, windows, states, accelerators, and what would fit."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.fit import Layer, Shape, estimate, longest_context, most_sequences, placed
from runtime.messages import WorkerSpec
from schemas import limits
from schemas.errors import UsageError

MIB = limits.MIB
LAYER = Layer(key=192, value=192, windowed=False, state=0, weights=10 * MIB)
SHAPE = Shape(
    architecture="llama",
    layers=(LAYER,) * 30,
    weights=340 * MIB,
    doubled=0,
    window=0,
    embedding=576,
    heads=9,
    queries=576,
    inner=1536,
    vocabulary=49_152,
    merges=48_900,
    trained=8192,
    pools=False,
)
SPEC = WorkerSpec("/m", context_length=4096, num_parallel=2)


def test_a_cache_of_16_bit_floats() -> None:
    assert estimate(SHAPE, SPEC).cache == 30 * 8192 * (192 + 192) * 2


def test_cells_come_in_blocks_of_256() -> None:
    short = estimate(SHAPE, replace(SPEC, context_length=100, num_parallel=1))
    assert short.cache == 30 * 256 * 384 * 2
    assert (
        estimate(SHAPE, replace(SPEC, context_length=100, num_parallel=3)).cache == 3 * short.cache
    )
    assert (
        estimate(SHAPE, replace(SPEC, context_length=257, num_parallel=1)).cache == 2 * short.cache
    )


@pytest.mark.parametrize(("kind", "row"), [("q8_0", 34 * 6), ("q4_0", 18 * 6), ("f16", 384)])
def test_types_of_cache(kind: str, row: int) -> None:
    assert estimate(SHAPE, replace(SPEC, kv_type=kind)).cache == 30 * 8192 * 2 * row


def test_an_unknown_type_is_an_error() -> None:
    with pytest.raises(UsageError, match="no cache of type 'f17'"):
        estimate(SHAPE, replace(SPEC, kv_type="f17"))


def test_windows_keep_the_last_tokens_only() -> None:
    layers = (replace(LAYER, windowed=True), LAYER)
    found = estimate(replace(SHAPE, layers=layers, window=1024), SPEC)
    held = 2 * 1536  # per sequence 1024 and one microbatch of 512
    assert found.cache == (8192 + held) * 384 * 2
    short = replace(SPEC, context_length=300, num_parallel=1)
    assert estimate(replace(SHAPE, layers=layers, window=1024), short).cache == 2 * 512 * 384 * 2


def test_states_are_per_sequence() -> None:
    layers = (Layer(0, 0, windowed=False, state=1000, weights=0),) * 3
    for context in (512, 65_536):
        spec = replace(SPEC, context_length=context, num_parallel=5)
        assert estimate(replace(SHAPE, layers=layers), spec).cache == 3 * 5 * 1000


def test_without_flash_attention_scores_take_room() -> None:
    off = estimate(SHAPE, replace(SPEC, flash_attention="off")).compute
    assert off - estimate(SHAPE, SPEC).compute >= 9 * 512 * 4096 * 4


def test_accelerators_take_the_last_layers_first() -> None:
    some = estimate(SHAPE, replace(SPEC, num_gpu=11))  # ten layers, and the output
    whole = estimate(SHAPE, SPEC)
    assert whole.weights - some.weights == 100 * MIB
    assert some.cache * 3 == whole.cache * 2
    assert some.device == 100 * MIB + whole.cache // 3
    everything = estimate(SHAPE, replace(SPEC, num_gpu=99))
    assert everything.cache == 0
    assert everything.weights == 40 * MIB


def test_layers_go_where_the_engine_can_put_them() -> None:
    spec = replace(SPEC, num_gpu=-1)
    assert placed(spec, offloads=False).num_gpu == 0
    assert placed(replace(spec, num_gpu=7), offloads=False).num_gpu == 0
    assert placed(spec, offloads=True).num_gpu > len(SHAPE.layers)
    assert placed(replace(spec, num_gpu=7), offloads=True).num_gpu == 7


def test_a_model_for_vectors_takes_all_rows_at_once() -> None:
    encoder = replace(SHAPE, layers=(replace(LAYER, key=0, value=0),) * 4, pools=True, trained=512)
    short = estimate(encoder, replace(SPEC, context_length=512))
    long = estimate(encoder, replace(SPEC, context_length=8192))
    assert short.cache == long.cache == 0
    assert long.compute > 10 * short.compute
    assert estimate(encoder, replace(SPEC, context_length=100_000)) == long


@given(
    context=st.integers(1, 100_000),
    parallel=st.integers(1, 64),
    kind=st.sampled_from(["f16", "q8_0", "q4_0"]),
)
def test_more_never_takes_less(context: int, parallel: int, kind: str) -> None:
    spec = WorkerSpec("/m", context_length=context, num_parallel=parallel, kv_type=kind)
    here = estimate(SHAPE, spec).total
    assert estimate(SHAPE, replace(spec, context_length=context + 1)).total >= here
    assert estimate(SHAPE, replace(spec, num_parallel=parallel + 1)).total >= here
    assert estimate(SHAPE, replace(spec, kv_type="f16")).total >= here


@given(room=st.integers(0, 4000))
def test_the_longest_context_fits_and_one_more_step_does_not(room: int) -> None:
    found = longest_context(SHAPE, SPEC, room * MIB, 100_000)
    assert found % 256 == 0 or found == 100_000
    if found:
        assert estimate(SHAPE, replace(SPEC, context_length=found)).total <= room * MIB
    if found < 100_000:
        more = replace(SPEC, context_length=min(found + 256, 100_000))
        assert estimate(SHAPE, more).total > room * MIB


@given(room=st.integers(0, 40_000))
def test_the_most_sequences_fit_and_one_more_does_not(room: int) -> None:
    found = most_sequences(SHAPE, SPEC, room * MIB)
    if found:
        assert estimate(SHAPE, replace(SPEC, num_parallel=found)).total <= room * MIB
    if found < limits.NUM_PARALLEL:
        assert estimate(SHAPE, replace(SPEC, num_parallel=found + 1)).total > room * MIB


def test_the_document() -> None:
    found = estimate(SHAPE, SPEC)
    document = found.document()
    assert document["total"] == found.weights + found.cache + found.compute + found.process
    kept = estimate(SHAPE, replace(SPEC, prompt_cache=100 * MIB))
    assert kept.total - found.total == kept.prompts == 100 * MIB
    assert estimate(SHAPE, replace(SPEC, prompt_cache=1 << 40)).prompts == found.cache
    assert document["device"] == 0
    assert found.own == found.total - found.weights
