"""Options: Ollama's types and texts, the model's parameters beneath, defaults at the bottom."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.messages import Sampling
from runtime.options import NO_OPTIONS, Options, parse_options
from schemas.errors import UsageError

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=6,
)
NAMES = st.sampled_from(
    ["temperature", "top_k", "seed", "stop", "num_ctx", "num_predict", "use_mmap", "repeat_penalty"]
)


@given(st.dictionaries(NAMES, JSON))
def test_any_options_give_a_sampling_or_our_error(value: dict[str, Any]) -> None:
    try:
        options = parse_options(value)
    except UsageError:
        return
    assert isinstance(options.make_sampling(), Sampling)
    assert all(number > 0 or name == "num_gpu" for name, number in options.runner.items())


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("temperature", "hot", 'option "temperature" must be of type float32'),
        ("temperature", True, 'option "temperature" must be of type float32'),
        ("top_k", "40", 'option "top_k" must be of type integer'),
        ("use_mmap", 1, 'option "use_mmap" must be of type boolean'),
        ("stop", "x", 'option "stop" must be of type array'),
        ("stop", [1], 'option "stop" must be of an array of strings'),
        ("top_p", 1.5, 'option "top_p" must be between 0 and 1'),
        ("num_ctx", -1, 'option "num_ctx" must be between 0 and 1.67772e+07'),
    ],
)
def test_wrong_options_have_ollamas_words(name: str, value: object, text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_options({name: value})
    assert caught.value.line() == text


def test_unknown_and_null_options_are_ignored() -> None:
    assert parse_options({"mirostat": 1, "nonsense": "x", "top_k": None}) == NO_OPTIONS
    assert parse_options(None) == NO_OPTIONS


def test_several_ways_to_say_the_same() -> None:
    assert parse_options({"top_k": 40.7}).sampling == {"top_k": 40}
    assert parse_options({"top_k": -1}).sampling == {"top_k": 0}
    assert parse_options({"num_predict": -2}).sampling == {"num_predict": -1}
    assert parse_options({"num_predict": 0}).sampling == {"num_predict": -1}
    assert parse_options({"seed": -5}).sampling == {"seed": -1}
    assert parse_options({"seed": 2**32 - 1}).sampling == {"seed": 0}
    assert parse_options({"repeat_penalty": 0}).sampling == {"repeat_penalty": 1.0}
    assert parse_options({"stop": ["", "a", "a"]}).sampling == {"stop": ("a",)}


def test_the_request_wins_over_the_model_and_the_model_over_the_defaults() -> None:
    model = Options({"temperature": 0.1, "top_k": 7}, {"num_ctx": 1024})
    merged = Options({"temperature": 0.5}).over(model)
    sampling = merged.make_sampling()
    assert (sampling.temperature, sampling.top_k, sampling.top_p) == (0.5, 7, 0.9)
    assert merged.runner == {"num_ctx": 1024}
