"""From the sampling options of a job to the samplers that it needs, neutral ones left out.

Order as in llama-server: bias, penalties, top-k, typical, top-p, min-p, temperature, draw.
Penalties that do nothing cost some 160 microseconds a token, and top-p without top-k 350, so the
plan holds nothing that changes nothing, and top-k comes as early as it may.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from typing import Final

from runtime.messages import Sampling
from schemas import limits
from schemas.errors import UsageError

# The largest seed means "draw one" to llama.cpp (LLAMA_DEFAULT_SEED), so it is never passed on.
_SEEDS: Final = 2**32 - 1


@dataclass(frozen=True, slots=True)
class Penalties:
    """Arguments of the penalties sampler.

    Attributes:
        last_n: Tokens looked back on.
        repeat: Divides the logits of tokens seen.
        frequency: Taken off per occurrence.
        presence: Taken off once.
    """

    last_n: int
    repeat: float
    frequency: float
    presence: float


@dataclass(frozen=True, slots=True)
class Plan:
    """The samplers of one job, in order. None or an empty tuple is a sampler left out.

    Attributes:
        bias: (token id, added to its logit).
        penalties: As above.
        top_k: Most candidates kept.
        typical_p: Mass of the locally typical set.
        top_p: Mass of the nucleus.
        min_p: Least probability relative to the best.
        temperature: Divides the logits; None is greedy.
        seed: For the draw.
    """

    bias: tuple[tuple[int, float], ...]
    penalties: Penalties | None
    top_k: int | None
    typical_p: float | None
    top_p: float | None
    min_p: float | None
    temperature: float | None
    seed: int

    @property
    def is_argmax(self) -> bool:
        """Whether the next token is simply the one with the largest logit."""
        return self.temperature is None and not self.bias and self.penalties is None


def plan(sampling: Sampling, *, n_vocab: int, n_context: int) -> Plan:
    """Decide what to build.

    Args:
        sampling: As asked for.
        n_vocab: Number of tokens of the model.
        n_context: Tokens of context, for ``repeat_last_n`` of -1.

    Raises:
        UsageError: A value that no sampler takes.
    """
    _check(sampling)
    greedy = sampling.temperature <= 0
    return Plan(
        bias=_bias(sampling.logit_bias, n_vocab),
        penalties=_penalties(sampling, n_context),
        top_k=None if greedy or not 0 < sampling.top_k < n_vocab else sampling.top_k,
        typical_p=None if greedy or sampling.typical_p >= 1 else sampling.typical_p,
        top_p=None if greedy or sampling.top_p >= 1 else sampling.top_p,
        min_p=None if greedy or sampling.min_p <= 0 else sampling.min_p,
        temperature=None if greedy else sampling.temperature,
        seed=(sampling.seed % _SEEDS) if sampling.seed >= 0 else random.randrange(_SEEDS),  # noqa: S311
    )


def _check(sampling: Sampling) -> None:
    for name in (
        "temperature",
        "top_p",
        "min_p",
        "typical_p",
        "repeat_penalty",
        "presence_penalty",
        "frequency_penalty",
    ):
        if not math.isfinite(getattr(sampling, name)):
            raise UsageError(f"the option {name} is not a finite number")
    if sampling.repeat_penalty <= 0:
        raise UsageError("the option repeat_penalty is not above 0")
    if len(sampling.stop) > limits.STOP_STRINGS:
        raise UsageError("too many stop strings", why=f"more than {limits.STOP_STRINGS}")
    if any(len(stop) > limits.STOP_CHARS for stop in sampling.stop):
        raise UsageError("a stop string is too long", why=f"over {limits.STOP_CHARS} characters")
    if not 0 <= sampling.top_logprobs <= limits.TOP_LOGPROBS:
        raise UsageError(f"the option top_logprobs is not within 0 and {limits.TOP_LOGPROBS}")


def _penalties(sampling: Sampling, n_context: int) -> Penalties | None:
    last_n = n_context if sampling.repeat_last_n < 0 else min(sampling.repeat_last_n, n_context)
    values = (sampling.repeat_penalty, sampling.frequency_penalty, sampling.presence_penalty)
    if last_n == 0 or values == (1, 0, 0):
        return None
    return Penalties(last_n, *values)


def _bias(biases: dict[str, float], n_vocab: int) -> tuple[tuple[int, float], ...]:
    result = []
    for text, bias in biases.items():
        if not (text.isascii() and text.isdigit() and len(text) < 10 and int(text) < n_vocab):
            raise UsageError("the option logit_bias names a token that the model does not have")
        if math.isnan(bias):
            raise UsageError("a value of the option logit_bias is not a number")
        if bias != 0:
            result.append((int(text), bias))
    return tuple(result)
