"""The runtime's view of a model: how a worker loads it."""

from __future__ import annotations

import json
from dataclasses import asdict

from runtime.messages import WorkerSpec
from runtime.models import Model
from runtime.options import NO_OPTIONS, Options
from tests.support.models import FACTS, model


def spec(which: Model, options: Options = NO_OPTIONS, context: int = 0) -> WorkerSpec:
    return which.worker_spec(options, context=context, parallel=2, threads=3)


def test_defaults() -> None:
    made = spec(model())
    assert made == WorkerSpec("/nowhere/tiny", num_parallel=2, num_threads=3)
    json.dumps(asdict(made))


def test_who_decides_the_context_length() -> None:
    own = model(options=Options({}, {"num_ctx": 1024}))
    assert spec(own, Options({}, {"num_ctx": 512}), 2048).context_length == 512
    assert spec(own, context=2048).context_length == 1024
    assert spec(model(), context=2048).context_length == 2048
    assert spec(model(), context=100_000).context_length == 8192  # what it was trained for
    assert spec(model(facts={}), context=100_000).context_length == 100_000
    assert spec(model(), Options({}, {"num_ctx": 1})).context_length == 4
    assert spec(model(facts={**FACTS, "context_length": 128})).context_length == 128


def test_loading_options() -> None:
    wanted = Options({}, {"num_batch": 64, "num_gpu": 0, "num_thread": 1})
    made = spec(model(), wanted)
    assert (made.num_batch, made.num_gpu, made.num_threads) == (64, 0, 1)
