"""Reranking: requests in, the order out."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given

from runtime.messages import Embedded, Rank, Ranked, task_document, task_from_document
from runtime.server.rerank import parse_rerank, rerank_document
from schemas import limits
from schemas.errors import SealiftError, UsageError, WorkerFailed
from tests.support.requests import bodies

BODY: dict[str, Any] = {
    "model": "tiny",
    "query": "What?",
    "documents": ["a", {"text": "b"}, "c"],
    "top_n": 2,
    "return_documents": True,
    "truncate": True,
    "keep_alive": "1m",
}
RANKED = Ranked(1, (0.5, -2.0, 3.25), 12)


@given(bodies({**BODY, "texts": ["x"], "return_text": True}))
def test_any_body(body: dict[str, Any]) -> None:
    try:
        task = parse_rerank(body).wanted.task
        assert task_from_document(task_document(task)) == task
    except SealiftError as error:
        status = error.http_status
        assert 400 <= status < 500


def test_the_best_come_first() -> None:
    ranking = parse_rerank(BODY)
    assert ranking.wanted.task == Rank(0, "What?", ("a", "b", "c"), truncate=True)
    assert rerank_document(ranking, RANKED) == {
        "object": "list",
        "model": "tiny",
        "results": [
            {"index": 2, "relevance_score": 3.25, "document": {"text": "c"}},
            {"index": 0, "relevance_score": 0.5, "document": {"text": "a"}},
        ],
        "usage": {"prompt_tokens": 12, "total_tokens": 12},
    }
    plain = parse_rerank({"model": "tiny", "query": "x", "documents": ["a", "b", "c"]})
    document: Any = rerank_document(plain, RANKED)
    assert [entry["index"] for entry in document["results"]] == [2, 0, 1]
    assert all("document" not in entry for entry in document["results"])


def test_the_form_of_text_embeddings_inference() -> None:
    ranking = parse_rerank({"model": "tiny", "query": "x", "texts": ["a", "b", "c"], "top_n": 1})
    assert rerank_document(ranking, RANKED) == [{"index": 2, "score": 3.25}]
    body = {"model": "tiny", "query": "x", "texts": ["a", "b", "c"], "return_text": True}
    document: Any = rerank_document(parse_rerank(body), RANKED)
    assert document[0] == {"index": 2, "score": 3.25, "text": "c"}


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"model": None}, "model is required"),
        ({"query": ""}, '"query" is required'),
        ({"documents": []}, '"documents" is required'),
        ({"documents": [1]}, r'"documents\[0\]" must be an object'),
        ({"documents": [{}]}, r'"documents\[0\]" must be a string, or an object with a "text"'),
        ({"documents": ["x"] * (limits.RERANK_DOCUMENTS + 1)}, "more than"),
        ({"top_n": 0}, '"top_n" must be between 1'),
    ],
)
def test_refusals(change: dict[str, Any], text: str) -> None:
    with pytest.raises(UsageError, match=text):
        parse_rerank({**BODY, **change})


def test_another_answer_of_the_worker_is_a_fault() -> None:
    with pytest.raises(WorkerFailed):
        rerank_document(parse_rerank(BODY), Embedded(1, (), 0))
