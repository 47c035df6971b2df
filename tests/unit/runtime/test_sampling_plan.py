from __future__ import annotations

import math
from typing import Any

import pytest

from runtime.engine.sampling import Penalties, plan
from runtime.messages import Sampling
from schemas.errors import UsageError


def made(**options: Any) -> Any:
    return plan(Sampling(**options), n_vocab=100, n_context=50)


def test_the_defaults_need_no_penalties() -> None:
    result = made(seed=5)
    assert (result.penalties, result.bias, result.min_p, result.typical_p) == (None, (), None, None)
    assert (result.top_k, result.top_p, result.temperature, result.seed) == (40, 0.9, 0.8, 5)
    assert not result.is_argmax


def test_greedy_is_the_argmax_and_nothing_else() -> None:
    result = made(temperature=0, top_k=3, top_p=0.1, min_p=0.5)
    assert result.is_argmax
    assert (result.top_k, result.top_p, result.min_p) == (None, None, None)


def test_greedy_with_penalties_needs_the_chain() -> None:
    result = made(temperature=0, repeat_penalty=1.1)
    assert not result.is_argmax
    assert result.penalties == Penalties(50, 1.1, 0.0, 0.0)  # 64, but the context is 50


@pytest.mark.parametrize(("last_n", "expected"), [(-1, 50), (10, 10), (1000, 50)])
def test_penalties_look_back_within_the_context(last_n: int, expected: int) -> None:
    assert made(repeat_penalty=1.1, repeat_last_n=last_n).penalties.last_n == expected


def test_looking_back_on_nothing_is_no_penalty() -> None:
    assert made(repeat_penalty=1.1, repeat_last_n=0).penalties is None


@pytest.mark.parametrize("top_k", [0, -1, 100, 1000])
def test_top_k_that_keeps_everything_is_left_out(top_k: int) -> None:
    assert made(top_k=top_k).top_k is None


def test_a_seed_is_drawn_where_none_is_given() -> None:
    seeds = {made().seed for _ in range(20)}
    assert len(seeds) > 1
    assert all(0 <= seed < 2**32 - 1 for seed in seeds)


@pytest.mark.parametrize("seed", [2**32 - 1, 2**63 - 1])
def test_no_seed_means_draw_one_to_the_engine(seed: int) -> None:
    assert made(seed=seed).seed != 2**32 - 1
    assert made(seed=seed).seed == made(seed=seed).seed


def test_biases_are_token_and_value() -> None:
    assert made(logit_bias={"7": -100.0, "9": 0.0}).bias == ((7, -100.0),)


@pytest.mark.parametrize(
    "options",
    [
        {"temperature": math.nan},
        {"top_p": math.inf},
        {"repeat_penalty": 0.0},
        {"repeat_penalty": -1.0},
        {"logit_bias": {"100": 1.0}},
        {"logit_bias": {"-1": 1.0}},
        {"logit_bias": {"x": 1.0}},
        {"logit_bias": {"9" * 5000: 1.0}},
        {"logit_bias": {"1": math.nan}},
        {"stop": ("x",) * 65},
        {"stop": ("x" * 1025,)},
        {"top_logprobs": 21},
        {"top_logprobs": -1},
    ],
)
def test_what_no_sampler_takes_is_a_usage_error(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        made(**options)
