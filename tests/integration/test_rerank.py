"""Reranking with the real engine: a tiny model, checked against the same arithmetic in NumPy."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from registry.gguf import model_facts, read_header_file
from runtime.engine.llama import LlamaEngine
from runtime.messages import Embed, Event, Failed, Rank, Ranked, Task, WorkerSpec
from tests.serving import install, serving
from tests.support.reranker import Reranker, make_reranker

QUERY = "What is the capital of France?"
TEXTS = (
    "paris",
    "a dog is an animal",
    "the cat",
    "",
    "paris is the capital of france",
    "dog " * 20,
)


@pytest.fixture(scope="module")
def reranker(tmp_path_factory: pytest.TempPathFactory) -> Reranker:
    return make_reranker(tmp_path_factory.mktemp("reranker") / "model.gguf")


@pytest.fixture
def engine(reranker: Reranker) -> Iterator[LlamaEngine]:
    found = LlamaEngine(WorkerSpec(str(reranker.path), context_length=64, num_threads=1))
    yield found
    found.close()


def run(engine: LlamaEngine, task: Task) -> Event:
    engine.submit(task)
    events: list[Event] = []
    while engine.busy:
        events += engine.step()
    (event,) = events
    return event


def test_scores_are_the_models(engine: LlamaEngine, reranker: Reranker) -> None:
    event = run(engine, Rank(1, QUERY, TEXTS))
    assert isinstance(event, Ranked)
    assert event.scores == pytest.approx([reranker.score(QUERY, x) for x in TEXTS], abs=5e-3)
    assert event.prompt_tokens == sum(len(reranker.tokens(QUERY, x)) for x in TEXTS)
    assert len(set(event.scores)) == len(TEXTS)


def test_many_texts_score_as_each_alone(engine: LlamaEngine) -> None:
    texts = TEXTS * 20
    event = run(engine, Rank(1, QUERY, texts))
    assert isinstance(event, Ranked)
    for text, score in list(zip(texts, event.scores, strict=True))[-6:]:
        alone = run(engine, Rank(2, QUERY, (text,)))
        assert isinstance(alone, Ranked)
        assert alone.scores[0] == pytest.approx(score, abs=5e-3)


def test_texts_that_are_too_long(engine: LlamaEngine) -> None:
    long = "dog " * 100
    event = run(engine, Rank(1, QUERY, (long,)))
    assert isinstance(event, Failed)
    assert event.code == "prompt-too-long"
    event = run(engine, Rank(2, QUERY, (long,), truncate=True))
    assert isinstance(event, Ranked)
    assert event.prompt_tokens == 64
    event = run(engine, Rank(3, long, ("dog",), truncate=True))
    assert isinstance(event, Failed)


def test_a_reranker_embeds_nothing(engine: LlamaEngine) -> None:
    event = run(engine, Embed(1, ("x",)))
    assert isinstance(event, Failed)
    assert event.code == "unsupported"


def test_what_it_can_do_is_known(reranker: Reranker) -> None:
    assert model_facts(read_header_file(reranker.path)).capabilities == ("rerank",)


def test_over_http(reranker: Reranker, tmp_path: Path) -> None:
    install(tmp_path / "home", reranker.path, "me/reranker:1")
    with serving(tmp_path / "home", num_threads="1") as server:
        body = {"model": "me/reranker:1", "query": QUERY, "documents": list(TEXTS), "top_n": 2}
        for path in ("/v1/rerank", "/rerank"):
            document = server.post(path, body)
            scores = [reranker.score(QUERY, text) for text in TEXTS]
            best = sorted(range(len(TEXTS)), key=lambda at: -scores[at])[:2]
            assert [entry["index"] for entry in document["results"]] == best
        status, _, _ = server.request("POST", "/v1/chat/completions", {**body, "messages": []})
        assert status == 400
