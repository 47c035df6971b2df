"""Texts ordered by how well they answer a question: ``/v1/rerank``, ``/rerank``. Pure.

Source: llama-server's ``/v1/rerank``, which follows Jina's API, and takes the body of Hugging
Face's text-embeddings-inference (``texts``) as well. Ollama has no such endpoint.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from runtime.messages import Event, Rank, Ranked
from runtime.server.body import Fields
from runtime.server.embedding import Wanted
from runtime.server.ollama import parse_keep_alive
from runtime.server.requests import parse_model
from schemas import limits
from schemas.errors import UsageError, WorkerFailed


@dataclass(frozen=True, slots=True)
class Ranking:
    """A request for an order.

    Attributes:
        wanted: The task.
        texts: As they came, for the answer.
        most: How many of them are given back.
        texts_too: Whether with their words.
        bare: Whether as text-embeddings-inference does: an array of scores.
    """

    wanted: Wanted
    texts: tuple[str, ...]
    most: int
    texts_too: bool
    bare: bool


def parse_rerank(body: dict[str, Any]) -> Ranking:
    """The body of all these endpoints.

    Raises:
        UsageError: A field is wrong.
    """
    fields = Fields(body)
    name, reference = parse_model(fields.text("model"))
    query = fields.text("query")
    if not query:
        raise UsageError('"query" is required')
    bare = fields.raw("documents") is None and fields.raw("texts") is not None
    texts = _texts(fields, "texts" if bare else "documents")
    task = Rank(0, query, texts, truncate=fields.flag("truncate", default=False))
    wanted = Wanted(name, reference, task, keep_alive_ms=parse_keep_alive(fields.raw("keep_alive")))
    most = fields.integer("top_n", 1, limits.JSON_INTEGER)
    return Ranking(
        wanted=wanted,
        texts=texts,
        most=len(texts) if most is None else most,
        texts_too=fields.flag("return_text" if bare else "return_documents", default=False),
        bare=bare,
    )


def _texts(fields: Fields, key: str) -> tuple[str, ...]:
    """Strings, or objects with a ``text``."""
    items = fields.items(key)
    if not items:
        raise UsageError(f'"{key}" is required')
    if len(items) > limits.RERANK_DOCUMENTS:
        raise UsageError(f'"{key}" has more than {limits.RERANK_DOCUMENTS} texts')
    texts = []
    for at, item in enumerate(items):
        path = f"{key}[{at}]"
        text = item if isinstance(item, str) else Fields.of(item, path).text("text")
        if text is None:
            raise UsageError(f'"{path}" must be a string, or an object with a "text"')
        texts.append(text)
    return tuple(texts)


def rerank_document(ranking: Ranking, event: Event) -> dict[str, Any] | list[dict[str, Any]]:
    """The answer: the best first."""
    if not isinstance(event, Ranked):
        raise WorkerFailed("the worker answered something else")
    order = sorted(enumerate(event.scores), key=lambda pair: -pair[1])[: ranking.most]
    if ranking.bare:
        return [
            {
                "index": at,
                "score": score,
                **({"text": ranking.texts[at]} if ranking.texts_too else {}),
            }
            for at, score in order
        ]
    results: list[dict[str, Any]] = []
    for at, score in order:
        entry: dict[str, Any] = {"index": at, "relevance_score": score}
        if ranking.texts_too:
            entry["document"] = {"text": ranking.texts[at]}
        results.append(entry)
    usage = {"prompt_tokens": event.prompt_tokens, "total_tokens": event.prompt_tokens}
    return {"object": "list", "model": ranking.wanted.name, "results": results, "usage": usage}
