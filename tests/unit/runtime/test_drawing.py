"""Draws among the most probable tokens, against the same steps written plainly."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.engine.drawing import Draw
from runtime.engine.sampling import plan
from runtime.messages import Sampling
from schemas.errors import WorkerFailed

VOCABULARY = 500


def probabilities(logits: npt.NDArray[np.float32], sampling: Sampling) -> dict[int, float]:
    """Of each token that may be drawn."""
    order = sorted(range(len(logits)), key=lambda token: -logits[token])[: sampling.top_k]
    mass = [math.exp(logits[token] - logits[order[0]]) for token in order]
    count = len(order)
    if sampling.top_p < 1:
        count = next(
            n for n in range(1, len(order) + 1) if sum(mass[:n]) >= sampling.top_p * sum(mass)
        )
    kept = [t for t, m in zip(order[:count], mass, strict=False) if m >= sampling.min_p] or order[
        :1
    ]
    weights = [math.exp((logits[t] - logits[order[0]]) / sampling.temperature) for t in kept]
    return {t: weight / sum(weights) for t, weight in zip(kept, weights, strict=True)}


def drawing(sampling: Sampling) -> Draw:
    made = plan(sampling, n_vocab=VOCABULARY, n_context=100)
    assert Draw.suits(made)
    return Draw(made)


@given(
    seed=st.integers(0, 1000),
    spread=st.floats(0.01, 12),
    top_k=st.integers(1, 60),
    top_p=st.sampled_from([0.1, 0.9, 1.0]),
    min_p=st.sampled_from([0.0, 0.2]),
)
def test_only_what_may_be_drawn_is(
    seed: int, spread: float, top_k: int, top_p: float, min_p: float
) -> None:
    logits = np.random.default_rng(seed).normal(0, spread, VOCABULARY).astype(np.float32)
    sampling = Sampling(seed=seed, top_k=top_k, top_p=top_p, min_p=min_p)
    expected = probabilities(logits, sampling)
    subject = drawing(sampling)
    assert {subject.choose(logits) for _ in range(20)} <= set(expected)


def test_draws_are_as_probable_as_they_should_be() -> None:
    logits = np.zeros(VOCABULARY, dtype=np.float32)
    logits[:6] = [5, 4.5, 4, 4, 3, 1]
    sampling = Sampling(seed=1, top_k=40, top_p=0.95, temperature=1.3)
    expected = probabilities(logits, sampling)
    subject = drawing(sampling)
    found = Counter(subject.choose(logits) for _ in range(20_000))
    for token, share in expected.items():
        assert found[token] / 20_000 == pytest.approx(share, abs=0.015)


def test_the_same_seed_draws_the_same() -> None:
    logits = np.random.default_rng(1).normal(0, 2, (50, VOCABULARY)).astype(np.float32)
    draws = [
        [subject.choose(row) for row in logits]
        for subject in (drawing(Sampling(seed=seed)) for seed in (1, 1, 2))
    ]
    assert draws[0] == draws[1] != draws[2]


def test_what_a_form_forbids_is_never_drawn() -> None:
    logits = np.full(VOCABULARY, -np.inf, dtype=np.float32)
    logits[[7, 9]] = [-90.0, -100.0]
    subject = drawing(Sampling(seed=1, temperature=2.0))
    assert {subject.choose(logits) for _ in range(50)} <= {7, 9}
    logits[:] = -np.inf
    with pytest.raises(WorkerFailed):
        subject.choose(logits)
    logits[3] = np.nan
    with pytest.raises(WorkerFailed):
        subject.choose(logits)


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(temperature=0),
        Sampling(top_k=0),
        Sampling(top_k=400),
        Sampling(typical_p=0.5),
        Sampling(repeat_penalty=1.1),
        Sampling(logit_bias={"1": 2.0}),
    ],
)
def test_other_wishes_are_left_to_others(sampling: Sampling) -> None:
    assert not Draw.suits(plan(sampling, n_vocab=VOCABULARY, n_context=100))
