"""Texts to vectors and to tokens, in the dialects of Ollama and OpenAI.

Source: Ollama's ``docs/api.md`` and ``server/routes.go`` as of v0.33; the OpenAI API reference; for
tokens, which neither has, the names of llama-server. Pure but for :func:`run_task`.
"""

from __future__ import annotations

import base64
import math
import time
from array import array
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any

from registry.reference import Reference
from runtime.messages import LAST, Chat, Embed, Embedded, Event, Rank, Text, Tokenize, Tokenized
from runtime.options import NO_OPTIONS, Options, parse_options
from runtime.server.answering import raise_if_failed
from runtime.server.backend import Backend
from runtime.server.body import Fields
from runtime.server.ollama import message, parse_keep_alive
from runtime.server.requests import COMPLETION, Timing, parse_model
from schemas import limits
from schemas.errors import NotFound, UnsupportedRequest, UsageError, WorkerFailed


@dataclass(frozen=True, slots=True)
class Wanted:
    """A request for vectors or tokens.

    Attributes:
        name: The model's name as the client wrote it.
        reference: The same, parsed.
        task: Without its id.
        dimensions: Of the vectors; None for all.
        options: How the model is loaded.
        keep_alive_ms: As of a generation.
        packed: Whether vectors come in base64.
    """

    name: str
    reference: Reference
    task: Embed | Rank | Tokenize
    dimensions: int | None = None
    options: Options = NO_OPTIONS
    keep_alive_ms: int | None = None
    packed: bool = False


# -- requests -----------------------------------------------------------------------------------


def parse_embed(body: dict[str, Any], key: str) -> Wanted:
    """``POST /api/embed`` (``input``) and ``/api/embeddings`` (``prompt``).

    Raises:
        UsageError: A field is wrong.
    """
    fields = Fields(body)
    name, reference = parse_model(fields.text("model"))
    texts = _texts(fields.raw(key), key)
    return Wanted(
        name,
        reference,
        Embed(0, texts, truncate=fields.flag("truncate", default=True)),
        dimensions=fields.integer("dimensions", 0, limits.CONTEXT_TOKENS) or None,
        options=parse_options(fields.raw("options")),
        keep_alive_ms=parse_keep_alive(fields.raw("keep_alive")),
    )


def parse_openai(body: dict[str, Any]) -> Wanted:
    """``POST /v1/embeddings``.

    Raises:
        UsageError: A field is wrong.
        UnsupportedRequest: The input is token ids.
    """
    fields = Fields(body)
    name, reference = parse_model(fields.text("model"))
    texts = _texts(fields.raw("input"), "input")
    if not texts:
        raise UsageError('"input" is required')
    form = fields.text("encoding_format") or "float"
    if form not in ("float", "base64"):
        raise UsageError('"encoding_format" must be float or base64')
    return Wanted(
        name,
        reference,
        Embed(0, texts, truncate=False),  # too long is an error here, as in the API reference
        dimensions=fields.integer("dimensions", 1, limits.CONTEXT_TOKENS),
        packed=form == "base64",
    )


def parse_tokenize(body: dict[str, Any]) -> Wanted:
    """``POST /api/tokenize``: ``text``, or ``messages`` as of a chat.

    Raises:
        UsageError: A field is wrong.
    """
    fields = Fields(body)
    name, reference = parse_model(fields.text("model"))
    turns = fields.objects("messages")
    text = fields.text("text")
    if text is None:
        text = fields.text("content")  # llama-server's name for it
    if (text is None) == (not turns):
        raise UsageError('give either "text" or "messages"')
    prompt: Chat | Text = Text(text or "", special=fields.flag("parse_special", default=False))
    if turns:
        tools = tuple(tool.value for tool in fields.objects("tools"))
        prompt = Chat(tuple(map(message, turns)), tools=tools)
    return Wanted(
        name,
        reference,
        Tokenize(0, prompt),
        options=parse_options(fields.raw("options")),
        keep_alive_ms=parse_keep_alive(fields.raw("keep_alive")),
    )


def parse_detokenize(body: dict[str, Any]) -> Wanted:
    """``POST /api/detokenize``.

    Raises:
        UsageError: A field is wrong.
    """
    fields = Fields(body)
    name, reference = parse_model(fields.text("model"))
    tokens = fields.items("tokens")
    if len(tokens) > limits.CONTEXT_TOKENS:
        raise UsageError('"tokens" is too long')
    if not all(isinstance(t, int) and not isinstance(t, bool) and 0 <= t < 2**31 for t in tokens):
        raise UsageError('"tokens" must be an array of token ids')
    return Wanted(
        name,
        reference,
        Tokenize(0, None, tuple(tokens)),
        options=parse_options(fields.raw("options")),
        keep_alive_ms=parse_keep_alive(fields.raw("keep_alive")),
    )


def _texts(value: object, key: str) -> tuple[str, ...]:
    if value is None or value == "":
        return ()
    texts = value if isinstance(value, list) else [value]
    if len(texts) > limits.EMBED_TEXTS:
        raise UsageError(f'"{key}" has more than {limits.EMBED_TEXTS} texts')
    if texts and all(isinstance(text, int | list) for text in texts):
        raise UnsupportedRequest("token ids are not embedded here", hint="Send the texts instead")
    if not all(isinstance(text, str) for text in texts):
        raise UsageError(f'"{key}" must be a string or an array of strings')
    return tuple(texts)


# -- doing it -------------------------------------------------------------------------------------


async def run_task(backend: Backend, wanted: Wanted) -> tuple[Event, Timing]:
    """Wait for a turn on the model and run the task.

    Returns:
        Its last event.

    Raises:
        SealiftError: The model is not there, could not be loaded, or refuses the task.
    """
    arrived = time.monotonic_ns()
    try:
        model = await backend.to_serve(wanted.reference, wanted.name)
    except NotFound:
        raise NotFound(f'model "{wanted.name}" not found, try pulling it first') from None
    if isinstance(wanted.task, Rank) and COMPLETION in model.capabilities:
        raise UnsupportedRequest(f'"{wanted.name}" does not support reranking')
    spec = backend.spec(model, wanted.options)
    async with backend.scheduler.lease(model, spec, wanted.keep_alive_ms) as lease:
        load_ns = time.monotonic_ns() - arrived
        if isinstance(wanted.task, Embed) and not wanted.task.texts:
            return Embedded(0, (), 0), Timing(time.monotonic_ns() - arrived, load_ns)
        async with aclosing(lease.run(replace(wanted.task, id=lease.job_id))) as events:
            async for event in events:
                raise_if_failed(event)
                if isinstance(event, LAST):
                    return event, Timing(time.monotonic_ns() - arrived, load_ns)
    raise WorkerFailed("the worker ended a task without a last word")


# -- answers ------------------------------------------------------------------------------------


def embed_document(wanted: Wanted, event: Event, timing: Timing) -> dict[str, Any]:
    """``/api/embed``'s answer."""
    vectors, count = _vectors(wanted, event)
    metrics = {
        "total_duration": timing.total_ns,
        "load_duration": timing.load_ns,
        "prompt_eval_count": count,
    }
    return {
        "model": wanted.name,
        "embeddings": [_numbers(vector) for vector in vectors],
        **{key: value for key, value in metrics.items() if value},
    }


def embedding_document(wanted: Wanted, event: Event) -> dict[str, Any]:
    """The older ``/api/embeddings``'s answer."""
    vectors, _ = _vectors(wanted, event)
    return {"embedding": _numbers(vectors[0]) if vectors else []}


def openai_document(wanted: Wanted, event: Event) -> dict[str, Any]:
    """``/v1/embeddings``'s answer."""
    vectors, count = _vectors(wanted, event)
    data = [
        {
            "object": "embedding",
            "index": index,
            "embedding": base64.b64encode(vector.tobytes()).decode()
            if wanted.packed
            else _numbers(vector),
        }
        for index, vector in enumerate(vectors)
    ]
    usage = {"prompt_tokens": count, "total_tokens": count}
    return {"object": "list", "data": data, "model": wanted.name, "usage": usage}


def tokens_document(wanted: Wanted, event: Event) -> dict[str, Any]:
    """``/api/tokenize``'s and ``/api/detokenize``'s answer."""
    if not isinstance(event, Tokenized):
        raise WorkerFailed("the worker answered something else")
    if isinstance(wanted.task, Tokenize) and wanted.task.prompt is None:
        return {"model": wanted.name, "text": event.text}
    return {"model": wanted.name, "tokens": list(event.tokens)}


def _vectors(wanted: Wanted, event: Event) -> tuple[list[array[float]], int]:
    if not isinstance(event, Embedded):
        raise WorkerFailed("the worker answered something else")
    vectors = []
    for text in event.vectors:
        vector = array("f", base64.b64decode(text))  # little-endian, as every machine we run on
        if wanted.dimensions is not None and wanted.dimensions < len(vector):
            vector = _unit(vector[: wanted.dimensions])
        vectors.append(vector)
    return vectors, event.prompt_tokens


def _unit(vector: array[float]) -> array[float]:
    length = math.hypot(*vector)
    return array("f", (x / length for x in vector)) if length else vector


def _numbers(vector: Sequence[float]) -> list[float]:
    """As 32-bit floats are written shortest; nine digits tell them apart."""
    return [float(f"{x:.9g}") for x in vector]
